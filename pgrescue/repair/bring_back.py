"""Rows whose newest version the copy lost, while an older one is still there: the older one is brought back.

An older version was deleted by the update that made the lost one. pg_surgery's heap_force_freeze makes it visible where
it lies, which may be in the middle of a HOT chain, where no index can lead to it. So it is read from there once, kept
in the quarantine, and deleted; when the indexes are sound again, it is inserted like any other row, unless a visible
row has its key: then that one is newer, and the older version is dropped.

`older_versions` in the quarantine's schema remembers what became of each, in the transaction that did it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from pgrescue.model import Finding, Severity
from pgrescue.repair.outcome import Fate, Outcome
from pgrescue.repair.quarantine import Doomed, Quarantine, create_table, key_object, undisturbed
from pgrescue.repair.site import said, tid_array
from pgrescue.repair.tools import extension

if TYPE_CHECKING:
    from pgrescue.repair.notes import Evidence
    from pgrescue.repair.site import Connection
    from pgrescue.repair.survey import Index, Table

_RECORD = "older_versions"
_RECORD_COLUMNS = (
    "table_oid bigint",
    "table_name text",
    "old_ctid pg_catalog.tid",
    "number bigint",
    "key jsonb",
    "fate text",
)
_REASON = "an older version: the newest one was lost"
_BATCH = 1000


def stage(connection: Connection, schema: str, table: Table, evidence: Evidence, outcome: Outcome) -> bool:
    """Take the older versions of rows into the quarantine; tell those that cannot be. Return whether there are any.

    The session must be the only one at work on the table.
    """
    tids = [tid for tid in evidence.broken if tid not in _known(connection, schema, table)]
    if not evidence.broken:
        return False
    with extension(connection, "pg_surgery") as tools:
        if table.key is None or tools is None:
            reason = "it has no key" if table.key is None else "this PostgreSQL does not have pg_surgery"
            _tell_uncertain(table, evidence.broken, reason, outcome)
            return False
        for begin in range(0, len(tids), _BATCH):
            batch = tids[begin : begin + _BATCH]
            connection.execute(
                sql.SQL("select {}.heap_force_freeze({}::pg_catalog.oid::pg_catalog.regclass, {})").format(
                    tools, sql.Literal(table.oid), tid_array(batch)
                )
            )
            _take(connection, schema, table, batch, begin)
    return True


def restore(connection: Connection, schema: str, table: Table) -> None:
    """Insert the older versions again whose key no visible row has; the indexes must be sound."""
    if not _exists(connection, schema):
        return
    staged = connection.execute(
        sql.SQL("select old_ctid::text from {} where table_oid = {} and fate = 'staged' order by number").format(
            sql.Identifier(schema, _RECORD), sql.Literal(table.oid)
        )
    ).fetchall()
    if not staged:
        return
    quarantine = Quarantine(schema, table)
    for begin in range(0, len(staged), _BATCH):
        with connection.transaction(), undisturbed(connection, table):
            for (tid,) in staged[begin : begin + _BATCH]:
                _restore_row(connection, schema, table, quarantine, tid)
    # The deleted versions may stand alone in the middle of what was a HOT chain, which checks take for damage.
    with contextlib.suppress(psycopg.Error):  # the checks tell whether it matters
        connection.execute(sql.SQL("vacuum {}").format(table.qualified))
    if connection.closed:
        msg = "the server ended the session"
        raise psycopg.OperationalError(msg)


def tell_brought_back(connection: Connection, schema: str, table: Table, outcome: Outcome) -> None:
    """Tell which rows are there in an older version."""
    if not _exists(connection, schema):
        return
    rows = connection.execute(
        sql.SQL(
            "select old_ctid::text, key from {} where table_oid = {} and fate = 'brought back' order by number"
        ).format(sql.Identifier(schema, _RECORD), sql.Literal(table.oid))
    ).fetchall()
    if not rows:
        return
    name = f"{table.schema}.{table.name}"
    outcome.add(table.database, name, Fate.BROUGHT_BACK, [{"ctid": tid, "key": key} for tid, key in rows])
    outcome.tell(
        Finding(
            "rows_brought_back",
            Severity.WARNING,
            table.object,
            "The newest version of these rows is not in the copy; an older one was, and is what you see now.",
            "The manifest has their keys: compare them with what you know of the last changes.",
            len(rows),
        )
    )


def _known(connection: Connection, schema: str, table: Table) -> set[str]:
    """Return the places of versions that an earlier attempt has dealt with."""
    known: set[str] = set()
    if _exists(connection, schema):
        known |= {
            row[0]
            for row in connection.execute(
                sql.SQL("select old_ctid::text from {} where table_oid = {}").format(
                    sql.Identifier(schema, _RECORD), sql.Literal(table.oid)
                )
            )
        }
    quarantine = Quarantine(schema, table)
    if quarantine.exists(connection):
        rows = connection.execute(sql.SQL("select pgrescue_ctid::text from {}").format(quarantine.qualified))
        known |= {row[0] for row in rows}
    return known


def _take(connection: Connection, schema: str, table: Table, tids: list[str], number: int) -> None:
    """Move frozen rows into the quarantine, together or else one by one.

    One whose TOAST values cannot be read stays where it is, and is dealt with like every such row (toast.py).
    """
    try:
        _move(connection, schema, table, tids, number)
    except psycopg.Error:
        if connection.closed or len(tids) == 1:
            return
        for index, tid in enumerate(tids):
            _take(connection, schema, table, [tid], number + index)


def _move(connection: Connection, schema: str, table: Table, tids: list[str], number: int) -> None:
    quarantine = Quarantine(schema, table)
    record = sql.Identifier(schema, _RECORD)
    array = tid_array(tids)
    with connection.transaction():
        quarantine.keep(connection, [Doomed(tid, _REASON) for tid in tids])
        create_table(connection, record, [sql.SQL(column) for column in _RECORD_COLUMNS])
        connection.execute(
            sql.SQL(
                "insert into {record} select {oid}, {name}, t.ctid, {number} + d.n, {key}, 'staged' from only {table} t"
                " join pg_catalog.unnest({tids}) with ordinality as d (tid, n) on t.ctid = d.tid"
            ).format(
                record=record,
                oid=sql.Literal(table.oid),
                name=sql.Literal(f"{table.schema}.{table.name}"),
                number=sql.Literal(number),
                key=key_object(table),
                table=table.qualified,
                tids=array,
            )
        )
        with undisturbed(connection, table):
            connection.execute(sql.SQL("delete from only {} where ctid = any ({})").format(table.qualified, array))


def _restore_row(connection: Connection, schema: str, table: Table, quarantine: Quarantine, tid: str) -> None:
    """Insert one row, and note what became of it."""
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns if not column.is_generated)
    where = sql.SQL("pgrescue_ctid = {}::pg_catalog.tid").format(sql.Literal(tid))
    reason = None
    try:
        with connection.transaction():
            inserted = connection.execute(
                sql.SQL(
                    "insert into {} ({}) overriding system value select {} from {} where {} on conflict do nothing"
                ).format(table.qualified, names, names, quarantine.qualified, where)
            ).rowcount
    except psycopg.Error as error:
        if connection.closed:
            raise
        inserted, reason = 0, said(error)
    if inserted:
        fate = "brought back"
    elif reason is None and table.key is not None and _has_key(connection, table, table.key, quarantine, where):
        fate = "superseded"
    else:
        fate = "set aside"
    connection.execute(
        sql.SQL("update {} set fate = {} where table_oid = {} and old_ctid = {}::pg_catalog.tid").format(
            sql.Identifier(schema, _RECORD), sql.Literal(fate), sql.Literal(table.oid), sql.Literal(tid)
        )
    )
    if fate == "set aside":
        why = f"{_REASON}, and it does not fit in any more: {reason or 'another row has a value that must be unique'}"
        connection.execute(
            sql.SQL("update {} set pgrescue_reason = {} where {}").format(quarantine.qualified, sql.Literal(why), where)
        )
    else:
        connection.execute(sql.SQL("delete from {} where {}").format(quarantine.qualified, where))


def _has_key(connection: Connection, table: Table, key: Index, quarantine: Quarantine, where: sql.Composable) -> bool:
    """Tell whether a visible row has the key of a row in the quarantine."""
    same = sql.SQL(" and ").join(
        sql.SQL("t.{name} = q.{name}").format(name=sql.Identifier(column)) for column in key.columns
    )
    found = connection.execute(
        sql.SQL("select 1 from only {} t, {} q where {} and q.{}").format(
            table.qualified, quarantine.qualified, same, where
        )
    ).fetchall()
    return bool(found)


def _exists(connection: Connection, schema: str) -> bool:
    name = f"{_quoted(schema)}.{_RECORD}"
    return connection.execute("select pg_catalog.to_regclass(%s) is not null", (name,)).fetchall()[0][0] is True


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _tell_uncertain(table: Table, tids: list[str], reason: str, outcome: Outcome) -> None:
    outcome.add(
        table.database,
        f"{table.schema}.{table.name}",
        Fate.UNCERTAIN,
        [{"ctid": tid, "reason": f"its newest version was lost, and {reason}"} for tid in tids],
    )
    outcome.tell(
        Finding(
            "rows_uncertain",
            Severity.WARNING,
            table.object,
            "The newest version of rows of this table is not in the copy. An older one is, but cannot be brought back, "
            f"since {reason}.",
            "The manifest has the places (ctid) of the older versions; an expert can read them with pageinspect.",
            len(tids),
        )
    )
