"""One key, several rows: the newest stays, the others are set aside.

Which one is the newest? A table is copied page by page, each page as it was at one instant. Where a row's old and new
version are both there and both look alive, the old one's page was copied before the update (or the deletion that
preceded the insertion) wrote to it, and so carries an LSN below that of the update's WAL record; the new version's page
was copied after, and carries at least that LSN. So the page with the larger LSN holds the newer version, always, as the
copy had it: the server raises LSNs when it merely reads, so they are written down before (evidence.py).

Three things come before that rule. A row whose xmax is the xmin of another with the same key was replaced by it, even
where the copied pg_xact does not know of the commit. A row that was brought back (its xmin is frozen to 2) is an older
version by what it is. And pages with one LSN, mostly one and the same page, say nothing: then the younger xmin counts,
then the later command, then the later place. By xmin alone the rule would be wrong for a transaction that began early
and wrote late.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from psycopg import sql

from pgrescue.repair.quarantine import Doomed, Quarantine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from pgrescue.repair.site import Connection
    from pgrescue.repair.survey import Index, Table

_FROZEN = "2"
_BATCH = 5000


@dataclass(frozen=True)
class Version:
    """One of the rows with the same key; the ids are as the server prints them, `age` counts transactions since."""

    group: int
    tid: str
    xmin: str
    xmax: str
    age: int
    command: int
    key: str

    @property
    def place(self) -> tuple[int, int]:
        """Return block and item."""
        block, item = self.tid.strip("()").split(",")
        return int(block), int(item)


def set_aside_duplicates(
    connection: Connection, table: Table, index: Index, quarantine: Quarantine, lsns: NDArray[np.uint64] | None
) -> int:
    """Move all but the newest of the rows that one unique index forbids into the quarantine; return how many."""
    doomed = []
    for _, group in itertools.groupby(duplicates(connection, table, index), key=attrgetter("group")):
        kept, *others = newest_first(group, lsns)
        doomed += [
            Doomed(version.tid, f"an older version: {index.name} allows ({version.key}) once; {kept.tid} was kept")
            for version in others
        ]
    for batch in _batches(doomed):
        quarantine.move(connection, batch)
    return len(doomed)


def duplicates(connection: Connection, table: Table, index: Index) -> Iterator[Version]:
    """Find, by reading the table, all rows that share what the index wants unique, group by group.

    The session must not use indexes. Two NULLs are alike only where the index says so.
    """
    statement = sql.SQL(
        "select g, ctid::text, xmin::text, xmax::text, pg_catalog.age(xmin), cmin::text::bigint, k from"
        " (select ctid, xmin, xmax, cmin, pg_catalog.concat_ws(', ', {keys}) as k,"
        " pg_catalog.dense_rank() over (order by {keys}) as g,"
        " pg_catalog.count(*) over (partition by {keys}) as n"
        " from only {table} where {condition}) x where n > 1 order by g"
    ).format(keys=index.key_list(), table=table.qualified, condition=index.condition())
    for row in connection.execute(statement).fetchall():
        yield Version(*row)


def newest_first(versions: Iterable[Version], lsns: NDArray[np.uint64] | None) -> list[Version]:
    """Sort the rows of one key, the one to keep first."""
    versions = list(versions)
    born = {version.xmin for version in versions}

    def rank(version: Version) -> tuple[bool, bool, int, int, int, tuple[int, int]]:
        block, item = version.place
        lsn = 0 if lsns is None or block >= len(lsns) else int(lsns[block])
        replaced = version.xmax != "0" and version.xmax in born - {version.xmin}
        return replaced, version.xmin == _FROZEN, -lsn, version.age, -version.command, (-block, -item)

    return sorted(versions, key=rank)


def _batches(doomed: list[Doomed]) -> Iterator[list[Doomed]]:
    for begin in range(0, len(doomed), _BATCH):
        yield doomed[begin : begin + _BATCH]
