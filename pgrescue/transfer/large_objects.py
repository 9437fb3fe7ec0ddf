"""Large objects, with their numbers, owners, privileges and comments."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from pgrescue.transfer.endpoint import is_external, said, speaking_of
from pgrescue.transfer.marker import mark

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from pgrescue.transfer.endpoint import Connection
    from pgrescue.transfer.sessions import Pair

BATCH = 200
_PIECE_BYTES = 4 << 20

_DESCRIBED = """
select m.oid::bigint, pg_catalog.pg_get_userbyid(m.lomowner)::text, pg_catalog.obj_description(m.oid, 'pg_largeobject'),
       (select pg_catalog.array_agg(array[
                   case when a.grantee = 0 then '' else pg_catalog.pg_get_userbyid(a.grantee)::text end,
                   a.privilege_type, a.is_grantable::text])
          from pg_catalog.aclexplode(m.lomacl) as a where a.grantee <> m.lomowner)
  from pg_catalog.pg_largeobject_metadata as m
 where m.oid::bigint between %s and %s
 order by m.oid
"""


@dataclass(frozen=True)
class Range:
    """Large objects that are moved together: the first and the last number of them, and how many there are."""

    first: int
    last: int
    count: int

    @property
    def key(self) -> str:
        """Its name among the tasks."""
        return f"large-objects:{self.first}-{self.last}"


def read_ranges(connection: Connection) -> tuple[Range, ...]:
    """Return all large objects of the database in ranges; raises psycopg.Error."""
    oids = [
        row[0]
        for row in connection.execute(
            "select oid::bigint from pg_catalog.pg_largeobject_metadata order by oid"
        ).fetchall()
    ]
    parts = [oids[first : first + BATCH] for first in range(0, len(oids), BATCH)]
    return tuple(Range(part[0], part[-1], len(part)) for part in parts)


def copy_large_objects(
    pair: Pair, part: Range, *, keeps_owners: bool, strangers: AbstractSet[str], salvages: bool
) -> list[tuple[int, str]]:
    """Move the large objects of one range in one transaction; what `strangers` own is kept by the target's role.

    Returns those that cannot be read, each with the server's words, where it `salvages`; else they raise RescueError.
    """
    unread: list[tuple[int, str]] = []
    with speaking_of(f"the large objects {part.first} to {part.last} could not be moved"), pair.target.transaction():
        for oid, owner, comment, grants in pair.source.execute(_DESCRIBED, [part.first, part.last]).fetchall():
            try:
                _copy_content(pair, oid, in_savepoint=salvages)
            except psycopg.Error as error:
                if not salvages or is_external(error) or pair.target.closed or pair.source.closed:
                    raise
                unread.append((oid, said(error)))
                continue
            number = sql.Literal(oid)
            if comment is not None:
                pair.target.execute(sql.SQL("comment on large object {} is {}").format(number, sql.Literal(comment)))
            if keeps_owners:
                if owner not in strangers:
                    pair.target.execute(
                        sql.SQL("alter large object {} owner to {}").format(number, sql.Identifier(owner))
                    )
                for grantee, privilege, is_grantable in grants or ():
                    pair.target.execute(
                        sql.SQL("grant {} on large object {} to {}{}").format(
                            sql.SQL(privilege),
                            number,
                            sql.Identifier(grantee) if grantee else sql.SQL("public"),
                            sql.SQL(" with grant option" if is_grantable == "true" else ""),
                        )
                    )
        pair.target.execute(mark(part.key, part.count - len(unread)))
    return unread


def _copy_content(pair: Pair, oid: int, *, in_savepoint: bool) -> None:
    if in_savepoint:
        with pair.source.transaction(), pair.target.transaction():
            _copy_content(pair, oid, in_savepoint=False)
        return
    offset = 0
    while True:
        piece = read_piece(pair.source, oid, offset)
        if offset == 0:
            pair.target.execute("select pg_catalog.lo_from_bytea(%s::oid, %b)", [oid, piece])
        elif piece:
            pair.target.execute("select pg_catalog.lo_put(%s::oid, %s::bigint, %b)", [oid, offset, piece])
        if len(piece) < _PIECE_BYTES:
            return
        offset += len(piece)


def read_piece(connection: Connection, oid: int, offset: int, size_bytes: int = _PIECE_BYTES) -> bytes:
    """Return up to so many bytes of a large object; none behind its end."""
    row = (
        connection.cursor(binary=True)
        .execute("select pg_catalog.lo_get(%s::oid, %s::bigint, %s::integer)", [oid, offset, size_bytes])
        .fetchone()
    )
    assert row is not None  # noqa: S101 - a select without a table
    return bytes(row[0])


def digest(connection: Connection) -> tuple[int, str]:
    """Return how many large objects there are, and a hash of all their numbers and contents."""
    whole = hashlib.sha256()
    oids = [
        row[0]
        for row in connection.execute(
            "select oid::bigint from pg_catalog.pg_largeobject_metadata order by oid"
        ).fetchall()
    ]
    for first in range(0, len(oids), BATCH):
        for oid, length, content in _hashes(connection, oids[first : first + BATCH]):
            whole.update(f"{oid}:{content};".encode())
            offset = length
            while offset and offset % _PIECE_BYTES == 0 and (piece := read_piece(connection, oid, offset)):
                whole.update(hashlib.md5(piece, usedforsecurity=False).digest())
                offset += len(piece)
    return len(oids), whole.hexdigest()


def _hashes(connection: Connection, oids: Sequence[int]) -> list[tuple[int, int, str]]:
    return connection.execute(
        "select oid::bigint, pg_catalog.length(piece), pg_catalog.md5(piece) "
        "from (select oid, pg_catalog.lo_get(oid, 0, %s) as piece from pg_catalog.unnest(%s::oid[]) as oid) as read",
        [_PIECE_BYTES, list(oids)],
    ).fetchall()
