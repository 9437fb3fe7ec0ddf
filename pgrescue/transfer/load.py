"""What single tasks do in the target, each in one transaction together with its mark."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from pgrescue.pipeline import Unit
from pgrescue.transfer.endpoint import as_problem, speaking_of
from pgrescue.transfer.marker import mark
from pgrescue.transfer.stream import TargetSpokeError, copy_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgrescue.errors import RescueError
    from pgrescue.pipeline import Observer
    from pgrescue.transfer.endpoint import Connection
    from pgrescue.transfer.schema import Entry
    from pgrescue.transfer.sessions import Pair
    from pgrescue.transfer.tables import Sequence as SequenceValue
    from pgrescue.transfer.tables import Table

_BATCH = 50
_MOST_TRIES = 3


class Progress:
    """How far the move is, in bytes of the source's tables, in tables and in indexes; any thread may tell."""

    def __init__(self, observer: Observer, *, size_bytes: int, tables: int, indexes: int) -> None:
        self._observer = observer
        self._size_bytes, self._tables, self._indexes = size_bytes, tables, indexes
        self._done_bytes = self._done_tables = self._done_indexes = 0
        self._lock = threading.Lock()

    def rows_went(self, size_bytes: int) -> None:
        """Count bytes of rows."""
        with self._lock:
            self._done_bytes = min(self._done_bytes + size_bytes, self._size_bytes)
            self._tell()

    def table_ended(self) -> None:
        """Count a table."""
        with self._lock:
            self._done_tables += 1
            self._tell()

    def index_ended(self) -> None:
        """Count an index or a constraint."""
        with self._lock:
            self._done_indexes += 1
            self._tell()

    def _tell(self) -> None:
        detail = f"{self._done_tables} of {self._tables} tables"
        if self._done_indexes:
            detail += f", {self._done_indexes} of {self._indexes} indexes and constraints"
        self._observer.advanced(self._done_bytes, self._size_bytes, Unit.BYTES, detail)


class TableProgress:
    """One table's part in it: what went over the wire is scaled to the table's size on disk."""

    def __init__(self, progress: Progress, table: Table) -> None:
        self._progress = progress
        self._left = table.size_bytes

    def went(self, size_bytes: int) -> None:
        """Count bytes of rows, as many as the table can have."""
        step = min(size_bytes, self._left)
        self._left -= step
        self._progress.rows_went(step)

    def ended(self) -> None:
        """Count the rest, and the table."""
        self._progress.rows_went(self._left)
        self._progress.table_ended()


def copy_table(pair: Pair, table: Table, progress: Progress) -> None:
    """Move one table's rows, in one transaction that begins with an empty table; raises RescueError.

    Rows are frozen as they come, which a table allows that was emptied in the same transaction: neither vacuum nor a
    first reader has to write all of it again.
    """
    with speaking_of(f"the rows of {table.label} could not be moved"):
        for attempt in range(_MOST_TRIES):
            own = TableProgress(progress, table)
            try:
                with pair.target.transaction():
                    if table.condition is None:
                        pair.target.execute(sql.SQL("truncate {}").format(table.own_rows))
                    rows = copy_rows(
                        pair.reader,
                        pair.target,
                        table,
                        None,
                        into=copy_in(table, freezes=table.condition is None and table.access_method == "heap"),
                        on_bytes=own.went,
                        listens=attempt + 1 < _MOST_TRIES,
                    )
                    pair.target.execute(mark(table.key, rows))
            except TargetSpokeError:
                continue
            own.ended()
            return


def copy_in(table: Table, *, freezes: bool) -> sql.Composed:
    """Return the statement that takes a table's rows."""
    options = [option for option, is_used in (("format binary", table.is_plain), ("freeze", freezes)) if is_used]
    with_options = sql.SQL(f" with ({', '.join(options)})" if options else "")
    columns = sql.SQL("({})").format(table.column_list) if table.columns else sql.SQL("")
    return sql.SQL("copy {} {} from stdin{}").format(table.identifier, columns, with_options)


def run_entry(target: Connection, entry: Entry, statement: str | None = None) -> None:
    """Make one object of the schema; raises psycopg.Error, with the session usable again, where the target refuses."""
    text = (statement or entry.sql).encode()
    try:
        target.execute(_transaction(target, text, entry.key))
    except psycopg.Error:
        with contextlib.suppress(psycopg.Error):
            target.execute("rollback")
        raise


def run_entries(target: Connection, entries: Sequence[Entry]) -> None:
    """Make objects in their order, many in one round trip; raises RescueError that names the one that failed."""
    for first in range(0, len(entries), _BATCH):
        batch = entries[first : first + _BATCH]
        try:
            target.execute(b"\n".join(_transaction(target, entry.sql.encode(), entry.key) for entry in batch))
        except psycopg.Error as error:
            raise _entry_problem(target, batch, error) from error


def _entry_problem(target: Connection, batch: Sequence[Entry], error: psycopg.Error) -> RescueError:
    """Find the entry that failed: the first of the batch without a mark."""
    name = str(batch[0])
    with contextlib.suppress(psycopg.Error):
        target.execute("rollback")
        done = {row[0] for row in target.execute("select task from pgrescue_transfer.done").fetchall()}
        name = str(next((entry for entry in batch if entry.key not in done), batch[0]))
    return as_problem(f"{name} could not be made in the target", error)


def _transaction(target: Connection, text: bytes, key: str) -> bytes:
    return b"begin;\n" + text + b"\n;" + mark(key).as_bytes(target) + b";\ncommit;"


def set_sequences(target: Connection, sequences: Sequence[SequenceValue], key: str) -> None:
    """Have sequences stand where they do in the source; raises RescueError."""
    with speaking_of("the sequences could not be set"), target.transaction():
        for first in range(0, len(sequences), 500):
            values = sql.SQL(", ").join(
                sql.SQL("pg_catalog.setval({}::pg_catalog.regclass, {}, {})").format(
                    sql.Literal(sql.Identifier(one.schema, one.name).as_string(target)), one.last_value, one.is_called
                )
                for one in sequences[first : first + 500]
            )
            target.execute(sql.SQL("select {}").format(values))
        target.execute(mark(key))
