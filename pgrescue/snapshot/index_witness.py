"""What a unique index knows of rows that its table, copied at another instant, does not show.

An index entry is written with its row and goes only after the row did, so an entry that leads to no visible row names a
row that was deleted, or one that the copy lost. Must run before REINDEX, which destroys the witness.

What an entry cannot tell: when its slot has meanwhile been used for another row, that row's fate is taken for its own,
and the lost row hides behind LIVE or DELETED. On a busy table that VACUUM tidies up these can be a fifth of the losses.
And most entries of DEAD belong to rows that were merely updated. So a row is lost when its key is in the index and in
no visible row: missing_keys.py finds every one, and the classes give the reasons.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from pgrescue.snapshot import heap
from pgrescue.snapshot.broken_updates import broken_updates, fates
from pgrescue.snapshot.btree import PageCounts, read_btree
from pgrescue.snapshot.heap import EMPTY_STATES, HeapChunk, HeapSlots, SlotMap, SlotState, read_heap
from pgrescue.snapshot.key_hashes import fingerprints, row_hashes
from pgrescue.snapshot.relation import LP_DEAD, LP_REDIRECT
from pgrescue.snapshot.transaction_status import XidStatus

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgrescue.snapshot.broken_updates import BrokenUpdate
    from pgrescue.snapshot.btree import BtreeChunk
    from pgrescue.snapshot.key_hashes import Hashes, KeyLayout
    from pgrescue.snapshot.relation import Bools, Bytes, Ints, RelationFile
    from pgrescue.snapshot.transaction_status import MultiXacts, TransactionStatus

RANGE_BYTES: Final = 16 << 30
"""How much of a table is mapped at once: the map has about a hundredth of that."""

MOST_ENTRIES: Final = 1_000_000
"""How many entries are kept with their keys; beyond, they are only counted."""


class EntryClass(IntEnum):
    """What an index entry leads to.

    LIVE: a row that reads as visible. DELETED: a row deleted, or updated to a version with an entry of its own.
    ABORTED: a row of a transaction that failed. DEAD: a slot whose row was pruned: it was deleted, or updated.
    UNDECIDED: a row of a transaction of which pg_xact knows no end; it reads as not committed. SUPERSEDED: a row whose
    newest version is lost (broken_updates.py). NOWHERE: no row at all. UNREADABLE: on a page with a damaged header.
    """

    LIVE = 1
    DELETED = 2
    ABORTED = 3
    DEAD = 4
    UNDECIDED = 5
    SUPERSEDED = 6
    NOWHERE = 7
    UNREADABLE = 8


_REPORTED: Final = (EntryClass.DEAD, EntryClass.UNDECIDED, EntryClass.SUPERSEDED, EntryClass.NOWHERE)


@dataclass(frozen=True)
class WitnessEntry:
    """An index entry that may name a lost row: where it leads to, its index tuple for `decode_keys`, and why.

    `index_is_newer`: the index page's LSN is above the heap page's, or the heap page is not there: with NOWHERE, the
    row came after its page was copied, and is lost. Otherwise the heap page is newer, and VACUUM may have removed it.
    `slot` is what the slot holds, or, where it leads to another one, what that holds.
    """

    heap_block: int
    heap_offset: int
    entry_class: EntryClass
    slot: SlotState
    index_is_newer: bool
    raw: bytes


@dataclass(frozen=True)
class Witness:
    """What an index says: entries by class, those worth a look, and what was left out.

    `killed` counts entries that the server had marked as leading nowhere (LP_DEAD). `entries` are in the order of the
    index within each range of the table, and at most `MOST_ENTRIES`; `counts` are of all. `deleted` are fingerprints
    (key_hashes.py) of entries whose row is still there with its key, and was deleted, or never committed.
    """

    counts: dict[EntryClass, int]
    entries: tuple[WitnessEntry, ...]
    killed: int
    index_pages: PageCounts
    deleted: Hashes

    @property
    def is_complete(self) -> bool:
        """Whether every entry of the reported classes is among `entries`."""
        return len(self.entries) == sum(self.counts[item] for item in _REPORTED)

    def of(self, entry_class: EntryClass) -> tuple[WitnessEntry, ...]:
        """Return the entries of one class."""
        return tuple(entry for entry in self.entries if entry.entry_class == entry_class)


@dataclass(frozen=True)
class Dangling:
    """Index entries that lead to a slot without a trace of a row: how many, and the first of them."""

    count: int
    examples: tuple[WitnessEntry, ...]
    entries: int
    """How many entries were looked at."""


def classify_entries(
    index: RelationFile,
    table: RelationFile,
    status: TransactionStatus,
    multixacts: MultiXacts,
    *,
    broken: Sequence[BrokenUpdate] | None = None,
    layout: KeyLayout | None = None,
    most_entries: int = MOST_ENTRIES,
    range_bytes: int = RANGE_BYTES,
) -> Witness:
    """Follow every entry of a unique b-tree to its row, through redirects and HOT chains, and tell what is there.

    `broken` is what `broken_updates` found in the table; it is looked for where not given. Without the key's `layout`
    no row is told to be deleted. The index is read once for every `range_bytes` of the table.
    """
    if broken is None:
        broken = broken_updates(table, status, multixacts)
    superseded = np.sort(np.array([_tid(item.block, item.offset) for item in broken], dtype=np.int64))
    tally = _Tally(most_entries)
    deleted = [np.zeros(0, dtype=np.uint64)]
    for first_block, end_block in _ranges(table, range_bytes):
        slots = SlotMap(bits=4, first_block=first_block)
        for chunk in read_heap(table, first_block=first_block, end_block=end_block):
            found = _slot_classes(chunk, status, multixacts, superseded)
            slots.add(chunk.pages, chunk.items, found.classes)
            if layout is not None:
                deleted.append(_deleted(chunk, found, layout))
        slots.finish()
        for entries in _entries(index, first_block, end_block, tally):
            tally.take(entries, slots)
    return Witness(tally.counts, tuple(tally.entries), tally.killed, tally.pages, np.concatenate(deleted))


def dangling_entries(
    index: RelationFile, table: RelationFile, *, most_examples: int = 10, range_bytes: int = RANGE_BYTES
) -> Dangling:
    """Count the entries of any b-tree that lead to a slot without a trace of a row; killed entries are left out.

    In a healthy database there are none once a CHECKPOINT has written everything to the disk. Not so for unlogged
    tables while the server runs: a CHECKPOINT leaves them out (BufferSync in bufmgr.c), and temporary ones always.
    """
    tally = _Tally(most_examples)
    seen = 0
    for first_block, end_block in _ranges(table, range_bytes):
        slots = HeapSlots(table, first_block=first_block, end_block=end_block)
        for entries in _entries(index, first_block, end_block, tally):
            states = slots.state(entries.chunk.heap_block[entries.chosen], entries.chunk.heap_offset[entries.chosen])
            at = np.flatnonzero(np.isin(states, EMPTY_STATES))
            newer = entries.chunk.lsns[entries.chosen] > slots.page_lsn(entries.chunk.heap_block[entries.chosen])
            tally.keep(entries, at, np.full(len(states), EntryClass.NOWHERE, np.uint8), states, newer)
            tally.counts[EntryClass.NOWHERE] += len(at)
            seen += len(states)
    return Dangling(tally.counts[EntryClass.NOWHERE], tuple(tally.entries), seen)


def _ranges(table: RelationFile, range_bytes: int) -> Iterator[tuple[int, int | None]]:
    """Yield ranges of blocks that cover a table; the last one has no end, and takes what leads past the table's."""
    step = max(range_bytes // table.block_size, 1)
    starts = range(0, max(table.block_count(), 1), step)
    for start in starts:
        yield start, None if start == starts[-1] else start + step


@dataclass(frozen=True)
class _Entries:
    """Entries of a chunk that are not killed and lead into the range of blocks that is looked at."""

    chunk: BtreeChunk
    chosen: Ints


def _entries(index: RelationFile, first_block: int, end_block: int | None, tally: _Tally) -> Iterator[_Entries]:
    """Read the index for one range of the table; on the first time count pages and killed entries."""
    for chunk in read_btree(index):
        if first_block == 0:
            tally.pages += chunk.counts
            tally.killed += int(chunk.is_dead.sum())
        inside = (chunk.heap_block >= first_block) & ~chunk.is_dead
        if end_block is not None:
            inside &= chunk.heap_block < end_block
        yield _Entries(chunk, np.flatnonzero(inside))


@dataclass
class _Tally:
    most_entries: int
    counts: dict[EntryClass, int] = field(default_factory=lambda: dict.fromkeys(EntryClass, 0))
    entries: list[WitnessEntry] = field(default_factory=list)
    killed: int = 0
    pages: PageCounts = field(default_factory=PageCounts)

    def take(self, entries: _Entries, slots: SlotMap) -> None:
        """Class these entries by the map of their range."""
        blocks, offsets = entries.chunk.heap_block[entries.chosen], entries.chunk.heap_offset[entries.chosen]
        codes, states = slots.codes(blocks, offsets)
        is_there = states == SlotState.NORMAL
        classes = np.where(is_there, _CLASS_OF[codes], np.uint8(EntryClass.NOWHERE))
        classes[states == SlotState.UNSOUND_PAGE] = EntryClass.UNREADABLE
        states = np.where(is_there, _STATE_OF[codes], states)
        for item, count in enumerate(np.bincount(classes, minlength=len(EntryClass) + 1).tolist()):
            if count:
                self.counts[EntryClass(item)] += count
        newer = entries.chunk.lsns[entries.chosen] > slots.page_lsns(blocks)
        self.keep(entries, np.flatnonzero(np.isin(classes, _REPORTED)), classes, states, newer)

    def keep(self, entries: _Entries, at: Ints, classes: Bytes, states: Bytes, newer: Bools) -> None:
        """Keep the entries at these places, as long as there is room."""
        at = at[: max(self.most_entries - len(self.entries), 0)]
        chosen = entries.chosen[at]
        absent = np.isin(states[at], (SlotState.PAST_END, SlotState.ZERO_PAGE))
        columns = (
            entries.chunk.heap_block[chosen].tolist(),
            entries.chunk.heap_offset[chosen].tolist(),
            classes[at].tolist(),
            states[at].tolist(),
            (newer[at] | absent).tolist(),
            entries.chunk.raw(chosen),
        )
        for block, offset, entry_class, state, is_newer, raw in zip(*columns, strict=True):
            self.entries.append(WitnessEntry(block, offset, EntryClass(entry_class), SlotState(state), is_newer, raw))


# Numbers of the map of slots: 0 for an empty one, the class of the row that an entry with this slot leads to, and
# these for what an entry can lead to only where something else has taken the row's slot.
_STRANGER: Final = 9
_REDIRECTED: Final = 10
_CLASS_OF: Final = np.array([7, 1, 2, 3, 4, 5, 6, 7, 8, 7, 7], dtype=np.uint8)
_STATE_OF: Final = np.array([0, 1, 1, 1, 3, 1, 1, 1, 7, 1, 2], dtype=np.uint8)


def _tid(block: Ints | int, offset: Ints | int) -> Ints | int:
    return block << 16 | offset


@dataclass(frozen=True)
class _Slots:
    """What entries find that lead to the slots of a chunk: the class, and at which slot their row's chain ends.

    `is_gone` tells of each tuple whether it was deleted, not updated, or never committed.
    """

    classes: Bytes
    ends: Ints
    is_gone: Bools


def _slot_classes(chunk: HeapChunk, status: TransactionStatus, multixacts: MultiXacts, superseded: Ints) -> _Slots:
    """Tell for each slot what an index entry that leads to it finds at the end of its HOT chain (heapam_index.c)."""
    items, tuples, normal = chunk.items, chunk.tuples, chunk.normal
    blocks, offsets = chunk.blocks[normal], items.offset[normal]
    fate = fates(tuples, blocks, offsets, status=status, multixacts=multixacts)
    own = np.where(fate.updater != 0, np.uint8(EntryClass.DELETED), np.uint8(EntryClass.LIVE))
    own[np.isin(_tid(blocks, offsets), superseded)] = EntryClass.SUPERSEDED
    own[fate.xmin == XidStatus.ABORTED] = EntryClass.ABORTED
    own[fate.xmin == XidStatus.UNKNOWN] = EntryClass.UNDECIDED

    classes = np.zeros(len(items), dtype=np.uint8)
    classes[items.flags == LP_DEAD] = EntryClass.DEAD
    classes[items.flags == LP_REDIRECT] = _REDIRECTED
    classes[chunk.broken_items] = EntryClass.UNREADABLE
    classes[normal] = own
    following = np.arange(len(items))
    redirect = np.flatnonzero(items.flags == LP_REDIRECT)
    following[redirect] = _or_itself(items.find(items.page[redirect], items.position[redirect]), redirect)
    hot = np.flatnonzero((own == EntryClass.DELETED) & fate.is_moved & ((tuples.infomask2 & heap.HOT_UPDATED) != 0))
    hot = hot[tuples.ctid_block[hot] == blocks[hot]]
    following[normal[hot]] = _next_version(chunk, hot, fate.updater[hot])
    ends = _ends(following)
    classes = classes[ends]
    # A heap-only tuple has no entry of its own: one that leads to it was made for a row that had the slot before.
    classes[normal[(tuples.infomask2 & heap.HEAP_ONLY) != 0]] = _STRANGER
    to_itself = (tuples.ctid_block == blocks) & (tuples.ctid_offset == offsets)
    is_gone = (own == EntryClass.DELETED) & to_itself
    failed = np.flatnonzero(own == EntryClass.ABORTED)
    is_gone[failed[status.of(tuples.xmin[failed]) == XidStatus.ABORTED]] = True
    return _Slots(classes, ends, is_gone)


def _deleted(chunk: HeapChunk, slots: _Slots, layout: KeyLayout) -> Hashes:
    """Return the fingerprints of entries whose row's chain ends in a tuple that is gone for good.

    The tuple's own key is part of each, so that an entry of another row that had the slot before is none of them.
    """
    tuple_of = np.full(len(chunk.items), -1, dtype=np.int64)
    tuple_of[chunk.normal[slots.is_gone]] = np.flatnonzero(slots.is_gone)
    roots = np.flatnonzero(np.isin(slots.classes, (EntryClass.DELETED, EntryClass.ABORTED)))
    roots = roots[tuple_of[slots.ends[roots]] >= 0]
    known, hashes = row_hashes(chunk, tuple_of[slots.ends[roots]], layout)
    return fingerprints(hashes, chunk.blocks[roots[known]], chunk.items.offset[roots[known]])


def _next_version(chunk: HeapChunk, hot: Ints, updater: Ints) -> Ints:
    """Return the places of the next versions in their HOT chains; of those that have none, their own."""
    items, normal = chunk.items, chunk.normal
    itself = normal[hot]
    target = items.find(items.page[itself], chunk.tuples.ctid_offset[hot])
    tuple_of = np.full(len(items) + 1, -1, dtype=np.int64)
    tuple_of[normal] = np.arange(len(normal))
    header = tuple_of[target]
    fits = (header >= 0) & (chunk.tuples.xmin[header] == updater)
    return np.where(fits, target, itself)


def _or_itself(target: Ints, itself: Ints) -> Ints:
    return np.where(target >= 0, target, itself)


def _ends(following: Ints) -> Ints:
    """Follow chains to their ends, doubling the stride: a page has too few items for more than nine rounds."""
    for _ in range(9):
        further = following[following]
        if np.array_equal(further, following):
            break
        following = further
    return following
