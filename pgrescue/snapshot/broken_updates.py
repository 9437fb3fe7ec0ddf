"""Rows whose newest version is not in the copy, while the older one still is: what a non-atomic copy tears apart.

An UPDATE writes the new version, marks the old one, and stamps both pages with the LSN of one WAL record (heap_update).
So where the new version's page is as new as the old one's or newer, it was there, and VACUUM took it away. Where the
page is older, it may have been copied before the UPDATE. That it held the new version and lost it again is excluded by
how VACUUM works: it empties a slot on its second pass, after its first has been over every page and has pruned the old
version, which was dead before the new one was (vacuumlazy.c). What files cannot tell:

- whether the lost version was itself deleted, or updated again to one that is in the copy, before the rest was copied:
  look for a live row with the same key before reviving the old one;
- whether a page past the end was cut off by a VACUUM between reading the old version and reaching the file's end;
- whether VACUUM removed the new version alone: it may where a transaction with an older id deleted that one first;
- what order pages had that the server wrote to after the reset: see `reset_lsn`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pgrescue.snapshot import heap
from pgrescue.snapshot.heap import EMPTY_STATES, SlotState, look_up, read_heap
from pgrescue.snapshot.transaction_status import XidStatus

if TYPE_CHECKING:
    from pgrescue.model import Lsn
    from pgrescue.snapshot.heap import HeapChunk, TupleHeaders
    from pgrescue.snapshot.relation import Bools, Bytes, Ints, Lsns, RelationFile, Xids
    from pgrescue.snapshot.transaction_status import MultiXacts, TransactionStatus

_BATCH: Final = 500_000


@dataclass(frozen=True)
class BrokenUpdate:
    """The older version of a row whose newer one is not in the copy.

    `updater` is the transaction that committed the update; `successor_*` is where the newer version should be, and what
    is there instead: SlotState.NORMAL stands for another row's version. `is_certain` is False where the server wrote to
    one of the two pages after the reset, so that their order in the copy is not known.
    """

    block: int
    offset: int
    xmin: int
    updater: int
    successor_block: int
    successor_offset: int
    successor_state: SlotState
    is_certain: bool


@dataclass(frozen=True)
class Fates:
    """What became of some tuples, as the server reads them; each field has one element for each tuple.

    `xmin`: how its inserter ended (XidStatus). `updater`: who updated or deleted it, 0 for nobody or somebody whose
    commit is not recorded. `is_moved`: it was updated, and its ctid leads to the new version. Deleted rows, and those
    that went to another partition, have an updater and are not moved.
    """

    xmin: Bytes
    updater: Xids
    is_moved: Bools


def fates(
    tuples: TupleHeaders, blocks: Ints, offsets: Ints, *, status: TransactionStatus, multixacts: MultiXacts
) -> Fates:
    """Tell what became of tuples at these places, by their hint bits first, as the server does, then by pg_xact.

    XMIN_INVALID is believed only where pg_xact does not speak against it with silence: a server sets that hint too
    on the first row that it reads of a transaction of which pg_xact knows no end (heapam_visibility.c).
    """
    mask = tuples.infomask
    xmin = np.full(len(mask), XidStatus.COMMITTED, dtype=np.uint8)
    unhinted = np.flatnonzero((mask & heap.XMIN_COMMITTED) == 0)
    found = status.of(tuples.xmin[unhinted])
    found[(found == XidStatus.COMMITTED) & ((mask[unhinted] & heap.XMIN_INVALID) != 0)] = XidStatus.ABORTED
    xmin[unhinted] = found

    old_lock = (mask & (heap.XMAX_IS_MULTI | heap.XMAX_EXCL_LOCK | heap.XMAX_KEYSHR_LOCK)) == heap.XMAX_EXCL_LOCK
    locked_only = ((mask & heap.XMAX_LOCK_ONLY) != 0) | old_lock
    updated = np.flatnonzero(((mask & heap.XMAX_INVALID) == 0) & ~locked_only & (tuples.xmax != 0))
    updater = np.zeros(len(mask), dtype=np.uint32)
    updater[updated] = _committed(tuples.at(updated), status, multixacts)
    to_itself = (tuples.ctid_block == blocks) & (tuples.ctid_offset == offsets)
    elsewhere = (tuples.ctid_offset == heap.MOVED_PARTITIONS_OFFSET) | (tuples.ctid_offset == heap.SPECULATIVE_OFFSET)
    return Fates(xmin, updater, (updater != 0) & ~to_itself & ~elsewhere)


def _committed(tuples: TupleHeaders, status: TransactionStatus, multixacts: MultiXacts) -> Xids:
    """Return the updaters of tuples that are updated or deleted, 0 for those whose commit is not recorded."""
    updater = tuples.xmax.copy()
    is_multi = (tuples.infomask & heap.XMAX_IS_MULTI) != 0
    updater[is_multi] = multixacts.updaters(tuples.xmax[is_multi])
    hinted = ~is_multi & ((tuples.infomask & heap.XMAX_COMMITTED) != 0)
    ask = np.flatnonzero(~hinted)
    updater[ask[status.of(updater[ask]) != XidStatus.COMMITTED]] = 0
    return updater


def broken_updates(
    relation: RelationFile, status: TransactionStatus, multixacts: MultiXacts, *, reset_lsn: Lsn | None = None
) -> list[BrokenUpdate]:
    """Find the rows of a table whose newest version was lost while the older one is still there, in the table's order.

    `reset_lsn` is where the WAL began after pg_resetwal: a page at or above it was written to since, and the order of
    the two pages is unknown. With checksums even a SELECT does so, because it sets hints. Memory is that of the result.
    """
    waiting: list[_Candidates] = []
    broken: list[BrokenUpdate] = []
    for chunk in read_heap(relation):
        waiting.append(_candidates(chunk, status, multixacts))
        if sum(len(item.blocks) for item in waiting) > _BATCH:
            broken += _judge(relation, waiting, reset_lsn)
            waiting.clear()
    return broken + (_judge(relation, waiting, reset_lsn) if waiting else [])


@dataclass(frozen=True)
class _Candidates:
    """Committed tuples with a committed update that leads to another page."""

    blocks: Ints
    offsets: Ints
    lsns: Lsns
    updater: Xids
    tuples: TupleHeaders


def _candidates(chunk: HeapChunk, status: TransactionStatus, multixacts: MultiXacts) -> _Candidates:
    """Take them from a chunk; a new version on the same page is no question, since a page is of one instant."""
    blocks, offsets = chunk.blocks[chunk.normal], chunk.items.offset[chunk.normal]
    away = np.flatnonzero((chunk.tuples.ctid_block != blocks) & ((chunk.tuples.infomask & heap.XMAX_INVALID) == 0))
    tuples, blocks, offsets = chunk.tuples.at(away), blocks[away], offsets[away]
    fate = fates(tuples, blocks, offsets, status=status, multixacts=multixacts)
    kept = np.flatnonzero(fate.is_moved & (fate.xmin == XidStatus.COMMITTED))
    lsns = chunk.pages.lsns[chunk.items.page[chunk.normal[away[kept]]]]
    return _Candidates(blocks[kept], offsets[kept], lsns, fate.updater[kept], tuples.at(kept))


def _judge(relation: RelationFile, parts: list[_Candidates], reset_lsn: Lsn | None) -> list[BrokenUpdate]:
    """Look where the new versions should be and return the rows for which there is none."""
    blocks = np.concatenate([part.blocks for part in parts])
    offsets = np.concatenate([part.offsets for part in parts])
    lsns = np.concatenate([part.lsns for part in parts])
    updater = np.concatenate([part.updater for part in parts])
    xmin = np.concatenate([part.tuples.xmin for part in parts])
    to_block = np.concatenate([part.tuples.ctid_block for part in parts])
    to_offset = np.concatenate([part.tuples.ctid_offset for part in parts])
    found = look_up(relation, to_block, to_offset)
    another = (found.states == SlotState.NORMAL) & (found.tuples.xmin != updater)
    missing = np.isin(found.states, EMPTY_STATES) | another
    is_older = (found.lsns < lsns) | np.isin(found.states, (SlotState.PAST_END, SlotState.ZERO_PAGE))
    since = np.uint64(reset_lsn.position if reset_lsn else (1 << 64) - 1)
    is_touched = (lsns >= since) | (found.lsns >= since)
    broken = np.flatnonzero(missing & (is_older | is_touched))
    return [
        BrokenUpdate(
            block=int(blocks[at]),
            offset=int(offsets[at]),
            xmin=int(xmin[at]),
            updater=int(updater[at]),
            successor_block=int(to_block[at]),
            successor_offset=int(to_offset[at]),
            successor_state=SlotState(found.states[at]),
            is_certain=not bool(is_touched[at]),
        )
        for at in broken
    ]
