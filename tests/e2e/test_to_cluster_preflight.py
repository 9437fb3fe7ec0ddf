"""Each target that a transfer should not go to, or should be told of, and healthy ones on which nothing is said."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fixtures import Server
from pgrescue.transfer.facts import read_facts, user_objects
from pgrescue.transfer.preflight import not_empty
from tests.cli import pgrescue
from tests.conftest import require_engine
from tests.targets import OWNER, url_of
from tests.transfers import World, name_of, run, to_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE = "create table notes (id integer primary key, body text);\ninsert into notes values (1, 'one'), (2, 'two')"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Server() as source, Server() as target, World(source, target) as world:
        run(source, "postgres", "create role app_reader")
        yield world


@pytest.fixture(scope="module")
def old() -> Iterator[Server]:
    """Run a server of the oldest major."""
    require_engine("native", 15)
    with Server(major=15) as server:
        yield server


def test_nothing_is_said_of_a_healthy_target(world: World) -> None:
    source = world.origin(TABLE)
    assert world.look(source, world.empty(user="postgres")).ready().codes == []
    # Only a superuser may ask where the data directory is.
    assert world.look(source, world.empty()).ready().codes == ["room_unknown"]


def test_everything_is_told_at_once(world: World, old: Server) -> None:
    source = world.origin(
        f"{TABLE};\ngrant select on notes to app_reader;\nreset role;\ncreate extension tablefunc;\n"
        "update pg_extension set extname = 'elsewhere' where extname = 'tablefunc'"
    )
    target = world.goal(
        "create table there ();\nrevoke create on schema public from public;\nalter schema public owner to postgres",
        on=old,
        options="encoding 'SQL_ASCII' template template0",
    )
    done = world.look(source, target)
    assert (done.status, done.outcome) == (2, "refused")
    assert done.errors == {
        "target_older",
        "target_not_empty",
        "encoding_differs",
        "target_lacks_privilege",
        "extension_unavailable",
    }
    assert {"ownership_not_kept", "room_unknown"} <= set(done.codes)


def test_a_dry_run_writes_nothing(world: World) -> None:
    source = world.origin(f"{TABLE};\ncreate schema own;\ncreate table own.things ();\nreset role")
    world_label(world.source, name_of(source))
    target = world.goal("create extension hstore")
    names = [name_of(source), name_of(target)]

    def state() -> list[object]:
        found: list[object] = []
        for server, name in zip((world.source, world.target), names, strict=True):
            with server.connect(name) as connection:
                # Whatever is written takes a number, also where it is rolled back.
                found += connection.execute("select pg_snapshot_xmax(pg_current_snapshot())::text").fetchall()
                found += connection.execute("select oid, xmin::text from pg_class order by 1").fetchall()
                found += connection.execute("select oid, xmin::text from pg_authid order by 1").fetchall()
                found += connection.execute("select pid from pg_locks where locktype = 'advisory'").fetchall()
        return found

    before = state()
    for options in ((), ("--roles",), ("--role", OWNER)):
        assert "objects_left_out" in to_cluster(source, target, "--dry-run", *options).ready().codes
    assert state() == before


def world_label(server: Server, database: str) -> None:
    """Put a security label on a table, whose provider nobody has."""
    run(
        server,
        database,
        "insert into pg_seclabel values ('notes'::regclass, 'pg_class'::regclass, 0, 'nobody', 'secret')",
    )


def test_the_source_itself_is_no_target(world: World) -> None:
    source = world.origin(TABLE)
    done = world.look(source, source)
    assert done.errors == {"target_is_source", "target_not_empty"}, done.said
    # Also under another name of the same server; and a neighbour is another database.
    assert "target_is_source" in world.look(source, source.replace("/run", "/./run")).errors
    world.look(source, world.empty(on=world.source)).ready()


def test_a_target_must_not_be_older(world: World, old: Server) -> None:
    source = world.origin(TABLE)
    world.look(source, world.empty(on=old)).refused("target_older", "PostgreSQL 15", "17 or later")
    world.look(world.origin(TABLE, on=old), world.empty()).ready()


def test_a_target_must_take_writes(world: World) -> None:
    source, target = world.origin(TABLE), world.goal()
    run(world.target, "postgres", f"alter database {name_of(target)} set default_transaction_read_only = on")
    world.look(source, target).refused("target_read_only")
    target = world.goal()
    standby = world.target.pgdata / "standby.signal"
    with world.target.stopped():
        standby.touch()
    try:
        world.look(source, target).refused("target_read_only", "standby", "-rw")
    finally:
        with world.target.stopped():
            standby.unlink()
    world.look(source, target).ready()


OCCUPANTS = (
    ("table", "create table there ()"),
    ("view", "create view there_to_see as select 1"),
    ("sequence", "create sequence there_to_count"),
    ("type", "create type there_to_choose as enum ('a')"),
    ("type", "create type there_too as (a integer)"),
    ("function", "create function there() returns integer return 1"),
    ("schema", "create schema there"),
    ("large object", "select lo_create(4711)"),
    ("collation", 'create collation there from "C"'),
    ("text search configuration", "create text search configuration there (copy = simple)"),
    ("operator", "create operator === (leftarg = text, rightarg = text, function = texteq)"),
)


def test_a_target_must_be_empty(world: World) -> None:
    target = world.goal(";\n".join(statement for _, statement in OCCUPANTS))
    world.look(world.origin(TABLE), target).refused("target_not_empty", "large object 4711", "and 3 more")
    with world.target.connect(name_of(target)) as connection:
        found = user_objects(connection)
        assert sorted(one.kind for one in found) == sorted(kind for kind, _ in OCCUPANTS)
        facts = read_facts(connection)
    for one in found:
        assert not_empty([one], facts) is not None


SERVICE = """
create extension hstore;
create schema tools;
create extension cube schema tools;
create extension postgres_fdw;
create server elsewhere foreign data wrapper postgres_fdw;
create publication service;
create function tools.watch() returns event_trigger language plpgsql as 'begin end';
alter extension cube add function tools.watch();
create event trigger watcher on ddl_command_start execute function tools.watch()
"""


def test_what_a_service_put_there_does_no_harm(world: World) -> None:
    world.look(world.origin(TABLE), world.goal(SERVICE)).ready()


def test_what_both_have_is_in_the_way(world: World) -> None:
    source = world.origin(f"{TABLE};\ncreate publication service for table notes")
    world.look(source, world.goal(SERVICE)).refused("target_not_empty", "publication service")


def test_the_same_of_somebody_else_is_in_the_way_too(world: World) -> None:
    """It cannot be compared, as after a transfer that ended well."""
    tables = f"{TABLE};\ncreate sequence counted"
    source = world.origin(tables)
    world.look(source, world.goal(tables)).refused("target_not_empty")
    assert to_cluster(source, world.goal(tables, user="postgres")).codes == ["already_there"]


def test_a_target_must_let_its_role_create_things(world: World) -> None:
    source = world.origin(TABLE)
    taken = "revoke create on schema public from public, pg_database_owner"
    other = world.goal(owner="postgres")
    world.look(source, other).refused("target_lacks_privilege", "CREATE on the database", "CREATE on the schema public")
    world.look(source, world.goal(taken)).refused("target_lacks_privilege", "it lacks CREATE on the schema public.")
    # Who makes nothing there needs no right to it.
    world.look(world.origin("create schema own;\ncreate table own.things ()"), world.goal(taken)).ready()
    run(world.target, name_of(other), f"grant create on database {name_of(other)} to {OWNER}")
    run(world.target, name_of(other), f"grant create on schema public to {OWNER}")
    world.look(source, other).ready()


def test_the_role_that_is_to_own_everything_must_be_allowed_to(world: World) -> None:
    run(world.target, "postgres", "create role app_new")
    source = world.origin(TABLE)
    for user in ("postgres", OWNER):
        target = world.goal(user=user)
        run(world.target, "postgres", f"grant app_new to {user}")
        done = world.look(source, target, role="app_new")
        done.refused("target_lacks_privilege", "app_new", "CREATE on the database")
        run(world.target, "postgres", f"alter database {name_of(target)} owner to app_new")
        world.look(source, target, role="app_new").ready()


def test_a_foreign_server_needs_its_wrapper(world: World) -> None:
    source = world.origin(
        "reset role;\ncreate extension postgres_fdw;\ncreate server far foreign data wrapper postgres_fdw"
    )
    target = world.goal("create extension postgres_fdw")
    world.look(source, target).refused("target_lacks_privilege", "USAGE on the foreign-data wrapper postgres_fdw")
    run(world.target, name_of(target), f"grant usage on foreign data wrapper postgres_fdw to {OWNER}")
    world.look(source, target).ready()


def test_a_target_without_public(world: World) -> None:
    target = world.goal("drop schema public")
    world.look(world.origin(TABLE), target).refused("schema_missing", "CREATE SCHEMA public")
    world.look(world.origin("create schema own;\ncreate table own.things ()"), target).ready()


def test_every_session_of_the_transfer_must_be_let_in(world: World) -> None:
    run(world.target, "postgres", "create role narrow login connection limit 4")
    source, target = world.origin(TABLE), world.goal(user="narrow")
    done = world.look(source, target, jobs=3)
    done.refused("target_sessions_short", "gave 4: too many connections for role")
    world.look(source, target, jobs=1).ready()


def test_a_target_of_this_machine_must_have_room(world: World) -> None:
    source, target = world.origin(TABLE), world.goal(user="postgres", owner=OWNER)
    with world.source.connect(name_of(source)) as connection:
        (path,) = connection.execute("select pg_relation_filepath('notes')").fetchall()[0]
    # The server counts a file by its length, and a hole takes no room.
    large = world.source.pgdata / Path(path).parent / "99999999"
    with large.open("wb") as file:
        file.truncate(shutil.disk_usage(world.target.pgdata).free * 2)
    try:
        world.look(source, target).refused("room_short", "GiB free", "larger volume")
        # The same from where the directory is not known.
        assert "room_unknown" in world.look(source, world.empty()).ready().codes
    finally:
        large.unlink()
    world.look(source, target).ready()


OF_THE_DATABASE = """
alter database "{0}" set search_path = app, "$user", public;
alter database "{0}" set timezone = 'Europe/Vienna';
alter database "{0}" set portal.greeting = 'it''s me, you';
alter role app_owner set work_mem = '7MB';
alter role app_owner in database "{0}" set search_path = '';
alter role app_guest set work_mem = '9MB';
alter role app_reader in database "{0}" set work_mem = '9MB';
revoke connect on database "{0}" from public;
grant create on database "{0}" to app_guest;
grant connect on database "{0}" to app_owner
"""


def test_what_the_database_itself_has(world: World) -> None:
    for server in (world.source, world.target):
        run(server, "postgres", "create role app_guest")
    source = world.origin(TABLE, is_own=True)
    assert "database_settings_left_behind" not in world.look(source, world.empty()).codes
    run(world.source, "postgres", OF_THE_DATABASE.format(name_of(source)))
    target = world.goal()
    try:
        finding = world.look(source, target).ready().finding("database_settings_left_behind")
        statements = finding["remedy"].partition(": ")[2].split("; ")
        assert len(statements) == 7, statements
        # Told of no role that has nothing here, or is not there.
        assert "9MB" not in finding["remedy"]
        # The statements do what they are for.
        for statement in statements:
            run(world.target, name_of(target), statement)
        assert "database_settings_left_behind" not in world.look(source, target).ready().codes
        with world.target.connect(name_of(target)) as connection:
            assert connection.execute("show search_path").fetchone() == ('app, "$user", public',)
            assert connection.execute("show portal.greeting").fetchone() == ("it's me, you",)
    finally:
        for server in (world.source, world.target):
            run(server, "postgres", "alter role app_owner reset all;\nalter role app_guest reset all")


LEFT_BEHIND = """
reset role;
create publication here;
create subscription to_production connection 'host=192.0.2.1' publication there with (connect = false);
create schema pgrescue_quarantine;
create table pgrescue_quarantine.notes_1 (id integer);
set allow_in_place_tablespaces = on;
create tablespace fast location '';
create table quick () tablespace fast
"""


def test_what_is_never_moved_is_told(world: World) -> None:
    source = world.origin(f"{TABLE};\n{LEFT_BEHIND}")
    try:
        done = world.look(source, world.empty(user="postgres")).ready()
        assert done.finding("subscriptions_left_out")["object"] == "to_production"
        assert done.finding("quarantine_left_behind")["object"] == "pgrescue_quarantine"
        assert done.finding("tablespaces_not_kept")["object"] == "fast"
    finally:
        run(world.source, name_of(source), "drop table quick;\ndrop tablespace fast")
        run(
            world.source,
            name_of(source),
            "alter subscription to_production disable;\nalter subscription to_production set (slot_name = none);\n"
            "drop subscription to_production",
        )


def test_nobody_waits_for_ever_for_a_target_that_does_not_answer(world: World) -> None:
    source = world.origin(TABLE)
    begun = time.monotonic()
    done = to_cluster(source, "postgresql://app@127.0.0.1:1/app?connect_timeout=2")
    assert 1.5 < time.monotonic() - begun < 10
    assert done.status == 1
    assert "cannot be reached, tried for 2 s" in done.document["error"]["problem"]
    # What is refused is not tried again.
    done = to_cluster(source, url_of(world.target, "nothing"))
    assert 'database "nothing" does not exist' in done.document["error"]["problem"]


def test_a_password_is_never_shown(world: World, tmp_path: Path) -> None:
    source, target = world.origin(TABLE), world.goal(user="postgres", owner=OWNER)
    run(world.target, "postgres", "create role locked superuser login password 's3cr/t@w0rd'")
    rules = world.target.pgdata / "pg_hba.conf"
    rules.write_text(f"local all locked scram-sha-256\n{rules.read_text()}local all all trust\n")
    run(world.target, "postgres", "select pg_reload_conf()")
    host = target.partition("?")[2]

    def url(password: str) -> str:
        return f"postgresql://locked:{password}@/{name_of(target)}?{host}"

    wrong = to_cluster(source, url("wr0ng"))
    assert wrong.status == 1
    assert "password authentication failed" in wrong.said
    unescaped = [to_cluster(source, url(text)) for text in ("s3cr/t@w0rd", "s3cr%2Ft@w0rd")]
    assert 0 not in {done.status for done in unescaped}
    # As a program of its own, with everything that comes after.
    options = ("--source-url", source, "--target-url", url("s3cr%2Ft%40w0rd"), "--engine", "native")
    right = pgrescue("to-cluster", *options, "--after", "psql -X -d $DATABASE_URL -c 'select 4711'", cwd=tmp_path).ok()
    assert "4711" in right.stderr
    for said in (*(done.said for done in (wrong, *unescaped)), right.stdout + right.stderr):
        assert not [part for part in ("wr0ng", "s3cr", "w0rd") if part in said], said
