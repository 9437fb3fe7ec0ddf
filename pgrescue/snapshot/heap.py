"""The rows of a table's main fork, many at a time: line pointers, tuple headers, and a compact map of all slots.

Layouts: `htup_details.h` and `itemid.h`. A slot is a line pointer's place: a block and a number on it, from 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from pgrescue.snapshot.relation import LP_NORMAL, Pages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.snapshot.relation import Bools, Bytes, Ints, LinePointers, Lsns, RelationFile, Xids

TUPLE_HEADER_BYTES: Final = 23
XMAX_EXCL_LOCK: Final = 0x0040
XMAX_KEYSHR_LOCK: Final = 0x0010
XMAX_LOCK_ONLY: Final = 0x0080
XMIN_COMMITTED: Final = 0x0100
XMIN_INVALID: Final = 0x0200
XMAX_COMMITTED: Final = 0x0400
XMAX_INVALID: Final = 0x0800
XMAX_IS_MULTI: Final = 0x1000
HOT_UPDATED: Final = 0x4000
HEAP_ONLY: Final = 0x8000
MOVED_PARTITIONS_OFFSET: Final = 0xFFFD
SPECULATIVE_OFFSET: Final = 0xFFFE

_ZERO_PAGE: Final = 0xFFFF
_UNSOUND_PAGE: Final = 0xFFFE
_BATCH_PAGES: Final = 512


class SlotState(IntEnum):
    """What a slot holds; the first four are the line pointer's own flags.

    PAST_END: the file has no such block. PAST_LINE_POINTERS: its page has fewer. UNSOUND_PAGE: the page's header is
    none that a server wrote, so nothing on it is known.
    """

    UNUSED = 0
    NORMAL = 1
    REDIRECT = 2
    DEAD = 3
    PAST_END = 4
    ZERO_PAGE = 5
    PAST_LINE_POINTERS = 6
    UNSOUND_PAGE = 7


EMPTY_STATES: Final = (SlotState.UNUSED, SlotState.PAST_END, SlotState.ZERO_PAGE, SlotState.PAST_LINE_POINTERS)
"""States of a slot without a trace of a row: nothing may point to it."""


@dataclass(frozen=True)
class TupleHeaders:
    """Headers of some tuples, each field an array: PostgreSQL's names without `t_`, the ctid in its two parts."""

    xmin: Xids
    xmax: Xids
    ctid_block: Ints
    ctid_offset: Ints
    infomask: Ints
    infomask2: Ints

    def at(self, selected: Ints | Bools) -> TupleHeaders:
        """Return the headers at these places."""
        return TupleHeaders(
            self.xmin[selected],
            self.xmax[selected],
            self.ctid_block[selected],
            self.ctid_offset[selected],
            self.infomask[selected],
            self.infomask2[selected],
        )


@dataclass(frozen=True)
class HeapChunk:
    """Some pages of a table, their line pointers, and of those with a tuple its header.

    `normal` are places in `items`, `tuples` what is there, both of the same length. An item that says it has a tuple
    and has no room for one on its page is in `broken_items` instead.
    """

    pages: Pages
    items: LinePointers
    normal: Ints
    tuples: TupleHeaders
    broken_items: Ints

    @property
    def blocks(self) -> Ints:
        """The block of each line pointer."""
        return self.pages.blocks[self.items.page]


def read_heap(relation: RelationFile, *, first_block: int = 0, end_block: int | None = None) -> Iterator[HeapChunk]:
    """Yield a table's pages from `first_block` up to before `end_block`, by the chunk, with all that is on them.

    Zero and unsound pages are among `pages` and have no items. Raises SnapshotError for a file that cannot be read.
    """
    for pages in relation.chunks(first_block, end_block):
        yield read_tuples(pages)


def read_tuples(pages: Pages) -> HeapChunk:
    """Read line pointers and tuple headers of pages in memory."""
    items = pages.line_pointers()
    normal = np.flatnonzero(items.flags == LP_NORMAL)
    position, length = items.position[normal], items.length[normal]
    fits = (position + length <= pages.block_size) & (length >= TUPLE_HEADER_BYTES) & (position % 8 == 0)
    broken = normal[~fits]
    if len(broken):
        normal, position = normal[fits], position[fits]
    headers = _headers(pages, items.page[normal] * pages.block_size + position)
    return HeapChunk(pages, items, normal, headers, broken)


def _headers(pages: Pages, start: Ints) -> TupleHeaders:
    """Read the headers that start at these bytes, which are multiples of 8."""
    words = pages.words
    place = start // 4
    high_low = words[place + 3]
    offset_mask2 = words[place + 4]
    return TupleHeaders(
        xmin=words[place],
        xmax=words[place + 1],
        ctid_block=(((high_low & np.uint32(0xFFFF)) << np.uint32(16)) | (high_low >> np.uint32(16))).astype(np.int64),
        ctid_offset=(offset_mask2 & np.uint32(0xFFFF)).astype(np.int64),
        infomask=(words[place + 5] & np.uint32(0xFFFF)).astype(np.int64),
        infomask2=(offset_mask2 >> np.uint32(16)).astype(np.int64),
    )


@dataclass(frozen=True)
class FoundSlots:
    """What was found in the slots asked for: `states` (SlotState), the LSN of each one's page, 0 where there is none.

    `tuples` has a header for each; all of its fields are 0 where the state is not NORMAL.
    """

    states: Bytes
    lsns: Lsns
    tuples: TupleHeaders


def look_up(relation: RelationFile, blocks: Ints, offsets: Ints) -> FoundSlots:
    """Read the slots at these places from the file; only the pages that are asked for are read, each once."""
    count = len(blocks)
    states = np.full(count, SlotState.PAST_END, dtype=np.uint8)
    lsns = np.zeros(count, dtype=np.uint64)
    fields = [np.zeros(count, dtype=np.uint32) for _ in range(2)] + [np.zeros(count, dtype=np.int64) for _ in range(4)]
    order = np.argsort(blocks, kind="stable")
    unique, starts = np.unique(blocks[order], return_index=True)
    bounds = np.append(starts, count)
    for first in range(0, len(unique), _BATCH_PAGES):
        last = min(first + _BATCH_PAGES, len(unique))
        chunk = read_tuples(relation.pages(unique[first:last]))
        asked = order[bounds[first] : bounds[last]]
        page = np.searchsorted(chunk.pages.blocks, blocks[asked])
        there = page < len(chunk.pages)
        asked, page = asked[there], page[there]
        item = chunk.items.find(page, offsets[asked])
        states[asked] = _states(chunk.pages, page, np.append(chunk.items.flags, np.uint8(0))[item], item < 0)
        lsns[asked] = chunk.pages.lsns[page]
        tuple_of = np.full(len(chunk.items) + 1, -1, dtype=np.int64)
        tuple_of[chunk.normal] = np.arange(len(chunk.normal))
        header = tuple_of[item]
        found = header >= 0
        for target, source in zip(fields, vars(chunk.tuples).values(), strict=True):
            target[asked[found]] = source[header[found]]
    return FoundSlots(states, lsns, TupleHeaders(fields[0], fields[1], *fields[2:]))  # type: ignore[arg-type]


def _states(pages: Pages, page: Ints, flags: Bytes, is_past: Bools) -> Bytes:
    """Tell the states of slots on these pages by their flags."""
    states = np.where(is_past, np.uint8(SlotState.PAST_LINE_POINTERS), flags)
    states[pages.is_zero[page]] = SlotState.ZERO_PAGE
    states[~pages.is_zero[page] & ~pages.is_sound[page]] = SlotState.UNSOUND_PAGE
    return states


class SlotMap:
    """A number below 2**`bits` for every slot of consecutive blocks, and the LSN of each block's page, packed tightly.

    Made page by page with `add`, in the order of blocks, then asked with `codes`.
    """

    def __init__(self, *, bits: int, first_block: int = 0) -> None:
        self._bits = bits
        self._per_byte = 8 // bits
        self._first_block = first_block
        self._packed: list[Bytes] = []
        self._counts: list[Ints] = []
        self._lsns: list[Lsns] = []

    def add(self, pages: Pages, items: LinePointers, codes: Bytes) -> None:
        """Take in the next pages; `codes` has a number for each of their line pointers."""
        counts = items.counts.astype(np.uint16)
        counts[pages.is_zero] = _ZERO_PAGE
        counts[~pages.is_zero & ~pages.is_sound] = _UNSOUND_PAGE
        per_byte = self._per_byte
        sizes = -(-items.counts // per_byte)
        starts = np.cumsum(sizes) - sizes
        places = np.zeros(int(sizes.sum()) * per_byte, dtype=np.uint8)
        places[np.repeat(starts * per_byte - items.starts, items.counts) + np.arange(len(items))] = codes
        packed = np.zeros(len(places) // per_byte, dtype=np.uint8)
        for index, column in enumerate(places.reshape(-1, per_byte).T):
            packed |= column << np.uint8(index * self._bits)
        self._packed.append(packed)
        self._counts.append(counts)  # type: ignore[arg-type]
        self._lsns.append(pages.lsns)

    def finish(self) -> SlotMap:
        """Join what was taken in; from now on the map can be asked."""
        self._packed = [np.concatenate([np.zeros(0, dtype=np.uint8), *self._packed, np.zeros(1, dtype=np.uint8)])]
        self._counts = [np.concatenate([np.zeros(0, dtype=np.uint16), *self._counts])]
        self._lsns = [np.concatenate([np.zeros(0, dtype=np.uint64), *self._lsns, np.zeros(1, dtype=np.uint64)])]
        counts = self._counts[0]
        sizes = np.where(counts < _UNSOUND_PAGE, -(-counts.astype(np.int64) // self._per_byte), 0)
        self._starts = np.cumsum(sizes) - sizes
        return self

    @property
    def end_block(self) -> int:
        """The block after the last one."""
        return self._first_block + len(self._counts[0])

    @property
    def size_bytes(self) -> int:
        """How much memory the map takes."""
        arrays = (self._packed[0], self._counts[0], self._lsns[0], self._starts)
        return sum(array.nbytes for array in arrays)

    def codes(self, blocks: Ints, offsets: Ints) -> tuple[Bytes, Bytes]:
        """Return the number and the page's state of each slot.

        The state is PAST_END, ZERO_PAGE, UNSOUND_PAGE or PAST_LINE_POINTERS, and NORMAL for a slot that has a number.
        """
        page = blocks - self._first_block
        inside = (page >= 0) & (page < len(self._counts[0]))
        page = np.where(inside, page, 0)
        if not len(self._counts[0]):
            return np.zeros(len(blocks), np.uint8), np.full(len(blocks), SlotState.PAST_END, np.uint8)
        counts = self._counts[0][page]
        states = np.full(len(blocks), SlotState.NORMAL, dtype=np.uint8)
        states[(offsets < 1) | (offsets > counts)] = SlotState.PAST_LINE_POINTERS
        states[counts == _ZERO_PAGE] = SlotState.ZERO_PAGE
        states[counts == _UNSOUND_PAGE] = SlotState.UNSOUND_PAGE
        states[~inside] = SlotState.PAST_END
        index = np.where(states == SlotState.NORMAL, offsets - 1, 0)
        packed = self._packed[0][self._starts[page] + index // self._per_byte]
        shift = (index % self._per_byte * self._bits).astype(np.uint8)
        return (packed >> shift) & np.uint8((1 << self._bits) - 1), states

    def page_lsns(self, blocks: Ints) -> Lsns:
        """Return the LSN of each block's page; 0 for one past the end, a zero page and an unsound one."""
        page = blocks - self._first_block
        inside = (page >= 0) & (page < len(self._counts[0]))
        return self._lsns[0][np.where(inside, page, len(self._lsns[0]) - 1)]


class HeapSlots:
    """The state of every slot of a table, or of its blocks from `first_block` up to before `end_block`.

    It reads the table once and takes about half a percent of its size in memory, at most one.
    """

    def __init__(self, relation: RelationFile, *, first_block: int = 0, end_block: int | None = None) -> None:
        slots = SlotMap(bits=2, first_block=first_block)
        for pages in relation.chunks(first_block, end_block):
            items = pages.line_pointers()
            slots.add(pages, items, items.flags)
        self._slots = slots.finish()
        self._relation = relation
        self.end_block = self._slots.end_block
        self.size_bytes = self._slots.size_bytes

    def state(self, blocks: Ints, offsets: Ints) -> Bytes:
        """Return each slot's SlotState; PAST_END too for blocks outside of those that were read."""
        flags, states = self._slots.codes(blocks, offsets)
        return np.where(states == SlotState.NORMAL, flags, states)

    def page_lsn(self, blocks: Ints) -> Lsns:
        """Return the LSN of each block's page; 0 for one past the end, a zero page and an unsound one."""
        return self._slots.page_lsns(blocks)

    def tuples(self, blocks: Ints, offsets: Ints) -> TupleHeaders:
        """Read the tuple headers in these slots from the file; fields are 0 where there is no tuple."""
        return look_up(self._relation, blocks, offsets).tuples
