"""The numbers by which a drill is followed from run to run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import median
from typing import TYPE_CHECKING, assert_never

from pgrescue.report.shown import duration, size

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgrescue.drilled import DrillReport, PastRun

# As the regressions do: more runs would tell of a backup that has long grown.
_RUNS = 10
_SAME = 0.005
_TIMES = 10.0


class Unit(StrEnum):
    """What a measure counts."""

    SECONDS = "seconds"
    BYTES = "bytes"

    def shown(self, value: float) -> str:
        """Return a value with its unit, as a person reads it."""
        match self:
            case Unit.SECONDS:
                return duration(value)
            case Unit.BYTES:
                return size(value)
            case _:
                assert_never(self)


@dataclass(frozen=True)
class Measure:
    """A number of this run, None where it is not known, and the same of the last runs that have it, oldest first."""

    title: str
    unit: Unit
    now: float | None
    before: tuple[float, ...]

    @property
    def shown(self) -> str:
        """The number of this run in words."""
        return "not known" if self.now is None else self.unit.shown(self.now)

    @property
    def usual(self) -> str:
        """The median of the runs before, and of how many it is; empty without any."""
        if not self.before:
            return ""
        runs = "the last run" if len(self.before) == 1 else f"the last {len(self.before)} runs"
        return f"{self.unit.shown(median(self.before))} ({runs})"

    @property
    def usually(self) -> str:
        """The median and the change from it in a few words; empty without any."""
        if not self.before:
            return ""
        return f"usually {self.unit.shown(median(self.before))}{f' ({self.change})' if self.change else ''}"

    @property
    def change(self) -> str:
        """How far this run is from that median: `+84 %`, `12 times`; empty where one of them is not known."""
        if self.now is None or not self.before or (usual := median(self.before)) <= 0:
            return ""
        ratio = self.now / usual
        if ratio >= _TIMES:
            return f"{ratio:,.0f} times"
        if abs(ratio - 1) < _SAME:
            return "no change"
        return f"{(ratio - 1) * 100:+.0f} %".replace("-", "\N{MINUS SIGN}")


def measures(drill: DrillReport) -> tuple[Measure, ...]:
    """Return what the reports compare with earlier runs: two times, a size and an age."""
    newest = None if drill.newest_commit is None else drill.newest_commit.age_seconds
    whole = _measure("The whole drill", Unit.SECONDS, drill.seconds, drill, _whole_seconds)
    if drill.recovery_seconds is None:
        whole = replace(whole, before=())  # a drill that broke off is quick, which is nothing to be glad of
    return (
        _measure("Recovery, to an open server", Unit.SECONDS, drill.recovery_seconds, drill, recovery_seconds),
        whole,
        _measure("Size of the data directory", Unit.BYTES, drill.size_bytes, drill, size_bytes),
        _measure("Age of the newest commit", Unit.SECONDS, newest, drill, newest_commit_age),
    )


def recovery_seconds(run: PastRun) -> float | None:
    """Return how long a run took to an open server."""
    return run.recovery_seconds


def size_bytes(run: PastRun) -> float | None:
    """Return the size of the data directory of a run."""
    return run.size_bytes


def newest_commit_age(run: PastRun) -> float | None:
    """Return how old the newest commit was at the begin of a run."""
    return run.newest_commit_age_seconds


def _whole_seconds(run: PastRun) -> float | None:
    """Return how long a run took, unless it broke off: that says nothing about how long one takes."""
    return None if run.recovery_seconds is None else run.seconds


def _measure(
    title: str, unit: Unit, now: float | None, drill: DrillReport, of: Callable[[PastRun], float | None]
) -> Measure:
    before = [value for value in map(of, drill.past) if value is not None]
    return Measure(title, unit, now, tuple(before[-_RUNS:]))
