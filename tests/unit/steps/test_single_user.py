"""PostgreSQL in single-user mode, on an engine that runs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pgrescue.command import Completed
from pgrescue.errors import CopyRefusedError
from pgrescue.model import Owner
from pgrescue.steps.single_user import single_user
from tests.unit.builders import FakeEngine, make_run

if TYPE_CHECKING:
    from pathlib import Path

    from pgrescue.run import Run


def new_run(root: Path, engine: FakeEngine) -> Run:
    made = make_run(root, engine)
    made.workspace.server.mkdir(exist_ok=True)
    made.workspace.logs.mkdir(exist_ok=True)
    return made


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def run(tmp_path: Path, engine: FakeEngine) -> Run:
    return new_run(tmp_path, engine)


def test_what_the_server_says_is_kept_line_by_line_and_heard(run: Run, engine: FakeEngine) -> None:
    engine.answer = Completed(("postgres",), 0, "", "one\ntwo")
    heard: list[str] = []
    single_user(run, "select 1\n", log="it.log", settings={"a": "b c"}, on_line=heard.append)
    single_user(run, "", log="it.log")
    log = run.workspace.logs / "it.log"
    assert heard == ["one", "two"]
    assert log.read_text() == "one\ntwo\none\ntwo\n"
    assert log.stat().st_mode & 0o777 == 0o600
    first, second = engine.asked
    assert first[-3:] == ("-c", "a=b c", "template1")
    assert second[-1] == "template1"
    assert engine.scripts == ["select 1\n", ""]
    assert not (run.workspace.server / "single-user.sql").exists()


def test_a_server_that_does_not_come_up_has_the_last_words(run: Run, engine: FakeEngine) -> None:
    engine.answer = Completed(("postgres",), 1, "", "\n".join(f"line {number}" for number in range(40)))
    with pytest.raises(CopyRefusedError, match="status 1") as caught:
        single_user(run, "", log="it.log")
    assert "line 39" in caught.value.problem
    assert "line 5\n" not in caught.value.problem
    assert str(run.workspace.logs / "it.log") in caught.value.hint


def test_its_input_belongs_to_who_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owned: list[str] = []
    monkeypatch.setattr("os.chown", lambda path, *_: owned.append(path.name))
    single_user(new_run(tmp_path, FakeEngine(owner=Owner(999, 999))), "", log="it.log")
    assert owned == ["single-user.sql"]
