"""Keys as 64-bit hashes: of a b-tree's entries, and of a table's rows, as if an entry had been made for each.

A key of 8 bytes or less has a hash of its own. The chance that a longer one has the same hash as one of n others is
n / 2**64. Layouts: `itup.h`, `htup_details.h`, `tupmacs.h` (att_align_pointer), `postgres.h` (varlena).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pgrescue.snapshot.heap import TUPLE_HEADER_BYTES

if TYPE_CHECKING:
    from pgrescue.snapshot.btree import BtreeChunk
    from pgrescue.snapshot.heap import HeapChunk
    from pgrescue.snapshot.relation import Bools, Bytes, Ints

Hashes: TypeAlias = NDArray[np.uint64]

_VARLENA: Final = -1
_HAS_NULLS: Final = 0x8000
_HEADER_BYTES: Final = 8
_NULLS_END: Final = 16
_HEAP_HAS_NULL: Final = 0x0001
_HEAP_COLUMNS: Final = 0x07FF
_HOFF: Final = 22
_ALIGNMENTS: Final = {"c": 1, "s": 2, "i": 4, "d": 8}
_MULTIPLIERS: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SEED: Final = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Attribute:
    """A column as pg_attribute describes it: attlen and attalign."""

    length: int
    align: str


@dataclass(frozen=True)
class KeyLayout:
    """Where a key lies in its index's entries and in its table's rows.

    `attributes` are the table's columns in their order, dropped ones included, as far as the key needs them; `columns`
    the places of the key's columns among them, in the key's order; None where the index stores them otherwise.
    `has_more` tells that entries hold other columns too (INCLUDE).
    """

    key: tuple[Attribute, ...]
    has_more: bool = False
    attributes: tuple[Attribute, ...] = ()
    columns: tuple[int, ...] | None = None

    @property
    def width(self) -> int | None:
        """How many bytes of an entry are the key; None where that is not the same for all, or all of them are."""
        if not self.has_more or any(column.length < 0 for column in self.key):
            return None
        end = 0
        for column in self.key:
            end = _aligned(end, _ALIGNMENTS[column.align]) + column.length
        return end


@dataclass(frozen=True)
class EntryHashes:
    """Entries of some leaf pages that name a row: their places in the chunk, and the hashes of their keys.

    An entry with a NULL in its key names no row, and is not among them.
    """

    places: Ints
    hashes: Hashes


def entry_hashes(chunk: BtreeChunk, layout: KeyLayout) -> EntryHashes:
    """Hash the keys of a chunk's entries, those of a posting list once for each row."""
    data, start, end = chunk._pages, chunk._start, chunk._start + chunk._length  # noqa: SLF001 - its own file is closed
    info = data.halves[start // 2 + 3]
    has_nulls = (info & _HAS_NULLS) != 0
    places = np.arange(len(start))
    if has_nulls.any():
        wanted = np.uint32((1 << len(layout.key)) - 1)
        complete = ~has_nulls | ((data.words[start // 4 + 2] & wanted) == wanted)
        places, start, end, has_nulls = places[complete], start[complete], end[complete], has_nulls[complete]
    begin = start + np.where(has_nulls, _NULLS_END, _HEADER_BYTES)
    return EntryHashes(places, _hashed(data.data, begin, np.maximum(end - begin, 0), layout.width))


def fingerprints(hashes: Hashes, blocks: Ints, offsets: Ints) -> Hashes:
    """Return one number for each pair of a key and the slot that its entry leads to."""
    slots = (blocks << 16 | offsets).astype(np.uint64)
    return _mixed(hashes ^ _mixed(slots + _SEED))


def row_hashes(chunk: HeapChunk, tuples: Ints, layout: KeyLayout) -> tuple[Ints, Hashes]:
    """Hash the keys of tuples, given by their places in `chunk.normal`; return which could be, and their hashes.

    Left out are tuples with a NULL in the key, without the column (one that was added later), and with a value that
    lies elsewhere (TOAST). The hash differs from the entry's where the two store a value differently.
    """
    if layout.columns is None or (layout.has_more and layout.width is None):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.uint64)
    reader = _Rows(chunk, tuples)
    found = {number: reader.take(column) for number, column in enumerate(layout.attributes)}
    chosen = [found[column] for column in layout.columns]
    sound = np.flatnonzero(reader.sound & np.logical_and.reduce([value.known for value in chosen]))
    size = np.zeros(len(sound), dtype=np.int64)
    ends = []
    for value, column in zip(chosen, layout.columns, strict=True):
        align = np.where(value.is_short[sound], 1, _ALIGNMENTS[layout.attributes[column].align])
        size = -(-size // align) * align
        ends.append(size)
        size = size + value.length[sound]
    padded = _aligned_all(size, 8)
    begin = np.cumsum(padded) - padded
    flat = np.zeros(int(padded.sum()), dtype=np.uint8)
    for value, end in zip(chosen, ends, strict=True):
        length = value.length[sound]
        within = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
        flat[np.repeat(begin + end, length) + within] = chunk.pages.data[np.repeat(value.start[sound], length) + within]
    return sound, _hashed(flat, begin, padded, layout.width)


@dataclass(frozen=True)
class _Values:
    """One column's values: where each begins and how long it is, length word included; `known` is False for NULL."""

    start: Ints
    length: Ints
    known: Bools
    is_short: Bools
    """Whether it has a length word of one byte, which needs no alignment."""


class _Rows:
    """Walks over the columns of many tuples side by side; `sound` are those whose columns so far lie inside."""

    def __init__(self, chunk: HeapChunk, tuples: Ints) -> None:
        items = chunk.normal[tuples]
        pages = chunk.pages
        self._data: Bytes = pages.data
        self._start = chunk.items.page[items] * pages.block_size + chunk.items.position[items]
        self._end = self._start + chunk.items.length[items]
        self._has_nulls = (chunk.tuples.infomask[tuples] & _HEAP_HAS_NULL) != 0
        self._columns = chunk.tuples.infomask2[tuples] & _HEAP_COLUMNS
        header = self._data[self._start + _HOFF].astype(np.int64)
        self._offset = header
        self.sound: Bools = (header >= TUPLE_HEADER_BYTES) & (self._start + header <= self._end)
        self._number = 0

    def take(self, column: Attribute) -> _Values:
        """Read the next column."""
        number, self._number = self._number, self._number + 1
        known = self.sound & (number < self._columns)
        bitmap = self._byte(TUPLE_HEADER_BYTES + number // 8)
        known &= ~self._has_nulls | ((bitmap >> (number % 8)) & 1 != 0)
        aligned = _aligned_all(self._offset, _ALIGNMENTS[column.align])
        is_short = np.zeros(len(aligned), dtype=np.bool_)
        if column.length == _VARLENA:
            first = self._byte(self._offset)
            is_short = first != 0  # padding is zero, and the first byte of a short value never is
            offset = np.where(is_short, self._offset, aligned)
            first = self._byte(offset)
            is_short = (first & 1) != 0
            whole = sum(self._byte(offset + place) << (8 * place) for place in range(4)) >> 2
            length = np.where(is_short, np.where(first == 1, 18, first >> 1), whole)
            outside = first == 1
        else:
            offset, length = aligned, np.full(len(aligned), column.length)
            outside = np.zeros(len(aligned), dtype=np.bool_)
        fits = (length > 0) & (self._start + offset + length <= self._end)
        self.sound = self.sound & (~known | fits)
        self._offset = np.where(known & fits, offset + length, self._offset)
        return _Values(self._start + offset, np.where(fits, length, 0), known & fits & ~outside, is_short)

    def _byte(self, offset: Ints | int) -> Ints:
        place = np.minimum(self._start + offset, len(self._data) - 1)
        found: Ints = self._data[place].astype(np.int64)
        return found


def _hashed(data: Bytes, begin: Ints, length: Ints, width: int | None) -> Hashes:
    """Hash bytes that begin at multiples of 8, as many as `length` says, or the first `width` of them."""
    words = data[: len(data) // 8 * 8].view("<u8")
    count = length // 8 if width is None else np.minimum(length // 8, -(-width // 8))
    place = begin // 8
    found = np.full(len(begin), _SEED, dtype=np.uint64)
    for number in range(int(count.max(initial=0))):
        at = slice(None) if (count > number).all() else np.flatnonzero(count > number)
        word = words[place[at] + number]
        if width is not None and width // 8 == number:
            word &= np.uint64((1 << (width % 8 * 8)) - 1)
        found[at] = _mixed((found[at] ^ word) + _SEED)
    return found


def _mixed(numbers: Hashes) -> Hashes:
    """Spread numbers evenly and keep different ones apart (the last steps of SplitMix64)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * _MULTIPLIERS[0]
    numbers = (numbers ^ (numbers >> np.uint64(27))) * _MULTIPLIERS[1]
    return numbers ^ (numbers >> np.uint64(31))


def _aligned(offset: int, to: int) -> int:
    return -(-offset // to) * to


def _aligned_all(offset: Ints, to: int) -> Ints:
    return -(-offset // to) * to
