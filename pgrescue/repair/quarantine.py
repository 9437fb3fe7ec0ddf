"""The schema in which the rows lie that were set aside, whole, beside the data of their database."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from pgrescue.repair.site import raw, tid_array
from pgrescue.repair.tools import extension

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgrescue.repair.notes import Notes
    from pgrescue.repair.outcome import Row
    from pgrescue.repair.site import Connection
    from pgrescue.repair.survey import Column, Table

SCHEMA = "pgrescue_quarantine"
_LONGEST_NAME_BYTES = 63
_OWN = ("pgrescue_ctid", "pgrescue_xmin", "pgrescue_reason", "pgrescue_at")
_STATES = {"A": "enable always", "R": "enable replica"}


@dataclass(frozen=True)
class Doomed:
    """A row that is to be set aside; `unreadable` are the columns whose values cannot be had."""

    tid: str
    reason: str
    unreadable: tuple[str, ...] = ()


def choose_schema(connection: Connection, database: str, notes: Notes) -> str:
    """Return the name of the schema in this database: one that an earlier rescue of the same data left is not touched.

    The schema itself is made when the first row needs it.
    """
    known = notes.quarantine_schemas().get(database)
    if known is not None:
        return known
    taken = {row[0] for row in connection.execute("select nspname from pg_catalog.pg_namespace").fetchall()}
    number, name = 1, SCHEMA
    while name in taken:
        number += 1
        name = f"{SCHEMA}_{number}"
    notes.add_quarantine_schema(database, name)
    return name


class Quarantine:
    """The place of one table's rows."""

    def __init__(self, schema: str, table: Table) -> None:
        self._schema = schema
        self._table = table
        self.name = table_name(table)
        self.qualified = sql.Identifier(schema, self.name)

    def exists(self, connection: Connection) -> bool:
        """Tell whether a row of the table was ever set aside."""
        return _exists(connection, self._schema, self.name)

    def create(self, connection: Connection) -> None:
        """Make the place: the table's columns without any constraint, generated ones as plain values."""
        connection.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(self._schema)))
        own: list[sql.Composable] = [
            sql.SQL("pgrescue_ctid pg_catalog.tid"),
            sql.SQL("pgrescue_xmin bigint"),
            sql.SQL("pgrescue_reason text"),
            sql.SQL("pgrescue_at timestamptz"),
        ]
        create_table(connection, self.qualified, [*own, *map(_definition, self._table.columns)])

    def move(self, connection: Connection, doomed: Sequence[Doomed]) -> None:
        """Set rows aside in one transaction; where they cannot be deleted the ordinary way, kill them afterwards.

        Raises psycopg.Error where neither is possible; no row is lost in any case.
        """
        tids = tid_array([row.tid for row in doomed])
        try:
            with connection.transaction():
                self.keep(connection, doomed)
                with undisturbed(connection, self._table):
                    connection.execute(
                        sql.SQL("delete from only {} where ctid = any ({})").format(self._table.qualified, tids)
                    )
                self._require_gone(connection, tids)
        except psycopg.Error:
            if connection.closed:
                raise
            with extension(connection, "pg_surgery") as tools:
                if tools is None:
                    raise
                with connection.transaction():
                    self.keep(connection, doomed)
                connection.execute(
                    sql.SQL("select {}.heap_force_kill({}::pg_catalog.oid::pg_catalog.regclass, {})").format(
                        tools, sql.Literal(self._table.oid), tids
                    )
                )

    def keep(self, connection: Connection, doomed: Sequence[Doomed]) -> None:
        """Copy rows, those that are not there already; NULL stands for what cannot be read."""
        self.create(connection)
        for unreadable in {row.unreadable for row in doomed}:
            rows = [row for row in doomed if row.unreadable == unreadable]
            columns = [column.name for column in self._table.columns]
            values: list[sql.Composable] = [
                sql.SQL("null") if name in unreadable else sql.SQL("t.{}").format(sql.Identifier(name))
                for name in columns
            ]
            connection.execute(
                sql.SQL(
                    "insert into {place} ({own})"
                    " select t.ctid, t.xmin::text::bigint, d.reason, pg_catalog.now(){values} from only {table} t"
                    " join rows from (pg_catalog.unnest({tids}), pg_catalog.unnest({reasons}::text[]))"
                    " as d (tid, reason) on t.ctid = d.tid"
                    " where not exists (select from {place} q where q.pgrescue_ctid = t.ctid"
                    " and q.pgrescue_xmin = t.xmin::text::bigint)"
                ).format(
                    place=self.qualified,
                    own=sql.SQL(", ").join(map(sql.Identifier, (*_OWN, *columns))),
                    values=sql.SQL("").join([sql.SQL(", {}").format(value) for value in values]),
                    table=self._table.qualified,
                    tids=tid_array([row.tid for row in rows]),
                    reasons=sql.Literal([row.reason for row in rows]),
                )
            )

    def rows(self, connection: Connection) -> list[Row]:
        """Return what the manifest says of each row in it."""
        if not self.exists(connection):
            return []
        found = connection.execute(
            sql.SQL(
                "select pgrescue_ctid::text, pgrescue_xmin, {}, pgrescue_reason from {} order by pgrescue_ctid"
            ).format(key_object(self._table), self.qualified)
        ).fetchall()
        return [{"ctid": tid, "xmin": xmin, "key": key, "reason": reason} for tid, xmin, key, reason in found]

    def _require_gone(self, connection: Connection, tids: sql.Composable) -> None:
        left = connection.execute(
            sql.SQL("select pg_catalog.count(*) from only {} where ctid = any ({})").format(self._table.qualified, tids)
        ).fetchall()[0][0]
        if left:
            msg = f"{left} rows of {self._table.object} are still there after they were deleted"
            raise psycopg.DataError(msg)


def create_table(connection: Connection, name: sql.Identifier, columns: Sequence[sql.Composable]) -> None:
    """Make a table that rows can be deleted from again, even where everything is published."""
    connection.execute(sql.SQL("create table if not exists {} ({})").format(name, sql.SQL(", ").join(columns)))
    connection.execute(sql.SQL("alter table {} replica identity full").format(name))


def table_name(table: Table) -> str:
    """Return the name of a table's place: `schema.table`, or a shorter one that its OID makes unique."""
    name = f"{table.schema}.{table.name}"
    if len(name.encode()) <= _LONGEST_NAME_BYTES:
        return name
    tail = f".{table.oid}"
    return name.encode()[: _LONGEST_NAME_BYTES - len(tail)].decode(errors="ignore") + tail


def key_object(table: Table) -> sql.Composable:
    """Return as SQL the key of a row: an object with each of its columns as text."""
    names = table.key.columns if table.key is not None else ()
    parts = [sql.SQL("{}, {}::text").format(sql.Literal(name), sql.Identifier(name)) for name in names]
    return sql.SQL("pg_catalog.jsonb_build_object({})").format(sql.SQL(", ").join(parts))


@contextlib.contextmanager
def undisturbed(connection: Connection, table: Table) -> Iterator[None]:
    """Keep everything away that fires even in a replica's role, for the block, within the caller's transaction."""
    name = table.qualified
    names = connection.execute(
        "select 'trigger', tgname, tgenabled::text from pg_catalog.pg_trigger"
        " where tgrelid = %s and tgenabled::text in ('A', 'R')"
        " union all select 'rule', rulename, ev_enabled::text from pg_catalog.pg_rewrite"
        " where ev_class = %s and ev_enabled::text in ('A', 'R') and rulename <> '_RETURN'",
        (table.oid, table.oid),
    ).fetchall()
    identity = _replica_identity(connection, table)
    for kind, which, _ in names:
        connection.execute(sql.SQL("alter table {} disable {} {}").format(name, raw(kind), sql.Identifier(which)))
    if identity is not None:
        connection.execute(sql.SQL("alter table {} replica identity full").format(name))
    yield
    for kind, which, state in names:
        connection.execute(
            sql.SQL("alter table {} {} {} {}").format(name, raw(_STATES[state]), raw(kind), sql.Identifier(which))
        )
    if identity is not None:
        connection.execute(sql.SQL("alter table {} replica identity {}").format(name, identity))


def _replica_identity(connection: Connection, table: Table) -> sql.Composable | None:
    """Return the replica identity to put back, None where it can stay: a published table refuses deletions without."""
    state, index, published = connection.execute(
        "select c.relreplident::text, (select x.relname from pg_catalog.pg_index i join pg_catalog.pg_class x"
        " on x.oid = i.indexrelid where i.indrelid = c.oid and i.indisreplident),"
        " exists (select from pg_catalog.pg_publication) from pg_catalog.pg_class c where c.oid = %s",
        (table.oid,),
    ).fetchall()[0]
    if not published or state == "f":
        return None
    if state == "i" and index is not None:
        return sql.SQL("using index {}").format(sql.Identifier(index))
    return sql.SQL("nothing") if state == "n" else sql.SQL("default")


def _exists(connection: Connection, schema: str, name: str) -> bool:
    return bool(
        connection.execute(
            "select 1 from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace"
            " where n.nspname = %s and c.relname = %s",
            (schema, name),
        ).fetchall()
    )


def _definition(column: Column) -> sql.Composable:
    parts: list[sql.Composable] = [sql.Identifier(column.name), raw(column.type)]
    if column.collation is not None:
        parts.append(sql.SQL("collate {}").format(raw(column.collation)))
    return sql.SQL(" ").join(parts)
