"""The rows of a migration as pg_dump writes them, in a file."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from psycopg import sql

from pgrescue.pipeline import Unit
from pgrescue.steps.ownership import hand_over
from pgrescue.transfer.endpoint import speaking_of
from pgrescue.transfer.migration_scope import selection_of
from pgrescue.transfer.migration_script import copy_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from pgrescue.pipeline import Observer
    from pgrescue.transfer.endpoint import Connection
    from pgrescue.transfer.facts import Facts
    from pgrescue.transfer.migration_findings import Known
    from pgrescue.transfer.migration_scope import Relation, Scope
    from pgrescue.transfer.source import Source

_MOST_ROWS = 100
"""Of one INSERT: more make neither the file much smaller nor psql much faster."""

_MOST_BYTES = 64 << 20
"""Of one INSERT, about; the server takes no statement above 1 GB (MaxAllocSize)."""

_LOOK_EVERY_S = 1.0


def encoding_of(facts: Facts) -> str:
    """Return the encoding of the rows in the file."""
    return "SQL_ASCII" if facts.encoding == "SQL_ASCII" else "UTF8"


def write_rows(source: Source, reader: Connection, known: Known, out: BinaryIO, observer: Observer) -> None:
    """Write all rows and the values of sequences, as of the reader's snapshot: at last the tables with wide rows."""
    scope, wide = known.scope, known.wide
    with speaking_of("the source could not be read"):
        row = reader.execute("select pg_catalog.pg_export_snapshot()").fetchone()
    assert row is not None  # noqa: S101 - a select without a table
    common = ["--data-only", "--column-inserts", "--no-owner", f"--encoding={encoding_of(known.facts)}"]
    common.append(f"--snapshot={row[0]}")
    parts = [(_MOST_ROWS, scope.selection(without=wide.keys()))]
    if wide:
        fewest = min(rows_per_insert(width) for width in wide.values())
        parts.append((fewest, selection_of(one for one in scope.tables if one.oid in wide)))
    for rows, selection in parts:
        if selection:
            with _dumped(source, reader, [*common, f"--rows-per-insert={rows}", *selection], observer) as dump:
                copy_rows(dump, out)


@contextlib.contextmanager
def _dumped(source: Source, reader: Connection, args: Sequence[str], observer: Observer) -> Iterator[BinaryIO]:
    """Give what pg_dump writes as a file, which is gone after the block.

    A file, because it may not fit in memory; in the scratch directory, because pg_dump may run as another user, and in
    a container.
    """
    path = source.scratch / "migration.dump"
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    try:
        hand_over(source.engine, path)
        with _growing(path, observer):
            source.pg_dump([*args, f"--file={source.engine.path(path)}"], reader)
        with path.open("rb") as dump:
            yield dump
    finally:
        path.unlink(missing_ok=True)


def rows_per_insert(widest_bytes: int) -> int:
    """Return how many rows one INSERT may have where the widest one has so many bytes, which hex doubles."""
    return max(1, min(_MOST_ROWS, _MOST_BYTES // (2 * widest_bytes or 1)))


_COLUMNS = """
select a.attname::text, coalesce(b.typname, y.typname) in ('text', 'varchar', 'bpchar', 'bytea')
  from pg_catalog.pg_attribute as a
  join pg_catalog.pg_type as y on y.oid = a.atttypid
  left join pg_catalog.pg_type as b on b.oid = y.typbasetype
 where a.attrelid = %s::oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' and a.attlen = -1
"""
_COMPRESSED = 10
"""How much longer a value may be than it is stored, where its length cannot be had without reading it."""


def wide_tables(reader: Connection, scope: Scope) -> dict[int, int]:
    """Return the tables of which fewer rows than usual go into one INSERT, each with the bytes of its widest row."""
    found = {one.oid: _widest(reader, one) for one in scope.tables if one.toast_bytes >= _MOST_BYTES}
    return {oid: width for oid, width in found.items() if rows_per_insert(width) < _MOST_ROWS}


def _widest(reader: Connection, table: Relation) -> int:
    """Return the bytes of a table's widest row, about.

    octet_length reads the length of such a value, not the value (varlena.c, textoctetlen, byteaoctetlen).
    """
    widths = [
        sql.SQL("coalesce(pg_catalog.octet_length({}), 0)").format(sql.Identifier(name))
        if is_plain
        else sql.SQL("{} * coalesce(pg_catalog.pg_column_size({}), 0)").format(
            sql.Literal(_COMPRESSED), sql.Identifier(name)
        )
        for name, is_plain in reader.execute(_COLUMNS, [table.oid]).fetchall()
    ]
    row = reader.execute(
        sql.SQL("select max({}) from only {}").format(sql.SQL("::bigint + ").join(widths), table.identifier)
    ).fetchone()
    return int(row[0] or 0) if row else 0


@contextlib.contextmanager
def _growing(path: Path, observer: Observer) -> Iterator[None]:
    """Let the observer see how far a file has grown while the block runs."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_EVERY_S):
            observer.advanced(path.stat().st_size, None, Unit.BYTES)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
