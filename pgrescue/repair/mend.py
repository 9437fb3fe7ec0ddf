"""One table, from reading its large values to naming the rows that are gone; tables are mended side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from pgrescue.model import Finding, Severity
from pgrescue.repair import bring_back, reindex, toast
from pgrescue.repair.outcome import Fate, Outcome
from pgrescue.repair.quarantine import Quarantine
from pgrescue.repair.site import Site, find_operators, said

if TYPE_CHECKING:
    from pgrescue.repair.notes import Notes
    from pgrescue.repair.site import Connection
    from pgrescue.repair.survey import Table


def mend_table(site: Site, table: Table, schema: str, notes: Notes, outcome: Outcome) -> None:
    """Set aside what cannot stay, rebuild every index, bring older versions back, and tell of it.

    What is lost is told by the caller, who has the old index of the key.
    """
    quarantine = Quarantine(schema, table)
    with site.heaps(table.database) as connection:
        reindex.rebuild_toast(connection, table, outcome)
        if table.is_view:
            _mend_view(connection, table, outcome)
            return
        toast.set_aside_unreadable(connection, table, quarantine, major=site.major)
        reindex.rebuild(connection, table, quarantine, notes, outcome)
    with site.indexed(table.database) as connection:
        key = table.key
        find_operators(connection, [] if key is None else [item["schema"] for item in key.stored])
        bring_back.restore(connection, schema, table)
        bring_back.tell_brought_back(connection, schema, table, outcome)
        _tell_set_aside(connection, table, quarantine, outcome)


def _tell_set_aside(connection: Connection, table: Table, quarantine: Quarantine, outcome: Outcome) -> None:
    """Tell what lies in the quarantine, also by an attempt that was killed."""
    rows = quarantine.rows(connection)
    outcome.add(table.database, f"{table.schema}.{table.name}", Fate.SET_ASIDE, rows)
    unreadable = sum(row["reason"].startswith("unreadable") for row in rows)
    place = f"{table.database}: {quarantine.qualified.as_string(connection)}"
    if unreadable:
        outcome.tell(
            Finding(
                "rows_unreadable_set_aside",
                Severity.WARNING,
                table.object,
                f"A large value of these rows cannot be read, since its parts (TOAST) are not in the copy. They lie in "
                f"{place}, with NULL for that value.",
                "Insert them again without the value, or get it from elsewhere; pgrescue_reason names the column.",
                unreadable,
            )
        )
    if len(rows) > unreadable:
        outcome.tell(
            Finding(
                "duplicates_set_aside",
                Severity.WARNING,
                table.object,
                f"These rows share with another one what must be unique: older versions, copied before their update. "
                f"The newest of each stayed; the others lie whole in {place}.",
                "Nothing, unless you know better which one is right: pgrescue_reason names the one that was kept.",
                len(rows) - unreadable,
            )
        )


def _mend_view(connection: Connection, table: Table, outcome: Outcome) -> None:
    """Rebuild a materialized view's indexes and read it; its rows are others' rows, and it can be made anew."""
    try:
        for index in table.indexes:
            connection.execute(sql.SQL("reindex index {}").format(index.qualified))
            outcome.count_rebuilt(table.database, f"{index.schema}.{index.name}")
        if table.is_populated:
            connection.execute(sql.SQL("copy (select * from {}) to '/dev/null'").format(table.qualified))
    except psycopg.Error as error:
        if connection.closed:
            raise
        outcome.tell(
            Finding(
                "materialized_view_broken",
                Severity.WARNING,
                table.object,
                f"The materialized view does not hold together: {said(error)}",
                sql.SQL("REFRESH MATERIALIZED VIEW {}").format(table.qualified).as_string(connection),
            )
        )
