"""Check: every row of every table can be read whole, as a dump will read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from pgrescue.model import BlockMap, Finding, Severity
from pgrescue.verify.maps import UNREADABLE, runs_of
from pgrescue.verify.target import Progress, is_damage, listed, words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.verify.survey import Relation, Survey
    from pgrescue.verify.target import Connection, Fact

_CHUNK_BLOCKS = 4096
_RANGE_SCANS_SINCE = 14
_SHOWN = 5
_MOST_ROWS = 10_000
_MOST_BLOCKS = 1000
_NO_TEXT = "22"  # data exceptions: bytes that are no text of this encoding, a value outside of its type
# Virtual columns (18) are computed, not stored, and a dump leaves them out.
_COLUMNS = """
select attname from pg_attribute
 where attrelid = %s and attnum > 0 and not attisdropped and attgenerated <> 'v' order by attnum
"""


@dataclass
class Unread:
    """The rows, and the whole blocks, that could not be read; `more` says that others were not looked for."""

    rows: int = 0
    blocks: list[int] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    more: bool = False

    def add(self, where: str, error: psycopg.Error) -> None:
        """Keep the first few messages."""
        if len(self.messages) < _SHOWN:
            self.messages.append(f"{where}: {words(error)}")

    @property
    def is_full(self) -> bool:
        """Tell whether enough is known to stop looking."""
        return self.rows >= _MOST_ROWS or len(self.blocks) >= _MOST_BLOCKS


class _Reader:
    """Reads rows of one table on the server, and throws them away there."""

    def __init__(self, connection: Connection, survey: Survey, relation: Relation) -> None:
        self._connection = connection
        self._table = sql.Identifier(relation.schema, relation.name)
        columns = connection.execute(_COLUMNS, [relation.oid]).fetchall()
        self._columns = sql.SQL(", ").join(sql.Identifier(name) for (name,) in columns)
        # In the database's own encoding, nothing is converted. COPY writes what pg_dump would get.
        self._encoding = sql.Literal(survey.encoding)

    def copy(self, where: sql.Composable) -> psycopg.Error | None:
        """Read rows whole, and return the damage that stopped it; other errors are raised."""
        query = sql.SQL("copy (select {} from only {} where {}) to '/dev/null' (encoding {})").format(
            self._columns, self._table, where, self._encoding
        )
        try:
            with self._connection.transaction():
                self._connection.execute("set local enable_seqscan = off")  # a range of rows is no reason to read all
                self._connection.execute(query)
        except psycopg.Error as error:
            if self._connection.closed or not (is_damage(error) or (error.sqlstate or "").startswith(_NO_TEXT)):
                raise
            return error
        return None

    def rows_of(self, block: int) -> list[str] | psycopg.Error:
        """Return where the rows of a block are, or why that cannot be told."""
        query = sql.SQL("select ctid::text from only {} where {}").format(self._table, blocks_between(block, block))
        try:
            return [ctid for (ctid,) in self._connection.execute(query).fetchall()]
        except psycopg.Error as error:
            if self._connection.closed or not is_damage(error):
                raise
            return error


def blocks_between(first: int, last: int) -> sql.Composable:
    """Return the condition for the rows in a range of blocks, both ends included."""
    return sql.SQL("ctid >= {}::tid and ctid < {}::tid").format(
        sql.Literal(f"({first},0)"), sql.Literal(f"({last + 1},0)")
    )


def check_rows(connection: Connection, survey: Survey, relation: Relation) -> Iterator[Fact]:
    """Read one table, and find by halves the rows that cannot be read."""
    blocks = survey.blocks(relation)
    reader, unread = _Reader(connection, survey, relation), Unread()
    refused = reader.copy(sql.SQL("false"))
    if refused is not None:
        yield Finding(
            "row_unreadable",
            Severity.ERROR,
            survey.label(relation),
            f"The server cannot open the table, and none of its rows can be read: {words(refused)}.",
            "Look at the findings about the catalogs of this database. pg_dump will stop at this table.",
        )
        return
    # Before 14 every range of rows is a scan of the whole table.
    step = _CHUNK_BLOCKS if survey.major >= _RANGE_SCANS_SINCE else max(blocks, 1)
    for first in range(0, blocks, step):
        last = min(first + step, blocks) - 1
        _read(reader, first, last, unread)
        yield Progress((last - first + 1) * survey.block_size)
    if unread.messages:
        yield from _told(survey, relation, blocks, unread)


def _read(reader: _Reader, first: int, last: int, unread: Unread) -> None:
    error = reader.copy(blocks_between(first, last))
    if error is None:
        return
    if unread.is_full:
        unread.more = True
    elif first < last:
        middle = (first + last) // 2
        _read(reader, first, middle, unread)
        _read(reader, middle + 1, last, unread)
    else:
        _read_one_by_one(reader, first, unread)


def _read_one_by_one(reader: _Reader, block: int, unread: Unread) -> None:
    ctids = reader.rows_of(block)
    if isinstance(ctids, psycopg.Error):
        unread.blocks.append(block)
        unread.add(f"block {block}", ctids)
        return
    for ctid in ctids:
        error = reader.copy(sql.SQL("ctid = {}::tid").format(sql.Literal(ctid)))
        if error is not None:
            unread.rows += 1
            unread.add(ctid, error)


def _told(survey: Survey, relation: Relation, blocks: int, unread: Unread) -> Iterator[Fact]:
    of = "large objects (pg_largeobject)" if relation.is_catalog and relation.name == "pg_largeobject" else "the table"
    least = "at least " if unread.more else ""
    parts = []
    if unread.rows:
        parts.append(f"{least}{unread.rows} rows of {of} cannot be read whole")
    if unread.blocks:
        parts.append(f"{least}{len(unread.blocks)} of {blocks} blocks cannot be read at all")
    total = unread.rows + len(unread.blocks)
    yield Finding(
        "row_unreadable",
        Severity.ERROR,
        survey.label(relation),
        f"{', '.join(parts)}: {listed(unread.messages, total=total, shown=_SHOWN)}.",
        "pg_dump will stop at this table. Read the other rows with COPY (SELECT …) WHERE ctid NOT IN these, or leave "
        "out the column that fails.",
        unread.rows or None,
    )
    if unread.blocks:
        runs = runs_of(dict.fromkeys(unread.blocks, UNREADABLE))
        yield BlockMap(survey.label(relation), relation.path or "", blocks, runs)
