"""Check: the unique indexes of the catalogs show the rows that the catalogs have, each once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from pgrescue.model import Finding, Severity
from pgrescue.verify.not_run import not_run
from pgrescue.verify.target import is_damage, load_sql, words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgrescue.verify.survey import Survey
    from pgrescue.verify.target import Connection, Fact

_REINDEX = 'REINDEX SYSTEM, where need be in a server started with ignore_system_indexes=on: reindexdb --system "{}"'
_BY_INDEX_ONLY = "set local enable_seqscan = off; set local enable_sort = off; set local enable_indexscan = on"
_BY_INDEX = sql.SQL("select count(*) from (select from pg_catalog.{catalog} order by {columns} offset 0) as ordered")


def check_catalog_indexes(connection: Connection, survey: Survey) -> Iterator[Fact]:
    """Count the rows of each catalog with and without each of its unique indexes, and look for keys that are twice."""
    found = connection.execute(load_sql("unique_catalog_indexes").encode(), {"has_shared": survey.has_shared})
    for _, catalog, index, _, columns in found.fetchall():
        try:
            yield from _check(connection, survey, catalog, index, columns)
        except psycopg.Error as error:
            if connection.closed:
                raise
            yield not_run(
                f"catalog index {survey.database}.pg_catalog.{index}",
                words(error),
                "Look at the other findings of this database.",
            )


def _check(
    connection: Connection, survey: Survey, catalog: str, index: str, columns: Sequence[str]
) -> Iterator[Finding]:
    name = f"{survey.database}.pg_catalog.{index}"
    table, key = sql.Identifier(catalog), sql.SQL(", ").join(map(sql.Identifier, columns))
    ((there,),) = connection.execute(sql.SQL("select count(*) from pg_catalog.{}").format(table)).fetchall()
    try:
        shown = _count_by_index(connection, index, _BY_INDEX.format(catalog=table, columns=key))
    except psycopg.Error as error:
        if connection.closed or not is_damage(error):
            raise
        yield _stale(survey, name, f"Reading {catalog} by it fails: {words(error)}.")
        return
    if shown is not None and shown != there:
        yield _stale(survey, name, f"{catalog} has {there} rows, of which a scan of this index shows {shown}.")
    query = sql.SQL("select count(*) from (select from pg_catalog.{} group by {} having count(*) > 1) as twice")
    ((twice,),) = connection.execute(query.format(table, key)).fetchall()
    if twice:
        yield Finding(
            "catalog_inconsistent",
            Severity.ERROR,
            f"{survey.database}.pg_catalog.{catalog}",
            f"{twice} keys ({', '.join(columns)}) are there more than once.",
            "One of each must be deleted by hand (allow_system_table_mods), before its index can be built anew.",
            twice,
        )


def _stale(survey: Survey, name: str, detail: str) -> Finding:
    return Finding("catalog_index_stale", Severity.ERROR, name, detail, _REINDEX.format(survey.database))


def _count_by_index(connection: Connection, index: str, query: sql.Composed) -> int | None:
    """Count the rows that a scan of the whole index leads to; None where the planner cannot be brought to use it."""
    with connection.transaction():
        connection.execute(_BY_INDEX_ONLY)
        plan = connection.execute(sql.SQL("explain (costs off) {}").format(query)).fetchall()
        if not any(f"using {index} on" in line for (line,) in plan):
            return None
        ((count,),) = connection.execute(query).fetchall()
        return int(count)
