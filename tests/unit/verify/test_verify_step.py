"""The step: when its goal holds, what it keeps, and how it deals with a server that goes away."""

from __future__ import annotations

import dataclasses
import os
import signal
from typing import TYPE_CHECKING, Never

import psycopg
import pytest

from fixtures import Server
from pgrescue.engine.interface import ServerState, ServerStatus
from pgrescue.errors import ServerError
from pgrescue.model import BlockMap, DamagedBlocks, Finding, Severity, VerifyLevel
from pgrescue.pipeline import Silent
from pgrescue.steps.connection import SessionError
from pgrescue.verify import checks, tasks, tools
from pgrescue.verify.catalogs import Reference, check_catalogs, reference_query
from pgrescue.verify.maps import merged, runs_of
from pgrescue.verify.step import Verify, unreadable_blocks
from pgrescue.verify.survey import take_survey
from pgrescue.verify.target import Connection, Fact, Progress, is_damage
from pgrescue.verify.tasks import Runner, Task
from pgrescue.verify.verified import Verified
from pgrescue.verify.writes import check_checkpoint
from tests.unit.builders import FakeEngine, finding, make_run
from tests.unit.verify.servers import SETTINGS, execute, opener_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgrescue.run import Run

MAP = BlockMap("portal.public.users", "base/1/2", 9, (DamagedBlocks(1, 2, "unreadable"),))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(settings={**SETTINGS, "restart_after_crash": "on"}) as server:
        execute(server, "postgres", "CREATE ROLE plain LOGIN")
        yield server


@pytest.fixture
def checked(tmp_path: Path) -> Run:
    """Return a run whose fast checks are over."""
    run = make_run(tmp_path)
    run.workspace.verified.write_text(Verified(VerifyLevel.FAST, 7, (finding(Severity.ERROR),), (MAP,)).to_json())
    return run


@pytest.mark.parametrize(
    ("wanted", "holds"), [(VerifyLevel.NONE, True), (VerifyLevel.FAST, True), (VerifyLevel.FULL, False)]
)
def test_it_holds_when_as_much_was_checked(checked: Run, *, wanted: VerifyLevel, holds: bool) -> None:
    assert Verify().holds(dataclasses.replace(checked, verify=wanted)) is holds


def test_what_was_found_is_kept(checked: Run) -> None:
    assert Verify().findings(checked) == (finding(Severity.ERROR),)
    assert unreadable_blocks(checked.workspace) == (MAP,)


def test_without_checks_there_is_a_finding(tmp_path: Path) -> None:
    run = dataclasses.replace(make_run(tmp_path), verify=VerifyLevel.NONE)
    assert Verify().holds(run)
    assert [(item.code, item.severity) for item in Verify().findings(run)] == [("checks_skipped", Severity.WARNING)]
    assert unreadable_blocks(run.workspace) == ()


def test_a_server_that_is_down_is_an_error(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert not Verify().holds(run)
    with pytest.raises(ServerError):
        Verify().apply(run, Silent())
    assert not run.workspace.verified.exists()


def test_a_server_that_lets_nobody_in_is_an_error(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.server = ServerStatus(ServerState.RUNNING, 1)
    run = make_run(tmp_path, engine)
    run.workspace.pgpass.write_text("127.0.0.1:*:*:pgrescue:secret\n")
    with pytest.raises(ServerError):
        Verify().apply(run, Silent())
    assert not run.workspace.verified.exists()


def test_runs_of_blocks_and_maps_are_put_together() -> None:
    assert runs_of({3: "a", 1: "a", 2: "a", 4: "b", 6: "b"}) == (
        DamagedBlocks(1, 3, "a"),
        DamagedBlocks(4, 4, "b"),
        DamagedBlocks(6, 6, "b"),
    )
    other = dataclasses.replace(MAP, damaged=(DamagedBlocks(2, 3, "corrupt rows"),))
    assert merged([MAP, other]) == (
        dataclasses.replace(MAP, damaged=(DamagedBlocks(1, 2, "unreadable"), DamagedBlocks(3, 3, "corrupt rows"))),
    )


def healthy(_: Connection) -> Iterator[Fact]:
    yield Progress(1)
    yield finding()


def suicidal(connection: Connection) -> Iterator[Fact]:
    connection.execute("select pg_terminate_backend(pg_backend_pid())")
    yield finding()


def test_a_check_that_ends_its_session_is_tried_again_and_told(server: Server) -> None:
    tasks = [Task("one", "postgres", healthy), Task("two", "postgres", suicidal), Task("three", "postgres", healthy)]
    told = Runner(opener_of(server), Silent()).run(tasks)
    assert [fact.code for fact in told if isinstance(fact, Finding)] == ["code", "check_crashed_server", "code"]
    assert [fact.object for fact in told if isinstance(fact, Finding)][1] == "two"


def test_checks_go_on_while_the_server_restarts_after_a_crash(server: Server) -> None:
    seen: list[int] = []

    def crash_once(connection: Connection) -> Iterator[Fact]:
        seen.append(connection.info.backend_pid)
        if len(seen) == 1:
            os.kill(connection.info.backend_pid, signal.SIGSEGV)
            connection.execute("select pg_sleep(10)")
        yield finding(object="survived")

    jobs = [Task("crash", "postgres", crash_once), *(Task(f"{n}", "template1", healthy) for n in range(20))]
    told = Runner(opener_of(server), Silent()).run(jobs)
    assert {fact.code for fact in told if isinstance(fact, Finding)} == {"code"}
    assert (len(seen), len(told)) == (2, 21)


def test_a_server_that_went_away_is_an_error(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_RESTART_TIMEOUT_S", 0.1)
    with pytest.raises(ServerError):
        Runner(opener_of(server), Silent()).run([Task("one", "no_such_database", healthy)])


def test_a_statement_that_takes_too_long_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Task, "timeout_s", 1)

    def sleepy(connection: Connection) -> Iterator[Fact]:
        connection.execute("select pg_sleep(10)")
        yield finding()

    (told,) = Runner(opener_of(server), Silent()).run([Task("rows of it", "postgres", sleepy)])
    assert isinstance(told, Finding)
    assert (told.code, told.object) == ("check_not_run", "rows of it")
    assert "statement timeout" in told.detail


def test_tools_that_cannot_be_removed_are_told() -> None:
    def closed(database: str, /) -> Never:
        raise SessionError(f"{database} is closed")

    (told,) = checks._remove_tools(closed, ["portal"])
    assert (told.code, told.object) == ("tools_left_behind", "portal")


def test_a_checkpoint_that_fails_is_told(server: Server) -> None:
    with server.connect("postgres", user="plain") as connection:
        (told,) = check_checkpoint(connection, None)  # type: ignore[arg-type]  # it does not look at the survey
    assert isinstance(told, Finding)
    assert told.code == "write_failed"


def test_before_14_the_references_between_catalogs_are_pgrescues_own(server: Server) -> None:
    with opener_of(server)("postgres") as connection:
        survey = take_survey(connection, "postgres", has_shared=True, tools=tools.Tools(None, {}, "none"))
        old = dataclasses.replace(survey, major=13)
        assert list(check_catalogs(connection, old)) == []


def test_a_reference_to_an_array_is_followed_element_by_element() -> None:
    reference = Reference("pg_proc", ("oid", "proargtypes"), "pg_type", ("x", "oid"), True, True, "oid")  # noqa: FBT003
    query = reference_query(reference).as_string()
    assert 'unnest("proargtypes") as "proargtypes"' in query
    assert '"f"."proargtypes" <> 0' in query


@pytest.mark.parametrize(
    ("statement", "damage"),
    [
        ("do $$ begin raise 'x' using errcode = 'XX001'; end $$", True),
        ("do $$ begin raise 'x' using errcode = '58P01'; end $$", True),
        ("do $$ begin raise 'could not access file \"$libdir/x\"' using errcode = '58P01'; end $$", False),
        ("select 1 / 0", False),
        ("select no_such_function()", False),
    ],
)
def test_errors_are_told_apart(server: Server, *, statement: str, damage: bool) -> None:
    with server.connect() as connection, pytest.raises(psycopg.Error) as caught:
        connection.execute(statement.encode())
    assert is_damage(caught.value) is damage
