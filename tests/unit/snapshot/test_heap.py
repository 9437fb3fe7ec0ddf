from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pgrescue.errors import SnapshotError
from pgrescue.model import Lsn
from pgrescue.snapshot import relation as relation_module
from pgrescue.snapshot.heap import HeapSlots, SlotState, look_up, read_heap
from pgrescue.snapshot.relation import RelationFile
from tests.unit.snapshot.relations import BLOCK, MAJORS, healthy

if TYPE_CHECKING:
    from pathlib import Path

TABLES = ("customer", "visit", "document")


def read_all(relation: RelationFile) -> list[tuple[object, ...]]:
    """Return pageinspect's columns of every line pointer."""
    rows: list[tuple[object, ...]] = []
    for chunk in read_heap(relation):
        items, tuples = chunk.items, chunk.tuples
        header_of = dict(zip(chunk.normal.tolist(), range(len(chunk.normal)), strict=True))
        for place in range(len(items)):
            row: tuple[object, ...] = (None,) * 5
            if (at := header_of.get(place)) is not None:
                ctid = f"({tuples.ctid_block[at]},{tuples.ctid_offset[at]})"
                row = (tuples.xmin[at], tuples.xmax[at], ctid, tuples.infomask[at], tuples.infomask2[at])
            line = (chunk.blocks[place], items.offset[place], items.flags[place], items.position[place])
            lsn = str(Lsn(int(chunk.pages.lsns[items.page[place]])))
            rows.append((*line, items.length[place], *row, lsn))
    return rows


@pytest.mark.parametrize("major", MAJORS)
@pytest.mark.parametrize("table", TABLES)
def test_every_line_pointer_is_as_pageinspect_says(major: int, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = healthy(major)
    if not sample.heap:
        pytest.skip(f"PostgreSQL {major} here has no pageinspect")
    monkeypatch.setattr(relation_module, "_CHUNK_BYTES", 7 * BLOCK)
    assert read_all(sample.files[table]) == sample.heap[table]


@pytest.mark.parametrize("major", MAJORS)
@pytest.mark.parametrize("table", TABLES)
def test_the_map_knows_the_same_and_is_small(major: int, table: str) -> None:
    relation = healthy(major).files[table]
    slots = HeapSlots(relation)
    assert slots.size_bytes < relation.block_count() * BLOCK * 0.011
    for chunk in read_heap(relation):
        blocks, offsets = chunk.blocks, chunk.items.offset
        assert np.array_equal(slots.state(blocks, offsets), chunk.items.flags)
        assert np.array_equal(slots.page_lsn(blocks), chunk.pages.lsns[chunk.items.page])
        shuffled = np.random.default_rng(1).permutation(len(blocks))[:500]
        headers = slots.tuples(blocks[shuffled], offsets[shuffled])
        expected = np.zeros(len(blocks), dtype=np.uint32)
        expected[chunk.normal] = chunk.tuples.xmin
        assert np.array_equal(headers.xmin, expected[shuffled])
        last = chunk.items.counts + 1
        past = slots.state(chunk.pages.blocks, last)
        assert set(past.tolist()) == {SlotState.PAST_LINE_POINTERS}
        assert np.array_equal(look_up(relation, blocks, offsets).states, chunk.items.flags)


def page(lsn: int, flags: tuple[int, ...], *, version: int = 4) -> bytes:
    """Make a page whose line pointers have these flags; those of 1 share one tuple."""
    lower = 24 + 4 * len(flags)
    tuple_at = BLOCK - 48
    header = struct.pack("<IIHHHHHHI", lsn >> 32, lsn & 0xFFFFFFFF, 0, 0, lower, tuple_at, BLOCK, BLOCK | version, 0)
    pointers = (tuple_at | flag << 15 | 40 << 17 if flag == 1 else 1 | flag << 15 for flag in flags)
    body = struct.pack("<IIIHHHHHB", 700, 701, 0, 0, 5, 6, 0x8003, 0x0900, 24)
    return (header + struct.pack(f"<{len(flags)}I", *pointers)).ljust(tuple_at, b"\0") + body.ljust(48, b"\0")


@pytest.fixture
def odd(tmp_path: Path) -> RelationFile:
    """Three files of three blocks at most: a zero page, an unsound one, and what fills no page at the end."""
    path = tmp_path / "500"
    path.write_bytes(page(1 << 33, (0, 1, 2, 3, 1)) + bytes(BLOCK) + page(90, (1,), version=3))
    (tmp_path / "500.1").write_bytes(page(70, ()) + page(80, (1,) * 226) + page(81, (1,)))
    (tmp_path / "500.2").write_bytes(page(82, (1, 3)) + b"tail")
    (tmp_path / "500.3").write_bytes(page(83, (1,)))
    return RelationFile(path, segment_blocks=3)


def test_states_of_odd_pages(odd: RelationFile) -> None:
    assert odd.block_count() == 7
    places = {
        (0, 1): SlotState.UNUSED,
        (0, 2): SlotState.NORMAL,
        (0, 3): SlotState.REDIRECT,
        (0, 4): SlotState.DEAD,
        (0, 5): SlotState.NORMAL,
        (0, 6): SlotState.PAST_LINE_POINTERS,
        (0, 0): SlotState.PAST_LINE_POINTERS,
        (1, 1): SlotState.ZERO_PAGE,
        (2, 1): SlotState.UNSOUND_PAGE,
        (3, 1): SlotState.PAST_LINE_POINTERS,
        (4, 226): SlotState.NORMAL,
        (4, 227): SlotState.PAST_LINE_POINTERS,
        (6, 2): SlotState.DEAD,
        (7, 1): SlotState.PAST_END,
        (9, 1): SlotState.PAST_END,
        (0xFFFFFFFF, 1): SlotState.PAST_END,
    }
    blocks, offsets = (np.array(column) for column in zip(*places, strict=True))
    slots = HeapSlots(odd)
    assert slots.state(blocks, offsets).tolist() == list(places.values())
    found = look_up(odd, blocks, offsets)
    assert found.states.tolist() == list(places.values())
    assert found.lsns.tolist() == slots.page_lsn(blocks).tolist()
    assert slots.page_lsn(np.array([0, 1, 2, 4, 6, 7])).tolist() == [1 << 33, 0, 0, 80, 82, 0]
    header = found.tuples
    assert (header.xmin[1], header.xmax[1], header.ctid_block[1], header.ctid_offset[1]) == (700, 701, 5, 6)
    assert (header.infomask[1], header.infomask2[1], header.xmin[0]) == (0x0900, 0x8003, 0)


def test_a_range_of_blocks(odd: RelationFile) -> None:
    slots = HeapSlots(odd, first_block=2, end_block=5)
    blocks = np.array([1, 2, 3, 4, 5])
    states = [SlotState.PAST_END, SlotState.UNSOUND_PAGE, SlotState.PAST_LINE_POINTERS, SlotState.NORMAL]
    assert slots.state(blocks, np.ones(5, dtype=np.int64)).tolist() == [*states, SlotState.PAST_END]
    assert [chunk.pages.blocks.tolist() for chunk in read_heap(odd, first_block=5)] == [[5], [6]]
    assert list(read_heap(odd, end_block=0)) == []


def test_an_item_that_its_page_has_no_room_for(tmp_path: Path) -> None:
    data = bytearray(page(5, (1, 1)))
    struct.pack_into("<I", data, 24, (BLOCK - 8) | 1 << 15 | 40 << 17)
    (tmp_path / "9").write_bytes(data)
    (chunk,) = read_heap(RelationFile(tmp_path / "9"))
    assert (chunk.normal.tolist(), chunk.broken_items.tolist()) == ([1], [0])


def test_an_empty_table(tmp_path: Path) -> None:
    (tmp_path / "9").write_bytes(b"")
    relation = RelationFile(tmp_path / "9")
    assert list(read_heap(relation)) == []
    one = np.array([1])
    assert HeapSlots(relation).state(one, one).tolist() == [SlotState.PAST_END]
    assert HeapSlots(relation).page_lsn(one).tolist() == [0]
    assert look_up(relation, one, one).states.tolist() == [SlotState.PAST_END]
    nothing = np.array([], dtype=np.int64)
    assert look_up(relation, nothing, nothing).states.tolist() == []


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SnapshotError, match="9 cannot be read: No such file"):
        list(read_heap(RelationFile(tmp_path / "9")))

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    (tmp_path / "9").write_bytes(page(1, (1,)))
    monkeypatch.setattr("os.preadv", fail)
    with pytest.raises(SnapshotError, match="9 cannot be read: Input/output error"):
        list(read_heap(RelationFile(tmp_path / "9")))


def test_other_block_sizes(tmp_path: Path) -> None:
    big = 32768
    lower = 24 + 4 * 2
    header = struct.pack("<IIHHHHHHI", 0, 9, 0, 0, lower, big - 48, big, big | 4, 0)
    pointers = struct.pack("<II", 3 << 15, (big - 48) | 1 << 15 | 40 << 17)
    body = struct.pack("<IIIHHHHHB", 700, 0, 0, 0, 0, 2, 3, 0x0900, 24)
    (tmp_path / "9").write_bytes((header + pointers).ljust(big - 48, b"\0") + body.ljust(48, b"\0"))
    (chunk,) = read_heap(RelationFile(tmp_path / "9", block_size=big))
    assert (chunk.items.flags.tolist(), chunk.tuples.xmin.tolist()) == ([3, 1], [700])
