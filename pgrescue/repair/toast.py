"""Rows with a value that cannot be read: parts of it, stored elsewhere (TOAST), are not in the copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from pgrescue.repair.quarantine import Doomed, Quarantine
from pgrescue.repair.site import said

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.repair.site import Connection
    from pgrescue.repair.survey import Column, Table

_CHUNK_ID_SINCE = 17
_BATCH = 1000


def set_aside_unreadable(connection: Connection, table: Table, quarantine: Quarantine, *, major: int) -> int:
    """Move the rows of which a value cannot be read into the quarantine, without that value; return how many.

    The index of the TOAST table must be sound: values are found through it.
    """
    columns = [column for column in table.columns if column.is_toastable]
    if not columns or not table.toast_bytes:
        return 0
    tids = list(_unreadable(connection, table, columns, major))
    doomed = [_judge(connection, table, columns, tid) for tid in tids]
    for begin in range(0, len(doomed), _BATCH):
        quarantine.move(connection, doomed[begin : begin + _BATCH])
    return len(doomed)


def _unreadable(connection: Connection, table: Table, columns: list[Column], major: int) -> Iterator[str]:
    """Find the rows, by reading ranges of blocks: one that cannot be read is halved until a single row is left."""
    size = connection.execute(
        "select pg_catalog.pg_relation_size(%s::oid) / pg_catalog.current_setting('block_size')::bigint", (table.oid,)
    ).fetchall()[0][0]
    waiting = [(0, int(size))]
    while waiting:
        first, end = waiting.pop()
        if first >= end or _reads(connection, table, columns, _range(first, end), major):
            continue
        if end - first > 1:
            middle = (first + end) // 2
            waiting += [(middle, end), (first, middle)]
            continue
        for (tid,) in connection.execute(
            sql.SQL("select ctid::text from only {} where {}").format(table.qualified, _range(first, end))
        ).fetchall():
            if not _reads(connection, table, columns, _is(tid), major):
                yield tid


def _judge(connection: Connection, table: Table, columns: list[Column], tid: str) -> Doomed:
    """Find out which columns of a row cannot be read, and why."""
    unreadable, reasons = [], []
    for column in columns:
        try:
            _read(connection, table, [column], _is(tid))
        except psycopg.Error as error:
            if connection.closed:
                raise
            unreadable.append(column.name)
            reasons.append(f"{column.name}: {said(error)}")
    return Doomed(tid, f"unreadable, and NULL here: {'; '.join(reasons)}", tuple(unreadable))


def _reads(connection: Connection, table: Table, columns: list[Column], where: sql.Composable, major: int) -> bool:
    if major >= _CHUNK_ID_SINCE:
        stored = sql.SQL(" or ").join(
            sql.SQL("pg_catalog.pg_column_toast_chunk_id({}) is not null").format(sql.Identifier(column.name))
            for column in columns
        )
        where = sql.SQL("{} and ({})").format(where, stored)
    try:
        _read(connection, table, columns, where)
    except psycopg.Error:
        if connection.closed:
            raise
        return False
    return True


def _read(connection: Connection, table: Table, columns: list[Column], where: sql.Composable) -> None:
    """Have the server write out the values as a dump would, and throw them away."""
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)
    connection.execute(
        sql.SQL("copy (select {} from only {} where {}) to '/dev/null'").format(names, table.qualified, where)
    )


def _range(first: int, end: int) -> sql.Composable:
    return sql.SQL("ctid >= {}::pg_catalog.tid and ctid < {}::pg_catalog.tid").format(
        sql.Literal(f"({first},0)"), sql.Literal(f"({end},0)")
    )


def _is(tid: str) -> sql.Composable:
    return sql.SQL("ctid = {}::pg_catalog.tid").format(sql.Literal(tid))
