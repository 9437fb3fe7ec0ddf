"""Starting the server, as far as that needs none."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from pgrescue.engine.interface import ServerState, ServerStatus
from pgrescue.errors import ServerError
from pgrescue.pipeline import Silent
from pgrescue.steps import start
from pgrescue.steps.connection import SessionError
from pgrescue.steps.start import Start, crashes_again_and_again, server_settings
from tests.unit.builders import FakeEngine, make_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgrescue.workspace import Workspace

RUNNING = ServerStatus(ServerState.RUNNING, 5499)


def answer(monkeypatch: pytest.MonkeyPatch, *answers: str | None) -> list[int]:
    """Let logins end as told, one after the other; return the ports that were asked."""
    left, asked = list(answers), list[int]()

    @contextlib.contextmanager
    def session(_: Workspace, port: int) -> Iterator[None]:
        asked.append(port)
        said = left.pop(0)
        if said is not None:
            raise SessionError(said)
        yield

    monkeypatch.setattr(start, "session", session)
    return asked


@pytest.fixture
def engine() -> FakeEngine:
    found = FakeEngine()
    found.server = RUNNING
    return found


def test_the_server_gets_pgrescues_own_files(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    server = f"/engine{run.workspace.server}"
    assert server_settings(run) == {
        "config_file": f"{server}/postgresql.conf",
        "hba_file": f"{server}/pg_hba.conf",
        "ident_file": f"{server}/pg_ident.conf",
    }


def test_it_waits_until_the_server_lets_the_role_in(
    tmp_path: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answer(
        monkeypatch,
        "connection refused",
        "FATAL:  the database system is starting up",
        "FATAL:  the database system is not yet accepting connections",
        "server closed the connection unexpectedly",
        None,
    )
    run = make_run(tmp_path, engine)
    Start().apply(run, Silent())
    assert asked == [5499] * 5
    assert engine.asked[0][:2] == ("start", "54321")


def test_a_server_that_refuses_the_role_is_an_error(
    tmp_path: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, 'FATAL:  role "pgrescue" does not exist')
    with pytest.raises(ServerError, match='role "pgrescue" does not exist'):
        Start().apply(make_run(tmp_path, engine), Silent())


def test_a_server_that_ends_shows_its_last_words(
    tmp_path: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch)
    engine.server = ServerStatus(ServerState.STOPPED)
    engine.log = tuple(f"line {number}" for number in range(100))
    with pytest.raises(ServerError, match="line 99") as caught:
        Start().apply(make_run(tmp_path, engine), Silent())
    assert "line 10\n" not in caught.value.problem
    assert "pgrescue logs" in caught.value.hint


@pytest.mark.parametrize(("said", "holds"), [(None, True), ("connection refused", False)])
def test_it_holds_when_a_login_succeeds(
    tmp_path: Path,
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    said: str | None,
    holds: bool,  # noqa: FBT001 - pytest gives it
) -> None:
    answer(monkeypatch, said)
    assert Start().holds(make_run(tmp_path, engine)) is holds


def test_a_stopped_server_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer(monkeypatch)
    assert not Start().holds(make_run(tmp_path))
    assert asked == []


def test_a_server_that_begins_anew_for_ever_is_told_from_one_that_crashed_once() -> None:
    """An earlier server's crashes, which the same log holds, are none of this one's."""
    since = datetime(2026, 11, 26, 18, 9, 1, tzinfo=UTC)

    def anew(second: int) -> str:
        return f"2026-11-26 18:09:{second:02}.497 UTC [22474] LOG:  all server processes terminated; reinitializing"

    others = ["2026-11-26 18:09:02.001 UTC [1] LOG:  database system is ready to accept connections", "  torn line"]
    assert crashes_again_and_again([*others, *map(anew, range(1, 6))], since)
    assert not crashes_again_and_again([*others, *map(anew, range(1, 5))], since)
    assert not crashes_again_and_again([anew(0)] * 20, since)
