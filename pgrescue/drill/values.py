"""What may be shown of a value that a query gave: never what stands in a row."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal

from pgrescue.drill.duration import shown as shown_duration

_HIDDEN = "not shown"
_MOST_DIGITS = 60


def shown(value: object, *, is_column: bool) -> str:
    """Return words for a value: numbers, truth values and times that the query computed, such as counts, as they are.

    Text is never shown, nor is what `is_column`: a column's own value, which is the content of a row.
    """
    match value:
        case None:
            return "NULL"
        case bool():
            kind, text = "a truth value", str(value).lower()
        case int() | float() | Decimal():
            kind, text = "a number", f"{value:,}" if isinstance(value, int) else str(value)
            if len(text) > _MOST_DIGITS:
                text = f"{value:.6e}"
        case datetime():
            kind, text = "a time", value.isoformat(sep=" ")
        case date() | time():
            kind, text = "a date or time", value.isoformat()
        case timedelta():
            kind, text = "a duration", shown_duration(value)
        case str():
            return f"a text of {len(value):,} characters ({_HIDDEN})"
        case _:
            return f"a value of type {type(value).__name__} ({_HIDDEN})"
    return f"{kind} (a column's own value: {_HIDDEN})" if is_column else text
