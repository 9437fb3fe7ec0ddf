"""The shared words."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrescue.model import (
    Immediate,
    Latest,
    Lsn,
    Owner,
    PgVersion,
    RecoveredTo,
    UntilLsn,
    UntilTime,
    Verdict,
    VerifyLevel,
    parse_until,
)

positions = st.integers(0, (1 << 64) - 1)


@given(positions)
def test_an_lsn_is_read_as_it_is_written(position: int) -> None:
    assert Lsn.parse(str(Lsn(position))) == Lsn(position)


@given(positions, positions)
def test_lsns_are_ordered_as_positions(one: int, other: int) -> None:
    assert (Lsn(one) < Lsn(other)) is (one < other)
    assert (Lsn(one) >= Lsn(other)) is (one >= other)
    assert max(Lsn(one), Lsn(other)).position == max(one, other)


@pytest.mark.parametrize(
    ("text", "position"),
    [("16/B374D848", 0x16B374D848), ("0/0", 0), ("ffffffff/FFFFFFFF", (1 << 64) - 1), (" 1/2\n", 1 << 32 | 2)],
)
def test_notations_of_an_lsn(text: str, position: int) -> None:
    assert Lsn.parse(text).position == position


@pytest.mark.parametrize("text", ["", "16", "16/", "/1", "1/2/3", "0x1/2", "123456789/0", "g/0", "-1/0", "1 /2"])
def test_what_is_no_lsn(text: str) -> None:
    with pytest.raises(ValueError, match="is not an LSN"):
        Lsn.parse(text)


@pytest.mark.parametrize("position", [-1, 1 << 64])
def test_an_lsn_has_64_bits(position: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        Lsn(position)


def test_only_the_zero_position_is_invalid() -> None:
    assert not Lsn(0)
    assert Lsn(1)


@pytest.mark.parametrize(
    ("text", "version", "shown"),
    [
        ("17", PgVersion(17), "17"),
        ("17.11", PgVersion(17, 11), "17.11"),
        ("postgres (PostgreSQL) 17.11 (Debian 17.11-1.pgdg120+1)", PgVersion(17, 11), "17.11"),
        ("18beta1", PgVersion(18), "18"),
        ("pg_resetwal (PostgreSQL) 18.0", PgVersion(18, 0), "18.0"),
    ],
)
def test_versions(text: str, version: PgVersion, shown: str) -> None:
    assert PgVersion.parse(text) == version
    assert str(version) == shown


def test_what_holds_no_version() -> None:
    with pytest.raises(ValueError, match="no PostgreSQL version"):
        PgVersion.parse("not found")


ORDER = [Verdict.CONSISTENT, Verdict.BEST_EFFORT, Verdict.DAMAGED, Verdict.FAILED]


@pytest.mark.parametrize("verdict", Verdict)
@pytest.mark.parametrize("other", Verdict)
def test_a_verdict_promises_what_lesser_ones_do(verdict: Verdict, other: Verdict) -> None:
    assert verdict.is_at_least(other) is (ORDER.index(verdict) <= ORDER.index(other))


def test_an_owner_is_shown_as_docker_takes_it() -> None:
    assert str(Owner(999, 1000)) == "999:1000"


def test_values_are_frozen() -> None:
    for value, name in ((Lsn(1), "position"), (Owner(1, 2), "uid"), (RecoveredTo(), "lsn")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, None)


NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("latest", Latest()),
        (" Immediate\n", Immediate()),
        ("16/b374d848", UntilLsn(Lsn(0x16B374D848))),
        ("2026-11-22 12:00:00Z", UntilTime(NOON)),
        ("2026-11-22 12:00 UTC", UntilTime(NOON)),
        ("2026-11-22T12:00:00UTC", UntilTime(NOON)),
        ("2026-11-22 13:00+01", UntilTime(NOON)),
        ("2026-11-22 13:00:00+0100", UntilTime(NOON)),
        ("2026-11-22 06:30:00-05:30", UntilTime(NOON)),
        ("2026-11-22 12:00:00.000001+00:00", UntilTime(NOON + timedelta(microseconds=1))),
    ],
)
def test_where_replay_is_to_end(text: str, expected: object) -> None:
    assert parse_until(text) == expected


def test_a_target_is_written_as_it_is_read() -> None:
    far = UntilTime(datetime(2026, 11, 22, 12, 0, 0, 5, tzinfo=timezone(timedelta(hours=5, minutes=45))))
    for until in (Latest(), Immediate(), UntilLsn(Lsn(1 << 40 | 5)), far):
        assert parse_until(str(until)) == until


@pytest.mark.parametrize("text", ["2026-11-22 12:00:00", "2026-11-22", "2026-11-22T12:00"])
def test_a_time_without_a_zone_could_mean_any_hour(text: str) -> None:
    with pytest.raises(ValueError, match="has no zone"):
        parse_until(text)


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "16/", "12:00Z", "now", "5", "2026-13-01 00:00Z", "2026-11-22 25:00Z"]
)
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(ValueError, match="is neither"):
        parse_until(text)


def test_a_level_covers_those_before_it() -> None:
    levels = list(VerifyLevel)
    for one in levels:
        for other in levels:
            assert one.covers(other) is (levels.index(one) >= levels.index(other))
