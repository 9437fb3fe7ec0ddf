"""The data of a source as a file of SQL that empties the tables of a database of the same schema and fills them."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from psycopg import sql

from pgrescue import __version__
from pgrescue.errors import RescueError
from pgrescue.model import Outcome, StepReport, Verdict
from pgrescue.repair.foreign_keys import dangling_rows
from pgrescue.repair.foreign_keys import foreign_keys as keys_that_hold
from pgrescue.transfer.endpoint import speaking_of
from pgrescue.transfer.facts import read_facts
from pgrescue.transfer.migration_dump import encoding_of, wide_tables, write_rows
from pgrescue.transfer.migration_findings import Known, findings_of
from pgrescue.transfer.migration_keys import made_anew, read_foreign_keys
from pgrescue.transfer.migration_objects import read_objects, write_objects
from pgrescue.transfer.migration_scope import choose_scope, read_relations
from pgrescue.transfer.migration_script import Remade, closing, commented, opening, read_guards
from pgrescue.transfer.move import populated_views
from pgrescue.transfer.sessions import reading

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from pgrescue.model import Finding
    from pgrescue.pipeline import Observer
    from pgrescue.transfer.endpoint import Connection
    from pgrescue.transfer.migration_keys import ForeignKey
    from pgrescue.transfer.migration_place import Place
    from pgrescue.transfer.migration_scope import Relation, Scope, Wanted
    from pgrescue.transfer.source import Source


@dataclass(frozen=True)
class TableRows:
    """A table in the migration, and how many rows it has there."""

    name: str
    rows: int


@dataclass(frozen=True)
class MigrationReport:
    """What was written, and what to know about it; it holds no secret."""

    file: Path
    source: str
    database: str
    tables: tuple[TableRows, ...]
    size_bytes: int
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def rows(self) -> int:
        """The rows of all tables."""
        return sum(table.rows for table in self.tables)


def write_migration(source: Source, place: Place, wanted: Wanted, observer: Observer) -> MigrationReport:
    """Write the source's data, as of one moment, to its place, where nothing is before it is whole.

    Raises UsageError where there is nothing to write, or something is in the way, and RescueError where the source is
    damaged or cannot be read.
    """
    begun = time.monotonic()
    if source.verdict is Verdict.DAMAGED:
        raise RescueError(
            f"{source.described} is damaged: rows of it are missing or cannot be read",
            hint="Move what can be read into a new, empty database (pgrescue to-cluster --salvage --target-url URL), "
            "look at what is missing, and make the migration from that one: pgrescue migration NAME --source-url URL",
        )
    with reading(source.endpoint, encoding="UTF8", snapshot=None) as reader:
        with _watched(observer, "read", "Look at the tables"), speaking_of("the source could not be looked at"):
            known = _look(source, reader, wanted)
            tables = tuple(TableRows(one.label, _count(reader, one)) for one in known.scope.tables)
        place.ignore()
        with place.writing() as file:
            file.write(commented(_header(source, known, tables)).encode(errors="backslashreplace"))
            file.write(_statements(opening(known.scope, known.guards, known.remade), reader))
            with _watched(observer, "dump", "Dump the rows"):
                write_rows(source, reader, known, file, observer)
            if not known.scope.is_named:
                with speaking_of("the large objects could not be read"):
                    write_objects(reader, known.objects, file)
            file.write(_statements(closing(known.scope, known.guards, known.remade), reader))
            size_bytes = file.tell()
    return MigrationReport(
        place.file,
        source.described,
        known.facts.database,
        tables,
        size_bytes,
        tuple(findings_of(known)),
        round(time.monotonic() - begun, 3),
    )


def _look(source: Source, reader: Connection, wanted: Wanted) -> Known:
    """Find out what goes into the file, and everything that its statements depend on."""
    scope = choose_scope(read_relations(reader), wanted)
    guards = read_guards(reader, scope)
    keys = read_foreign_keys(reader)
    # A live server guards its keys itself; a rescued one may have lost rows.
    dangling = frozenset(_dangling(reader, scope, keys)) if source.is_rescued else frozenset[int]()
    altered = {guard.table for guard in guards} | {
        one.oid for one in (*scope.partitioned, *scope.tables) if one.forces_rls
    }
    wide = wide_tables(reader, scope)
    anew = made_anew(keys, scope, dangling=dangling, altered=altered, last=wide.keys())
    remade = tuple(Remade(key, scope.everything[key.table], holds=key.oid not in dangling) for key in anew)
    return Known(
        read_facts(reader),
        scope,
        guards,
        keys,
        remade,
        populated_views(reader),
        read_objects(reader),
        _money(reader, scope),
        wide,
    )


_MONEY = """
select pg_catalog.current_setting('lc_monetary')
 where exists (select from pg_catalog.pg_attribute
                where attrelid = any(%s::oid[]) and attnum > 0 and not attisdropped
                  and atttypid in ('pg_catalog.money'::pg_catalog.regtype, 'pg_catalog.money[]'::pg_catalog.regtype))
"""


def _money(reader: Connection, scope: Scope) -> str | None:
    """Return the locale of values of the type money, None where no table has any."""
    row = reader.execute(_MONEY, [list(scope.oids)]).fetchone()
    return None if row is None else str(row[0])


def _dangling(reader: Connection, scope: Scope, keys: Sequence[ForeignKey]) -> Iterator[int]:
    """Yield the foreign keys of the migration's tables that rows violate."""
    concerned = {key.oid for key in keys if key.table in scope.oids}
    for key in keys_that_hold(reader):
        if key.oid in concerned and not key.has_period:
            row = reader.execute(sql.SQL("select exists (select {})").format(dangling_rows(key))).fetchone()
            if row is not None and row[0]:
                yield key.oid


def _count(reader: Connection, table: Relation) -> int:
    row = reader.execute(sql.SQL("select count(*) from only {}").format(table.identifier)).fetchone()
    assert row is not None  # noqa: S101 - an aggregate gives one row
    return int(row[0])


def _statements(statements: Iterable[sql.Composed], reader: Connection) -> bytes:
    """Return statements, a line each, with an empty line before and behind; nothing where there are none."""
    lines = [statement.as_string(reader) for statement in statements]
    return "\n".join(["", *lines, "", ""]).encode() if lines else b""


def _header(source: Source, known: Known, tables: Sequence[TableRows]) -> Iterator[str]:
    facts, now = known.facts, datetime.now(UTC)
    verdict = f", verdict {source.verdict}" if source.verdict else ""
    rows = sum(table.rows for table in tables)
    yield f"The rows of {source.described} (PostgreSQL {facts.version}{verdict}): {len(tables)} tables, {rows:,} rows."
    yield f"Written by pgrescue {__version__} on {now:%F %T} UTC."
    yield "Empties the tables and fills them again; their schema must be there already. To apply it in one transaction:"
    yield f'PGCLIENTENCODING={encoding_of(facts)} psql "$DATABASE_URL" -X -q -1 -v ON_ERROR_STOP=1 -f migration.sql'
    yield "It may be applied again at any time, also where it ended in the middle without a transaction around it."
    for schema, name in known.views:
        yield f"Afterwards: REFRESH MATERIALIZED VIEW {sql.Identifier(schema, name).as_string(None)};"


@contextlib.contextmanager
def _watched(observer: Observer, name: str, title: str) -> Iterator[None]:
    """Let the observer see a part of the work and how it ends."""
    begun, outcome = time.monotonic(), Outcome.FAILED
    observer.started(name, title)
    try:
        yield
        outcome = Outcome.DONE
    finally:
        observer.ended(StepReport(name, outcome, round(time.monotonic() - begun, 3)))
