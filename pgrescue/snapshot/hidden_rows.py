"""Rows that no query shows, because the transaction that wrote them has not begun: their headers are damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pgrescue.snapshot import heap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.snapshot.relation import RelationFile

_FIRST_NORMAL_XID = 3
_HALF = 1 << 31


def hidden_rows(relation: RelationFile, next_xid: int) -> Iterator[tuple[int, int, int]]:
    """Yield block, item and xmin of each row whose xmin is `next_xid` or later, as the 32 bits of xids are ordered.

    The server takes such a transaction for one that is still at work (XidInMVCCSnapshot), and says nothing. Rows whose
    xmin is known to be void, or frozen, are none of these. Raises SnapshotError for a file that cannot be read.
    """
    for chunk in heap.read_heap(relation):
        tuples = chunk.tuples
        ahead = (tuples.xmin - np.uint32(next_xid & 0xFFFFFFFF)).astype(np.uint32) < _HALF
        is_open = (tuples.infomask & (heap.XMIN_COMMITTED | heap.XMIN_INVALID)) == 0
        found = np.flatnonzero(ahead & is_open & (tuples.xmin >= _FIRST_NORMAL_XID))
        items = chunk.normal[found]
        yield from zip(
            chunk.blocks[items].tolist(),
            chunk.items.offset[items].tolist(),
            tuples.xmin[found].tolist(),
            strict=True,
        )
