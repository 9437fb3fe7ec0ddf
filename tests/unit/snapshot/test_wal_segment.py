from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrescue.model import Lsn
from pgrescue.snapshot.wal import SegmentName, SegmentState
from pgrescue.snapshot.wal_segment import SegmentReport, check_segment

from .segments import BLOCK, FACTS, MIB, segment, switch_record, switched

TEXT = "000000020000000000000003"
NAME = SegmentName.parse(TEXT)
START = 3 * MIB
PAGES = MIB // BLOCK


def check(data: bytes, name: SegmentName = NAME, **changes: Any) -> SegmentReport:
    return check_segment(name, data, **{**FACTS, **changes})


def test_a_whole_segment() -> None:
    report = check(segment(TEXT))
    assert report.is_whole
    assert report.problem == ""
    assert report.valid_until == Lsn(START + MIB)
    assert not report.ends_in_switch


def test_a_partial_segment_is_judged_by_its_complete_name() -> None:
    assert check(segment(TEXT), SegmentName.parse(f"{TEXT}.partial")).is_whole


@given(st.integers(1, PAGES - 1), st.sampled_from([0, 1, 2, 8]), st.integers(1, 255))
def test_any_damaged_page_header_ends_what_is_valid(number: int, byte: int, flip: int) -> None:
    data = bytearray(segment(TEXT))
    at = {0: 0, 1: 1, 2: 3, 8: 8}[byte]  # magic, magic, a reserved half of the flags, address
    data[number * BLOCK + at] ^= flip
    report = check(bytes(data))
    assert report.state is SegmentState.VALID
    assert report.valid_until == Lsn(START + number * BLOCK)
    assert report.problem == f"is valid only up to {report.valid_until}"
    assert not report.is_whole
    assert report.holds(report.valid_until)
    assert not report.holds(Lsn(report.valid_until.position + 1))


def test_the_contents_of_an_earlier_use_behind_the_valid_pages() -> None:
    data = segment(TEXT)[: 5 * BLOCK] + segment("000000020000000000000001")[5 * BLOCK :]
    assert check(data).valid_until == Lsn(START + 5 * BLOCK)
    assert not check(data).ends_in_switch


def test_the_first_segment_of_a_timeline_begins_with_its_parents_pages() -> None:
    assert check(segment(TEXT, timeline_of=lambda number: 1 if number < 7 else 2)).is_whole


@pytest.mark.parametrize("timelines", [(2, 1), (1, 3)])
def test_timelines_go_neither_back_nor_beyond_the_name(timelines: tuple[int, int]) -> None:
    report = check(segment(TEXT, timeline_of=lambda number: timelines[number >= 7]))
    assert report.valid_until == Lsn(START + 7 * BLOCK)


@pytest.mark.parametrize(("pages", "at"), [(1, 40), (1, BLOCK - 24), (9, 24), (9, 800), (9, -8), (9, -16)])
def test_a_switch_completes_a_segment(pages: int, at: int) -> None:
    report = check(switched(TEXT, pages=pages, at=at))
    assert report.ends_in_switch
    assert report.is_whole
    assert report.valid_until == Lsn(START + pages * BLOCK)
    assert report.problem == ""


@pytest.mark.parametrize(
    "record",
    [switch_record(crc=0x5A5A5A5A), switch_record(info=0x50), switch_record(manager=1), b"\x01" * 24],
)
def test_zeros_without_a_switch_are_missing_wal(record: bytes) -> None:
    report = check(switched(TEXT, pages=9, at=800, record=record))
    assert not report.ends_in_switch
    assert not report.is_whole


def test_no_switch_where_too_little_is_written() -> None:
    data = bytearray(segment(TEXT, pages=1))
    data[40:BLOCK] = b"\x01".ljust(BLOCK - 40, b"\0")
    assert not check(bytes(data)).is_whole


def test_something_behind_a_switch_is_no_end() -> None:
    data = bytearray(switched(TEXT, pages=9, at=800))
    data[-1] = 1
    assert not check(bytes(data)).is_whole


@pytest.mark.parametrize("size", [0, 1, 39, 40, BLOCK - 1, BLOCK, MIB - 1])
def test_a_short_segment_is_valid_as_far_as_it_goes(size: int) -> None:
    report = check(segment(TEXT)[:size])
    assert report.valid_until == Lsn(START + size // BLOCK * BLOCK)
    assert not report.is_whole
    assert not report.holds(Lsn(START))
    assert report.problem == f"has {size} bytes instead of {MIB}"


def test_a_short_segment_with_a_switch_is_not_whole() -> None:
    assert not check(switched(TEXT, pages=9, at=24)[:-BLOCK]).is_whole


def test_a_long_segment() -> None:
    report = check(segment(TEXT) + b"\0")
    assert report.problem == f"has {MIB + 1} bytes instead of {MIB}"
    assert report.valid_until == Lsn(START + MIB)


@pytest.mark.parametrize(
    ("data", "changes", "state"),
    [
        (bytes(MIB), {}, SegmentState.UNUSED),
        (segment(TEXT), {"system_identifier": 1}, SegmentState.OTHER_SYSTEM),
        (segment(TEXT), {"major": 16}, SegmentState.OTHER_MAJOR),
        (segment("000000020000000000000001"), {}, SegmentState.RECYCLED),
        (segment("000000030000000000000003"), {}, SegmentState.RECYCLED),
        (segment(TEXT) * 2, {"segment_size": 2 * MIB}, SegmentState.OTHER_SEGMENT_SIZE),
    ],
)
def test_the_first_page_is_judged_first(data: bytes, changes: dict[str, Any], state: SegmentState) -> None:
    report = check(data, **changes)
    assert report.state is state
    assert report.problem == str(state)
    assert report.valid_until == NAME.start_lsn(changes.get("segment_size", MIB))
    assert not report.is_whole


@pytest.mark.parametrize("block_size", [0, 3, 512, 8191, 1 << 17])
def test_a_block_size_that_no_server_has(block_size: int) -> None:
    data = bytearray(segment(TEXT))
    struct.pack_into("<I", data, 36, block_size)
    report = check(bytes(data))
    assert report.valid_until == Lsn(START)
    assert report.problem == "is valid only up to 0/300000"


@given(st.binary(max_size=3 * BLOCK), st.integers(0, 3 * BLOCK))
def test_no_content_is_an_error(noise: bytes, at: int) -> None:
    whole = segment(TEXT)
    data = (whole[:at] + noise + whole[at + len(noise) :])[:MIB]
    report = check(data)
    assert Lsn(START) <= report.valid_until <= Lsn(START + MIB)
