"""The entries of a b-tree index's leaf pages, many at a time, each with the row's place and the bytes of its key.

Layouts: `nbtree.h` and `itup.h`, b-tree versions 2 to 4 (PostgreSQL 12 to 18, and older indexes after pg_upgrade).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pgrescue.errors import SnapshotError
from pgrescue.snapshot.relation import HEADER_BYTES, LP_DEAD, LP_NORMAL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgrescue.snapshot.relation import Bools, Ints, Lsns, Pages, RelationFile

_OPAQUE_BYTES: Final = 16
_MAGIC: Final = 0x053162
_LEAF: Final = 0x0001
_DELETED: Final = 0x0004
_META: Final = 0x0008
_HALF_DEAD: Final = 0x0010
_TUPLE_HEADER_BYTES: Final = 8
_TID_BYTES: Final = 6
_SIZE_MASK: Final = 0x1FFF
_ALTERNATIVE_TID: Final = 0x2000
_IS_POSTING: Final = 0x2000
_COUNT_MASK: Final = 0x0FFF


@dataclass(frozen=True)
class PageCounts:
    """How many pages there are of each kind; `unsound` ones are neither zero nor a b-tree's, `others` inner or gone."""

    leaves: int = 0
    others: int = 0
    zero: int = 0
    unsound: int = 0
    broken_items: int = 0
    """Items of sound leaf pages that are no index tuples."""

    def __add__(self, other: PageCounts) -> PageCounts:
        return PageCounts(*(mine + theirs for mine, theirs in zip(self._all(), other._all(), strict=True)))

    def _all(self) -> tuple[int, ...]:
        return (self.leaves, self.others, self.zero, self.unsound, self.broken_items)


@dataclass(frozen=True)
class BtreeChunk:
    """The entries of some leaf pages, flat: one for each row that an item leads to, several for a posting list.

    `heap_block` and `heap_offset` are the row's place, `index_block` and `item` the entry's, `lsns` its page's LSN;
    `is_dead` marks items that the server has found to lead to rows that nobody sees any more (LP_DEAD).
    """

    counts: PageCounts
    heap_block: Ints
    heap_offset: Ints
    index_block: Ints
    item: Ints
    is_dead: Bools
    lsns: Lsns
    _pages: Pages
    _start: Ints
    _length: Ints

    def __len__(self) -> int:
        return len(self.heap_block)

    def raw(self, selected: Ints | Sequence[int]) -> list[bytes]:
        """Return the index tuples of these entries, header included, posting lists left out: for `decode_keys`."""
        data = memoryview(self._pages.data)  # type: ignore[arg-type]
        starts, lengths = self._start[selected].tolist(), self._length[selected].tolist()
        return [bytes(data[start : start + length]) for start, length in zip(starts, lengths, strict=True)]


def read_btree(relation: RelationFile) -> Iterator[BtreeChunk]:
    """Yield the entries of a b-tree in the order of its pages; what is damaged is counted and left out.

    Left out too are high keys, which no row belongs to, and pages that are deleted or about to be. Raises SnapshotError
    for an index of another kind and for a file that cannot be read.
    """
    for pages in relation.chunks():
        if len(pages) and pages.blocks[0] == 0 and pages.is_sound[0]:
            _check_metapage(pages, relation)
        yield _read(pages)


def _check_metapage(pages: Pages, relation: RelationFile) -> None:
    magic, version = (int(word) for word in pages.words[HEADER_BYTES // 4 :][:2])
    if magic != _MAGIC or not 2 <= version <= 4:  # noqa: PLR2004 (BTREE_MIN_VERSION and BTREE_VERSION)
        raise SnapshotError(
            f"{relation.path} is no b-tree index: its first page has the magic number {magic:#x}, version {version}",
            hint="Only b-trees say which rows there were.",
        )


def _read(pages: Pages) -> BtreeChunk:
    block_size = pages.block_size
    is_btree = pages.is_sound & (pages.special == block_size - _OPAQUE_BYTES)
    ends = (np.arange(len(pages)) + 1) * block_size
    flags = pages.halves[ends // 2 - 2]
    is_leaf = is_btree & ((flags & (_LEAF | _DELETED | _META | _HALF_DEAD)) == _LEAF)
    has_high_key = pages.words[ends // 4 - 3] != 0

    items = pages.line_pointers(is_leaf)
    data = (items.offset > 1) | ~has_high_key[items.page]
    used = data & ((items.flags == LP_NORMAL) | (items.flags == LP_DEAD))
    chosen = np.flatnonzero(used)
    position, length = items.position[chosen], items.length[chosen]
    fits = (position % 8 == 0) & (length >= _TUPLE_HEADER_BYTES) & (position + length <= block_size - _OPAQUE_BYTES)
    chosen, position = chosen[fits], position[fits]
    start = items.page[chosen] * block_size + position
    tids = _Tids(pages, start, items.length[chosen])
    chosen = chosen[tids.of]
    page = items.page[chosen]
    counts = PageCounts(
        leaves=int(is_leaf.sum()),
        others=int((is_btree & ~is_leaf).sum()),
        zero=int(pages.is_zero.sum()),
        unsound=int((~is_btree & ~pages.is_zero).sum()),
        broken_items=int(data.sum() - fits.sum()) + tids.broken,
    )
    return BtreeChunk(
        counts=counts,
        heap_block=tids.block,
        heap_offset=tids.offset,
        index_block=pages.blocks[page],
        item=items.offset[chosen],
        is_dead=items.flags[chosen] == LP_DEAD,
        lsns=pages.lsns[page],
        _pages=pages,
        _start=start[tids.of],
        _length=tids.key_end[tids.of],
    )


class _Tids:
    """The rows that index tuples lead to: `of` says for each row which tuple, `key_end` where a tuple's key ends."""

    def __init__(self, pages: Pages, start: Ints, length: Ints) -> None:
        halves = pages.halves
        place = start // 2
        high, low, offset, info = (halves[place + index].astype(np.int64) for index in range(4))
        self.key_end: Ints = info & _SIZE_MASK
        count = np.ones(len(start), dtype=np.int64)
        sound = (self.key_end <= length) & (self.key_end >= _TUPLE_HEADER_BYTES)
        alternative = np.flatnonzero((info & _ALTERNATIVE_TID) != 0)
        if len(alternative):
            # A posting list: what is elsewhere the row's place says here where the list begins and how long it is.
            size = self.key_end[alternative]
            begin = (high[alternative] << 16) | low[alternative]
            many = offset[alternative] & _COUNT_MASK
            fits = ((offset[alternative] & _IS_POSTING) != 0) & (begin % 2 == 0) & (begin >= _TUPLE_HEADER_BYTES)
            fits &= begin + many * _TID_BYTES <= size
            sound[alternative] &= fits
            place[alternative] += np.where(fits, begin // 2, 0)
            count[alternative] = many
            self.key_end[alternative] = np.where(fits, begin, size)
        self.broken = int((~sound).sum())
        count[~sound] = 0
        self.of: Ints = np.repeat(np.arange(len(start)), count)
        if len(alternative) or self.broken:
            within = np.arange(len(self.of)) - np.repeat(np.cumsum(count) - count, count)
            entry = place[self.of] + within * (_TID_BYTES // 2)
            high, low, offset = (halves[entry + index].astype(np.int64) for index in range(3))
        self.block: Ints = (high << 16) | low
        self.offset: Ints = offset
