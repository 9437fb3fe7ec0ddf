"""Every index of users is built anew from its table; rows that forbid it are set aside first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from pgrescue.model import Finding, Severity
from pgrescue.repair.duplicates import set_aside_duplicates
from pgrescue.repair.site import said

if TYPE_CHECKING:
    from pgrescue.repair.notes import Notes
    from pgrescue.repair.outcome import Outcome
    from pgrescue.repair.quarantine import Quarantine
    from pgrescue.repair.site import Connection
    from pgrescue.repair.survey import Index, Table

_ATTEMPTS = 3


def rebuild_toast(connection: Connection, table: Table, outcome: Outcome) -> None:
    """Rebuild the index through which a table's large values are found; it comes before anything reads one."""
    if table.toast is None:
        return
    ((name,),) = connection.execute("select relname from pg_catalog.pg_class where oid = %s", (table.toast,)).fetchall()
    try:
        connection.execute(sql.SQL("reindex table {}").format(sql.Identifier("pg_toast", name)))
        outcome.count_rebuilt(table.database, f"pg_toast.{name}")
    except psycopg.Error as error:
        if connection.closed:
            raise
        outcome.tell(_not_rebuilt(table, f"its TOAST index (pg_toast.{name})", said(error)))


def rebuild(connection: Connection, table: Table, quarantine: Quarantine, notes: Notes, outcome: Outcome) -> None:
    """Rebuild the indexes of a table, the one on its key first, then what else must be unique.

    Building is the quickest way to find out whether a key is there twice; only then the table is searched for all.
    """
    for index in sorted(table.indexes, key=lambda index: _order(table, index)):
        try:
            _rebuild(connection, table, index, quarantine, notes)
            outcome.count_rebuilt(table.database, f"{index.schema}.{index.name}")
        except psycopg.Error as error:
            if connection.closed:
                raise
            if isinstance(error, psycopg.errors.ExclusionViolation):
                outcome.tell(_violated(table, index, said(error)))
            outcome.tell(_not_rebuilt(table, index.name, said(error), index=index))


def _order(table: Table, index: Index) -> tuple[bool, bool, int]:
    return index is not table.key, not index.forbids_duplicates, index.oid


def _rebuild(connection: Connection, table: Table, index: Index, quarantine: Quarantine, notes: Notes) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            connection.execute(sql.SQL("reindex index {}").format(index.qualified))
        except psycopg.errors.UniqueViolation:
            if attempt == _ATTEMPTS or not index.forbids_duplicates or table.is_view:
                raise
            set_aside_duplicates(connection, table, index, quarantine, notes.page_lsns(table))
        else:
            return


def _not_rebuilt(table: Table, name: str, problem: str, *, index: Index | None = None) -> Finding:
    if index is not None and not index.is_valid:
        return Finding(
            "index_not_rebuilt",
            Severity.WARNING,
            f"{table.database}.{index.schema}.{name}",
            f"This index was invalid before the rescue already, and still cannot be built: {problem}",
            "Queries do not use it. Drop it, or mend its table and build it anew.",
        )
    return Finding(
        "index_not_rebuilt",
        Severity.ERROR,
        f"{table.object}: {name}" if index is None else f"{table.database}.{index.schema}.{name}",
        f"The index of {table.object} could not be rebuilt; queries that use it may miss rows: {problem}",
        "Mend what the server complains of, then REINDEX it; a dump reads the table without it.",
    )


def _violated(table: Table, index: Index, problem: str) -> Finding:
    return Finding(
        "constraint_violated",
        Severity.WARNING,
        f"{table.database}.{index.schema}.{index.name}",
        f"Rows of {table.object} exclude one another, perhaps old and new versions of one row: {problem}",
        "Find them with the constraint's own operators (set enable_indexscan = off), decide which to keep, REINDEX.",
    )
