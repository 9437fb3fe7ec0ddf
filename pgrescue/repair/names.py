"""What a database has that the repair cannot mend, only name; and the versions of its collations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from pgrescue.model import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pgrescue.repair.notes import Notes
    from pgrescue.repair.outcome import Outcome
    from pgrescue.repair.site import Connection
    from pgrescue.repair.survey import Table

_DATABASE_COLLATIONS_SINCE = 15


def tell_without_key(database: str, tables: Sequence[Table], outcome: Outcome) -> None:
    """Name the tables in which a row that is there twice cannot be told from two rows."""
    names = [f"{table.schema}.{table.name}" for table in tables if table.key is None and not table.is_view]
    if names:
        outcome.tell(
            Finding(
                "tables_without_key",
                Severity.INFO,
                database,
                f"These tables have no key that tells their rows apart, so that rows that are there twice, or lost, "
                f"cannot be found in them: {', '.join(names)}.",
                "Compare them with what you know of them.",
            )
        )


def tell_unlogged(database: str, tables: Sequence[Table], removed: Path, outcome: Outcome) -> None:
    """Name the unlogged tables that had content (forget_maps.py emptied them)."""
    names = [
        f"{table.schema}.{table.name}"
        for table in tables
        if table.is_unlogged and table.path is not None and _has_content(removed / table.path)
    ]
    if names:
        outcome.tell(
            Finding(
                "unlogged_truncated",
                Severity.WARNING,
                database,
                f"These unlogged tables are empty now, as after every crash, since their files hold no safe state: "
                f"{', '.join(names)}.",
                "Fill them again; their files lie in removed/ of the workspace.",
            )
        )


def refresh_collations(connection: Connection, database: str, major: int, notes: Notes) -> None:
    """Note in the catalogs that the indexes were built with this machine's collations; all of them must have been."""
    changed = connection.execute(
        "select n.nspname, c.collname from pg_catalog.pg_collation c"
        " join pg_catalog.pg_namespace n on n.oid = c.collnamespace"
        " where c.collversion is not null and c.collencoding in (-1, (select d.encoding from pg_catalog.pg_database d"
        " where d.datname = pg_catalog.current_database()))"
        " and pg_catalog.pg_collation_actual_version(c.oid) <> c.collversion order by 1, 2"
    ).fetchall()
    names = [f"{schema}.{name}" for schema, name in changed]
    statements = [sql.SQL("alter collation {} refresh version").format(sql.Identifier(*name)) for name in changed]
    if major >= _DATABASE_COLLATIONS_SINCE and _default_changed(connection):
        names.append("the default of the database")
        statements.append(sql.SQL("alter database {} refresh collation version").format(sql.Identifier(database)))
    if not names:
        return
    notes.add_fact(
        Finding(
            "collation_refreshed",
            Severity.INFO,
            database,
            f"This machine sorts text by other versions of these collations than the original did: {', '.join(names)}. "
            "All indexes were rebuilt with them.",
            "Nothing to do; a table that is partitioned by ranges of text is worth a look.",
        )
    )
    for statement in statements:
        connection.execute(statement)


def _default_changed(connection: Connection) -> bool:
    return bool(
        connection.execute(
            "select 1 from pg_catalog.pg_database where datname = pg_catalog.current_database()"
            " and datcollversion is not null"
            " and pg_catalog.pg_database_collation_actual_version(oid) <> datcollversion"
        ).fetchall()
    )


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0
