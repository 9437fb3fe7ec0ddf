"""Check: the catalogs agree with each other."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from pgrescue.model import Finding, Severity
from pgrescue.verify.not_run import not_run
from pgrescue.verify.target import listed, load_sql, rows, words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.verify.survey import Survey
    from pgrescue.verify.target import Connection, Fact

_SHOWN = 50
_REMEDY = (
    "Objects that these rows describe may be missing, or a dump may fail at them. Dump what can be dumped, and look "
    "for another snapshot."
)
_RERUN = "Look at the other findings of this database, and at the server's log (pgrescue logs)."
_RULE = re.compile(r"^-- rule (\w+): (.+)\n((?:(?!-- rule ).*\n)+)", re.MULTILINE)
_KNOWS_REFERENCES_SINCE = 14
# What an entry of pg_depend calls a large object is a row of another catalog (pg_largeobject.h).
_LARGE_OBJECT_CLASS, _LARGE_OBJECTS = 2613, "pg_largeobject_metadata"
_DEPENDENCIES = (
    ("pg_depend", "classid", "objid", "classid <> 0"),
    ("pg_depend", "refclassid", "refobjid", "refclassid <> 0"),
    ("pg_shdepend", "classid", "objid", "classid <> 0 and dbid = {database}"),
)


_ENTRIES = sql.SQL("select d.{object}::text from pg_catalog.{catalog} d where {where} and {of} = {oid} and {gone}")


@dataclass(frozen=True)
class Reference:
    """Columns of a catalog that must be found in another one; `names_row` tells rows of the first one apart."""

    catalog: str
    columns: tuple[str, ...]
    to: str
    to_columns: tuple[str, ...]
    is_array: bool
    is_optional: bool
    names_row: str


def _to_oid(catalog: str, column: str, to: str, names_row: str = "oid") -> Reference:
    return Reference(catalog, (column,), to, ("oid",), is_array=False, is_optional=False, names_row=names_row)


# For servers before 14, which cannot be asked.
_OLD_REFERENCES = (
    _to_oid("pg_class", "relnamespace", "pg_namespace"),
    _to_oid("pg_attribute", "attrelid", "pg_class", "attrelid"),
    _to_oid("pg_index", "indexrelid", "pg_class", "indexrelid"),
    _to_oid("pg_index", "indrelid", "pg_class", "indexrelid"),
    _to_oid("pg_attrdef", "adrelid", "pg_class"),
    _to_oid("pg_type", "typnamespace", "pg_namespace"),
    _to_oid("pg_proc", "pronamespace", "pg_namespace"),
    _to_oid("pg_proc", "prorettype", "pg_type"),
    _to_oid("pg_trigger", "tgrelid", "pg_class"),
    _to_oid("pg_rewrite", "ev_class", "pg_class"),
    _to_oid("pg_constraint", "connamespace", "pg_namespace"),
)


def check_catalogs(connection: Connection, survey: Survey) -> Iterator[Fact]:
    """Follow the references between catalogs, and hold them against the rules of catalogs.sql."""
    for catalog, rule, query in _RULE.findall(load_sql("catalogs")):
        yield from _ask(connection, survey, f"pg_catalog.{catalog}", rule, sql.SQL(query))
    for reference in _references(connection, survey):
        rule = f"{', '.join(reference.columns)} leads to no row of {reference.to}"
        yield from _ask(connection, survey, f"pg_catalog.{reference.catalog}", rule, reference_query(reference))
    yield from _dependencies(connection, survey)


def _ask(connection: Connection, survey: Survey, of: str, rule: str, query: sql.Composable) -> Iterator[Finding]:
    """Run a query that gives one text for each wrong row, or say that it could not run."""
    name = f"{survey.database}.{of}"
    try:
        found = connection.execute(_COUNTED.format(query), {"shown": _SHOWN}).fetchall()
    except psycopg.Error as error:
        if connection.closed:
            raise
        yield not_run(f"catalogs of {name}", f"{rule}? That cannot be told: {words(error)}.", _RERUN)
        return
    if found:
        total = found[0][1]
        yield Finding(
            "catalog_inconsistent",
            Severity.ERROR,
            name,
            f"{rule}: {listed([text or '?' for text, _ in found], total=total, shown=_SHOWN)}.",
            _REMEDY,
            total,
        )


_COUNTED = sql.SQL("select what::text, count(*) over () from (\n{}\n) as wrong (what) order by 1 limit %(shown)s")


def _references(connection: Connection, survey: Survey) -> Iterator[Reference]:
    if survey.major < _KNOWS_REFERENCES_SINCE:
        yield from _OLD_REFERENCES
        return
    found = connection.execute(load_sql("references").encode(), {"has_shared": survey.has_shared})
    for catalog, columns, to, to_columns, is_array, is_optional, first in found.fetchall():
        yield Reference(catalog, tuple(columns), to, tuple(to_columns), is_array, is_optional, first)


def reference_query(reference: Reference) -> sql.Composable:
    """Return the query for the rows whose reference leads nowhere, as PostgreSQL's own test oidjoins.sql asks.

    The last of the columns is the one that may be an array, and the one that is 0 where there is no reference.
    """
    *_, last = reference.columns
    columns: list[sql.Composable] = [sql.Identifier(column) for column in reference.columns]
    if reference.is_array:
        columns[-1] = sql.SQL("unnest({}) as {}").format(columns[-1], columns[-1])
    given = sql.SQL("{} <> 0").format(sql.Identifier("f", last)) if reference.is_optional else sql.SQL("true")
    same = sql.SQL(" and ").join(
        sql.SQL("{} = {}").format(sql.Identifier("p", to), sql.Identifier("f", column))
        for column, to in zip(reference.columns, reference.to_columns, strict=True)
    )
    return sql.SQL(
        "select row_name::text || ': ' || concat_ws(', ', {values}) from (select {row} as row_name, {columns}"
        " from pg_catalog.{catalog}) as f where {given} and not exists (select from pg_catalog.{to} p where {same})"
    ).format(
        values=sql.SQL(", ").join(sql.Identifier("f", column) for column in reference.columns),
        row=sql.Identifier(reference.names_row),
        columns=sql.SQL(", ").join(columns),
        catalog=sql.Identifier(reference.catalog),
        given=given,
        to=sql.Identifier(reference.to),
        same=same,
    )


def _dependencies(connection: Connection, survey: Survey) -> Iterator[Finding]:
    """Find the entries of pg_depend and pg_shdepend whose object does not exist."""
    known = dict(
        rows(
            connection,
            "select c.oid::bigint, c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid"
            " where c.relnamespace = 11 and c.relkind = 'r' and a.attname = 'oid'",
        )
    )
    for catalog, class_column, object_column, condition in _DEPENDENCIES:
        where = sql.SQL(condition).format(database=sql.Literal(survey.oid))
        classes = connection.execute(
            sql.SQL("select distinct {}::bigint from {} where {}").format(
                sql.Identifier(class_column), sql.Identifier(catalog), where
            )
        ).fetchall()
        for (class_oid,) in sorted(classes):
            name = _LARGE_OBJECTS if class_oid == _LARGE_OBJECT_CLASS else known.get(class_oid)
            if name is None:
                gone: sql.Composable = sql.SQL("true")
            else:
                gone = sql.SQL("not exists (select from pg_catalog.{} o where o.oid = d.{})").format(
                    sql.Identifier(name), sql.Identifier(object_column)
                )
            yield from _ask(
                connection,
                survey,
                f"pg_catalog.{catalog}",
                f"{object_column} leads to no row of {name or f'class {class_oid}, which is no catalog'}",
                _ENTRIES.format(
                    object=sql.Identifier(object_column),
                    catalog=sql.Identifier(catalog),
                    where=where,
                    of=sql.Identifier("d", class_column),
                    oid=sql.Literal(class_oid),
                    gone=gone,
                ),
            )
