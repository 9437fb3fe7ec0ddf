"""What must be true of the recovered data, asked independently of pgrescue."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from fixtures import broken_promises, read_acks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import psycopg

    from fixtures import Expectation, Snapshot
    from tests.cli import Rescue

SEQUENTIAL = (
    b"SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off;"
    b"SET max_parallel_workers_per_gather = 0"
)
WRITTEN_BY_THE_LOAD = {
    "accounts",
    "accounts whose balance is not the sum of their ledger",
    "orders of the load whose lines are not complete",
}
"""Expectations about rows that the load writes to: between two versions, a copy without its WAL may have neither."""

BLOCK_SIZE = 8192
_FROZEN = 0x0300  # HEAP_XMIN_FROZEN, src/include/access/htup_details.h


def missed(rescue: Rescue, expected: Iterable[Expectation], *, sequential: bool = False) -> list[str]:
    """Return the expectations that are not met, with the value found."""
    found = []
    for database in sorted({entry.database for entry in expected}):
        with rescue.connect(database) as connection:
            if sequential:
                connection.execute(SEQUENTIAL)
            for entry in expected:
                if entry.database == database:
                    row = connection.execute(entry.query.encode()).fetchone()
                    if row is None or row[0] != entry.value:
                        found.append(f"{entry.label}: {row}, not {entry.value!r}")
    return found


def untouched(snapshot: Snapshot) -> list[Expectation]:
    """Return the expectations about rows that the load does not change."""
    return [entry for entry in snapshot.expected if entry.label not in WRITTEN_BY_THE_LOAD]


def versions(rescue: Rescue) -> dict[str, list[int]]:
    """Return every version of each order of the load that a sequential scan finds; one is right."""
    found: dict[str, list[int]] = {}
    with rescue.connect("portal") as connection:
        connection.execute(SEQUENTIAL)
        query = b"SELECT client_ref::text, version FROM orders WHERE client_ref IS NOT NULL"
        for ref, version in connection.execute(query):
            found.setdefault(ref, []).append(version)
    return found


def kept_promises(rescue: Rescue) -> list[str]:
    """Return what is lost of the transactions that were acknowledged before the backup began."""
    newest = {ref: max(found) for ref, found in versions(rescue).items()}
    return list(broken_promises(read_acks(rescue.snapshot.acks), newest))


def settled(snapshot: Snapshot) -> dict[str, int | None]:
    """Return the last version (None: deleted) of the orders whose every change was acknowledged before the backup."""
    last: dict[str, int | None] = {}
    later: set[str] = set()
    for ack in sorted(read_acks(snapshot.acks), key=lambda ack: ack.version):
        last[ack.ref] = None if ack.op == "delete" else ack.version
        if not ack.before_backup:
            later.add(ack.ref)
    return {ref: version for ref, version in last.items() if ref not in later}


def wrongly_recovered(expected: Mapping[str, int | None], found: Mapping[str, Sequence[int]]) -> list[str]:
    """Return the orders that are not there exactly once, at the expected version."""
    return [
        f"{ref}: {found.get(ref, [])}, not {version}"
        for ref, version in expected.items()
        if list(found.get(ref, [])) != ([] if version is None else [version])
    ]


def rows_from_the_future(pgdata: Path, connection: psycopg.Connection) -> int:
    """Count the tuples in a database's files that were inserted by a transaction which the server has yet to begin.

    Everything that the server holds in memory must be in the files: after a checkpoint.
    """
    row = connection.execute(b"SELECT (pg_current_xact_id()::text)::bigint").fetchone()
    next_xid = row[0] if row else 0
    files = connection.execute(
        b"SELECT pg_relation_filepath(oid) FROM pg_class WHERE relkind = 'r' AND relpersistence = 'p'"
    ).fetchall()
    return sum(xmin >= next_xid for (file,) in files for xmin in _inserting_transactions((pgdata / file).read_bytes()))


def _inserting_transactions(relation: bytes) -> Iterator[int]:
    """Yield t_xmin of every tuple that is not frozen (storage/bufpage.h, storage/itemid.h, access/htup_details.h)."""
    for page in range(0, len(relation), BLOCK_SIZE):
        (lower,) = struct.unpack_from("<H", relation, page + 12)
        for pointer in range(page + 24, page + lower, 4):
            (item,) = struct.unpack_from("<I", relation, pointer)
            offset, flags = item & 0x7FFF, item >> 15 & 3
            if flags == 1:
                (xmin,) = struct.unpack_from("<I", relation, page + offset)
                (infomask,) = struct.unpack_from("<H", relation, page + offset + 20)
                if infomask & _FROZEN != _FROZEN:
                    yield xmin


def newest_page(pgdata: Path) -> int:
    """Return the highest LSN that a page of a table or index holds."""
    newest = 0
    for file in (*pgdata.glob("base/*/*"), *pgdata.glob("global/*")):
        if file.name.replace(".", "").isdecimal():
            relation = file.read_bytes()
            for page in range(0, len(relation) - BLOCK_SIZE + 1, BLOCK_SIZE):
                high, low = struct.unpack_from("<II", relation, page)
                (upper,) = struct.unpack_from("<H", relation, page + 14)
                if upper:
                    newest = max(newest, high << 32 | low)
    return newest
