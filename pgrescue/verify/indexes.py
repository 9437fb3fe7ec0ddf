"""Check: b-trees (and from 18 on GIN) are sound, and every row is found through them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from pgrescue.model import Finding, Severity
from pgrescue.verify.not_run import not_run
from pgrescue.verify.target import is_damage, open_relation, words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.verify.survey import Relation, Survey
    from pgrescue.verify.target import Connection, Fact

_INDEX_CORRUPTED = "XX002"
# amcheck calls it corrupt data, XX001, when a row is not in the index; the name of its function is not translated.
_ROW_NOT_IN_INDEX = "bt_tuple_present_callback"
_REMEDY = (
    "REINDEX INDEX; where it stops at a duplicate key, one of the rows must go first (found by a sequential scan)."
)


def check_invalid_indexes(_: Connection, survey: Survey) -> Iterator[Fact]:
    """Tell which indexes the server does not use."""
    for relation in survey.checked():
        if relation.is_index and not relation.sound:
            yield Finding(
                "index_invalid",
                Severity.WARNING,
                survey.label(relation),
                "The index is marked as invalid: CREATE INDEX CONCURRENTLY or REINDEX CONCURRENTLY was interrupted, on "
                "the original server or by the backup. The server does not use it, and a unique one does not guard.",
                "REINDEX INDEX builds it anew, DROP INDEX removes what REINDEX CONCURRENTLY left (…_ccnew, …_ccold).",
            )


def check_btree(connection: Connection, survey: Survey, relation: Relation, *, parents: bool) -> Iterator[Fact]:
    """Check one b-tree against its table; `parents` checks its inner pages against each other, too.

    That every row is found is asked of bt_index_check, not of its sister: that one takes rows of transactions that
    seem to run into account, and after a reset may wait for them for ever.
    """
    first = _call(connection, survey, relation, "bt_index_check", matches_table=True)
    if first is not None:
        for oid in (relation.oid, relation.table):
            open_relation(connection, oid)
    if first is not None and not _is_of_index(first):
        # The table may be what cannot be read; that is told by the checks of tables. What of the index itself?
        second = _call(connection, survey, relation, "bt_index_check", matches_table=False)
        if second is None:
            yield not_run(
                f"index {survey.label(relation)}",
                f"It is sound in itself; whether every row is found by it cannot be told: {words(first)}.",
                "Look at the findings of its table. REINDEX INDEX, when the table can be read.",
            )
        first = second
    if first is None and parents:
        first = _call(connection, survey, relation, "bt_index_parent_check", matches_table=False)
    if first is not None:
        yield _corrupt(survey, relation, first)


def check_gin(connection: Connection, survey: Survey, relation: Relation) -> Iterator[Fact]:
    """Check the structure of one GIN index (amcheck 1.5, PostgreSQL 18)."""
    query = sql.SQL("select {}(%s::oid::regclass)").format(survey.tools.function("gin_index_check"))
    try:
        connection.execute(query, [relation.oid])
    except psycopg.Error as error:
        yield _corrupt(survey, relation, error)


def _call(
    connection: Connection, survey: Survey, relation: Relation, function: str, *, matches_table: bool
) -> psycopg.Error | None:
    """Run one of amcheck's functions, and return the damage that stopped it; other errors are raised."""
    query = sql.SQL("select {}(%s::oid::regclass, {}{})").format(
        survey.tools.function(function),
        sql.SQL("heapallindexed => {}").format(sql.Literal(matches_table)),
        # Looking for duplicates means looking into the table, too.
        sql.SQL(", checkunique => true" if survey.tools.checks_unique and matches_table else ""),
    )
    try:
        connection.execute(query, [relation.oid])
    except psycopg.Error as error:
        if connection.closed or not is_damage(error):
            raise
        return error
    return None


def _is_of_index(error: psycopg.Error) -> bool:
    """Tell whether an error speaks of the index, and not of the table that it is compared with."""
    return error.sqlstate == _INDEX_CORRUPTED or error.diag.source_function == _ROW_NOT_IN_INDEX


def _corrupt(survey: Survey, relation: Relation, error: psycopg.Error) -> Finding:
    """Tell of a damaged index; raise what is no damage."""
    if not is_damage(error):
        raise error
    return Finding("index_corrupt", Severity.ERROR, survey.label(relation), f"{words(error)}.", _REMEDY)
