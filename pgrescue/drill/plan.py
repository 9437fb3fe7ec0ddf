"""What a drill asserts, and how much it looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from pgrescue.drill.duration import shown as shown_duration
from pgrescue.drill.record import Question
from pgrescue.drill.scenario import FreshnessCheck, RowsCheck, SchemaCheck, SqlCheck, VerifyCheck
from pgrescue.drilled import AssertionKind, DrillOutcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgrescue.drill.scenario import Check, Drill
    from pgrescue.drilled import PastRun

_RULES = {
    AssertionKind.VERIFY: "no finding of severity error, and every check ran ({})",
    AssertionKind.TRANSFER: "moved as to-cluster does, and equal",
    AssertionKind.AFTER: "ends with status 0",
}


def questions_of(drill: Drill) -> tuple[Question, ...]:
    """Return everything that a drill asserts, in the order of the report: the first is always the checks themselves."""
    rule = _RULES[AssertionKind.VERIFY].format(drill.verify_level)
    found = [Question(AssertionKind.VERIFY, "the recovered copy is sound", rule)]
    if drill.require is not None:
        found.append(Question(AssertionKind.REQUIRE, "verdict", f"{drill.require} at least"))
    if drill.rto_budget is not None:
        found.append(Question(AssertionKind.RTO, "recovery time", f"<= {shown_duration(drill.rto_budget)}"))
    if drill.rpo_budget is not None:
        found.append(Question(AssertionKind.RPO, "age of the newest commit", f"<= {shown_duration(drill.rpo_budget)}"))
    found += [question_of(check, number) for number, check in enumerate(drill.checks) if not _is_verify(check)]
    if drill.transfer is not None:
        found.append(
            Question(
                AssertionKind.TRANSFER,
                "rehearsal of to-cluster",
                _RULES[AssertionKind.TRANSFER],
                drill.transfer.database or "",
            )
        )
    if drill.after is not None:
        rule = f"{_RULES[AssertionKind.AFTER]} within {shown_duration(drill.after.timeout)}"
        found.append(Question(AssertionKind.AFTER, drill.after.command, rule, drill.after.database or ""))
    return tuple(found)


def _is_verify(check: Check) -> bool:
    return isinstance(check, VerifyCheck)


def question_of(check: Check, number: int) -> Question:
    """Return what one of the file's checks asserts."""
    match check:
        case SqlCheck():
            kind, expected = AssertionKind.SQL, str(check.expect)
        case RowsCheck():
            kind, expected = AssertionKind.ROWS, " and ".join(check.limits)
        case FreshnessCheck():
            kind, expected = AssertionKind.FRESHNESS, f"at most {shown_duration(check.freshness.max_age)} old"
        case SchemaCheck():
            kind, expected = AssertionKind.SCHEMA, f"as in {check.file.name}"
        case VerifyCheck():
            kind, expected = AssertionKind.VERIFY, check.level.value
        case _:
            assert_never(check)
    return Question(kind, check.title, expected, getattr(check, "database", None) or "", number)


def last_rows(past: Sequence[PastRun]) -> dict[str, int]:
    """Return how many rows each table had the last time.

    Runs that failed do not count where others know the table: a loss would be the new normal after one night.
    """
    rows: dict[str, int] = {}
    for run in past:
        rows = {**run.rows, **rows} if run.outcome is DrillOutcome.FAILED else {**rows, **run.rows}
    return rows
