"""The report of a drill as JSON, for programs and for keeping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never

from pgrescue.drilled import DrillOutcome
from pgrescue.errors import ExitStatus
from pgrescue.report.document import SCHEMA, finding_document, report_document

if TYPE_CHECKING:
    from pgrescue.drilled import Assertion, DrillReport, DrillRun, NewestCommit, PastRun
    from pgrescue.model import RescueReport

# What a rescue reports beyond these is the drill's, or is gone with the workspace.
_OF_THE_RESCUE = (
    "verdict",
    "strategy",
    "engine",
    "version",
    "system_identifier",
    "databases",
    "recovered_to",
    "steps",
    "seconds",
)


def exit_status(outcome: DrillOutcome) -> ExitStatus:
    """Return how a command ends with this outcome (DESIGN.md, "Verdicts and exit statuses")."""
    match outcome:
        case DrillOutcome.PASSED:
            return ExitStatus.OK
        case DrillOutcome.UNVERIFIED:
            return ExitStatus.UNVERIFIED
        case DrillOutcome.FAILED:
            return ExitStatus.FAILED
        case _:
            assert_never(outcome)


def drill_document(run: DrillRun) -> dict[str, Any]:
    """Return all drills of a run, ready for JSON; times are ISO 8601 with their zone, no secret is in it."""
    return {
        "schema": SCHEMA,
        "outcome": run.outcome.value,
        "exit_status": int(exit_status(run.outcome)),
        "id": run.id,
        "file": run.file,
        "started": run.started.isoformat(),
        "seconds": run.seconds,
        "notes": list(run.notes),
        "drills": [_drill(drill) for drill in run.drills],
    }


def _drill(drill: DrillReport) -> dict[str, Any]:
    return {
        "name": drill.name,
        "outcome": drill.outcome.value,
        "started": drill.started.isoformat(),
        "seconds": drill.seconds,
        "snapshot": drill.snapshot,
        "chosen_because": drill.chosen_because,
        "recovery_seconds": drill.recovery_seconds,
        "size_bytes": drill.size_bytes,
        "newest_commit": None if drill.newest_commit is None else _newest(drill.newest_commit),
        "rescue": None if drill.rescue is None else _rescue(drill.rescue),
        "assertions": [_assertion(one) for one in drill.assertions],
        "findings": [finding_document(finding) for finding in drill.findings],
        "ignored": [
            {**finding_document(one.finding), "reason": one.reason, "until": one.until.isoformat()}
            for one in drill.ignored
        ],
        "phases": [{"name": one.name, "outcome": one.outcome.value, "seconds": one.seconds} for one in drill.phases],
        "rows": dict(drill.rows),
        "past": [_past(one) for one in drill.past],
        "regressions": list(drill.regressions),
        "problem": drill.problem,
        "hint": drill.hint,
        "kept": None if drill.kept is None else str(drill.kept),
    }


def _newest(commit: NewestCommit) -> dict[str, Any]:
    return {"time": commit.time.isoformat(), "age_seconds": commit.age_seconds, "source": commit.source}


def _rescue(report: RescueReport) -> dict[str, Any]:
    document = report_document(report, with_password=False)
    return {name: document[name] for name in _OF_THE_RESCUE}


def _assertion(one: Assertion) -> dict[str, Any]:
    return {
        "kind": one.kind.value,
        "name": one.name,
        "database": one.database,
        "outcome": one.outcome.value,
        "expected": one.expected,
        "seen": one.seen,
        "detail": one.detail,
        "seconds": one.seconds,
    }


def _past(run: PastRun) -> dict[str, Any]:
    return {
        "name": run.name,
        "time": run.time.isoformat(),
        "outcome": run.outcome.value,
        "verdict": None if run.verdict is None else run.verdict.value,
        "recovery_seconds": run.recovery_seconds,
        "seconds": run.seconds,
        "size_bytes": run.size_bytes,
        "newest_commit_age_seconds": run.newest_commit_age_seconds,
        "rows": dict(run.rows),
    }
