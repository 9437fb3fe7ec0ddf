"""Which keys an index knew before it was rebuilt and does not know now: the rows that its table has no more.

Every entry counts, wherever it leads to: a slot that another row uses now tells nothing of the row that it was of.
Equal keys may be stored differently (1.0 and 1.00, compressed or not, in other capitals), so what is missing here is
to be looked up by its value.

Entries that the server had marked as leading to rows that nobody sees any more (LP_DEAD) do not count: the row was
deleted, or updated, and then the entry of its new version was there before the mark, beside it. Beside it may mean
on the next page, which was copied at another instant; so at a page's ends they do count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pgrescue.snapshot.btree import read_btree
from pgrescue.snapshot.key_hashes import entry_hashes, fingerprints

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.snapshot.btree import BtreeChunk
    from pgrescue.snapshot.key_hashes import Hashes, KeyLayout
    from pgrescue.snapshot.relation import Bools, Ints, RelationFile

MOST_KEYS: Final = 1_000_000
"""How many keys are returned; beyond, they are only counted."""

PASS_BLOCKS: Final = 50_000
"""How much of an index is compared at once: some 20 million entries, which take half a gigabyte of memory."""

_NEAR_BITS: Final = 20


@dataclass(frozen=True)
class MissingKeys:
    """How many keys are missing, and an index tuple for each, header included, in the order of the old index."""

    count: int
    raw: tuple[bytes, ...]


def missing_keys(
    old: RelationFile,
    new: RelationFile,
    layout: KeyLayout,
    *,
    deleted: Hashes | None = None,
    most_keys: int = MOST_KEYS,
    pass_blocks: int = PASS_BLOCKS,
) -> MissingKeys:
    """Return the keys in `old` that are not in `new`; `deleted` are the fingerprints of entries that do not count.

    Both are read once for every `pass_blocks` of them, and `old` once more. Raises SnapshotError.
    """
    gone = np.sort(np.zeros(0, dtype=np.uint64) if deleted is None else deleted)
    passes = -(-max(old.block_count(), new.block_count(), 1) // pass_blocks)
    missing = np.concatenate([_difference(old, new, layout, (number, passes)) for number in range(passes)])
    missing.sort()
    if not len(missing):
        return MissingKeys(0, ())
    # Most keys are not missing; a small table, which fits in a processor's cache, says so quickly.
    is_near = np.zeros(1 << _NEAR_BITS, dtype=np.bool_)
    is_near[missing >> np.uint64(64 - _NEAR_BITS)] = True
    seen = np.zeros(len(missing), dtype=np.bool_)
    raw: list[bytes] = []
    for chunk, places, hashes in _witnesses(old, layout):
        near = np.flatnonzero(is_near[hashes >> np.uint64(64 - _NEAR_BITS)])
        at = _found(missing, hashes[near])
        wanted = near[at >= 0]
        at = at[at >= 0]
        fresh = np.flatnonzero(~seen[at] & ~_is_gone(chunk, places[wanted], hashes[wanted], gone))
        at, first = np.unique(at[fresh], return_index=True)
        seen[at] = True
        raw += chunk.raw(places[wanted[fresh[np.sort(first)]]][: max(most_keys - len(raw), 0)])
    return MissingKeys(int(seen.sum()), tuple(raw))


def _difference(old: RelationFile, new: RelationFile, layout: KeyLayout, part: tuple[int, int]) -> Hashes:
    """Return the hashes in the old index only, of those that belong to a part: the n-th of so many."""
    known = _sorted([_of(entry_hashes(chunk, layout).hashes, part) for chunk in read_btree(new)])
    asked = _sorted([_of(hashes, part) for _, _, hashes in _witnesses(old, layout)])
    # Sorting both is many times quicker than to look up numbers in no order.
    return asked[_found(known, asked) < 0]


def _sorted(parts: list[Hashes]) -> Hashes:
    """Return the different numbers in their order; np.unique would take ten times as long."""
    numbers = np.concatenate([np.zeros(0, dtype=np.uint64), *parts])
    parts.clear()
    numbers.sort()
    is_new = np.ones(len(numbers), dtype=np.bool_)
    is_new[1:] = numbers[1:] != numbers[:-1]
    different: Hashes = numbers[is_new]
    return different


def _found(ordered: Hashes, asked: Hashes) -> Ints:
    """Return where in `ordered` each number is, -1 where it is not."""
    if not len(ordered):
        return np.full(len(asked), -1)
    at = np.minimum(np.searchsorted(ordered, asked), len(ordered) - 1)
    return np.where(ordered[at] == asked, at, -1)


def _is_gone(chunk: BtreeChunk, places: Ints, hashes: Hashes, gone: Hashes) -> Bools:
    marks = fingerprints(hashes, chunk.heap_block[places], chunk.heap_offset[places])
    is_gone: Bools = _found(gone, marks) >= 0
    return is_gone


def _of(hashes: Hashes, part: tuple[int, int]) -> Hashes:
    number, parts = part
    return hashes if parts == 1 else hashes[hashes % np.uint64(parts) == number]


def _witnesses(index: RelationFile, layout: KeyLayout) -> Iterator[tuple[BtreeChunk, Ints, Hashes]]:
    """Yield the entries of the old index that count, by the chunk: their places, and the hashes of their keys."""
    for chunk in read_btree(index):
        found = entry_hashes(chunk, layout)
        if chunk.is_dead.any():
            counts = (~chunk.is_dead | _at_an_end(chunk))[found.places]
            yield chunk, found.places[counts], found.hashes[counts]
        else:
            yield chunk, found.places, found.hashes


def _at_an_end(chunk: BtreeChunk) -> Bools:
    """Tell which entries are the first or the last one on their page."""
    page = np.concatenate([[-1], chunk.index_block, [-1]])
    at_an_end: Bools = (page[1:-1] != page[:-2]) | (page[1:-1] != page[2:])
    return at_an_end
