"""What is worse than in earlier runs of a drill, in words. It changes no outcome: budgets in the drill file do."""

from __future__ import annotations

from datetime import timedelta
from math import floor
from statistics import median
from typing import TYPE_CHECKING, Final

from pgrescue.drill.duration import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pgrescue.drilled import PastRun

MEDIAN_OF: Final = 10
"""How many runs a median is of: nightly drills of a week and a half, so that slow growth does not add up."""
FEWEST_RUNS: Final = 3
"""With fewer, one odd run would be the measure."""
SLOWER: Final = 1.5
"""Drills on shared runners vary by a third from run to run; half as long again is something else."""
SLOWER_BY_S: Final = 5.0
"""Of small databases, a container's start alone takes a few seconds more or less."""
SMALLER: Final = 0.8
"""Databases grow. VACUUM FULL or a dropped table may take a fifth away; more should be known to somebody."""
FEWER_ROWS: Final = 0.5
"""Of a table: clearing old rows away is ordinary, losing every other one is worth a look."""
STALER: Final = 2.0
"""A backup that is a day late doubles the age of its newest commit."""
STALER_BY_S: Final = 3600.0
"""Where WAL is archived all the time, ages are minutes, and a quiet hour is nothing."""
MOST_TABLES: Final = 10
"""So many tables are named one by one."""
_HOUR_S: Final = 3600
_KIB: Final = 1024


def regressions(now: PastRun, past: Sequence[PastRun]) -> tuple[str, ...]:
    """Return what is worse than before, one sentence each; `past` are earlier runs of the same drill, oldest first."""
    return (*_verdict(now, past), *_recovery(now, past), *_size(now, past), *_staleness(now, past), *_tables(now, past))


def _verdict(now: PastRun, past: Sequence[PastRun]) -> Iterator[str]:
    before = next((run.verdict for run in reversed(past) if run.verdict is not None), None)
    if now.verdict is not None and before is not None and not now.verdict.is_at_least(before):
        yield f"the verdict is {now.verdict.value}, the last time it was {before.value}"


def _recovery(now: PastRun, past: Sequence[PastRun]) -> Iterator[str]:
    usual, of = _median(run.recovery_seconds for run in past)
    seconds = now.recovery_seconds
    if usual is not None and seconds is not None and seconds > usual * SLOWER and seconds > usual + SLOWER_BY_S:
        yield f"recovery took {_duration(seconds)}, {_against(seconds, usual)} {of} ({_duration(usual)})"


def _size(now: PastRun, past: Sequence[PastRun]) -> Iterator[str]:
    usual, of = _median(run.size_bytes for run in past)
    size = now.size_bytes
    if usual is not None and size is not None and size < usual * SMALLER:
        yield f"the data directory has {_size_text(size)}, {_share(size, usual)} of {of} ({_size_text(usual)})"


def _staleness(now: PastRun, past: Sequence[PastRun]) -> Iterator[str]:
    usual, of = _median(run.newest_commit_age_seconds for run in past)
    age = now.newest_commit_age_seconds
    if usual is not None and age is not None and age > usual * STALER and age > usual + STALER_BY_S:
        yield f"the newest commit is {_duration(age)} old, {_against(age, usual)} {of} ({_duration(usual)})"


def _tables(now: PastRun, past: Sequence[PastRun]) -> Iterator[str]:
    """Compare with the last count of each table; a drill that did not recover has counted nothing, and says so."""
    if now.recovery_seconds is None:
        return
    words = [*_shrunk(now.rows, _last_counts(past)), *_gone(now.rows, past)]
    yield from words[:MOST_TABLES]
    if len(words) > MOST_TABLES:
        further = len(words) - MOST_TABLES
        yield f"{further:,} further tables have fewer than half of their rows, or were not counted"


def _last_counts(past: Sequence[PastRun]) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for run in past[-MEDIAN_OF:]:
        counts.update(run.rows)
    return counts


def _shrunk(rows: Mapping[str, int], before: Mapping[str, int]) -> Iterator[str]:
    for table, count in sorted(rows.items()):
        if table in before and count < before[table] * FEWER_ROWS:
            yield (f"{table} has {_rows(count)}, {_share(count, before[table])} of the last time's {before[table]:,}")


def _gone(rows: Mapping[str, int], past: Sequence[PastRun]) -> Iterator[str]:
    last = next((run for run in reversed(past) if run.recovery_seconds is not None), None)
    for table, count in sorted(() if last is None else last.rows.items()):
        if table not in rows:
            yield f"{table} was not counted: it is gone, or nothing asks for it any more (it had {_rows(count)})"


def _median(values: Iterable[float | None]) -> tuple[float | None, str]:
    """Return the median of the last known values and how it is called; None where there are too few."""
    known = [value for value in values if value is not None][-MEDIAN_OF:]
    return median(known) if len(known) >= FEWEST_RUNS else None, f"the median of the last {len(known)} runs"


def _against(value: float, usual: float) -> str:
    return f"{value / usual:.1f} times" if usual > 0 else "against"


def _share(value: float, usual: float) -> str:
    # Never rounded up to the limit that it fell short of.
    return f"{floor(100 * value / usual)} %"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _duration(seconds: float) -> str:
    """Round to seconds, from an hour on to minutes."""
    unit_s = 60 if abs(seconds) >= _HOUR_S else 1
    return shown(timedelta(seconds=round(seconds / unit_s) * unit_s))


def _size_text(size_bytes: float) -> str:
    amount = size_bytes
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if amount < _KIB:
            return f"{amount:.0f} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= _KIB
    return f"{amount:.1f} TiB"
