"""How a number of a drill went from run to run, as the geometry of a chart with columns, axes and a budget."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from pgrescue.drilled import AssertionKind, DrillOutcome
from pgrescue.report.drill_words import MARKS
from pgrescue.report.measures import Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from pgrescue.drilled import DrillReport, PastRun
    from pgrescue.report.measures import Measure

# In units of the drawing, which is about as wide as a telephone.
WIDTH, HEIGHT = 330, 200
LEFT, RIGHT, TOP, BOTTOM = 54, 326, 22, 170
_MOST_COLUMNS = 30
_MOST_DATES = 4
_WIDEST, _NARROWEST = 26.0, 2.0
_MOST_TICKS = 5
_WIDEST_WORDS = 32
# A budget so far above every run would press the columns to the ground: it is told, not drawn.
_FAR = 6.0
_DAY_S = 86_400
_NICE: dict[Unit, tuple[float, ...]] = {
    Unit.SECONDS: (
        *(0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30),
        *(60 * step for step in (1, 2, 5, 10, 15, 30)),
        *(3600 * step for step in (1, 2, 3, 6, 12)),
        *(_DAY_S * step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 10_000)),
    ),
    Unit.BYTES: tuple(step << shift for shift in range(0, 60, 10) for step in (1, 2, 5, 10, 20, 50, 100, 200, 500)),
}
_UNITS = ((_DAY_S, "d"), (3600, "h"), (60, "min"))
_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": _DAY_S, "w": 7 * _DAY_S}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(sec|s|min|m|h|d|w)\b")


@dataclass(frozen=True)
class Column:
    """A run: where its column stands; `height` is 0 where the number is not known.

    `kind` is `past` or `now`, or what the assertion on the number came to in this run. `sign` stands over it where
    that is no pass, and in its place where there is no number.
    """

    x: float
    y: float
    width: float
    height: float
    kind: str
    sign: str
    title: str

    @property
    def middle(self) -> float:
        """Where its mark and its date are centred."""
        return self.x + self.width / 2


@dataclass(frozen=True)
class Mark:
    """A place on an axis, or the height of a line across the columns, with its words."""

    at: float
    words: str


@dataclass(frozen=True)
class Chart:
    """A number over the runs, the oldest on the left and this one on the right.

    `median` is that of the earlier runs, `budget` the most that is allowed; `told` says the same in words. `kind` is
    that of the column of this run.
    """

    title: str
    columns: tuple[Column, ...]
    ticks: tuple[Mark, ...]
    dates: tuple[Mark, ...]
    median: Mark | None
    budget: Mark | None
    told: str

    @property
    def kind(self) -> str:
        """What the assertion on the number came to, or `now`."""
        return self.columns[-1].kind


@dataclass(frozen=True)
class _Run:
    time: datetime
    outcome: DrillOutcome
    value: float | None


def chart_of(
    drill: DrillReport, measure: Measure, of: Callable[[PastRun], float | None], *, budget: AssertionKind | None = None
) -> Chart | None:
    """Return the chart of a measure, None where no run has it; `budget` is the assertion that bounds it."""
    past = [_Run(run.time, run.outcome, of(run)) for run in drill.past]
    runs = [*past[-(_MOST_COLUMNS - 1) :], _Run(drill.started, drill.outcome, measure.now)]
    values = [run.value for run in runs if run.value is not None]
    if not values:
        return None
    own = next((one for one in drill.assertions if one.kind is budget), None)
    limit, words = (None, "") if own is None else (seconds_in(own.expected), own.expected)
    drawn = limit if limit is not None and limit <= _FAR * max(values) else None
    steps = _steps(max([*values, drawn or 0.0]), measure.unit)
    top = steps[-1]

    def height_of(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * min(max(value / top, 0.0), 1.0)

    return Chart(
        title=measure.title,
        columns=_columns(runs, measure.unit, height_of, None if own is None else own.outcome),
        ticks=tuple(Mark(height_of(step), _tick(step, top, measure.unit)) for step in steps),
        dates=_dates(runs),
        median=Mark(height_of(median(measure.before)), "median") if measure.before else None,
        budget=None
        if drawn is None
        else Mark(height_of(drawn), textwrap.shorten(words, _WIDEST_WORDS, placeholder="…")),
        told=_told(measure, words, is_drawn=drawn is not None),
    )


def seconds_in(text: str) -> float | None:
    """Return the duration in words such as `at most 1 h 30 min`; None where there is none."""
    parts = _PART.findall(text)
    return sum(float(number) * _SECONDS[unit] for number, unit in parts) if parts else None


def _steps(most: float, unit: Unit) -> tuple[float, ...]:
    """Return the values for an axis from 0 to at least `most`, round ones and few."""
    step = next((step for step in _NICE[unit] if most / step <= _MOST_TICKS), most / _MOST_TICKS)
    number = max(1, -int(-most // step))
    return tuple(step * count for count in range(number + 1))


def _tick(value: float, top: float, unit: Unit) -> str:
    """Return a round value without needless digits: `0`, `90 s`, `1.5 h`, `20 GiB`; times all in the unit of `top`."""
    if not value:
        return "0"
    if unit is Unit.BYTES:
        amount, _, name = unit.shown(value).partition(" ")
        return f"{amount.removesuffix('.0')} {name}"
    size, name = next((item for item in _UNITS if top >= 2 * item[0]), (1, "s"))
    return f"{value / size:g} {name}"


def _columns(
    runs: Sequence[_Run], unit: Unit, height_of: Callable[[float], float], outcome: DrillOutcome | None
) -> tuple[Column, ...]:
    """Return a column for each run; `outcome` is that of the assertion on the number in this run."""
    place = (RIGHT - LEFT) / len(runs)
    width = min(_WIDEST, max(_NARROWEST, place * 0.7))
    columns = []
    for number, run in enumerate(runs):
        is_now = number == len(runs) - 1
        kind = "past" if not is_now else "now" if outcome is None else outcome.value
        judged = run.outcome if run.value is None else outcome if is_now else None
        sign = "" if judged in {None, DrillOutcome.PASSED} else MARKS[judged]
        y = BOTTOM if run.value is None else min(height_of(run.value), BOTTOM - 1.0)
        value = "not known" if run.value is None else unit.shown(run.value)
        title = f"{'this run' if is_now else f'{run.time:%F %H:%M %Z}'}: {value} (drill {run.outcome.value})"
        x = LEFT + place * (number + 0.5) - width / 2
        columns.append(Column(x, y, width, BOTTOM - y, kind, sign, title))
    return tuple(columns)


def _dates(runs: Sequence[_Run]) -> tuple[Mark, ...]:
    """Return the days of a few runs, evenly spread; this run is the last."""
    place, last = (RIGHT - LEFT) / len(runs), len(runs) - 1
    chosen = sorted({round(last * number / (_MOST_DATES - 1)) for number in range(_MOST_DATES)})
    of = "%H:%M" if (runs[-1].time - runs[0].time).total_seconds() < _DAY_S else "%b %d"
    return tuple(
        Mark(LEFT + place * (number + 0.5), "now" if number == last else f"{runs[number].time:{of}}")
        for number in chosen
    )


def _told(measure: Measure, budget: str, *, is_drawn: bool) -> str:
    usual = f"the median of earlier runs is {measure.usual}" if measure.usual else "no earlier run has it"
    parts = [f"This run: {measure.shown}{f', {measure.change}' if measure.change else ''}; {usual}."]
    if budget:
        parts.append(f"Budget: {budget}{'' if is_drawn else ', which is not drawn'}.")
    return " ".join(parts)
