"""The shared words."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrescue.model import Lsn, Owner, PgVersion, RecoveredTo, Verdict

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
