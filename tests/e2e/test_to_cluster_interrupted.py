"""A transfer stopped anywhere and run again: nothing twice, nothing lost, nothing of others touched, nothing left."""

from __future__ import annotations

import contextlib
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from fixtures import Server, fill
from tests.forks import Accident, Forks
from tests.proxy import Accident as Cut
from tests.proxy import Proxy
from tests.targets import OWNER, contents, new_database, url_of
from tests.transfers import to_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli import Done
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
        return self.forks.start("to-cluster", *live, *(options or OPTIONS), cwd=cwd, accident=accident, env=env)

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
        fill(source, scale=1, databases=("portal",))
        yield World(source, target, forks)


def failed(done: Done, *words: str, status: int = 1) -> None:
    """Assert that a command ended with an error in words for a person."""
    assert done.status == status, f"{done.status}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    assert [word for word in words if word not in done.stderr] == [], done.stderr


# Each run carries on from the accident before, up to its own.
STAGES = {
    "before the mark": Accident("pgrescue.transfer.transfer:make_marker"),
    "marked": Accident("pgrescue.transfer.transfer:make_marker", after=True),
    "roles made": Accident("pgrescue.transfer.transfer:_load"),
    "in the schema": Accident("pgrescue.transfer.load:_transaction", call=60),
    "schema made": Accident("pgrescue.transfer.move:run_entries", after=True),
    "in the rows": Accident("pgrescue.transfer.stream:_await_room", call=40),
    "rows moved, not marked": Accident("pgrescue.transfer.load:mark", call=5),
    "in the last rows": Accident("pgrescue.transfer.load:copy_rows", call=8, after=True),
    "before an index": Accident("pgrescue.transfer.move:run_entry", call=6),
    "an index is there": Accident("pgrescue.transfer.move:run_entry", call=9, after=True),
    "in the foreign keys": Accident("pgrescue.transfer.move:run_entry", only="fk constraint", call=3),
    "before the triggers": Accident("pgrescue.transfer.move:run_entry", only="trigger"),
    "all but privileges": Accident("pgrescue.transfer.move:_finish"),
    "privileges given": Accident("pgrescue.transfer.move:run_entries", call=2, after=True),
    "in the statistics": Accident("pgrescue.transfer.move:mark", only="analyze:", call=4),
    "in the comparison": Accident("pgrescue.transfer.compare:compare_table", call=3),
    "compared": Accident("pgrescue.transfer.transfer:remove_marker"),
}


def test_killed_at_every_stage(world: World, tmp_path: Path) -> None:
    """What was done is not done again: it stays the work of the same transaction."""
    into = world.goal()
    urls = world.urls(into)
    before: dict[str, int] = {}
    grown = 0
    for stage, accident in STAGES.items():
        world.start(urls, *OPTIONS, cwd=tmp_path, accident=accident).killed()
        now = world.done(into)
        assert before.items() <= now.items(), stage
        grown += len(now) > len(before)
        before = now
    assert grown > 8
    done = to_cluster(*urls, *OPTIONS).moved()
    assert f"{len(before)} of its tasks" in done.finding("transfer_resumed")["detail"]
    world.check_end(into)


def test_killed_when_the_mark_is_gone(world: World, tmp_path: Path) -> None:
    """All is there, and nobody has said so: the next run does."""
    into = world.goal()
    urls = world.urls(into)
    accident = Accident("pgrescue.transfer.transfer:remove_marker", after=True)
    world.start(urls, cwd=tmp_path, accident=accident).killed()
    for _ in range(2):
        done = to_cluster(*urls, *OPTIONS)
        assert (done.status, done.outcome) == (0, "already-there")
        assert done.finding("already_there")["severity"] == "info"
    world.check_end(into)


@pytest.mark.parametrize("count", [1, 30, 60, 90])
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


IN_THE_ROWS = Accident("pgrescue.transfer.load:mark", call=4)
IN_THE_KEYS = Accident("pgrescue.transfer.move:run_entry", only="fk constraint", call=2)


@pytest.mark.parametrize("change", ["rows", "schema", "options"])
def test_what_changed_meanwhile_makes_it_start_over(world: World, change: str, tmp_path: Path) -> None:
    of, into = world.origin(), world.goal()
    urls = world.urls(into, of)
    options: tuple[str, ...] = OPTIONS
    world.start(urls, *options, cwd=tmp_path, accident=IN_THE_KEYS).killed()
    before = world.done(into)
    with world.source.connect(of) as connection:
        match change:
            case "rows":
                connection.execute("insert into sessions values ('one more', 1, now())")
            case "schema":
                connection.execute("alter table sessions rename to visits")
            case _:
                options = ("--jobs", "2")
    # The start over is interrupted, too.
    accident = Accident("pgrescue.transfer.marker:_drop_some", call=2)
    world.start(urls, *options, cwd=tmp_path, accident=accident).killed()
    assert world.done(into).items() > before.items()
    done = to_cluster(*urls, *options).moved()
    assert done.finding("transfer_started_over")
    assert "transfer_resumed" not in done.codes
    world.check_end(into, of)


def test_a_start_over_that_is_complete_but_for_its_new_mark(world: World, tmp_path: Path) -> None:
    of, into = world.origin(), world.goal()
    urls = world.urls(into, of)
    world.start(urls, cwd=tmp_path, accident=IN_THE_ROWS).killed()
    with world.source.connect(of) as connection:
        connection.execute("insert into sessions values ('one more', 1, now())")
    world.start(urls, cwd=tmp_path, accident=Accident("pgrescue.transfer.transfer:make_marker")).killed()
    to_cluster(*urls, *OPTIONS).moved()
    world.check_end(into, of)


def test_what_somebody_else_put_there_is_never_dropped(world: World, tmp_path: Path) -> None:
    of, into = world.origin(), world.goal()
    urls = world.urls(into, of)
    world.start(urls, cwd=tmp_path, accident=IN_THE_ROWS).killed()
    with world.source.connect(of) as connection:
        connection.execute("insert into sessions values ('one more', 1, now())")
    with world.target.connect(into) as connection:
        connection.execute("create table theirs as select 42 as answer")
        connection.execute("create table their_users as table users")
        before = contents(connection)
        for _ in range(2):
            done = to_cluster(*urls, *OPTIONS)
            assert done.status == 1
            assert "objects that this transfer did not make" in done.said
            assert "table public.theirs" in done.said
            assert contents(connection) == before
        connection.execute("drop table theirs, their_users")
    to_cluster(*urls, *OPTIONS).moved()
    world.check_end(into, of)


def test_another_source_is_refused(world: World, tmp_path: Path) -> None:
    of, into = world.origin(), world.goal()
    world.start(world.urls(into), cwd=tmp_path, accident=IN_THE_ROWS).killed()
    before = world.done(into)
    to_cluster(*world.urls(into, of), *OPTIONS).refused("target_of_another_transfer", "another database")
    assert world.done(into) == before
    to_cluster(*world.urls(into), *OPTIONS).moved()
    world.check_end(into)


PLACES = {
    "in a worker": Accident("pgrescue.transfer.stream:_await_room", call=40),
    "in the main thread": Accident("pgrescue.transfer.load:_transaction", call=60),
    "between statements": Accident("pgrescue.transfer.large_objects:mark"),
    "in the comparison": Accident("pgrescue.transfer.compare:compare_table", call=3),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_end(world: World, place: str, by: signal.Signals, tmp_path: Path) -> None:
    into = world.goal()
    urls = world.urls(into)
    at = PLACES[place]
    done = world.start(urls, cwd=tmp_path, accident=Accident(at.at, at.call, by=by)).ended()
    failed(done, "run the same command again", status=130)
    world.check_alone()
    if by is signal.SIGINT:
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
    accident = Accident("pgrescue.transfer.compare:compare_table")
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
    at = PLACES["in a worker"]
    running = world.start(urls, cwd=tmp_path, accident=Accident(at.at, at.call, by=signal.SIGSTOP))
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


@pytest.mark.parametrize("immediate", [True, False])
def test_the_target_goes_down_and_comes_back(world: World, immediate: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """What it had not written to its disk is lost together with its marks."""
    into = world.goal()
    urls = world.urls(into)
    running = world.start(urls, cwd=tmp_path)
    while running.is_alive and len(world.done(into)) < 40:
        time.sleep(0.001)
    world.target.stop(immediate=immediate)
    try:
        failed(running.ended(), "the connection was lost", "run the same command: it carries on")
    finally:
        world.target.start()
    assert to_cluster(*urls, *OPTIONS).moved().finding("transfer_resumed")
    world.check_end(into)


# What ends it: TCP or the pulse, both within the second that the URL allows.
QUICK = "keepalives_idle=1&keepalives_interval=1&keepalives_count=1&tcp_user_timeout=1000"


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("accident", Cut)
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
        while running.is_alive and len(world.done(into)) < 40:
            time.sleep(0.001)
        proxy.happen(accident)
        failed(running.ended(), "run the same command: it carries on")
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
