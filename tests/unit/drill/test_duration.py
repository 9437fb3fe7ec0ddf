"""Durations as people write them."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrescue.drill.duration import PATTERN, UNITS, parse_duration, shown


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0 s", 0),
        ("5s", 5),
        ("5 sec", 5),
        ("90 min", 5400),
        ("90m", 5400),
        ("1h 30m", 5400),
        ("1h30m", 5400),
        ("30 min 1 h", 5400),
        ("  2 d  ", 172800),
        ("1 w", 604800),
        ("1.5 h", 5400),
        ("0.25 s", 0.25),
        ("36525 d", 36525 * 86400),
    ],
)
def test_numbers_with_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)
    assert re.search(PATTERN, text) is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no duration"),
        ("  ", "is no duration"),
        ("5", "a number without a unit"),
        ("1h 30", "a number without a unit"),
        ("5:30", "a number without a unit"),
        ("5 1", "a number without a unit"),
        ("5 minutes", "unknown unit 'minutes'"),
        ("5 M", "unknown unit 'M'"),
        ("5 µs", "unknown unit 'µs'"),
        ("min", "is no duration"),
        ("-5 min", "is no duration"),
        ("5 min ago", "is no duration"),
        ("5min.", "is no duration"),
        ("1,5 h", "a number without a unit"),
        ("\u0665 min", "is no duration"),
        ("5 m 3 min", "the same unit twice"),
        ("1 s 1 sec", "the same unit twice"),
        ("36526 d", "longer than 100 years"),
        ("999999999999 w", "longer than 100 years"),
        ("9999999999999 s", "is no duration"),
    ],
)
def test_anything_else_is_an_error_that_names_the_units(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        parse_duration(text)
    assert ", ".join(UNITS) in str(caught.value)


def test_a_long_text_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="…"):
        parse_duration("1 " * 500_000)
    with pytest.raises(ValueError, match="…"):
        parse_duration("1" * 500_000)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.5, "0.5 s"),
        (59, "59 s"),
        (60, "1 min"),
        (5400, "1 h 30 min"),
        (86400, "1 d"),
        (7 * 86400 + 3661, "7 d 1 h 1 min 1 s"),
        (-90, "-1 min 30 s"),
    ],
)
def test_they_are_shown_in_words(seconds: float, text: str) -> None:
    assert shown(timedelta(seconds=seconds)) == text


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=36525)))
def test_what_is_shown_can_be_read(duration: timedelta) -> None:
    assert parse_duration(shown(duration)) == duration
    assert re.search(PATTERN, shown(duration)) is not None


@given(st.text(alphabet="0123456789. smhdwin", max_size=20))
def test_the_pattern_of_the_schema_refuses_nothing_that_is_read(text: str) -> None:
    try:
        parse_duration(text)
    except ValueError:
        return
    assert re.search(PATTERN, text) is not None
