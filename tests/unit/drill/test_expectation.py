"""What a query's value should be, and whether it is."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrescue.drill.expectation import Comparison, Expectation, IncomparableError, Value, parse_value, written

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
LOCAL_NOON = datetime(2026, 11, 22, 12, 0)  # noqa: DTZ001 - what psycopg makes of a column without zone
SOME_UUID = UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("== 5", "== 5"),
        ("==5", "== 5"),
        ("  >=   1000 ", ">= 1000"),
        ("!= -1.50", "!= -1.50"),
        ("< 1e3", "< 1E+3"),
        ("== 'paid'", "== 'paid'"),
        ("== ''", "== ''"),
        ("== 'it''s'", "== 'it''s'"),
        ("!= null", "!= null"),
        ("== true", "== true"),
        ("== false", "== false"),
        ("<= 90 min", "<= 1 h 30 min"),
        ("> 2026-11-22", "> 2026-11-22"),
        (">= 2026-11-22T08:15:00Z", ">= 2026-11-22 08:15:00+00:00"),
        (">= 2026-11-22 08:15:00+01:00", ">= 2026-11-22 08:15:00+01:00"),
        ("== 2026-11-22 08:15", "== 2026-11-22 08:15:00"),
        ("between 1 and 9", "between 1 and 9"),
        ("between 'a and b' and 'c'", "between 'a and b' and 'c'"),
        ("between 5 min and 1 h", "between 5 min and 1 h"),
        ("between 2026-01-01 and 2026-12-31", "between 2026-01-01 and 2026-12-31"),
        ("between 1 and 1", "between 1 and 1"),
    ],
)
def test_a_comparison_is_read_and_written(text: str, canonical: str) -> None:
    read = Expectation.parse(text)
    assert str(read) == canonical
    assert Expectation.parse(canonical) == read


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a comparison is expected"),
        ("1000", 'write "== 1000"'),
        ("'paid'", "write \"== 'paid'\""),
        ("null", 'write "== null"'),
        ("= 5", 'write "== 5"'),
        ("<> 5", 'write "!= 5"'),
        ("≤ 5", 'write "<= 5"'),
        ("is null", 'write "== null"'),
        ("is not null", 'write "!= null"'),
        ("isnt 5", "is no comparison"),
        ("== ", "a comparison is expected"),
        ("===5", "single quotes"),
        ("=> 5", "a comparison is expected"),
        ("paid", "a comparison is expected"),
        ("== paid", "single quotes: 'paid'"),
        ('== "paid"', "single quotes: 'paid'"),
        ("== 'a' 'b'", "single quotes"),
        ("== 'a", "single quotes"),
        ("== 5 6", "without a unit"),
        ("== 1,000", "without a unit"),
        ("== 5 years", "s, sec, min, m, h, d, w"),
        ("== 2026-13-01", "is no time: month"),
        ("== 2026-11-22 25:00", "is no time: hour"),
        ("== 2026-11-22 and", "is no time"),
        ("> true", "can only be equal"),
        ("<= null", "can only be equal"),
        ("== nan", "is no number"),
        ("between 9 and 1", "nothing lies between"),
        ("between 1 and 'a'", "two numbers, two texts"),
        ("between null and null", "two numbers"),
        ("between true and true", "two numbers"),
        ("between 2026-11-22 and 2026-11-22 08:15", "two dates or two times"),
        ("between 2026-11-22 08:15 and 2026-11-23 08:15Z", "one without"),
        ("between 1", "a comparison is expected"),
        ("between 1 and", "a comparison is expected"),
        (f"== '{'x' * 1000}'", "at most 1000"),
        (f"between{' ' * 900}1", "a comparison is expected"),
        (f"between 1{' ' * 100_000}2", "at most 1000"),
    ],
)
def test_what_is_none_is_an_error_that_says_what_to_write(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        Expectation.parse(text)


@pytest.mark.parametrize(
    ("text", "holds", "fails"),
    [
        ("== 5", [5, 5.0, Decimal("5.00")], [4, 5.1, Decimal("5.01"), None, math.nan, Decimal("NaN"), math.inf]),
        ("!= 5", [4, math.nan], [5, 5.0, None]),
        ("== 0.1", [0.1, Decimal("0.1")], [0.1 + 1e-12]),
        ("== 12345678901234567890123", [12345678901234567890123], [12345678901234567890124]),
        ("< 5", [4, 4.99, -math.inf], [5, 6, None, math.nan, math.inf]),
        ("<= 5", [4, 5], [6, None, math.nan]),
        ("> 5", [6, math.inf], [5, 4, None, math.nan]),
        (">= 5", [5, 6], [4, None, math.nan]),
        ("between 1 and 3", [1, 2, 3, 2.5], [0, 3.01, None, math.nan]),
        ("== 'paid'", ["paid"], ["Paid", "paid ", "", None]),
        ("!= 'paid'", ["open"], ["paid", None]),
        ("< 'b'", ["a", "B", ""], ["b", "c", None]),
        ("between 'a' and 'c'", ["a", "bbb", "c"], ["ca", "A"]),
        ("== true", [True], [False, None]),
        ("!= true", [False], [True, None]),
        ("== null", [None], [0, "", False, NOON, SOME_UUID, [], b""]),
        ("!= null", [0, "", False, NOON, SOME_UUID, [], b"", math.nan], [None]),
        ("<= 5 min", [timedelta(minutes=5), timedelta(0), timedelta(-1)], [timedelta(minutes=5, microseconds=1), None]),
        ("== 2026-11-22", [date(2026, 11, 22)], [date(2026, 11, 23), None]),
        (">= 2026-11-22", [date(2026, 11, 22), LOCAL_NOON], [date(2026, 11, 21), None]),
        ("< 2026-11-22", [datetime(2026, 11, 21, 23, 59)], [datetime(2026, 11, 22)]),  # noqa: DTZ001 - as above
        ("== 2026-11-22 12:00Z", [NOON, NOON.astimezone(timezone(timedelta(hours=5)))], [NOON + timedelta(0, 1), None]),
        ("> 2026-11-22 12:30+01:00", [NOON], [NOON - timedelta(minutes=30)]),
        ("== 2026-11-22 12:00", [LOCAL_NOON], [LOCAL_NOON + timedelta(0, 1)]),
        (f"== '{SOME_UUID}'", [SOME_UUID, str(SOME_UUID)], [UUID(int=1), None]),
        (f"== '{str(SOME_UUID).upper()}'", [SOME_UUID], [str(SOME_UUID)]),
    ],
)
def test_a_value_is_judged(text: str, holds: list[object], fails: list[object]) -> None:
    expectation = Expectation.parse(text)
    assert [value for value in holds if not expectation.judge(value)] == []
    assert [value for value in fails if expectation.judge(value)] == []


@pytest.mark.parametrize(
    ("text", "seen", "words"),
    [
        ("== 5", "5", "a text cannot be compared with a number"),
        ("== '5'", 5, "a number cannot be compared with a text"),
        ("== 5", True, "true or false cannot be compared with a number"),
        ("== 1", False, "true or false"),
        ("== true", 1, "a number cannot be compared with true or false"),
        ("== true", "t", "a text cannot be compared with true or false"),
        ("<= 5 min", 5, "a number cannot be compared with a duration"),
        ("<= 5", timedelta(5), "a duration cannot be compared with a number"),
        ("== 2026-11-22 12:00Z", LOCAL_NOON, "a time without a zone"),
        ("== 2026-11-22 12:00", NOON, "a time with a zone"),
        (">= 2026-11-22", NOON, "write a time"),
        (">= 2026-11-22 12:00", date(2026, 11, 22), "a day cannot be compared with a time"),
        ("== '2026-11-22'", date(2026, 11, 22), "a day cannot be compared with a text"),
        ("== 'x'", SOME_UUID, "a UUID"),
        ("== 'x'", [1], "type list"),
        ("!= 'x'", b"secret", "type bytes"),
        ("== 5", time(5), "type time"),
        ("between 1 and 3", "2", "a text cannot be compared with a number"),
    ],
)
def test_types_that_cannot_be_compared_are_told_without_their_values(text: str, seen: object, words: str) -> None:
    with pytest.raises(IncomparableError, match=re.escape(words)) as caught:
        Expectation.parse(text).judge(seen)
    assert "secret" not in str(caught.value)


@given(
    st.one_of(
        st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30, places=9),
        st.text(max_size=300),
        st.booleans(),
        st.none(),
        st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=36525)),
        st.dates(min_value=date(1000, 1, 1)),
        st.datetimes(min_value=datetime(1000, 1, 1)),  # noqa: DTZ001 - as above
        st.datetimes(min_value=datetime(1000, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - as above
    )
)
def test_what_is_written_can_be_read(value: Value) -> None:
    assert parse_value(written(value)) == value
    expectation = Expectation(Comparison.EQUAL, value)
    assert expectation.judge(value)
    assert Expectation.parse(str(expectation)) == expectation


@given(st.text(alphabet=" =!<>'between and 0123456789.eE+-:TZminhdnulltrue\n", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read = Expectation.parse(text)
    except ValueError:
        return
    assert Expectation.parse(str(read)) == read
    assert read.judge(None) is (read == Expectation(Comparison.EQUAL, None))


@given(st.one_of(st.integers(), st.floats(), st.decimals(), st.text(), st.booleans(), st.none(), st.datetimes()))
def test_any_value_is_judged_or_cannot_be_compared(seen: object) -> None:
    for text in ("== 5", "!= 'x'", "< 2026-11-22", "between 1 h and 2 h", "== null", "== false"):
        try:
            assert isinstance(Expectation.parse(text).judge(seen), bool)
        except IncomparableError:
            assert seen is not None
