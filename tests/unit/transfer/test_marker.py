"""The mark in the target: what was made and what was not, who is at work there, and starting over."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from fixtures import Server
from pgrescue.errors import RescueError
from pgrescue.transfer.endpoint import Endpoint
from pgrescue.transfer.facts import user_objects
from pgrescue.transfer.load import run_entries
from pgrescue.transfer.marker import (
    SCHEMA,
    Marker,
    done_tasks,
    drop_made,
    end_leftovers,
    foreign_objects,
    has_lost_rows,
    make_marker,
    mark,
    purpose,
    read_marker,
    remove_marker,
    sole_use,
)
from pgrescue.transfer.schema import Entry
from tests.targets import new_database, url_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.transfer.endpoint import Connection

OBJECTS = (Path(__file__).parent / "objects.sql").read_text().splitlines()[1:]
PATIENCE_S = 20


# Room for a few hundred locks in all.
SETTINGS = {"autovacuum": "off", "max_locks_per_transaction": "10", "max_connections": "30"}


@contextlib.contextmanager
def a_services(major: int) -> Iterator[Server]:
    with Server(major=major, settings=SETTINGS) as opened:
        with opened.connect("template1") as connection:
            for statement in SERVICE:
                connection.execute(statement.encode())
        yield opened


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with a_services(18) as opened:
        yield opened


# What a service puts into every new database.
SERVICE = (
    "create extension pg_trgm",
    "create schema home",
    "create extension hstore schema home",
    "create function watch() returns event_trigger language plpgsql as 'begin end'",
    "alter extension hstore add function watch()",
    "create event trigger of_the_service on sql_drop execute function watch()",
    "create publication of_the_service",
    "alter default privileges for role postgres in schema public grant insert on tables to pg_monitor",
)


@pytest.fixture
def database(server: Server) -> str:
    return new_database(server, owner="postgres")


@pytest.fixture
def target(server: Server, database: str) -> Iterator[Connection]:
    with endpoint_of(server, database).connect() as opened:
        yield opened


def endpoint_of(server: Server, database: str, user: str = "postgres") -> Endpoint:
    return Endpoint.parse(url_of(server, database, user), "--url")


def entry(number: int, statement: str) -> Entry:
    return Entry(number, 0, 0, f"object {number}", "TEST", "", "", (), f"{statement};")


def begin(target: Connection) -> Marker:
    return make_marker(target, "source", "state", "options")


def make_all(target: Connection) -> None:
    target.execute("set search_path = public")
    run_entries(target, [entry(number, statement) for number, statement in enumerate(OBJECTS)])
    target.execute("set search_path = ''")


def inventory(target: Connection) -> dict[str, Any]:
    """Return everything in the database that is not the server's own."""
    return {
        "objects": sorted(f"{one} {one.oid} {one.made_by}" for one in user_objects(target)),
        "default privileges": target.execute("select defaclobjtype, defaclacl::text from pg_default_acl").fetchall(),
        "relations": target.execute(
            "select relnamespace::regnamespace::text, relname from pg_class where oid >= 16384 order by 1, 2"
        ).fetchall(),
        "counts": [
            (catalog, *target.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(catalog))).fetchall())
            for catalog in COUNTED
        ],
    }


COUNTED = (
    *("pg_class", "pg_proc", "pg_type", "pg_namespace", "pg_operator", "pg_opclass", "pg_opfamily", "pg_cast", "pg_am"),
    *("pg_collation", "pg_conversion", "pg_ts_config", "pg_ts_dict", "pg_ts_parser", "pg_ts_template", "pg_language"),
    *("pg_foreign_data_wrapper", "pg_foreign_server", "pg_user_mapping", "pg_foreign_table", "pg_extension"),
    *("pg_publication", "pg_event_trigger", "pg_largeobject_metadata", "pg_transform", "pg_trigger", "pg_rewrite"),
    *("pg_statistic_ext", "pg_constraint", "pg_depend"),
)


@pytest.mark.parametrize("major", [15, 18])
def test_what_was_made_is_dropped_and_nothing_else(major: int, request: pytest.FixtureRequest) -> None:
    with contextlib.ExitStack() as stack:
        chosen = request.getfixturevalue("server") if major == 18 else stack.enter_context(a_services(major))
        name = new_database(chosen, owner="postgres")
        check_start_over(stack.enter_context(endpoint_of(chosen, name).connect()))


def check_start_over(target: Connection) -> None:
    before = inventory(target)
    begin(target)
    make_all(target)
    assert len(user_objects(target)) > 40 + len(before["objects"])
    assert [one for one in foreign_objects(target) if f"{one} {one.oid} {one.made_by}" not in before["objects"]] == []
    drop_made(target)
    assert done_tasks(target) == {}
    assert read_marker(target) is not None
    remove_marker(target)
    assert inventory(target) == before


def test_a_start_over_that_was_interrupted_goes_on(server: Server, database: str, target: Connection) -> None:
    """It is interrupted twice."""
    before = inventory(target)
    begin(target)
    make_all(target)
    made = len(user_objects(target))
    for _ in range(2):
        with server.connect(database) as other:
            # Extensions come last: most has gone by then.
            other.execute("begin; comment on extension citext is 'in use'")
            target.execute("set lock_timeout = '100ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                drop_made(target)
        found = read_marker(target)
        assert found is not None
        assert found.phase == "dropping"
        assert done_tasks(target) != {}
        assert len(before["objects"]) < len(user_objects(target)) < made
    drop_made(target)
    found = read_marker(target)
    assert found is not None
    assert found.phase == "moving"
    remove_marker(target)
    assert inventory(target) == before


MEDDLING = {
    "a table": "create table public.theirs as select 42 as answer",
    "a table in a schema of ours": 'create table "Own ""S".theirs ()',
    "a view of ours": "create view public.theirs as select * from public.t",
    "a function": "create function public.theirs() returns integer language sql return 1",
    "a type": "create type public.theirs as enum ('x')",
    "a schema": "create schema theirs",
    "a large object": "select lo_from_bytea(80000, 'theirs')",
    "an extension": "create extension fuzzystrmatch schema public",
    "an event trigger": "create event trigger theirs on ddl_command_end execute function public.fire()",
    "a publication": "create publication theirs",
    "a column": "alter table public.t add column theirs integer",
    "a grant": "grant select on public.t to public",
    "an owner": "alter table public.t owner to pg_monitor",
    "a name": "alter function public.fire() rename to theirs",
    "a large object's owner": "alter large object 70000 owner to pg_monitor",
}


def test_what_somebody_else_made_or_changed_stops_it(target: Connection) -> None:
    begin(target)
    make_all(target)
    for name, statement in MEDDLING.items():
        with target.transaction(force_rollback=True):
            target.execute(statement.encode())
            after = inventory(target)
            with pytest.raises(RescueError, match="did not make, or that were changed since") as caught:
                drop_made(target)
            assert "Nothing was dropped" in caught.value.hint
            assert inventory(target) == after, name
            marker = read_marker(target)
            assert marker is not None
            assert marker.phase == "moving"
    drop_made(target)


def test_it_tells_what_is_in_the_way_in_a_few_words(server: Server, database: str, target: Connection) -> None:
    begin(target)
    with server.connect(database) as other:
        for number in range(7):
            other.execute(f"create table theirs_{number} ()".encode())
    with pytest.raises(RescueError, match=r"since: table public\.theirs_0, .*, table public\.theirs_4 and 2 more$"):
        drop_made(target)


def test_many_objects_need_few_locks_at_a_time(target: Connection) -> None:
    """A table with its partitions has more than the server has room for."""
    begin(target)
    statements = ["create table parts (id integer primary key, t text) partition by range (id)"]
    statements += [f"create table parts_{n} partition of parts for values from ({n}) to ({n + 1})" for n in range(300)]
    target.execute("set search_path = public")
    for number, statement in enumerate(statements):
        run_entries(target, [entry(number, statement)])
    with pytest.raises(psycopg.errors.OutOfMemory):
        target.execute("drop table public.parts")
    drop_made(target)
    assert [one for one in user_objects(target) if one.kind == "table"] == []


def test_a_task_and_its_mark_are_one(target: Connection) -> None:
    begin(target)
    target.execute("set search_path = public")
    with pytest.raises(RescueError, match="object 2 could not be made in the target: division by zero"):
        run_entries(target, [entry(1, "create table one ()"), entry(2, "create table two as select 1 / 0 as x")])
    assert [str(one) for one in foreign_objects(target) if one.kind == "table"] == []
    assert len(done_tasks(target)) == 1
    with target.transaction(force_rollback=True):
        target.execute(mark("rows", 42))
        assert done_tasks(target)["rows"] == 42
    assert "rows" not in done_tasks(target)
    run_entries(target, [entry(3, "create table if not exists three ()")])
    with pytest.raises(RescueError, match="duplicate key"):
        run_entries(target, [entry(3, "create table if not exists three ()")])


def test_the_mark_says_what_was_begun(target: Connection) -> None:
    assert read_marker(target) is None
    marker = begin(target)
    assert read_marker(target) == marker == Marker(marker.id, "source", "state", "options", "moving")
    assert done_tasks(target) == {}
    target.execute(mark("a task"))
    assert done_tasks(target) == {"a task": None}
    remove_marker(target)
    assert read_marker(target) is None


@pytest.mark.parametrize("setting", ["off", "remote_apply", "on"])
def test_its_removal_waits_for_the_disk(setting: str, target: Connection) -> None:
    begin(target)
    target.execute(f"set synchronous_commit = {setting}".encode())
    remove_marker(target)
    used = {"off": "local"}.get(setting, setting)
    assert target.execute("show synchronous_commit").fetchall() == [(used,)]


FOREIGN_SCHEMAS = {
    "empty": f"create schema {SCHEMA}",
    "without a row": f"create schema {SCHEMA}; create table {SCHEMA}.transfer (id text, source text, state text, "
    "options text, phase text)",
    "another version's": f"create schema {SCHEMA}; create table {SCHEMA}.transfer as select 'x' as other_column",
}


@pytest.mark.parametrize("case", FOREIGN_SCHEMAS)
def test_a_schema_of_that_name_that_is_no_mark_is_refused(case: str, target: Connection) -> None:
    target.execute(FOREIGN_SCHEMAS[case].encode())
    with pytest.raises(RescueError, match="no transfer of this version made"):
        read_marker(target)


def test_the_mark_of_another_role_is_refused(server: Server, database: str, target: Connection) -> None:
    begin(target)
    target.execute("create role stranger login")
    try:
        with (
            endpoint_of(server, database, "stranger").connect() as other,
            pytest.raises(RescueError, match="belongs to another role") as caught,
        ):
            read_marker(other)
    finally:
        target.execute("drop role stranger")
    assert "as the role that began it" in caught.value.hint


# A process that holds the lock as a transfer does, and then does `then`.
_HOLD = """
import sys, time
from pgrescue.transfer.endpoint import Endpoint
from pgrescue.transfer.marker import purpose, sole_use
with Endpoint.parse(sys.argv[1], "--url").connect(purpose=purpose("main")) as connection, sole_use(connection):
    print("held", flush=True)
    connection.execute(sys.argv[2])
    time.sleep(100)
"""


@contextlib.contextmanager
def holder(url: str, then: str = "select 1") -> Iterator[subprocess.Popen[str]]:
    """Give a process that holds the lock, and is gone at the end of the block."""
    with subprocess.Popen([sys.executable, "-c", _HOLD, url, then], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_second_transfer_is_refused_at_once(server: Server, database: str, target: Connection) -> None:
    with holder(url_of(server, database)) as process:
        with pytest.raises(RescueError, match="another transfer is at work") as caught, sole_use(target):
            pytest.fail("both are at work")
        assert str(process.pid) in caught.value.problem
        assert "pg_terminate_backend" in caught.value.hint
        assert process.poll() is None
        pids = target.execute("select pid from pg_locks where locktype = 'advisory' and granted").fetchall()
        assert len(pids) == 1
        assert f"pid {pids[0][0]}," in caught.value.problem
    with sole_use(target):
        assert len(target.execute("select from pg_locks where locktype = 'advisory' and granted").fetchall()) == 1
    assert target.execute("select from pg_locks where locktype = 'advisory'").fetchall() == []


def test_transfers_into_other_databases_do_not_matter(server: Server, target: Connection) -> None:
    with holder(url_of(server, "postgres")), sole_use(target):
        pass


def test_one_that_is_dead_is_ended(server: Server, database: str, target: Connection) -> None:
    """Its session is at work, and does not notice before its statement ends."""
    with holder(url_of(server, database), "select pg_sleep(100)") as process:
        sleeping = "select from pg_stat_activity where wait_event = 'PgSleep'"
        while not target.execute(sleeping).fetchall():
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert target.execute("select from pg_locks where locktype = 'advisory' and granted").fetchall() != []
        with sole_use(target):
            mine = target.execute("select pid from pg_locks where locktype = 'advisory' and granted").fetchall()
            assert mine == [(target.info.backend_pid,)]


@pytest.mark.parametrize("name", ["elsewhere", "somebody's own", ""])
def test_a_holder_of_which_nobody_can_tell_is_left_alone(
    name: str, server: Server, database: str, target: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another machine the number of a dead process here may be that of a living one."""
    monkeypatch.setattr("pgrescue.transfer.marker._LOCK_PATIENCE_S", 0.2)
    if name == "elsewhere":
        *words, _, _ = purpose("main").split()
        name = " ".join(["pgrescue", *words, "0" * 8, str(dead_process())])
    with psycopg.connect(server.conninfo(database), autocommit=True, application_name=name) as other:
        other.execute("select pg_advisory_lock(%s)", [0x70677265])
        with pytest.raises(RescueError, match="another transfer is at work"), sole_use(target):
            pytest.fail("both are at work")
        assert other.execute("select 1").fetchall() == [(1,)]


def dead_process() -> int:
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


def test_a_process_of_another_user_is_alive(
    server: Server, database: str, target: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(number: int, _: int) -> None:
        raise PermissionError(number)

    monkeypatch.setattr(os, "kill", refuse)
    with psycopg.connect(
        server.conninfo(database), autocommit=True, application_name=f"pgrescue {purpose('main')}"
    ) as other:
        other.execute("select pg_advisory_lock(%s)", [0x70677265])
        with pytest.raises(RescueError, match="another transfer is at work"), sole_use(target):
            pytest.fail("both are at work")
        assert other.execute("select 1").fetchall() == [(1,)]


def test_the_sessions_name_fits_into_what_the_server_keeps() -> None:
    """NAMEDATALEN - 1 bytes: what is cut off would be the number of the process."""
    name = f"pgrescue {purpose('0' * 8)}".replace(f" {os.getpid()}", " 4194304")
    assert len(name.encode()) <= 63
    assert len(name.split()) == 6


def test_what_a_dead_transfer_left_at_work_is_ended(server: Server, database: str, target: Connection) -> None:
    """Only its own sessions, in this database; when it returns, they are gone, and so is what they had begun."""
    marker = begin(target)
    with contextlib.ExitStack() as stack:

        def session(of: str, name: str) -> Connection:
            return stack.enter_context(endpoint_of(server, of).connect(purpose=name))

        worker = session(database, purpose(marker.id))
        others = [
            session(database, "preflight"),
            session(database, purpose("0" * 8)),
            session("postgres", purpose(marker.id)),
        ]
        worker.execute("begin; create table public.half_done ()")
        end_leftovers(target, marker.id)
        names = target.execute(
            "select count(*) from pg_stat_activity where datname = current_database() and application_name like %s",
            [f"pgrescue transfer {marker.id} %"],
        ).fetchall()
        assert names == [(0,)]
        assert [one for one in foreign_objects(target) if one.kind == "table"] == []
        with pytest.raises(psycopg.OperationalError):
            worker.execute("commit")
        assert [one.execute("select 1").fetchall() for one in others] == [[(1,)]] * 3


def test_leftovers_that_do_not_end_are_told(
    server: Server, database: str, target: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle, as on a disk that does not answer."""
    monkeypatch.setattr("pgrescue.transfer.marker._LEFTOVER_PATIENCE_S", 0.3)
    marker = begin(target)
    with endpoint_of(server, database).connect(purpose=purpose(marker.id)) as worker:
        os.kill(worker.info.backend_pid, signal.SIGSTOP)
        try:
            with pytest.raises(RescueError, match=f"do not end in the target: .*{marker.id}"):
                end_leftovers(target, marker.id)
        finally:
            os.kill(worker.info.backend_pid, signal.SIGCONT)


def test_a_crash_of_the_target_empties_what_is_unlogged(server: Server, database: str) -> None:
    """The last test: the server is stopped."""
    with endpoint_of(server, database).connect() as target:
        begin(target)
        target.execute("create table public.kept as select 1 as n; checkpoint")
    for unlogged in (False, True):
        if unlogged:
            with server.connect(database) as connection:
                connection.execute("create unlogged table lost as select 1 as n; checkpoint")
        for is_crash in (False, True):
            server.stop(immediate=is_crash)
            server.start()
            with endpoint_of(server, database).connect() as target:
                if unlogged:
                    lost = target.execute("select from public.lost").fetchall()
                    assert (lost == []) == is_crash
                assert has_lost_rows(target) == (unlogged and is_crash)
                target.execute(f"insert into {SCHEMA}.unlogged default values".encode())
