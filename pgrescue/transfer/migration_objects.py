"""Large objects in a migration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgrescue.transfer.large_objects import read_piece

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from pgrescue.transfer.endpoint import Connection

_OBJECTS = "pg_catalog.pg_largeobject_metadata"
_BATCH = 100
_PIECE_BYTES = 1 << 20


def read_objects(connection: Connection) -> tuple[int, ...]:
    """Return the numbers of all large objects; raises psycopg.Error."""
    rows = connection.execute("select oid::bigint from pg_catalog.pg_largeobject_metadata order by oid").fetchall()
    return tuple(int(row[0]) for row in rows)


def write_objects(connection: Connection, oids: Sequence[int], out: BinaryIO) -> None:
    """Write statements that put large objects in the place of those of the same numbers; raises psycopg.Error."""
    if not oids:
        return
    out.write(b"\n\n--\n-- Large objects\n--\n\n")
    for first in range(0, len(oids), _BATCH):
        part = ", ".join(map(str, oids[first : first + _BATCH]))
        statement = f"SELECT pg_catalog.lo_unlink(oid) FROM {_OBJECTS} WHERE oid IN ({part});\n"  # noqa: S608 - numbers
        out.write(statement.encode())
    for oid in oids:
        offset = 0
        while piece := read_piece(connection, oid, offset, _PIECE_BYTES):
            call = f"lo_put({oid}, {offset}" if offset else f"lo_from_bytea({oid}"
            out.write(f"SELECT pg_catalog.{call}, '\\x{piece.hex()}');\n".encode())
            offset += len(piece)
        if offset == 0:
            out.write(f"SELECT pg_catalog.lo_create({oid});\n".encode())
