from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrescue.errors import SnapshotError
from pgrescue.model import Lsn, Timeline
from pgrescue.snapshot.backup_label import parse_backup_label

from .conftest import DATA

if TYPE_CHECKING:
    from collections.abc import Callable

LABEL = (DATA / "backup_label_17.txt").read_text()


@pytest.mark.parametrize(("major", "start"), [(15, "0/2000028"), (17, "0/900028"), (18, "0/2000028")])
def test_labels_of_pg_basebackup(major: int, start: str, sample: Callable[[str], bytes]) -> None:
    label = parse_backup_label(sample(f"backup_label_{major}.txt").decode())
    assert label.start_lsn == Lsn.parse(start)
    assert label.checkpoint > label.start_lsn
    assert label.method == "streamed"
    assert not label.from_standby
    assert label.start_timeline == 1
    assert label.label == f"nightly {major}"
    assert label.start_time is not None
    assert label.start_time.utcoffset() == timedelta(0)
    assert (label.stop_lsn, label.stop_segment, label.stop_timeline) == (None, None, None)
    assert not label.is_incremental


def test_a_history_file_of_the_archive(sample: Callable[[str], bytes]) -> None:
    label = parse_backup_label(sample("history_17.backup").decode())
    assert label.start_lsn == Lsn.parse("0/E00028")
    assert label.stop_lsn == Lsn.parse("0/E00120")
    assert label.stop_segment == "00000001000000000000000E"
    assert label.stop_timeline == Timeline(1)
    assert label.label == "hist"


def test_carriage_returns_are_tolerated() -> None:
    assert parse_backup_label(LABEL.replace("\n", "\r\n")) == parse_backup_label(LABEL)


def test_a_missing_last_line_end_is_tolerated() -> None:
    assert parse_backup_label(LABEL.rstrip("\n")) == parse_backup_label(LABEL)


def test_a_backup_from_a_standby_and_an_old_method() -> None:
    label = parse_backup_label(LABEL.replace("primary", "standby").replace("streamed", "pg_start_backup"))
    assert label.from_standby
    assert label.method == "pg_start_backup"


def test_an_incremental_backup() -> None:
    label = parse_backup_label(LABEL + "INCREMENTAL FROM LSN: 0/7000028\nINCREMENTAL FROM TLI: 1\n")
    assert label.is_incremental
    assert label.incremental_from_lsn == Lsn.parse("0/7000028")
    assert label.incremental_from_timeline == 1


def test_the_two_lines_that_the_server_needs_are_enough() -> None:
    label = parse_backup_label("\n".join(LABEL.split("\n")[:2]))
    assert label.method is None
    assert label.label is None
    assert label.start_time_text is None
    assert label.start_timeline == 1


@pytest.mark.parametrize(
    ("zone", "offset"),
    [
        ("UTC", timedelta(0)),
        ("GMT", timedelta(0)),
        ("+05", timedelta(hours=5)),
        ("-0330", -timedelta(hours=3, minutes=30)),
        ("CET", None),
    ],
)
def test_zones(zone: str, offset: timedelta | None) -> None:
    text = f"2026-01-02 03:04:05 {zone}"
    label = parse_backup_label(LABEL.replace("2026-11-22 08:18:51 UTC", text))
    assert label.start_time_text == text
    expected = None if offset is None else datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(offset))
    assert label.start_time == expected


def test_an_impossible_time_stays_text() -> None:
    label = parse_backup_label(LABEL.replace("2026-11-22", "2026-13-99"))
    assert label.start_time is None
    assert label.start_time_text == "2026-13-99 08:18:51 UTC"


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("START WAL LOCATION", "BEGIN", "no line 'START WAL LOCATION'"),
        ("CHECKPOINT LOCATION", "CHECK", "no line 'CHECKPOINT LOCATION'"),
        ("0/900028 (file", "0/900028(file", "'START WAL LOCATION' that makes no sense"),
        ("000000010000000000000009", "00000001000000000000", "'START WAL LOCATION' that makes no sense"),
        ("0/900080", "0-900080", "'CHECKPOINT LOCATION' that makes no sense"),
        ("START TIMELINE: 1", "START TIMELINE: 2", "'START TIMELINE' that makes no sense"),
        ("START TIMELINE: 1", "START TIMELINE: 0", "'START TIMELINE' that makes no sense"),
        ("START TIMELINE: 1", "START TIMELINE: 99999999999", "'START TIMELINE' that makes no sense"),
        ("primary", "moon", "'BACKUP FROM' that makes no sense"),
    ],
)
def test_lines_that_make_no_sense_are_named(before: str, after: str, words: str) -> None:
    assert before in LABEL
    with pytest.raises(SnapshotError, match=words) as caught:
        parse_backup_label(LABEL.replace(before, after))
    assert ".backup file" in caught.value.hint


LSNS = st.integers(0, (1 << 64) - 1).map(Lsn)


@given(
    LSNS,
    LSNS,
    st.integers(1, (1 << 32) - 1),
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1),
    st.datetimes(timezones=st.just(UTC), min_value=datetime(1000, 1, 1)),  # noqa: DTZ001 (hypothesis wants naive)
)
def test_what_was_written_is_read(start: Lsn, checkpoint: Lsn, timeline: int, name: str, time: datetime) -> None:
    time = time.replace(microsecond=0)
    label = parse_backup_label(
        f"START WAL LOCATION: {start} (file {timeline:08X}0000000000000001)\n"
        f"CHECKPOINT LOCATION: {checkpoint}\nBACKUP METHOD: streamed\nBACKUP FROM: standby\n"
        f"START TIME: {time:%Y-%m-%d %H:%M:%S UTC}\nLABEL: {name}\nSTART TIMELINE: {timeline}\n"
    )
    assert (label.start_lsn, label.checkpoint, label.start_timeline) == (start, checkpoint, timeline)
    assert label.label == name
    assert label.start_time == time


@given(st.integers(0, len(LABEL) - 1), st.characters())
def test_one_changed_character_raises_nothing_else(position: int, character: str) -> None:
    with contextlib.suppress(SnapshotError):
        parse_backup_label(LABEL[:position] + character + LABEL[position + 1 :])


@given(st.text())
def test_any_text_raises_nothing_else(text: str) -> None:
    with pytest.raises(SnapshotError):
        parse_backup_label(text)
