"""Whether two databases hold the same: every table's rows, the sequences, how many objects of each kind."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

import psycopg
from psycopg import pq, sql
from psycopg.errors import error_from_result

from pgrescue.model import Finding, Severity
from pgrescue.transfer.endpoint import speaking_of
from pgrescue.transfer.facts import query
from pgrescue.transfer.sockets import results
from pgrescue.transfer.tables import read_sequences, read_tables
from pgrescue.transfer.tasks import Task, run_tasks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from pgrescue.transfer.endpoint import Connection
    from pgrescue.transfer.sessions import Pair
    from pgrescue.transfer.tables import Table


class CompareLevel(StrEnum):
    """How much is compared: the content of every row, how many rows there are, or nothing."""

    HASH = "hash"
    COUNT = "count"
    NONE = "none"


@dataclass(frozen=True)
class Content:
    """What a table holds: how many rows, and the sum of their hashes, which knows no order."""

    rows: int
    digest: int | None


@dataclass(frozen=True)
class Compared:
    """One table on both sides."""

    table: Table
    source: Content
    target: Content

    @property
    def is_equal(self) -> bool:
        """Tell whether both hold the same, as far as was asked."""
        return self.source == self.target


def content_query(
    table: Table, level: CompareLevel, where: sql.Composable | None = None, *, as_utf8: bool = False
) -> sql.Composed:
    """Return the query for a table's Content.

    A row's text is that of record_out, as exact as what COPY writes, or its form `as_utf8` for databases of different
    encodings. Its hash has 64 bits; the sum is taken as numeric, so that it neither overflows nor forgets a row that
    is there twice.
    """
    digest: sql.Composable = sql.SQL("null")
    if level is CompareLevel.HASH:
        row = sql.SQL("row({})::text").format(table.column_list if table.columns else sql.SQL(""))
        if as_utf8:
            row = sql.SQL("pg_catalog.encode(pg_catalog.convert_to({}, 'UTF8'), 'hex')").format(row)
        digest = sql.SQL('sum(pg_catalog.hashtextextended({} collate "C", 0))').format(row)
    parts: list[sql.Composable] = [sql.SQL("select count(*), {} from {}").format(digest, table.own_rows)]
    if table.condition:
        parts.append(sql.SQL(table.condition))
    elif where is not None:
        parts += [sql.SQL("where"), where]
    return sql.SQL(" ").join(parts)


def read_content(connection: Connection, statement: sql.Composed) -> Content:
    """Return what a content_query finds."""
    row = connection.execute(statement).fetchone()
    assert row is not None  # noqa: S101 - an aggregate gives one row
    return Content(int(row[0]), None if row[1] is None else int(row[1]))


def compare_table(pair: Pair, table: Table, level: CompareLevel) -> Compared:
    """Ask both sides at the same time."""
    statement = content_query(table, level, as_utf8=pair.converts)
    asked = pair.source.pgconn
    asked.send_query(statement.as_bytes(pair.source))
    try:
        there = _there(pair.target, table, statement)
    except BaseException:
        # Nobody waits for its answer any more.
        with contextlib.suppress(psycopg.Error, OSError):
            pair.source.cancel_safe(timeout=5)
            _answer(pair.source)
        raise
    return Compared(table, _answer(pair.source), there)


def _there(target: Connection, table: Table, statement: sql.Composed) -> Content:
    with target.transaction():
        if table.forces_rls:
            # Undone with the transaction: a table's own policies would hide rows from its owner.
            target.execute(sql.SQL("alter table {} no force row level security").format(table.identifier))
        there = read_content(target, statement)
        if table.forces_rls:
            raise psycopg.Rollback
    return there


Comparing: TypeAlias = Callable[["Pair", "Table", CompareLevel], Compared]
"""How one table is compared."""


def _answer(connection: Connection) -> Content:
    """Take the answer to a query that was sent before."""
    found: Content | None = None
    error: psycopg.Error | None = None
    for result in results(connection.pgconn):
        if result.status == pq.ExecStatus.TUPLES_OK:
            count, digest = result.get_value(0, 0), result.get_value(0, 1)
            found = Content(int(count or 0), None if digest is None else int(digest))
        else:
            error = error_from_result(result, encoding=connection.info.encoding)
    if error is not None or found is None:
        raise error or psycopg.OperationalError("the source gave no answer")
    return found


def compare_tables(
    tables: Sequence[Table],
    opener: Callable[[], AbstractContextManager[Pair]],
    *,
    level: CompareLevel,
    jobs: int,
    comparing: Comparing = compare_table,
) -> tuple[Compared, ...]:
    """Compare tables, several at once, the largest first; raises RescueError."""
    found: dict[str, Compared] = {}

    def task_of(table: Table) -> Task[Pair]:
        def run(pair: Pair) -> None:
            with speaking_of(f"{table.label} could not be compared"):
                found[table.key] = comparing(pair, table, level)

        return Task(f"compare:{table.label}", run)

    run_tasks([task_of(table) for table in tables], opener, workers=jobs)
    return tuple(found[table.key] for table in tables)


def differences(compared: Sequence[Compared]) -> Iterator[Finding]:
    """Yield a finding for each table that is not the same."""
    for one in compared:
        if one.is_equal:
            continue
        if one.source.rows != one.target.rows:
            detail = f"The source has {one.source.rows:,} rows, the target {one.target.rows:,}."
        else:
            detail = f"Both have {one.source.rows:,} rows, and not the same."
        yield Finding(
            "content_differs",
            Severity.ERROR,
            one.table.label,
            detail,
            "Do not use the target. If nobody else wrote to it, run the same command again: it starts over.",
            abs(one.source.rows - one.target.rows) or None,
        )


def compare_sequences(source: Connection, target: Connection) -> Iterator[Finding]:
    """Yield the sequences that do not stand where they do in the source."""
    there = {one.label: one for one in read_sequences(target)}
    for one in read_sequences(source):
        other = there.get(one.label)
        if other is None or (other.last_value, other.is_called) != (one.last_value, one.is_called):
            yield Finding(
                "content_differs",
                Severity.ERROR,
                one.label,
                f"The sequence stands at {one.last_value} in the source"
                + (" and is not in the target." if other is None else f", at {other.last_value} in the target."),
                "Do not use the target. If nobody else wrote to it, run the same command again: it starts over.",
            )


def compare_counts(source: Connection, target: Connection, *, but_for: Mapping[str, int]) -> Iterator[Finding]:
    """Yield the kinds of objects of which the target has another number; `but_for` counts those left out on purpose."""
    here: dict[str, int] = dict(source.execute(query("counts")).fetchall())
    there: dict[str, int] = dict(target.execute(query("counts")).fetchall())
    for kind in sorted(here.keys() | there.keys()):
        expected = here.get(kind, 0) - but_for.get(kind, 0)
        if kind == "extensions" or (kind == "schemas" and there.get(kind, 0) > expected):
            continue  # an empty target may have more of them, and the preflight saw to those that are needed
        if expected != there.get(kind, 0):
            yield Finding(
                "objects_differ",
                Severity.ERROR,
                kind,
                f"The source has {expected:,}, the target {there.get(kind, 0):,}.",
                "Compare pg_dump --schema-only of both; something was not moved, or was made in the target meanwhile.",
            )


def compare_validity(source: Connection, target: Connection) -> Iterator[Finding]:
    """Yield constraints that are not valid, and indexes that are not used, in the target and not in the source."""
    here, there = (set(side.execute(query("invalid")).fetchall()) for side in (source, target))
    for kind, name in sorted(there - here):
        yield Finding(
            "constraint_not_valid",
            Severity.WARNING,
            name,
            f"The {kind} is not valid in the target: rows violate it, or it was not built to the end.",
            "Mend the rows, then ALTER TABLE … VALIDATE CONSTRAINT, or REINDEX.",
        )


def is_same_database(
    pair: Pair, level: CompareLevel, *, but_for: Mapping[str, int], comparing: Comparing = compare_table
) -> bool:
    """Tell whether the target holds just what the source does: as after a transfer that ended well before.

    `but_for` counts, by kind, the objects that such a transfer leaves out. What may not be read is not the same. Raises
    psycopg.Error.
    """
    here, there = read_tables(pair.source), read_tables(pair.target)

    def shape(tables: Sequence[Table]) -> set[tuple[str, tuple[str, ...]]]:
        return {(table.label, table.columns) for table in tables}

    if shape(here) != shape(there):
        return False
    if any(compare_counts(pair.source, pair.target, but_for=but_for)):
        return False
    least = CompareLevel.COUNT if level is CompareLevel.NONE else level
    try:
        if any(compare_sequences(pair.source, pair.target)):
            return False
        return all(comparing(pair, table, least).is_equal for table in here)
    except psycopg.errors.InsufficientPrivilege:
        return False
