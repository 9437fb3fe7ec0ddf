"""What the one value of a query should be: `== 5`, `>= 1000`, `between 1 and 9`, `!= null`, `<= 5 min`."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pgrescue.drill.duration import parse_duration, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Value = Decimal | str | bool | timedelta | datetime | date | None
"""What can be written behind a comparison; text stands in single quotes."""


class Comparison(StrEnum):
    """How a value is compared."""

    EQUAL = "=="
    UNEQUAL = "!="
    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="
    BETWEEN = "between"

    @property
    def is_order(self) -> bool:
        """Tell whether it asks which one is greater, which some values never are."""
        return self not in {Comparison.EQUAL, Comparison.UNEQUAL}


class IncomparableError(ValueError):
    """Two values whose types cannot be compared."""


_FUNCTIONS: Mapping[Comparison, Callable[[Any, Any], bool]] = {
    Comparison.EQUAL: operator.eq,
    Comparison.UNEQUAL: operator.ne,
    Comparison.LESS: operator.lt,
    Comparison.AT_MOST: operator.le,
    Comparison.MORE: operator.gt,
    Comparison.AT_LEAST: operator.ge,
}
_WORDS = {"true": True, "false": False, "null": None}
_NUMBER = re.compile(r"[-+]?[0-9]{1,40}(\.[0-9]{1,40})?([eE][-+]?[0-9]{1,3})?")
_QUOTED = r"'(?:[^']|'')*'"
_BETWEEN = re.compile(rf"between\s+({_QUOTED}|[^'\s][^']*?)\s+and\s+({_QUOTED}|[^'\s][^']*)", re.DOTALL)
_SIMPLE = re.compile(r"(==|!=|<=|>=|<(?!>)|>)\s*(\S.*)", re.DOTALL)
_FOREIGN = {"=": "==", "<>": "!=", "≠": "!=", "≤": "<=", "≥": ">=", "is not": "!=", "is": "=="}
_SHAPE = "a comparison is expected, such as == 5, >= 1000, != null, == 'paid', <= 5 min or between 1 and 9"
_LONGEST = 1000
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True)
class Expectation:
    """A comparison and the value to compare with; `upper` is the upper bound of `between`, whose both ends count."""

    comparison: Comparison
    value: Value
    upper: Value = None

    @classmethod
    def parse(cls, text: str) -> Expectation:
        """Read `OP VALUE` or `between A and B`; raise ValueError, which says what to write, for anything else."""
        stripped = text.strip()
        if len(stripped) > _LONGEST:
            msg = f"a text of {len(stripped)} characters, a comparison of at most {_LONGEST} is expected"
            raise ValueError(msg)
        if match := _BETWEEN.fullmatch(stripped):
            return _between(parse_value(match[1]), parse_value(match[2]), text)
        if match := _SIMPLE.fullmatch(stripped):
            comparison, value = Comparison(match[1]), parse_value(match[2])
            if comparison.is_order and isinstance(value, bool | None):
                msg = f"{text!r} asks which is greater, true, false and null can only be equal: write == or !="
                raise ValueError(msg)
            return cls(comparison, value)
        raise ValueError(_no_comparison(stripped))

    def __str__(self) -> str:
        if self.comparison is Comparison.BETWEEN:
            return f"between {written(self.value)} and {written(self.upper)}"
        return f"{self.comparison} {written(self.value)}"

    def judge(self, seen: object) -> bool:
        """Tell whether a value that psycopg returned is as expected; raise IncomparableError where nobody can tell.

        NULL is only what `== null` and `!= null` are about: no other comparison holds for it. NaN equals nothing, and
        is neither less nor more. Text is ordered by its code points.
        """
        if seen is None or self.value is None:
            return self._judge_null(seen)
        if self.comparison is Comparison.BETWEEN:
            return _holds(Comparison.AT_LEAST, seen, self.value) and _holds(Comparison.AT_MOST, seen, self.upper)
        return _holds(self.comparison, seen, self.value)

    def _judge_null(self, seen: object) -> bool:
        if self.value is not None:
            return False
        return (seen is None) is (self.comparison is Comparison.EQUAL)


def parse_value(text: str) -> Value:
    """Read a number, `'text'` (with '' for a quote in it), true, false, null, a duration, or an ISO date or time."""
    stripped = text.strip()
    if re.fullmatch(_QUOTED, stripped):
        return stripped[1:-1].replace("''", "'")
    if stripped in _WORDS:
        return _WORDS[stripped]
    if _NUMBER.fullmatch(stripped):
        return Decimal(stripped)
    try:
        if _DAY.fullmatch(stripped):
            return date.fromisoformat(stripped)
        if _DAY.match(stripped):
            return datetime.fromisoformat(stripped)
    except ValueError as error:
        msg = f"{stripped!r} is no time: {error}"
        raise ValueError(msg) from None
    if stripped[:1].isdigit():
        return parse_duration(stripped)
    bare = stripped.strip("\"'")
    msg = (
        f"{stripped!r} is no number, duration, date, time, true, false or null; if it is a text, it is written in "
        f"single quotes: '{bare}'"
    )
    raise ValueError(msg)


def written(value: Value) -> str:
    """Return a value as `parse_value` reads it."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            quoted = value.replace("'", "''")
            return f"'{quoted}'"
        case timedelta():
            return shown(value)
        case datetime():
            return value.isoformat(sep=" ")
        case date():
            return value.isoformat()
        case Decimal():
            return str(value)


def _between(lower: Value, upper: Value, text: str) -> Expectation:
    if isinstance(lower, bool | None) or type(lower) is not type(upper):
        msg = f"{text!r} needs two numbers, two texts, two durations, two dates or two times"
        raise ValueError(msg)
    try:
        is_empty = _FUNCTIONS[Comparison.MORE](lower, upper)
    except TypeError:
        msg = f"{text!r} has a time with a zone and one without"
        raise ValueError(msg) from None
    if is_empty:
        msg = f"{text!r} has its greater end first, and nothing lies between"
        raise ValueError(msg)
    return Expectation(Comparison.BETWEEN, lower, upper)


def _no_comparison(text: str) -> str:
    for foreign, ours in _FOREIGN.items():
        if re.match(rf"{re.escape(foreign)}(?![=<>])(?!\w)", text):
            rest = text.removeprefix(foreign).strip()
            return f'{text!r} begins with {foreign!r}, {_SHAPE}: write "{ours} {rest}"'
    try:
        value = parse_value(text)
    except ValueError:
        return f"{text!r} is no comparison, {_SHAPE}"
    return f'{text!r} has no comparison, {_SHAPE}: write "== {written(value)}"'


def _holds(comparison: Comparison, seen: object, expected: Value) -> bool:
    left, right = _comparable(seen, expected)
    if isinstance(left, Decimal) and left.is_nan():
        return comparison is Comparison.UNEQUAL
    return _FUNCTIONS[comparison](left, right)


def _comparable(seen: object, expected: Value) -> tuple[object, object]:  # noqa: C901 - one line for each pair
    """Return both as values of one type; raise IncomparableError where there is none."""
    match seen, expected:
        case bool(), bool():
            return seen, expected
        case (bool(), _) | (_, bool()):
            pass
        case int() | float() | Decimal(), Decimal():
            # The shortest decimal number that is this float, so that 0.1 is 0.1.
            return Decimal(repr(seen)) if isinstance(seen, float) else Decimal(seen), expected
        case (str(), str()) | (timedelta(), timedelta()):
            return seen, expected
        case UUID(), str():
            return seen, _uuid(expected)
        case datetime(), datetime():
            if (seen.utcoffset() is None) is (expected.utcoffset() is None):
                return seen, expected
            raise IncomparableError(_ZONES[seen.utcoffset() is None])
        case datetime(), date():
            if seen.utcoffset() is None:
                return seen, datetime.combine(expected, time())
            msg = "a time with a zone cannot be compared with a day, which begins elsewhere in each zone: write a time"
            raise IncomparableError(msg)
        case date(), date() if not isinstance(expected, datetime):
            return seen, expected
        case _:
            pass
    msg = f"{_kind(seen)} cannot be compared with {_kind(expected)}"
    raise IncomparableError(msg)


_ZONES = {
    True: "a time without a zone cannot be compared with one that has a zone: leave the zone out, or cast the column",
    False: "a time with a zone cannot be compared with one that has none: add the zone, as in +00:00",
}


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        msg = "a UUID cannot be compared with a text that is none"
        raise IncomparableError(msg) from None


def _kind(value: object) -> str:
    """Name a value's type in words, never the value itself."""
    match value:
        case bool():
            return "true or false"
        case int() | float() | Decimal():
            return "a number"
        case str():
            return "a text"
        case timedelta():
            return "a duration"
        case datetime():
            return "a time"
        case date():
            return "a day"
        case None:
            return "null"
        case _:
            return f"a value of type {type(value).__name__}"
