"""The system catalogs: no key is there twice, and every index is new.

This runs while the server ignores the indexes of the catalogs. A row that was updated while the copy was made, such as
those of pg_statistic by ANALYZE, may be there in its old and in its new version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from pgrescue.model import Finding, Severity
from pgrescue.repair.site import FAILURES, Site, query, said, tid_array
from pgrescue.repair.tools import extension

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.repair.notes import Notes
    from pgrescue.repair.outcome import Outcome
    from pgrescue.repair.site import Connection

_STATISTICS = ("pg_statistic", "pg_statistic_ext_data")
_NO_REMEDY = "Dump what can be dumped, and look for another snapshot of this database."


def databases(site: Site) -> tuple[str, ...]:
    """Return the databases that can be connected to, template1 first: it shares the least with the users' own."""
    with site.catalogs() as connection:
        # A database may be there twice until its row is repaired, in the course of template1.
        rows = connection.execute(
            "select distinct datname from pg_catalog.pg_database where datallowconn order by datname"
        ).fetchall()
    return tuple(sorted((row[0] for row in rows), key=lambda name: (name != "template1", name)))


def repair_catalogs(site: Site, database: str, notes: Notes, outcome: Outcome) -> None:
    """Remove duplicates from the catalogs of one database, and from the shared ones, and rebuild their indexes."""
    try:
        with site.catalogs(database) as connection:
            _drop_unreadable_statistics(connection, database, notes)
            problems = [*_remove_duplicates(connection, database, notes), *_rebuild(connection, database)]
            # Parts of deleted values (TOAST) could be read by the old index, and cannot by the new one.
            _drop_unreadable_statistics(connection, database, notes)
    except FAILURES as error:
        problems = [("its catalogs", said(error))]
    for name, problem in problems:
        outcome.tell(
            Finding(
                "repair_incomplete",
                Severity.ERROR,
                f"{database}: {name}",
                f"The system catalogs could not be repaired here: {problem}",
                _NO_REMEDY,
            )
        )


def tell_removed(notes: Notes, outcome: Outcome) -> None:
    """Tell which rows of catalogs were removed, also by a repair that was killed."""
    outcome.catalog_rows += notes.catalog_rows()
    counts: dict[str, int] = {}
    for row in outcome.catalog_rows:
        counts[row["database"]] = counts.get(row["database"], 0) + 1
    for database, count in sorted(counts.items()):
        names = sorted({row["catalog"] for row in outcome.catalog_rows if row["database"] == database})
        outcome.tell(
            Finding(
                "catalog_duplicates_removed",
                Severity.WARNING,
                database,
                f"Rows of the system catalogs were there in an old and in a new version: {', '.join(names)}. "
                "The new ones were kept.",
                "Look at the definitions that you know to have changed last; the manifest has the rows.",
                count,
            )
        )


def _drop_unreadable_statistics(connection: Connection, database: str, notes: Notes) -> None:
    """Empty the planner's statistics where one cannot be read: no query on its table could be planned."""
    for catalog in _STATISTICS:
        table = sql.Identifier("pg_catalog", catalog)
        try:
            connection.execute(sql.SQL("copy (select * from {}) to '/dev/null'").format(table))
        except psycopg.errors.UndefinedTable:  # pg_statistic_ext_data came with PostgreSQL 12
            continue
        except FAILURES as error:
            if connection.closed:
                raise
            notes.add_fact(
                Finding(
                    "statistics_dropped",
                    Severity.INFO,
                    f"{database}.{catalog}",
                    f"The planner's statistics could not be read, and were removed: {said(error)}",
                    "ANALYZE makes them anew; a dump does not need them.",
                )
            )
            # Not by DELETE, which would have to find the parts of large values that are missing.
            connection.execute(sql.SQL("truncate {}").format(table))


def _remove_duplicates(connection: Connection, database: str, notes: Notes) -> Iterator[tuple[str, str]]:
    """Remove older rows under every unique index of the catalogs; yield the catalogs where that failed."""
    for catalog, columns in connection.execute(query("catalog_keys")).fetchall():
        table = sql.Identifier("pg_catalog", catalog)
        try:
            older = connection.execute(
                sql.SQL(
                    "select ctid::text from (select ctid, pg_catalog.row_number() over"
                    " (partition by {} order by pg_catalog.age(xmin), cmin::text::bigint desc, ctid desc) as n"
                    " from {}) x where n > 1"
                ).format(sql.SQL(", ").join(map(sql.Identifier, columns)), table)
            ).fetchall()
            if older:
                _remove(connection, database, catalog, tid_array([row[0] for row in older]), notes)
        except FAILURES as error:
            if connection.closed:
                raise
            yield catalog, said(error)


def _remove(connection: Connection, database: str, catalog: str, tids: sql.Composed, notes: Notes) -> None:
    """Delete rows; before that they are written down whole."""
    table = sql.Identifier("pg_catalog", catalog)
    rows = connection.execute(
        sql.SQL("select ctid::text, t::text from {} t where ctid = any ({})").format(table, tids)
    ).fetchall()
    notes.add_catalog_rows([{"database": database, "catalog": catalog, "ctid": tid, "row": text} for tid, text in rows])
    try:
        connection.execute(sql.SQL("delete from {} where ctid = any ({})").format(table, tids))
    except psycopg.Error:
        # A deletion takes the parts of large values (TOAST) with it, and fails where one of these was not committed.
        if connection.closed:
            raise
        with extension(connection, "pg_surgery") as tools:
            if tools is None:
                raise
            connection.execute(
                sql.SQL("select {}.heap_force_kill({}::pg_catalog.regclass, {})").format(
                    tools, sql.Literal(f"pg_catalog.{catalog}"), tids
                )
            )


def _rebuild(connection: Connection, database: str) -> Iterator[tuple[str, str]]:
    """Rebuild all indexes of the catalogs; where one stops that, each catalog on its own."""
    try:
        connection.execute(sql.SQL("reindex system {}").format(sql.Identifier(database)))
    except FAILURES:
        if connection.closed:
            raise
        rows = connection.execute(
            "select n.nspname, c.relname from pg_catalog.pg_class c"
            " join pg_catalog.pg_namespace n on n.oid = c.relnamespace"
            " where c.relkind in ('r', 't') and c.oid < 16384 and n.nspname in ('pg_catalog', 'pg_toast')"
            " and exists (select 1 from pg_catalog.pg_index i where i.indrelid = c.oid) order by c.relkind, c.oid"
        ).fetchall()
        for schema, name in rows:
            try:
                connection.execute(sql.SQL("reindex table {}").format(sql.Identifier(schema, name)))
            except FAILURES as error:
                if connection.closed:
                    raise
                yield name, said(error)
