"""What belongs in a data directory, and what a copy must not take over from the server that it was made of.

Sources: `src/bin/initdb/initdb.c` (subdirs), `src/backend/backup/basebackup.c` (excludeDirContents, excludeFiles),
formats.md §0.6, §0.8 and §6.
"""

from __future__ import annotations

import posixpath
import re
from enum import Enum

_EMPTIED = {
    "pg_dynshmem": "shared memory of the server that ran",
    "pg_notify": "notifications of sessions that are gone",
    "pg_serial": "state of transactions that are gone",
    "pg_snapshots": "exported snapshots of transactions that are gone",
    "pg_stat_tmp": "statistics while running",
    "pg_subtrans": "state of transactions that are gone",
}
_SET_ASIDE = {
    "postmaster.pid",
    "postmaster.opts",
    "standby.signal",
    "recovery.signal",
    "recovery.conf",
    "postgresql.auto.conf",
    "tablespace_map",
    "global/pg_control.old",
}
_TEMPORARY = re.compile(r"(.*/)?(pgsql_tmp[^/]*(/.*)?|pg_internal\.init(\.\d+)?|t\d+_\d+(_\w+)?(\.\d+)?)")
_LEFT_OUT_BY_BACKUPS = (
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical",
    "pg_logical/mappings",
    "pg_logical/snapshots",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal",
    "pg_wal/archive_status",
)
_WAL_SUMMARIES_SINCE = 17


class Place(Enum):
    """Where a file of the snapshot goes."""

    DATA = "into the data directory"
    ASIDE = "into removed/, since it would make the copy act like the original"
    NOWHERE = "nowhere: the server makes it anew whenever it starts"


def place_of(path: str) -> Place:
    """Return where the file at `path`, relative to the data directory, goes."""
    top = path.partition("/")[0]
    if path in _SET_ASIDE or (top == "pg_replslot" and path != top):
        return Place.ASIDE
    if (top in _EMPTIED and path != top) or _TEMPORARY.fullmatch(path):
        return Place.NOWHERE
    return Place.DATA


def left_out_directories(major: int) -> tuple[str, ...]:
    """Return the directories that a server needs and that backup tools may leave out, parents first.

    Those that are never empty (base, global, pg_xact, pg_multixact) are not among them: to make one of these would
    only hide that the data in it is lost.
    """
    return (*_LEFT_OUT_BY_BACKUPS, *(("pg_wal/summaries",) if major >= _WAL_SUMMARIES_SINCE else ()))


def is_tablespace(path: str) -> bool:
    """Tell whether `path` is a tablespace's entry, `pg_tblspc/OID`."""
    return posixpath.dirname(path) == "pg_tblspc"
