"""The step itself: when it holds, what it tells where nothing is repaired, and a server that does not last."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING

import pytest

from pgrescue.errors import DiskSpaceError, ServerError
from pgrescue.model import Finding, Severity
from pgrescue.pipeline import Silent
from pgrescue.repair import step, work
from pgrescue.repair.outcome import Fate, Outcome
from pgrescue.repair.step import Repair
from pgrescue.steps.connection import SessionError
from tests.unit.builders import make_run

if TYPE_CHECKING:
    from pathlib import Path

    from pgrescue.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path)


@pytest.mark.parametrize(("repairs", "computes"), [(False, True), (True, False)])
def test_without_a_repair_it_says_what_that_means(
    run: Run,
    repairs: bool,  # noqa: FBT001 - pytest gives it
    computes: bool,  # noqa: FBT001 - pytest gives it
) -> None:
    skipped = dataclasses.replace(run, repairs=repairs, computes_reset=computes)
    assert Repair().holds(skipped)
    (finding,) = Repair().findings(skipped)
    assert (finding.code, finding.severity) == ("repair_skipped", Severity.WARNING)


def test_it_holds_once_its_result_is_there(run: Run) -> None:
    assert not Repair().holds(run)
    run.workspace.repaired.write_text('{"findings": []}')
    assert Repair().holds(run)
    assert Repair().findings(run) == ()


def finding(detail: str = "detail", code: str = "code", severity: Severity = Severity.INFO) -> Finding:
    return Finding(code, severity, "object", detail, "remedy")


def pretend(monkeypatch: pytest.MonkeyPatch, outcome: Outcome | Exception) -> None:
    def repair(*_: object) -> Outcome:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(step, "_start", lambda *_: 5432)
    monkeypatch.setattr(work, "repair", repair)


def test_the_result_is_written_when_the_server_is_down(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = Outcome()
    outcome.tell(finding())
    outcome.add("db", "s.t", Fate.LOST, [{"key": {"id": "1"}, "why": "because"}])
    pretend(monkeypatch, outcome)
    Repair().apply(run, Silent())
    assert Repair().findings(run) == (finding(),)
    assert '"lost": [\n {"key": {"id": "1"}, "why": "because"}]' in run.workspace.manifest.read_text()


def test_a_full_disk_is_not_the_copys_fault(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = Outcome()
    outcome.tell(finding('could not extend file "base/5/1": No space left on device'))
    pretend(monkeypatch, outcome)
    with pytest.raises(DiskSpaceError, match="became full"):
        Repair().apply(run, Silent())
    assert not Repair().holds(run)


def test_a_server_that_ends_is_an_error_and_no_result(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, SessionError("connection refused"))
    with pytest.raises(ServerError, match="connection refused"):
        Repair().apply(run, Silent())
    assert not Repair().holds(run)


def test_work_that_a_crash_cut_off_is_done_again_when_the_server_is_back() -> None:
    answers: dict[str, list[str | None]] = {
        "fine": [None],
        "cut off": ["server closed the connection unexpectedly", "the database system is in recovery mode", None],
        "cause": ["server closed the connection unexpectedly", "server closed the connection unexpectedly"],
        "wrong": ["syntax error"],
    }
    failed: dict[str, str] = {}
    lock = threading.Lock()

    def do(item: str) -> None:
        with lock:
            said = answers[item].pop(0)
        if said is not None:
            raise SessionError(said)

    work._side_by_side(answers, do, lambda item, error: failed.update({item: str(error)}), None)
    assert failed == {"cause": "server closed the connection unexpectedly", "wrong": "syntax error"}
    assert not any(answers.values())


def test_findings_are_told_once_and_errors_first() -> None:
    outcome = Outcome()
    outcome.tell(finding("first"))
    outcome.tell(finding("second"))
    outcome.tell(finding(code="worse", severity=Severity.ERROR))
    assert [(item.code, item.detail) for item in outcome.findings] == [("worse", "detail"), ("code", "second")]
