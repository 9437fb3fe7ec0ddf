"""The report of a drill as one page for a browser, which needs nothing beside it, runs nothing and holds no secret."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pgrescue
from pgrescue.drilled import AssertionKind, DrillOutcome
from pgrescue.report import trend
from pgrescue.report.drill_words import MARKS, MEANINGS, advice, meaning, tally
from pgrescue.report.measures import measures, newest_commit_age, recovery_seconds, size_bytes
from pgrescue.report.page import bars_of, damage_of, groups_of, rendered
from pgrescue.report.shown import duration
from pgrescue.report.words import STRATEGIES, VERDICTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.drilled import Assertion, DrillReport, DrillRun, IgnoredFinding, PastRun
    from pgrescue.report.drill_words import Advice
    from pgrescue.report.page import Bar, Damage, Group
    from pgrescue.report.trend import Chart

# What keeps the page small enough to be opened and read: drill.json has everything.
_MOST_ASSERTIONS = 300
_MOST_IGNORED = 200
_MOST_LINES = 100
_MOST_BARS = 200
_MOST_PAST = 100
_MOST_TABLES = 200
_MOST_DATABASES = 200
_BEFORE_UNIT = re.compile(r"(?<=[0-9]) (?=[^\W\d(]|%)")


@dataclass(frozen=True)
class _Tile:
    """A number that matters: what it is, and how it compares; `outcome` is that of the assertion on it, if any."""

    title: str
    value: str
    words: tuple[str, ...] = ()
    outcome: DrillOutcome | None = None


@dataclass(frozen=True)
class _Rows:
    """A table that was counted, now and in the last run that counted it."""

    database: str
    table: str
    now: int
    before: int | None

    @property
    def change(self) -> str:
        """How far it is from the last time; empty without one."""
        return "" if not self.before else f"{(self.now / self.before - 1) * 100:+.1f} %".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class _Part:
    """All that the page shows of a drill; lists are cut, and what is left out is counted from `drill`."""

    drill: DrillReport
    meaning: str
    mark: str
    tally: str
    about_verdict: str
    about_strategy: str
    tiles: tuple[_Tile, ...]
    advice: tuple[Advice, ...]
    regressions: tuple[str, ...]
    assertions: tuple[Assertion, ...]
    groups: tuple[Group, ...]
    ignored: tuple[IgnoredFinding, ...]
    damage: Damage
    phases: tuple[Bar, ...]
    steps: tuple[Bar, ...]
    charts: tuple[Chart, ...]
    runs: tuple[PastRun, ...]
    rows: tuple[_Rows, ...]
    recovery: str
    change: str


def drill_page(run: DrillRun, *, program: str) -> str:
    """Return the drills of a run as one HTML page, which is valid UTF-8 and refers to nothing outside of itself.

    `program` is how a shell finds pgrescue, so that the commands shown can be pasted. Of very long lists only the
    beginning is shown, and the page says so.
    """
    values: dict[str, Any] = {
        "run": run,
        "meaning": meaning(run),
        "parts": tuple(_part(drill, run, program) for drill in run.drills),
        "notes": run.notes[:_MOST_LINES],
        "databases_most": _MOST_DATABASES,
        "marks": MARKS,
        "version": pgrescue.__version__,
        "trend": trend,
    }
    return rendered("drill.html.j2", values)


def _part(drill: DrillReport, run: DrillRun, program: str) -> _Part:
    rescue, recovery = drill.rescue, measures(drill)[0]
    return _Part(
        drill=drill,
        meaning=MEANINGS[drill.outcome],
        mark=MARKS[drill.outcome],
        tally=tally(drill),
        about_verdict="" if rescue is None else VERDICTS[rescue.verdict],
        about_strategy="" if rescue is None else STRATEGIES.get(rescue.strategy, ""),
        tiles=tuple(_tiles(drill)),
        advice=tuple(advice(drill, file=run.file, program=program)),
        regressions=drill.regressions[:_MOST_LINES],
        assertions=drill.assertions[:_MOST_ASSERTIONS],
        groups=groups_of(drill.findings),
        ignored=drill.ignored[:_MOST_IGNORED],
        damage=damage_of(drill.blocks),
        phases=bars_of(drill.phases[:_MOST_BARS]),
        steps=() if rescue is None else bars_of(rescue.steps[:_MOST_BARS]),
        charts=_charts(drill),
        runs=(*drill.past[-(_MOST_PAST - 1) :], drill.as_past()),
        rows=tuple(_rows(drill))[:_MOST_TABLES],
        recovery=recovery.shown,
        change=recovery.change,
    )


def _tiles(drill: DrillReport) -> Iterator[_Tile]:
    """Yield the numbers that are asked for first, each with what was asked of it."""
    recovery, _, size, newest = measures(drill)
    if drill.rescue is not None:
        yield _tile(drill, "Verdict", drill.rescue.verdict.value, AssertionKind.REQUIRE)
    for title, measure, kind in (
        ("Recovery time", recovery, AssertionKind.RTO),
        ("Age of the newest commit", newest, AssertionKind.RPO),
        ("Data directory", size, None),
    ):
        if measure.now is not None or any(one.kind is kind for one in drill.assertions):
            yield _tile(drill, title, measure.shown, kind, usual=measure.usually)
    yield _Tile("Whole drill", duration(drill.seconds))


def _tile(drill: DrillReport, title: str, value: str, kind: AssertionKind | None, *, usual: str = "") -> _Tile:
    asked = next((one for one in drill.assertions if one.kind is kind), None)
    words = ("" if asked is None else f"expected {asked.expected}", usual)
    # A unit stays beside its number, however narrow the tile is.
    joined = (_BEFORE_UNIT.sub("\N{NO-BREAK SPACE}", text) for text in words if text)
    return _Tile(title, value, tuple(joined), None if asked is None else asked.outcome)


def _charts(drill: DrillReport) -> tuple[Chart, ...]:
    recovery, _, size, newest = measures(drill)
    charts = (
        trend.chart_of(drill, recovery, recovery_seconds, budget=AssertionKind.RTO),
        trend.chart_of(drill, newest, newest_commit_age, budget=AssertionKind.RPO),
        trend.chart_of(drill, size, size_bytes),
    )
    return tuple(chart for chart in charts if chart is not None)


def _rows(drill: DrillReport) -> Iterator[_Rows]:
    """Yield the tables that were counted, those that lost most at first."""
    rows = []
    for name, now in drill.rows.items():
        database, _, table = name.partition(" ")
        before = next((run.rows[name] for run in reversed(drill.past) if name in run.rows), None)
        rows.append(_Rows(database, table, now, before))
    yield from sorted(rows, key=lambda one: one.now / one.before if one.before else 1.0)
