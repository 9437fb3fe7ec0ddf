"""What is shown of a value."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from pgrescue.drill.values import shown

HIDDEN = "(a column's own value: not shown)"


@pytest.mark.parametrize(
    ("value", "computed", "own"),
    [
        (None, "NULL", "NULL"),
        (True, "true", f"a truth value {HIDDEN}"),
        (1_234_567, "1,234,567", f"a number {HIDDEN}"),
        (-1, "-1", f"a number {HIDDEN}"),
        (0.1, "0.1", f"a number {HIDDEN}"),
        (float("inf"), "inf", f"a number {HIDDEN}"),
        (Decimal("12.50"), "12.50", f"a number {HIDDEN}"),
        (Decimal("NaN"), "NaN", f"a number {HIDDEN}"),
        (Decimal("7" * 100), "7.777778e+99", f"a number {HIDDEN}"),
        (datetime(2026, 11, 22, 8, 15, tzinfo=UTC), "2026-11-22 08:15:00+00:00", f"a time {HIDDEN}"),
        (date(2026, 11, 22), "2026-11-22", f"a date or time {HIDDEN}"),
        (time(8, 15), "08:15:00", f"a date or time {HIDDEN}"),
        (timedelta(minutes=-90), "-1 h 30 min", f"a duration {HIDDEN}"),
    ],
)
def test_what_is_computed_is_shown_and_what_is_a_rows_own_is_not(value: object, computed: str, own: str) -> None:
    assert shown(value, is_column=False) == computed
    assert shown(value, is_column=True) == own


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "a text of 0 characters (not shown)"),
        ("geheim" * 1000, "a text of 6,000 characters (not shown)"),
        (b"geheim", "a value of type bytes (not shown)"),
        (["geheim"], "a value of type list (not shown)"),
        ({"geheim": "geheim"}, "a value of type dict (not shown)"),
        (UUID(int=471_147), "a value of type UUID (not shown)"),
    ],
)
def test_all_else_is_never_shown(value: object, words: str) -> None:
    for is_column in (False, True):
        assert shown(value, is_column=is_column) == words
