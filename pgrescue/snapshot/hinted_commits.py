"""Commits that rows know of and pg_xact does not: it was copied before them, the rows' pages after them.

The server notes on a row that its transaction has committed (a hint bit, `SetHintBits` in heapam_visibility.c) only
once that stands in pg_xact. So such a note is as good as the record itself, for all rows of the transaction.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from pgrescue.snapshot import heap
from pgrescue.snapshot.relation import RelationFile
from pgrescue.snapshot.relation_files import Fork, relation_files
from pgrescue.snapshot.transaction_status import TransactionStatus, XidStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from pgrescue.snapshot.control import ControlFile

    Xids = NDArray[np.uint32]

_XMIN_HINTS: Final = 0x0300  # both bits together mean frozen, whatever the number
_XMAX_HINTS: Final = 0x1C00  # HEAP_XMAX_COMMITTED, not HEAP_XMAX_INVALID, not HEAP_XMAX_IS_MULTI
_XMAX_LOCK_ONLY: Final = 0x0080
_FIRST_NORMAL_XID: Final = 3


def hinted_commits(
    pgdata: Path, control: ControlFile, *, on_progress: Callable[[int], None] | None = None
) -> NDArray[np.uint32]:
    """Return the transactions, ascending, that rows say have committed and whose end pg_xact does not know.

    It reads every table's main fork once, in constant memory; the server must be stopped. `on_progress` is told the
    bytes read since it was told last. Raises SnapshotError for a file that cannot be read.
    """
    status = TransactionStatus(pgdata, block_size=control.block_size)
    unknown = np.zeros(0, dtype=np.uint32)
    for file in relation_files(pgdata):
        if file.fork is not Fork.MAIN or file.segment:
            continue
        relation = RelationFile(Path(file.path), control.block_size, control.relation_segment_blocks)
        for xids, size in _hinted(relation):
            if on_progress is not None:
                on_progress(size)
            fresh = np.setdiff1d(xids, unknown, assume_unique=True)
            fresh = fresh[status.of(fresh) == XidStatus.UNKNOWN]
            if len(fresh):
                unknown = np.union1d(unknown, fresh)
    return unknown


def _hinted(relation: RelationFile) -> Iterator[tuple[Xids, int]]:
    """Yield what the rows of a table say, by the chunk, each with its bytes; nothing for an index or a sequence."""
    for chunk in heap.read_heap(relation):
        pages = chunk.pages
        # Only the pages of tables have nothing at their end.
        if np.any(pages.special[pages.is_sound] != pages.block_size):
            return
        mask = chunk.tuples.infomask
        inserted = chunk.tuples.xmin[(mask & _XMIN_HINTS) == heap.XMIN_COMMITTED]
        deleted = chunk.tuples.xmax[((mask & _XMAX_HINTS) == heap.XMAX_COMMITTED) & ((mask & _XMAX_LOCK_ONLY) == 0)]
        xids = np.unique(np.concatenate([inserted, deleted]))
        yield xids[xids >= _FIRST_NORMAL_XID], len(pages) * pages.block_size
