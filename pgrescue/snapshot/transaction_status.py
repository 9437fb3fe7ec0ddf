"""How transactions ended (pg_xact), and which one of a multixact updated the row (pg_multixact).

Layouts: `clog.c` and `multixact.c`, the same in PostgreSQL 9.3 to 18; `slru.py` says how numbers spread over files.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from pgrescue.errors import SnapshotError
from pgrescue.snapshot.slru import Slru, multixact_members, multixact_offsets, transactions

if TYPE_CHECKING:
    from pathlib import Path

    from pgrescue.snapshot.control import ControlFile
    from pgrescue.snapshot.relation import Bools, Bytes, Ints, Xids

BOOTSTRAP_XID: Final = 1
FROZEN_XID: Final = 2
_CACHED_FILES: Final = 64
_SUBCOMMITTED: Final = 3
_GROUP_BYTES: Final = 20
_MEMBERS_PER_GROUP: Final = 4
_FIRST_UPDATE_STATUS: Final = 4
_LONGEST_MULTIXACT: Final = 10_000


class XidStatus(IntEnum):
    """How a transaction ended, with pg_xact's numbers.

    UNKNOWN is one that was running, one that a crash ended, and one that pg_xact, as it was copied, does not know of.
    """

    UNKNOWN = 0
    COMMITTED = 1
    ABORTED = 2


class TransactionStatus:
    """How transactions ended, by `pgdata`/pg_xact as it is on the disk: the server writes it there at a checkpoint.

    A subtransaction marked "subcommitted" is UNKNOWN: its end is its parent's, and pg_subtrans, which knows the
    parent, is emptied when a server starts and is in no backup (subtrans.c, basebackup.c).
    """

    def __init__(self, pgdata: Path, *, block_size: int = 8192) -> None:
        self._files = _SlruFiles(pgdata, transactions(block_size))

    def of(self, xids: Xids) -> Bytes:
        """Return the XidStatus of each 32-bit id; id 0 is ABORTED and 1 and 2 are COMMITTED, as for the server."""
        numbers = xids.astype(np.int64)
        found, _ = self._files.gather(numbers, (numbers // 4) % (self._files.slru.per_segment // 4))
        status = (found >> ((numbers % 4) * 2).astype(np.uint8)) & np.uint8(3)
        status[status == _SUBCOMMITTED] = XidStatus.UNKNOWN
        status[(numbers == BOOTSTRAP_XID) | (numbers == FROZEN_XID)] = XidStatus.COMMITTED
        status[numbers == 0] = XidStatus.ABORTED
        return status


class MultiXacts:
    """Members of multixacts, by `pgdata`/pg_multixact as it is on the disk."""

    def __init__(self, pgdata: Path, control: ControlFile) -> None:
        self._block_size = control.block_size
        self._next = (control.next_multi, control.next_multi_offset)
        self._offsets = _SlruFiles(pgdata, multixact_offsets(control.block_size))
        self._members = _SlruFiles(pgdata, multixact_members(control.block_size))

    def updaters(self, multixacts: Xids) -> Xids:
        """Return the transaction that updated or deleted the row, 0 where there is none or the files lack it.

        Ask only for multixacts of rows that say they are not merely locked. Such a multixact has exactly one updater,
        so the first that is found from where its members begin is the right one, even where its end is not known.
        """
        unique, back = np.unique(multixacts, return_inverse=True)
        start, end = self._bounds(unique.astype(np.int64))
        updater = np.zeros(len(unique), dtype=np.uint32)
        asked = np.flatnonzero(start != end)
        for step in range(_LONGEST_MULTIXACT):
            if not len(asked):
                break
            xid, status, known = self._member((start[asked] + step) % (1 << 32))
            updates = known & (status >= _FIRST_UPDATE_STATUS) & (xid != 0)
            updater[asked[updates]] = xid[updates]
            more = known & ~updates & ((start[asked] + step + 1) % (1 << 32) != end[asked])
            more &= (xid != 0) | (end[asked] != -1)
            asked = asked[more]
        return updater[back.reshape(multixacts.shape)]

    def members(self, multixact: int) -> tuple[tuple[int, int], ...]:
        """Return each member's transaction id and MultiXactStatus, none where the files lack the multixact's bounds."""
        (start,), (end,) = self._bounds(np.array([multixact]))
        if end < 0:
            return ()
        numbers = (start + np.arange(min((end - start) % (1 << 32), _LONGEST_MULTIXACT))) % (1 << 32)
        xids, statuses, _ = self._member(numbers)
        return tuple((int(xid), int(status)) for xid, status in zip(xids, statuses, strict=True) if xid)

    def _bounds(self, multixacts: Ints) -> tuple[Ints, Ints]:
        """Return the number of each one's first member and of the next one's first; both equal for one not there.

        The second is -1 where the next multixact is not written. Members begin at number 1 (GetNewMultiXactId).
        """
        start = self._offset(multixacts)
        following = (multixacts + 1) % (1 << 32)
        following[following == 0] = 1
        end = self._offset(following)
        end[following == self._next[0]] = self._next[1]
        end[end == 0] = -1
        return start, np.where(start == 0, start, end)

    def _offset(self, multixacts: Ints) -> Ints:
        place = multixacts % self._offsets.slru.per_segment * 4
        return self._number(self._offsets, multixacts, place)

    def _member(self, numbers: Ints) -> tuple[Xids, Bytes, Bools]:
        """Return each member's transaction id and status, and whether its file has it."""
        per_page = self._members.slru.per_page
        inside = numbers % self._members.slru.per_segment
        group = inside // per_page * self._block_size + inside % per_page // _MEMBERS_PER_GROUP * _GROUP_BYTES
        index = inside % _MEMBERS_PER_GROUP
        status, known = self._members.gather(numbers, group + index)
        xid = self._number(self._members, numbers, group + _MEMBERS_PER_GROUP + index * 4)
        return xid.astype(np.uint32), status, known

    @staticmethod
    def _number(files: _SlruFiles, numbers: Ints, place: Ints) -> Ints:
        """Read four bytes at `place` of the file that holds `numbers`."""
        value = np.zeros(len(numbers), dtype=np.int64)
        for byte in range(4):
            value |= files.gather(numbers, place + byte)[0].astype(np.int64) << (8 * byte)
        return value


class _SlruFiles:
    """The files of one such directory, the least recently used given up when there are many."""

    def __init__(self, pgdata: Path, slru: Slru) -> None:
        self.slru = slru
        self._directory = pgdata / slru.directory
        self._cache: OrderedDict[int, Bytes] = OrderedDict()

    def gather(self, numbers: Ints, place: Ints) -> tuple[Bytes, Bools]:
        """Return the byte at `place` of the file that each number is in, and whether it is there; 0 where not."""
        value = np.zeros(len(numbers), dtype=np.uint8)
        known = np.zeros(len(numbers), dtype=np.bool_)
        segments = numbers // self.slru.per_segment
        for segment in np.unique(segments):
            data = self._file(int(segment))
            inside = np.flatnonzero((segments == segment) & (place < len(data)))
            value[inside] = data[place[inside]]
            known[inside] = True
        return value, known

    def _file(self, segment: int) -> Bytes:
        """Return a file's bytes; none for a file that does not exist."""
        if segment in self._cache:
            self._cache.move_to_end(segment)
            return self._cache[segment]
        path = self._directory / f"{segment:04X}"
        try:
            data = np.fromfile(path, dtype=np.uint8)
        except FileNotFoundError:
            data = np.empty(0, dtype=np.uint8)
        except OSError as error:
            raise SnapshotError(
                f"{path} cannot be read: {error.strerror}", hint="Look at the disk and at the file's permissions."
            ) from error
        self._cache[segment] = data
        if len(self._cache) > _CACHED_FILES:
            self._cache.popitem(last=False)
        return data
