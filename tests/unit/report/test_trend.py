"""The numbers that are followed from run to run, and the charts of them."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from itertools import pairwise

import pytest

from pgrescue.drilled import Assertion, AssertionKind, DrillOutcome, DrillReport
from pgrescue.report import trend
from pgrescue.report.measures import Measure, Unit, measures, recovery_seconds, size_bytes
from pgrescue.report.trend import Chart, chart_of, seconds_in
from tests import drills


def recovery_chart(drill: DrillReport) -> Chart:
    chart = chart_of(drill, measures(drill)[0], recovery_seconds, budget=AssertionKind.RTO)
    assert chart is not None
    return chart


def height_of(chart: Chart, seconds: float) -> float:
    """Return where a value must lie, told by the axis alone: `0` and the top are its ends."""
    top = float(chart.ticks[-1].words.split()[0]) * 60
    return trend.BOTTOM - (trend.BOTTOM - trend.TOP) * seconds / top


def test_measures_are_compared_with_the_median_of_the_runs_that_have_them() -> None:
    recovery, whole, size, newest = measures(drills.FAILED_DRILL)
    # 371.0, 377.9, 380.4, 385.0, 391.3, 398.8, without the run that broke off.
    assert recovery.before == (371.0, 380.4, 377.9, 391.3, 385.0, 398.8)
    assert (recovery.shown, recovery.usual, recovery.change) == (
        "18 min 08 s",
        "6 min 23 s (the last 6 runs)",
        "+184 %",
    )
    assert recovery.usually == "usually 6 min 23 s (+184 %)"
    assert len(whole.before) == 6
    assert size.change == "\N{MINUS SIGN}30 %"
    assert newest.shown == "8 min 25 s"


def test_only_the_last_ten_runs_count() -> None:
    drill = dataclasses.replace(drills.PASSED_DRILL, past=drills.past(*(1_000.0,) * 30, *(100.0,) * 10))
    assert measures(drill)[0].before == (100.0,) * 10


def test_a_drill_that_broke_off_is_not_called_quick() -> None:
    recovery, whole, *_ = measures(drills.UNVERIFIED_DRILL)
    assert (recovery.shown, recovery.change) == ("not known", "")
    assert (whole.shown, whole.usual, whole.change) == ("12.4 s", "", "")


@pytest.mark.parametrize(
    ("now", "before", "change"),
    [
        (100.4, (100.0,), "no change"),
        (101.0, (100.0,), "+1 %"),
        (50.0, (100.0, 100.0, 900.0), "\N{MINUS SIGN}50 %"),
        (1_234.0, (1.0,), "1,234 times"),
        (5.0, (0.0,), ""),
        (5.0, (), ""),
        (None, (1.0,), ""),
    ],
)
def test_changes_are_told_in_few_words(now: float | None, before: tuple[float, ...], change: str) -> None:
    assert Measure("", Unit.SECONDS, now, before).change == change


def test_columns_stand_as_high_as_their_values() -> None:
    chart = recovery_chart(drills.FAILED_DRILL)
    assert [tick.words for tick in chart.ticks] == ["0", "5 min", "10 min", "15 min", "20 min"]
    assert (chart.ticks[0].at, chart.ticks[-1].at) == (trend.BOTTOM, trend.TOP)
    values = [371.0, 380.4, 377.9, 391.3, 385.0, None, 398.8, 1_088.0]
    for column, value in zip(chart.columns, values, strict=True):
        if value is None:
            assert (column.height, column.sign) == (0, "?")
        else:
            assert column.y == pytest.approx(height_of(chart, value))
            assert column.y + column.height == trend.BOTTOM
    assert chart.budget is not None
    assert chart.budget.at == pytest.approx(height_of(chart, 900))
    assert chart.budget.words == "<= 15 min"
    assert chart.median is not None
    assert chart.median.at == pytest.approx(height_of(chart, 382.7))
    assert (chart.kind, chart.columns[-1].sign) == ("failed", "✗")
    assert chart.columns[-1].title == "this run: 18 min 08 s (drill failed)"
    assert [date.words for date in chart.dates] == ["Nov 15", "Nov 17", "Nov 20", "now"]
    assert chart.told.endswith("(the last 6 runs). Budget: <= 15 min.")


def test_columns_are_within_the_axes_and_apart() -> None:
    drill = dataclasses.replace(drills.PASSED_DRILL, past=drills.past(*(float(at) for at in range(1, 101))))
    columns = recovery_chart(drill).columns
    assert len(columns) == 30
    for left, right in pairwise(columns):
        assert left.x + left.width < right.x
    assert columns[0].x >= trend.LEFT
    assert columns[-1].x + columns[-1].width <= trend.RIGHT
    assert all(trend.TOP <= column.y < trend.BOTTOM for column in columns)


def test_without_a_number_there_is_no_chart_and_without_a_past_one_column() -> None:
    nothing = dataclasses.replace(drills.UNVERIFIED_DRILL, past=())
    assert chart_of(nothing, measures(nothing)[0], recovery_seconds) is None
    first = recovery_chart(dataclasses.replace(drills.PASSED_DRILL, past=()))
    assert len(first.columns) == 1
    assert first.median is None
    assert "no earlier run has it" in first.told
    size = chart_of(drills.PASSED_DRILL, measures(drills.PASSED_DRILL)[2], size_bytes)
    assert size is not None
    assert (size.budget, size.kind) == (None, "now")
    assert [tick.words for tick in size.ticks] == ["0", "10 GiB", "20 GiB", "30 GiB", "40 GiB", "50 GiB"]


def test_a_budget_that_would_hide_the_columns_is_only_told() -> None:
    loose = Assertion(AssertionKind.RTO, "recovery time", DrillOutcome.PASSED, "at most 2 d", "6 min 41 s")
    chart = recovery_chart(dataclasses.replace(drills.PASSED_DRILL, assertions=(loose,)))
    assert chart.budget is None
    assert "Budget: at most 2 d, which is not drawn." in chart.told


def test_runs_of_one_day_have_times() -> None:
    run = dataclasses.replace(drills.past(5.0)[0], time=drills.STARTED - timedelta(hours=1))
    chart = recovery_chart(dataclasses.replace(drills.PASSED_DRILL, past=(run,)))
    assert [date.words for date in chart.dates] == ["02:00", "now"]


@pytest.mark.parametrize("most", [0.0, 0.04, 1.0, 59.0, 61.0, 3_599.0, 90_000.0, 1e9])
@pytest.mark.parametrize("unit", Unit)
def test_axes_have_few_round_steps_for_any_value(most: float, unit: Unit) -> None:
    drill = dataclasses.replace(drills.PASSED_DRILL, past=(), assertions=())
    chart = chart_of(drill, Measure("", unit, most, ()), recovery_seconds)
    assert chart is not None
    assert 2 <= len(chart.ticks) <= 6
    words = [tick.words for tick in chart.ticks]
    assert len(set(words)) == len(words)
    assert max(map(len, words)) <= 11
    assert chart.columns[0].y >= trend.TOP


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("at most 15 min", 900),
        ("<= 15 min", 900),
        ("at most 1 h 30 min", 5_400),
        ("at most 1h 30m old", 5_400),
        ("90 s", 90),
        ("at most 2.5 d", 216_000),
        ("1 w", 604_800),
        ("consistent", None),
        ("5 minutes", None),
    ],
)
def test_budgets_are_read_from_their_words(text: str, seconds: float | None) -> None:
    assert seconds_in(text) == seconds
