"""Durations as people write them: `90 min`, `1h 30m`, `2 d`."""

from __future__ import annotations

import re
from datetime import timedelta
from fractions import Fraction

UNITS = ("s", "sec", "min", "m", "h", "d", "w")
_MICROSECONDS = {
    "s": 10**6,
    "sec": 10**6,
    "min": 60 * 10**6,
    "m": 60 * 10**6,
    "h": 3600 * 10**6,
    "d": 86400 * 10**6,
    "w": 7 * 86400 * 10**6,
}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([^\W\d_]*)\s*")
_MOST_DIGITS = 12
_MOST_SHOWN = 60
PATTERN = (
    r"^\s*[0-9]{1,9}(\.[0-9]{1,6})?\s*(s|sec|min|m|h|d|w)(\s*[0-9]{1,9}(\.[0-9]{1,6})?\s*(s|sec|min|m|h|d|w))*\s*$"
)
"""What a duration looks like, for a JSON Schema."""
EXPECTED = f'a duration such as "90 min" or "1h 30m" is expected, with the units {", ".join(UNITS)}'
"""What to say about anything else."""
# Beyond this, no drill waits, and no arithmetic with the present time overflows.
_LONGEST = timedelta(days=36525)


def parse_duration(text: str) -> timedelta:
    """Read numbers with units, each unit at most once; raise ValueError, which names the units, for anything else."""
    total, place = Fraction(0), 0
    seen: set[int] = set()
    stripped = text.strip()
    while place < len(stripped) or not seen:
        part = _PART.match(stripped, place)
        if part is None or len(part[1]) > _MOST_DIGITS:
            raise _refused(stripped, "is no duration")
        size = _MICROSECONDS.get(part[2])
        if size is None:
            raise _refused(stripped, f"has the unknown unit {part[2]!r}" if part[2] else "has a number without a unit")
        if size in seen:
            raise _refused(stripped, "has the same unit twice")
        seen.add(size)
        total += Fraction(part[1]) * size
        place = part.end()
    if total > _LONGEST / timedelta(microseconds=1):
        raise _refused(stripped, "is longer than 100 years")
    return timedelta(microseconds=round(total))


def _refused(text: str, why: str) -> ValueError:
    cut = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
    return ValueError(f"{cut!r} {why}, {EXPECTED}")


def shown(duration: timedelta) -> str:
    """Return it in words that `parse_duration` reads, such as `1 h 30 min`; a negative one has a minus before it."""
    if duration < timedelta(0):
        return f"-{shown(-duration)}"
    minutes, seconds = divmod(duration, timedelta(minutes=1))
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    parts = [f"{count} {unit}" for count, unit in ((days, "d"), (hour, "h"), (minute, "min")) if count]
    if seconds or not parts:
        fraction = f"{seconds.seconds}.{seconds.microseconds:06d}".rstrip("0").rstrip(".")
        parts.append(f"{fraction} s")
    return " ".join(parts)
