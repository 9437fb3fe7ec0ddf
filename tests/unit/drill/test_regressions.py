"""What is worse than before."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgrescue.drill.regressions import regressions
from pgrescue.drilled import DrillOutcome, PastRun
from pgrescue.model import Verdict

GIB = 1 << 30
USUAL = PastRun(
    name="nightly",
    time=datetime(2026, 11, 1, 3, 0, tzinfo=UTC),
    outcome=DrillOutcome.PASSED,
    verdict=Verdict.CONSISTENT,
    recovery_seconds=50.0,
    seconds=80.0,
    size_bytes=2 * GIB,
    newest_commit_age_seconds=3600.0,
    rows={"app orders": 1_000, "app users": 10},
)
NO_RUN = PastRun("nightly", USUAL.time, DrillOutcome.UNVERIFIED)


def _past(runs: int = 12, **changes: Any) -> list[PastRun]:
    return [replace(USUAL, time=USUAL.time + timedelta(days=day), **changes) for day in range(runs)]


def test_a_run_like_the_others_is_no_worse() -> None:
    assert regressions(USUAL, _past()) == ()
    assert regressions(USUAL, []) == ()
    assert regressions(NO_RUN, _past()) == ()
    assert regressions(USUAL, [NO_RUN] * 12) == ()


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (
            replace(USUAL, recovery_seconds=95.0),
            "recovery took 1 min 35 s, 1.9 times the median of the last 10 runs (50 s)",
        ),
        (
            replace(USUAL, size_bytes=GIB),
            "the data directory has 1.0 GiB, 50 % of the median of the last 10 runs (2.0 GiB)",
        ),
        (
            replace(USUAL, newest_commit_age_seconds=90_061.0),
            "the newest commit is 1 d 1 h 1 min old, 25.0 times the median of the last 10 runs (1 h)",
        ),
        (replace(USUAL, verdict=Verdict.DAMAGED), "the verdict is damaged, the last time it was consistent"),
        (
            replace(USUAL, rows={**USUAL.rows, "app orders": 499}),
            "app orders has 499 rows, 49 % of the last time's 1,000",
        ),
        (replace(USUAL, rows={**USUAL.rows, "app users": 1}), "app users has 1 row, 10 % of the last time's 10"),
        (
            replace(USUAL, rows={"app users": 10}),
            "app orders was not counted: it is gone, or nothing asks for it any more (it had 1,000 rows)",
        ),
    ],
)
def test_what_is_worse_is_said_with_its_numbers(now: PastRun, words: str) -> None:
    assert regressions(now, _past()) == (words,)


@pytest.mark.parametrize(
    ("field", "within", "beyond", "of"),
    [
        ("recovery_seconds", 75.0, 75.1, 50.0),
        ("recovery_seconds", 6.0, 6.1, 1.0),
        ("recovery_seconds", 5.0, 5.1, 0.0),
        ("size_bytes", 800, 799, 1000),
        ("newest_commit_age_seconds", 20_000.0, 20_000.1, 10_000.0),
        ("newest_commit_age_seconds", 3660.0, 3660.1, 60.0),
        ("newest_commit_age_seconds", 3590.0, 3591.0, -10.0),
    ],
)
def test_the_limits(field: str, within: Any, beyond: Any, of: Any) -> None:
    past = _past(**{field: of})
    assert regressions(replace(USUAL, **{field: within}), past) == ()
    assert len(regressions(replace(USUAL, **{field: beyond}), past)) == 1


def test_half_of_the_rows_is_no_regression() -> None:
    assert regressions(replace(USUAL, rows={"app orders": 500, "app users": 5}), _past()) == ()


@pytest.mark.parametrize("field", ["recovery_seconds", "size_bytes", "newest_commit_age_seconds"])
def test_a_median_needs_three_runs_that_came_so_far(field: str) -> None:
    bad = replace(USUAL, recovery_seconds=1e6, size_bytes=1, newest_commit_age_seconds=1e9)
    now = replace(USUAL, **{field: getattr(bad, field)})
    incomplete = _past(9, **{field: None})
    assert regressions(now, [*incomplete, *_past(2)]) == ()
    (words,) = regressions(now, [*incomplete, *_past(3)])
    assert "the median of the last 3 runs" in words


def test_old_runs_are_no_measure() -> None:
    past = [*_past(30, recovery_seconds=10.0), *_past(10)]
    assert regressions(replace(USUAL, recovery_seconds=70.0), past) == ()
    past = [*_past(30), *_past(10, recovery_seconds=10.0)]
    assert len(regressions(replace(USUAL, recovery_seconds=70.0), past)) == 1


def test_the_verdict_is_compared_with_the_last_that_there_was() -> None:
    past = [*_past(5, verdict=Verdict.DAMAGED), *_past(1, verdict=Verdict.BEST_EFFORT), NO_RUN]
    assert regressions(replace(USUAL, verdict=Verdict.CONSISTENT), past) == ()
    assert regressions(replace(USUAL, verdict=Verdict.BEST_EFFORT), past) == ()
    (words,) = regressions(replace(USUAL, verdict=Verdict.DAMAGED), past)
    assert "best-effort" in words


def test_a_table_is_compared_with_its_last_count_over_runs_that_could_not_count() -> None:
    past = [*_past(3), replace(USUAL, rows={}), NO_RUN]
    (words,) = regressions(replace(USUAL, rows={"app orders": 7, "app users": 10}), past)
    assert words.startswith("app orders has 7 rows")


def test_a_check_that_was_taken_out_of_the_file_is_told_once() -> None:
    without = replace(USUAL, rows={"app users": 10})
    assert len(regressions(without, _past())) == 1
    assert regressions(without, [*_past(), without]) == ()


def test_a_drill_that_did_not_recover_says_nothing_of_tables() -> None:
    assert regressions(replace(NO_RUN, seconds=5.0), _past()) == ()


def test_many_tables_are_summed_up() -> None:
    rows = {f"app t{number:04}": 100 for number in range(2_000)}
    said = regressions(replace(USUAL, rows=dict.fromkeys(rows, 1)), _past(rows=rows))
    assert len(said) == 11
    assert said[-1].startswith("1,990 further tables")


def test_everything_at_once_is_said_in_order_of_weight() -> None:
    now = replace(
        USUAL,
        verdict=Verdict.FAILED,
        recovery_seconds=500.0,
        size_bytes=5,
        newest_commit_age_seconds=1e6,
        rows={"app users": 0},
    )
    said = regressions(now, _past())
    assert [one.split()[:2] for one in said] == [
        ["the", "verdict"],
        ["recovery", "took"],
        ["the", "data"],
        ["the", "newest"],
        ["app", "users"],
        ["app", "orders"],
    ]
    assert "has 5 bytes" in said[2]
