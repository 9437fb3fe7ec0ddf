"""A transfer stopped anywhere and run again: nothing twice, nothing lost, nothing of others touched, nothing left."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from fixtures import Server, fill, read_snapshot
from fixtures.server import TRUST_HBA
from tests.conftest import require_engine
from tests.e2e import inputs
from tests.e2e.accidents import check_tidy
from tests.forks import Accident, Forks
from tests.proxy import Accident as Cut
from tests.proxy import Proxy
from tests.targets import OWNER, contents, new_database, url_of
from tests.transfers import to_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli import Done
    from tests.conftest import Rescuer
    from tests.forks import Running

PATIENCE_S = 60
OPTIONS = ("--roles", "--jobs", "2")


@dataclass(frozen=True)
class World:
    """Two servers, and a mother of transfers between them."""

    source: Server
    target: Server
    forks: Forks

    def origin(self) -> str:
        """Return a copy of the portal that may be changed."""
        name = f"copy_{self.goal()}"
        with self.source.connect() as connection:
            connection.execute(f"create database {name} template portal".encode())
        return name

    def goal(self) -> str:
        """Return a new, empty database on the target."""
        return new_database(self.target)

    def urls(self, into: str, of: str = "portal") -> tuple[str, str]:
        return url_of(self.source, of), url_of(self.target, into, OWNER)

    def start(
        self, urls: tuple[str, str], *options: str, cwd: Path, accident: Accident | None = None, **env: str
    ) -> Running:
        """Start a transfer as a process of its own."""
        live = ("--source-url", urls[0], "--target-url", urls[1], "--engine", "native", "--json")
        return self.forks.start(
            "to-cluster", *live, *(options or OPTIONS), cwd=cwd, accident=accident, env={"TMPDIR": str(cwd), **env}
        )

    def done(self, into: str) -> dict[str, int]:
        """Return the tasks that are done, and the transaction of each."""
        with self.target.connect(into) as connection, contextlib.suppress(psycopg.errors.UndefinedTable):
            return dict(connection.execute("select task, xid from pgrescue_transfer.done").fetchall())
        return {}

    def check_end(self, into: str, of: str = "portal") -> None:
        """Assert that the content is the source's, and that nothing else is there, nor anybody at work."""
        with self.source.connect(of) as here, self.target.connect(into) as there:
            assert contents(there) == contents(here)
            assert there.execute("select nspname from pg_namespace where nspname like 'pgrescue%'").fetchall() == []
        self.check_alone()

    def check_alone(self) -> None:
        """Assert that no session of pgrescue stays on either server."""
        for server in (self.source, self.target):
            with server.connect() as connection:
                deadline = time.monotonic() + PATIENCE_S
                while found := sessions(connection):
                    assert time.monotonic() < deadline, found
                    time.sleep(0.01)


def sessions(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    return connection.execute(
        "select application_name, state, query from pg_stat_activity where application_name like 'pgrescue%'"
    ).fetchall()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    # What another session does on a live source is a change of it, autovacuum's work too.
    with Server(settings={"autovacuum": "off"}) as source, Server() as target, Forks() as forks:
        fill(source, scale=0.5, databases=("portal",))
        yield World(source, target, forks)


def failed(done: Done, *words: str, status: int = 1) -> None:
    """Assert that a command ended with an error in words for a person."""
    assert done.status == status, f"{done.status}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    assert [word for word in words if word not in done.stderr] == [], done.stderr


# Each run carries on from the accident before, up to its own.
STAGES = {
    "before the mark": Accident("pgrescue.transfer.begin:make_marker"),
    "roles made": Accident("pgrescue.transfer.transfer:_load"),
    "in the schema": Accident("pgrescue.transfer.load:_transaction", call=30),
    "schema made": Accident("pgrescue.transfer.move:run_entries", after=True),
    "in the rows": Accident("pgrescue.transfer.stream:_await_room", call=12),
    "rows moved, not marked": Accident("pgrescue.transfer.load:mark", only="data:", call=3),
    "before an index": Accident("pgrescue.transfer.move:run_entry", call=6),
    "an index is there": Accident("pgrescue.transfer.move:run_entry", call=9, after=True),
    "in the foreign keys": Accident("pgrescue.transfer.move:run_entry", only="fk constraint", call=3),
    "before the triggers": Accident("pgrescue.transfer.move:run_entry", only="trigger"),
    "all but privileges": Accident("pgrescue.transfer.move:_finish"),
    "privileges given": Accident("pgrescue.transfer.move:run_entries", call=2, after=True),
    "in the statistics": Accident("pgrescue.transfer.move:mark", only="analyze:", call=4),
    "in the comparison": Accident("pgrescue.transfer.transfer:compare_table", call=3),
    "compared": Accident("pgrescue.transfer.transfer:remove_marker"),
    "all is there, and nobody has said so": Accident("pgrescue.transfer.transfer:remove_marker", after=True),
}


def test_killed_at_every_stage(world: World, tmp_path: Path) -> None:
    """What was done is not done again: it stays the work of the same transaction."""
    into = world.goal()
    urls = world.urls(into)
    options = ("--roles", "--jobs", "1")
    before: dict[str, int] = {}
    grown = 0
    for stage, accident in STAGES.items():
        world.start(urls, *options, cwd=tmp_path, accident=accident).killed()
        now = world.done(into)
        assert before.items() <= now.items() or stage == list(STAGES)[-1], stage
        grown += len(now) > len(before)
        before = now
    assert grown > 8
    done = to_cluster(*urls, *options)
    assert (done.status, done.outcome) == (0, "already-there")
    assert done.finding("already_there")["severity"] == "info"
    world.check_end(into)


@pytest.mark.parametrize("count", [20, 80])
def test_killed_from_outside_at_any_moment(world: World, count: int, tmp_path: Path) -> None:
    into = world.goal()
    urls = world.urls(into)
    running = world.start(urls, cwd=tmp_path)
    while running.is_alive and len(world.done(into)) < count:
        time.sleep(0.001)
    running.send(signal.SIGKILL)
    running.killed()
    assert len(world.done(into)) >= count
    assert to_cluster(*urls, *OPTIONS).moved().finding("transfer_resumed")
    world.check_end(into)


IN_THE_ROWS = Accident("pgrescue.transfer.load:mark", only="data:", call=4)
IN_THE_KEYS = Accident("pgrescue.transfer.move:run_entry", only="fk constraint", call=2)


def test_what_changed_meanwhile_makes_it_start_over(world: World, tmp_path: Path) -> None:
    """One run after the other is killed: in the keys, in the start over, and where nothing is left but a mark."""
    of, into = world.origin(), world.goal()
    urls = world.urls(into, of)
    world.start(urls, cwd=tmp_path, accident=IN_THE_KEYS).killed()
    before = world.done(into)
    with world.source.connect(of) as connection:
        connection.execute("insert into sessions values ('one more', 1, now())")
    world.start(urls, cwd=tmp_path, accident=Accident("pgrescue.transfer.marker:_drop_some", call=2)).killed()
    assert world.done(into).items() > before.items()
    # The source is again another one, and so are the options.
    world.start(urls, "--jobs", "2", cwd=tmp_path, accident=IN_THE_KEYS).killed()
    assert not world.done(into).items() & before.items()
    with world.source.connect(of) as connection:
        connection.execute("alter table sessions rename to visits")
    world.start(urls, "--jobs", "2", cwd=tmp_path, accident=Accident("pgrescue.transfer.begin:remove_marker")).killed()
    assert world.done(into) == {}
    done = to_cluster(*urls, *OPTIONS).moved()
    assert done.finding("transfer_started_over")
    assert "transfer_resumed" not in done.codes
    world.check_end(into, of)


def test_what_is_not_its_own_is_not_touched(world: World, tmp_path: Path) -> None:
    of, into = world.origin(), world.goal()
    urls = world.urls(into, of)
    world.start(urls, cwd=tmp_path, accident=IN_THE_ROWS).killed()
    before = world.done(into)
    to_cluster(*world.urls(into), *OPTIONS).refused("target_of_another_transfer", "another database")
    with world.source.connect(of) as connection:
        connection.execute("insert into sessions values ('one more', 1, now())")
    with world.target.connect(into) as connection:
        connection.execute("create table theirs as select 42 as answer")
        connection.execute("create table their_users as table users")
        there = contents(connection)
        done = to_cluster(*urls, *OPTIONS)
        assert done.status == 1
        assert "objects that this transfer did not make" in done.said
        assert "table public.their_users, table public.theirs" in done.said
        assert contents(connection) == there
        assert world.done(into) == before
        connection.execute("drop table theirs, their_users")
    assert to_cluster(*urls, *OPTIONS).moved().finding("transfer_started_over")
    world.check_end(into, of)


PLACES = {
    "in the main thread": Accident("pgrescue.transfer.load:_transaction", call=30, by=signal.SIGTERM),
    "between statements": Accident("pgrescue.transfer.large_objects:mark", by=signal.SIGINT),
    "in a worker": Accident("pgrescue.transfer.move:run_entry", call=3, by=signal.SIGINT),
    "in the comparison": Accident("pgrescue.transfer.transfer:compare_table", call=3, by=signal.SIGTERM),
}


def test_asked_to_end(world: World, tmp_path: Path) -> None:
    into = world.goal()
    urls = world.urls(into)
    for accident in PLACES.values():
        done = world.start(urls, cwd=tmp_path, accident=accident).ended()
        failed(done, "run the same command again", status=130)
        world.check_alone()
    assert to_cluster(*urls, *OPTIONS).moved().finding("transfer_resumed")
    world.check_end(into)


def test_asked_to_end_while_the_target_is_at_work(world: World, tmp_path: Path) -> None:
    """It waits for a lock, with rows on their way: the statement is cancelled, nobody waits for its end."""
    into = world.goal()
    urls = world.urls(into)
    world.start(urls, cwd=tmp_path, accident=Accident("pgrescue.transfer.move:run_entries", after=True)).killed()
    with world.target.connect(into) as connection:
        connection.execute("begin; lock table users, orders, events_2026_01, ledger in access exclusive mode")
        running = world.start(urls, cwd=tmp_path)
        while not connection.execute("select from pg_locks where not granted").fetchall():
            assert running.is_alive
        running.send(signal.SIGINT)
        failed(running.ended(), "run the same command again", status=130)
    to_cluster(*urls, *OPTIONS).moved()
    world.check_end(into)


def test_a_difference_fails_and_the_next_run_starts_over(world: World, tmp_path: Path) -> None:
    into = world.goal()
    urls = world.urls(into)
    accident = Accident("pgrescue.transfer.transfer:compare_table")
    world.start(urls, cwd=tmp_path, accident=accident).killed()
    with world.target.connect(into) as connection:
        connection.execute("update products set title = title || '!' where sku = (select min(sku) from products)")
    done = to_cluster(*urls, *OPTIONS)
    assert (done.status, done.outcome, done.errors) == (1, "failed", {"content_differs"})
    assert done.finding("content_differs")["object"] == "public.products"
    assert [table["name"] for table in done.document["tables"] if not table["equal"]] == ["public.products"]
    again = to_cluster(*urls, *OPTIONS).moved()
    assert "the comparison failed" in again.finding("transfer_started_over")["detail"]
    world.check_end(into)


def test_only_one_is_at_work_at_a_time(world: World, tmp_path: Path) -> None:
    into = world.goal()
    urls = world.urls(into)
    at = Accident("pgrescue.transfer.stream:_await_room", call=12, by=signal.SIGSTOP)
    running = world.start(urls, cwd=tmp_path, accident=at)
    while not is_stopped(running):
        assert running.is_alive
        time.sleep(0.01)
    before = world.done(into)
    done = to_cluster(*urls, *OPTIONS)
    assert done.status == 1
    assert "another transfer is at work in the target" in done.said
    assert str(running.pid) in done.said
    assert world.done(into) == before
    running.send(signal.SIGCONT)
    assert running.ended().ok().document()["outcome"] == "moved"
    world.check_end(into)


def is_stopped(running: Running) -> bool:
    with open(f"/proc/{running.pid}/stat") as file:  # noqa: PTH123 - it is no file
        return file.read().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize(("has_unlogged", "code"), [(False, "transfer_resumed"), (True, "transfer_started_over")])
def test_the_target_crashes(world: World, has_unlogged: bool, code: str, tmp_path: Path) -> None:  # noqa: FBT001
    """What it had not written to its disk is lost together with its marks, but for unlogged tables: all their rows."""
    of, into = world.origin(), world.goal()
    urls = world.urls(into, of)
    with world.source.connect(of) as connection:
        connection.execute(f"alter table sessions set {'un' if has_unlogged else ''}logged".encode())
    running = world.start(urls, cwd=tmp_path)
    while running.is_alive and len(world.done(into)) < 75:
        time.sleep(0.001)
    world.target.stop(immediate=True)
    try:
        failed(running.ended(), "the connection was lost", "run the same command: it carries on")
    finally:
        world.target.start()
    assert to_cluster(*urls, *OPTIONS).moved().finding(code)
    world.check_end(into, of)


# What ends it: TCP or the pulse, both within the second that the URL allows, or what is opened just then.
QUICK = "connect_timeout=1&keepalives_idle=1&keepalives_interval=1&keepalives_count=1&tcp_user_timeout=1000"


@pytest.mark.parametrize(
    ("side", "accident"),
    [("target", Cut.HANG), ("target", Cut.VANISH), ("source", Cut.CUT), ("source", Cut.HANG)],
)
def test_the_network_goes(world: World, side: str, accident: Cut, tmp_path: Path) -> None:
    into = world.goal()
    direct = world.urls(into)
    server = world.source if side == "source" else world.target
    with Proxy(server.socket_dir) as proxy:
        way = f"127.0.0.1:{proxy.port}"
        urls = (
            (f"postgresql://postgres@{way}/portal?{QUICK}", direct[1])
            if side == "source"
            else (direct[0], f"postgresql://{OWNER}@{way}/{into}?{QUICK}")
        )
        running = world.start(urls, cwd=tmp_path)
        while running.is_alive and len(world.done(into)) < 75:
            time.sleep(0.001)
        proxy.happen(accident)
        failed(running.ended(), "run ")
        proxy.mend()
        # Whatever hangs on is still in the way.
        assert to_cluster(*urls, *OPTIONS).moved().finding("transfer_resumed")
    world.check_end(into)


def test_the_network_goes_in_the_middle_of_rows(world: World, tmp_path: Path) -> None:
    into = world.goal()
    with Proxy(world.target.socket_dir) as proxy:
        urls = world.urls(into)[0], f"postgresql://{OWNER}@127.0.0.1:{proxy.port}/{into}?{QUICK}"
        proxy.plan(Cut.CUT, after_bytes=1 << 20)
        done = world.start(urls, cwd=tmp_path).ended()
        failed(done, "the rows of public.", "the connection was lost", "run the same command: it carries on")
        assert proxy.wait(0)
        proxy.mend()
        assert to_cluster(*urls, *OPTIONS).moved().finding("transfer_resumed")
    world.check_end(into)


SECRET = "geh:eim/@%ß"
SECRET_IN_URL = "geh%3Aeim%2F%40%25%C3%9F"


@pytest.fixture
def guarded(world: World) -> str:
    """Have both servers ask one role for a password, and tell everything to their logs; give its empty database."""
    for server in (world.source, world.target):
        with server.connect() as connection:
            connection.execute(f"create role guarded superuser login password '{SECRET}'".encode())
            connection.execute("alter role guarded set log_statement = 'all'")
            (server.pgdata / "pg_hba.conf").write_text(f"local all guarded scram-sha-256\n{TRUST_HBA}")
            connection.execute("select pg_reload_conf()")
    return world.goal()


def test_no_password_is_seen_anywhere(world: World, guarded: str, tmp_path: Path) -> None:
    """One run takes it from the URLs, one from PGPASSWORD, and one from a password file."""
    passfile = tmp_path.with_suffix(".pgpass")
    passfile.write_text(f"*:*:*:*:{SECRET.replace(':', chr(92) + ':')}\n")
    passfile.chmod(0o600)
    urls = [url_of(world.source, "portal", "guarded"), url_of(world.target, guarded, "guarded")]
    within = [url.replace("guarded@", f"guarded:{SECRET_IN_URL}@") for url in urls]
    ways = (
        {"PGRESCUE_SOURCE_URL": within[0], "PGRESCUE_TARGET_URL": within[1]},
        {"PGRESCUE_SOURCE_URL": urls[0], "PGRESCUE_TARGET_URL": urls[1], "PGPASSWORD": SECRET},
        {"PGRESCUE_SOURCE_URL": urls[0], "PGRESCUE_TARGET_URL": urls[1], "PGPASSFILE": str(passfile)},
    )
    said = ""
    with world.target.connect(guarded) as connection:
        for way in ways:
            running = world.forks.start(
                *("to-cluster", "--engine", "native", "--json", "--jobs", "2"),
                cwd=tmp_path,
                env={**way, "TMPDIR": str(tmp_path)},
            )
            if way is not ways[-1]:
                wait_in_rows(connection, running)
                said += seen_of(world)
                running.send(signal.SIGINT)
                connection.execute("rollback")
            done = running.ended()
            assert done.status == (0 if way is ways[-1] else 130), done.stderr
            said += done.stdout + done.stderr
    said += "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    for word in (SECRET, SECRET_IN_URL, "eim/@", "SCRAM-SHA-256$"):
        assert word not in said
    assert "pgrescue transfer" in said
    world.check_end(guarded)


def wait_in_rows(connection: psycopg.Connection, running: Running) -> None:
    """Keep a transfer waiting in the middle, once the tables are there; a rollback lets it go on."""
    while not connection.execute("select to_regclass('public.accounts')").fetchall()[0][0]:
        assert running.is_alive
        connection.execute("rollback")
    connection.execute("begin; lock table public.accounts in access exclusive mode")
    while not connection.execute("select from pg_locks where not granted").fetchall():
        assert running.is_alive


def seen_of(world: World) -> str:
    """Return what everybody on this machine, and every administrator of the servers, can see."""
    arguments = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.parent.exists()]
    parts = [line.decode(errors="replace") for line in arguments]
    for server in (world.source, world.target):
        parts.append(server.log.read_text(errors="replace"))
        with server.connect() as connection:
            parts += map(str, connection.execute("select * from pg_stat_activity").fetchall())
    return "".join(parts)


@pytest.mark.docker
def test_from_a_rescued_workspace_in_docker(world: World, shared_rescue: Rescuer, tmp_path: Path) -> None:
    require_engine("docker")
    rescued = shared_rescue(read_snapshot(inputs.SAMPLE.parent), "--engine", "docker")
    into = world.goal()
    command = ("to-cluster", rescued.workspace, "--target-url", world.urls(into)[1], "--database", "portal", "--json")
    world.forks.start(*command, *OPTIONS, cwd=tmp_path, accident=IN_THE_ROWS).killed()
    done = world.forks.start(*command, *OPTIONS, cwd=tmp_path).ended()
    report = done.ok().document()
    assert report["outcome"] == "moved"
    assert "transfer_resumed" in {finding["code"] for finding in report["findings"]}
    assert json.loads((rescued.workspace / "transfer.json").read_text()) == report
    with rescued.connect("portal") as here, world.target.connect(into) as there:
        assert contents(there) == contents(here)
    for name in ("transfer.json", "ledger.json", "report.json"):
        text = (rescued.workspace / name).read_text().replace(json.dumps(rescued.url), "")
        assert rescued.password not in text
    assert not (rescued.workspace / "pgpass.dump").exists()
    check_tidy(rescued.workspace, engine="docker")
    world.check_alone()
