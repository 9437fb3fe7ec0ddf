"""What a drill asserts, and which earlier numbers of rows it compares with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pgrescue.drill.plan import last_rows, questions_of
from pgrescue.drill.scenario import Drill
from pgrescue.drilled import AssertionKind, DrillOutcome, PastRun

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgrescue.drill.record import Question

PASSED, FAILED, UNVERIFIED = DrillOutcome.PASSED, DrillOutcome.FAILED, DrillOutcome.UNVERIFIED
BEGIN = datetime(2026, 11, 1, tzinfo=UTC)


def questions(**fields: Any) -> tuple[Question, ...]:
    return questions_of(Drill.model_validate({"name": "nightly", "snapshot": "/backups/data.tar", **fields}))


def past(*runs: tuple[DrillOutcome, Mapping[str, int]]) -> list[PastRun]:
    return [
        PastRun("nightly", BEGIN + timedelta(days=day), outcome, rows=rows) for day, (outcome, rows) in enumerate(runs)
    ]


def test_the_checks_of_the_copy_are_always_asserted() -> None:
    (only,) = questions()
    assert (only.kind, only.expected) == (
        AssertionKind.VERIFY,
        "no finding of severity error, and every check ran (fast)",
    )
    (full,) = questions(checks=[{"verify": "full"}, {"verify": "fast"}])
    assert "(full)" in full.expected


def test_everything_that_a_file_asks_for_is_a_question_in_its_order() -> None:
    checks = [
        {"sql": "select 1", "expect": "== 1"},
        {"verify": "full"},
        {"rows": {"table": "orders", "min": 1000, "max": 2000, "max_loss": "5 %"}, "database": "portal"},
        {"sql": "select 1", "expect": "== 1"},
        {"freshness": {"table": "orders", "column": "at", "max_age": "24 h"}, "name": "orders come in"},
        {"schema": "/drills/portal.schema.sql"},
    ]
    found = questions(
        require="consistent",
        rto_budget="30 min",
        rpo_budget="24 h",
        checks=checks,
        transfer={"target": "throwaway", "database": "portal"},
        after={"command": "npm test", "timeout": "10 min", "database": "crm"},
    )
    assert [(one.kind.value, one.name, one.expected, one.database, one.number) for one in found] == [
        ("verify", "the recovered copy is sound", "no finding of severity error, and every check ran (full)", "", 0),
        ("require", "verdict", "consistent at least", "", 0),
        ("rto_budget", "recovery time", "<= 30 min", "", 0),
        ("rpo_budget", "age of the newest commit", "<= 1 d", "", 0),
        ("sql", "select 1 == 1", "== 1", "", 0),
        (
            "rows",
            "orders: at least 1,000 rows, at most 2,000 rows, at most 5 % fewer rows than last time",
            "at least 1,000 rows and at most 2,000 rows and at most 5 % fewer rows than last time",
            "portal",
            2,
        ),
        ("sql", "select 1 == 1", "== 1", "", 3),
        ("freshness", "orders come in", "at most 1 d old", "", 4),
        ("schema", "schema as in portal.schema.sql", "as in portal.schema.sql", "", 5),
        ("transfer", "rehearsal of to-cluster", "moved as to-cluster does, and equal", "portal", 0),
        ("after", "npm test", "ends with status 0 within 10 min", "crm", 0),
    ]
    assert len(set(found)) == len(found)


def test_the_last_run_is_the_one_to_compare_with() -> None:
    assert last_rows([]) == {}
    assert last_rows(past((PASSED, {"a": 1, "b": 2}), (PASSED, {"a": 3}))) == {"a": 3, "b": 2}
    assert last_rows(past((PASSED, {"a": 1}), (UNVERIFIED, {"a": 3}))) == {"a": 3}
    assert last_rows(past((PASSED, {"a": 9}), (PASSED, {}))) == {"a": 9}


def test_a_failed_run_does_not_make_its_loss_the_new_normal() -> None:
    assert last_rows(past((PASSED, {"a": 100}), (FAILED, {"a": 1}), (FAILED, {"a": 0}))) == {"a": 100}
    assert last_rows(past((FAILED, {"a": 1}), (PASSED, {"a": 100}), (FAILED, {"a": 2}))) == {"a": 100}
    assert last_rows(past((FAILED, {"a": 500}), (PASSED, {"a": 100}))) == {"a": 100}
    assert last_rows(past((PASSED, {"a": 100}), (FAILED, {"a": 1, "b": 7}))) == {"a": 100, "b": 7}


def test_a_table_that_only_failed_runs_know_is_compared_with_the_first_of_them() -> None:
    assert last_rows(past((FAILED, {"a": 100}), (FAILED, {"a": 50}), (FAILED, {"a": 1, "b": 7}))) == {"a": 100, "b": 7}
