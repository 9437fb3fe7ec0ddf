from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrescue.errors import SnapshotError
from pgrescue.model import Lsn, Timeline
from pgrescue.snapshot.control import parse_control
from pgrescue.snapshot.wal import (
    SegmentName,
    SegmentState,
    parse_long_page_header,
    segment_state,
    segments_between,
)

from .conftest import DATA

MIB = 1 << 20
SIZES = st.sampled_from([1 << power for power in range(20, 31)])
TIMELINES = st.integers(1, (1 << 32) - 1).map(Timeline)
REAL = sorted(DATA.glob("wal_*.bin"))
HEADER = (DATA / "wal_17_000000010000000000000009.bin").read_bytes()
CONTROL = parse_control((DATA / "pg_control_17.bin").read_bytes())


@given(st.integers(0, (1 << 64) - 1).map(Lsn), TIMELINES, SIZES)
def test_a_position_lies_in_the_file_of_its_name(lsn: Lsn, timeline: Timeline, size: int) -> None:
    name = SegmentName.from_lsn(lsn, timeline, size)
    start = name.start_lsn(size)
    assert start.position <= lsn.position < start.position + size
    assert SegmentName.parse(str(name)) == name
    assert SegmentName.from_number(name.number(size), timeline, size) == name


def test_names_as_postgresql_writes_them() -> None:
    name = SegmentName.from_lsn(Lsn.parse("16/B374D848"), Timeline(2), 16 * MIB)
    assert str(name) == "0000000200000016000000B3"
    assert str(SegmentName.parse("0000000100000000000000FF").next(16 * MIB)) == "000000010000000100000000"
    assert str(SegmentName.parse("000000010000000000000FFF").next(1 * MIB)) == "000000010000000100000000"


def test_partial_names() -> None:
    name = SegmentName.parse("0000000200000016000000B3.partial")
    assert name.partial
    assert str(name) == "0000000200000016000000B3.partial"
    assert str(name.complete()) == "0000000200000016000000B3"
    assert str(name.next(16 * MIB)) == "0000000200000016000000B4"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00000002.history",
        "0000000200000016000000b3",
        "0000000200000016000000B3.gz",
        "0000000200000016000000B3.00000028.backup",
        "0000000200000016000000B3\n",
        "archive_status",
        "\u0660" * 24,
    ],
)
def test_other_names_are_none(text: str) -> None:
    assert SegmentName.find(text) is None
    with pytest.raises(SnapshotError):
        SegmentName.parse(text)


@given(st.text(max_size=30))
def test_any_text_is_found_or_not(text: str) -> None:
    found = SegmentName.find(text)
    assert found is None or str(found) == text


def test_a_name_that_the_segment_size_cannot_have() -> None:
    with pytest.raises(SnapshotError, match="64 MiB"):
        SegmentName.parse("0000000100000000000000FF").start_lsn(64 * MIB)


@pytest.mark.parametrize("size", [0, 1, 3 * MIB, 2 << 30, -MIB])
def test_no_such_segment_size(size: int) -> None:
    with pytest.raises(SnapshotError, match="segment size"):
        SegmentName.from_lsn(Lsn(0), Timeline(1), size)


def test_there_is_no_file_after_the_last() -> None:
    last = SegmentName.from_lsn(Lsn((1 << 64) - 1), Timeline(1), 16 * MIB)
    with pytest.raises(SnapshotError, match="64 bits"):
        last.next(16 * MIB)


@given(st.integers(0, 1 << 40), st.integers(0, 50), TIMELINES, SIZES)
def test_names_between_ascend_one_by_one(start: int, count: int, timeline: Timeline, size: int) -> None:
    first = SegmentName.from_lsn(Lsn(start), timeline, size)
    last = SegmentName.from_number(first.number(size) + count, timeline, size)
    names = list(segments_between(first, last, size))
    assert names[0] == first
    assert names[-1] == last
    assert len(names) == count + 1
    assert all(before.next(size) == after for before, after in pairwise(names))


def test_no_names_between_timelines_or_backwards() -> None:
    first, second = SegmentName.parse("000000010000000000000002"), SegmentName.parse("000000020000000000000003")
    with pytest.raises(SnapshotError, match="different timelines"):
        segments_between(first, second, 16 * MIB)
    with pytest.raises(SnapshotError, match="comes before"):
        segments_between(first.next(16 * MIB), first, 16 * MIB)


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_real_first_pages(path: object) -> None:
    assert hasattr(path, "stem")
    _, major, text = path.stem.split("_")
    control = parse_control((DATA / f"pg_control_{major}.bin").read_bytes())
    header = parse_long_page_header((DATA / f"{path.stem}.bin").read_bytes())
    assert header is not None
    assert header.major == int(major)
    assert header.block_size == 8192
    name = SegmentName.parse(text)
    assert header.page_address == name.start_lsn(control.wal_segment_size)
    state = segment_state(
        name,
        header,
        system_identifier=control.system_identifier,
        major=control.major,
        segment_size=control.wal_segment_size,
    )
    assert state is SegmentState.VALID


def _judge(name: str, data: bytes) -> SegmentState:
    return segment_state(
        SegmentName.parse(name),
        parse_long_page_header(data),
        system_identifier=CONTROL.system_identifier,
        major=17,
        segment_size=MIB,
    )


def _changed(offset: int, code: str, value: int) -> bytes:
    data = bytearray(HEADER)
    struct.pack_into(f"<{code}", data, offset, value)
    return bytes(data)


NAME = "000000010000000000000009"


@pytest.mark.parametrize(
    ("name", "data", "state"),
    [
        (NAME, HEADER, SegmentState.VALID),
        (f"{NAME}.partial", HEADER, SegmentState.VALID),
        ("000000020000000000000009", HEADER, SegmentState.VALID),
        ("00000001000000000000000A", HEADER, SegmentState.RECYCLED),
        (NAME, _changed(4, "I", 2), SegmentState.RECYCLED),
        (NAME, bytes(40), SegmentState.UNUSED),
        (NAME, HEADER[:39], SegmentState.UNUSED),
        (NAME, HEADER[::-1], SegmentState.UNUSED),
        (NAME, _changed(2, "H", 0), SegmentState.UNUSED),
        (NAME, _changed(24, "Q", 1), SegmentState.OTHER_SYSTEM),
        (NAME, _changed(0, "H", 0xD113), SegmentState.OTHER_MAJOR),
        (NAME, _changed(32, "I", 16 * MIB), SegmentState.OTHER_SEGMENT_SIZE),
    ],
)
def test_a_file_is_judged_by_its_first_page(name: str, data: bytes, state: SegmentState) -> None:
    assert _judge(name, data) is state


@given(st.binary(max_size=60))
def test_any_bytes_are_a_header_or_none(data: bytes) -> None:
    parse_long_page_header(data)
    parse_long_page_header(HEADER[:4] + data)


@given(st.integers(0, 39), st.integers(0, 255))
def test_changed_headers_are_judged_without_an_error(offset: int, value: int) -> None:
    data = bytearray(HEADER)
    data[offset] = value
    assert _judge(NAME, bytes(data)) in SegmentState
