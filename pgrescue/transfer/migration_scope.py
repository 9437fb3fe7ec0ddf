"""What a migration holds: tables with their rows, sequences, and what is left out on purpose."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

from psycopg import sql

from pgrescue.errors import UsageError
from pgrescue.transfer.facts import query

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from typing import Any

    from pgrescue.transfer.endpoint import Connection

BOOKKEEPING = frozenset(
    {
        "DATABASECHANGELOG",  # Liquibase
        "DATABASECHANGELOGLOCK",
        "SequelizeMeta",
        "SequelizeData",
        "__EFMigrationsHistory",  # Entity Framework Core
        "__diesel_schema_migrations",
        "__drizzle_migrations",
        "_prisma_migrations",
        "_sqlx_migrations",
        "alembic_version",
        "ar_internal_metadata",  # Rails, beside schema_migrations
        "atlas_schema_revisions",
        "databasechangelog",
        "databasechangeloglock",
        "django_migrations",
        "doctrine_migration_versions",
        "flyway_schema_history",
        "goose_db_version",
        "gorp_migrations",
        "kysely_migration",
        "kysely_migration_lock",
        "knex_migrations",
        "knex_migrations_lock",
        "migration_versions",  # Doctrine before 3
        "mikro_orm_migrations",
        "pgmigrations",
        "phinxlog",
        "refinery_schema_history",
        "schema_migrations",  # Rails, golang-migrate, dbmate, Ecto
        "schema_version",  # Flyway before 5
        "seaql_migrations",
        "typeorm_metadata",
        "yoyo_lock",
        "_yoyo_log",
        "_yoyo_migration",
        "_yoyo_version",
    }
)
"""Tables in which tools that change schemas keep what they did: in the target they say what was done there."""

_COMMON_NAMES = {
    "migrations": (
        frozenset({"id", "migration", "batch"}),  # Laravel
        frozenset({"id", "timestamp", "name"}),  # TypeORM
    )
}
"""Names that an app might use itself: such a table is bookkeeping if it has just these columns."""


class Kind(StrEnum):
    """What a relation is: pg_class.relkind."""

    TABLE = "r"
    PARTITIONED = "p"
    FOREIGN = "f"
    SEQUENCE = "S"


@dataclass(frozen=True)
class Relation:
    """A table or a sequence.

    `parent` is the partitioned table that it is a partition of, `has_children` tells whether ordinary tables inherit
    from it. `toast_bytes` is the size of what is stored apart from its rows, `columns` are those of a table, `feeds`
    the tables that a sequence gives numbers to.
    """

    oid: int
    schema: str
    name: str
    kind: Kind
    parent: int | None = None
    has_children: bool = False
    of_extension: bool = False
    forces_rls: bool = False
    toast_bytes: int = 0
    columns: tuple[str, ...] = ()
    feeds: tuple[int, ...] = ()

    @property
    def identifier(self) -> sql.Identifier:
        """Its name in a statement."""
        return sql.Identifier(self.schema, self.name)

    @property
    def label(self) -> str:
        """Its name for a person."""
        return f"{self.schema}.{self.name}"

    @property
    def pattern(self) -> str:
        """Its name for pg_dump, where quotes take all other characters for what they are."""
        return f"{pattern(self.schema)}.{pattern(self.name)}"

    @property
    def is_table(self) -> bool:
        """Tell whether rows can be in it, or in its partitions."""
        return self.kind in {Kind.TABLE, Kind.PARTITIONED}

    @property
    def is_bookkeeping(self) -> bool:
        """Tell whether a tool keeps in it what it did to the schema."""
        return self.name in BOOKKEEPING or frozenset(self.columns) in _COMMON_NAMES.get(self.name, ())


@dataclass(frozen=True)
class Wanted:
    """What the user asked for: schemas, or else tables, whose schema may be left out where it is one of `schemas`."""

    schemas: tuple[str, ...] = ("public",)
    tables: tuple[str, ...] = ()
    with_bookkeeping: bool = False


@dataclass(frozen=True)
class Scope:
    """What goes into the migration: `tables` have rows of their own, `partitioned` have them in their partitions.

    `left_out` is everything else in the schemas concerned, `bookkeeping` and `foreign` a part of it that is worth
    telling. `everything` are all relations of the database, by oid.
    """

    tables: tuple[Relation, ...]
    partitioned: tuple[Relation, ...]
    sequences: tuple[Relation, ...]
    left_out: tuple[Relation, ...]
    bookkeeping: tuple[Relation, ...]
    everything: Mapping[int, Relation]
    is_named: bool

    @property
    def oids(self) -> frozenset[int]:
        """The tables, partitioned ones too."""
        return frozenset(one.oid for one in (*self.tables, *self.partitioned))

    @property
    def foreign(self) -> tuple[Relation, ...]:
        """Foreign tables that lie where the others do."""
        return tuple(one for one in self.left_out if one.kind is Kind.FOREIGN)

    @property
    def of_extensions(self) -> tuple[Relation, ...]:
        """Tables of extensions that lie where the others do."""
        return tuple(one for one in self.left_out if one.of_extension and one.is_table)

    @cached_property
    def partitions(self) -> Partitions:
        """The partitions of each partitioned table of the database."""
        return Partitions(self.everything.values())

    def emptied(self) -> tuple[Relation, ...]:
        """Return what a TRUNCATE has to name to empty all tables, and no others.

        A partitioned table stands for its partitions, unless a foreign table is among these: TRUNCATE would empty it on
        its own server (postgres_fdw).
        """
        whole: set[int] = set()
        named: list[Relation] = []
        oids = self.oids
        for one in self.partitioned:
            under = list(self.partitions.under(one.oid))
            if one.parent not in oids and all(part.kind is not Kind.FOREIGN for part in under):
                named.append(one)
                whole.update(part.oid for part in under)
        named += [one for one in self.tables if one.oid not in whole]
        return tuple(sorted(named, key=lambda one: one.label))

    def selection(self, *, without: AbstractSet[int] = frozenset()) -> list[str]:
        """Return the arguments that make pg_dump write just this, `without` some tables; nothing where that is all."""
        if self.is_named:
            return selection_of(one for one in (*self.tables, *self.sequences) if one.oid not in without)
        schemas = sorted({one.schema for one in (*self.tables, *self.partitioned, *self.sequences)})
        # pg_dump reads no foreign tables unless it is told to.
        excluded = [one for one in self.left_out if one.kind in {Kind.TABLE, Kind.SEQUENCE}]
        excluded += [one for one in self.tables if one.oid in without]
        return [
            *(f"--schema={pattern(schema)}" for schema in schemas),
            *(f"--exclude-table={one.pattern}" for one in excluded),
        ]


class Partitions:
    """Which tables are partitions of which."""

    def __init__(self, relations: Iterable[Relation]) -> None:
        self._children: dict[int, list[Relation]] = {}
        for one in relations:
            if one.parent is not None:
                self._children.setdefault(one.parent, []).append(one)

    def under(self, oid: int) -> Iterator[Relation]:
        """Yield the partitions of a table, theirs too."""
        waiting = list(self._children.get(oid, ()))
        while waiting:
            one = waiting.pop()
            yield one
            waiting += self._children.get(one.oid, ())


def selection_of(relations: Iterable[Relation]) -> list[str]:
    """Return the arguments that make pg_dump write these and no others."""
    return [f"--table={one.pattern}" for one in relations]


def pattern(name: str) -> str:
    """Return a name as a pattern of pg_dump that matches nothing else."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def read_relations(connection: Connection) -> tuple[Relation, ...]:
    """Return all tables and sequences of users; raises psycopg.Error."""
    rows: list[tuple[Any, ...]] = connection.execute(query("relations")).fetchall()
    return tuple(
        Relation(
            oid, schema, name, Kind(kind), parent, inherited, of_extension, forces, toast, tuple(columns), tuple(feeds)
        )
        for oid, schema, name, kind, parent, inherited, of_extension, forces, toast, columns, feeds in rows
    )


def choose_scope(relations: Sequence[Relation], wanted: Wanted) -> Scope:
    """Decide what the migration holds; raise UsageError where that is nothing, or a table is not there.

    A partitioned table is taken with all its partitions, and a table with the sequences that feed it, wherever these
    are.
    """
    bookkeeping: list[Relation] = []
    if wanted.tables:
        chosen = [one for text in wanted.tables for one in _named(relations, text, wanted.schemas)]
    else:
        chosen = [one for one in relations if one.is_table and one.schema in wanted.schemas and not one.of_extension]
        if not wanted.with_bookkeeping:
            bookkeeping = [one for one in chosen if one.is_bookkeeping]
            chosen = [one for one in chosen if not one.is_bookkeeping]
        _require_tables(relations, chosen, wanted)
    partitions = Partitions(relations)
    oids = {one.oid for one in chosen}
    oids |= {part.oid for one in chosen for part in partitions.under(one.oid)}
    away = {one.oid for one in relations if one.of_extension} | {one.oid for one in bookkeeping}
    sequences = [
        one
        for one in relations
        if one.kind is Kind.SEQUENCE
        and not one.of_extension
        and (not oids.isdisjoint(one.feeds) or (not wanted.tables and _is_own(one, wanted.schemas, away)))
    ]
    everything = {one.oid: one for one in relations}
    held = oids | {one.oid for one in sequences}
    schemas = {everything[oid].schema for oid in held} | set(wanted.schemas)
    return Scope(
        tables=tuple(one for one in relations if one.oid in oids and one.kind is Kind.TABLE),
        partitioned=tuple(one for one in relations if one.oid in oids and one.kind is Kind.PARTITIONED),
        sequences=tuple(sequences),
        left_out=tuple(
            one for one in relations if one.schema in schemas and (one.oid not in held or one.kind is Kind.FOREIGN)
        ),
        bookkeeping=tuple(bookkeeping),
        everything=everything,
        is_named=bool(wanted.tables),
    )


def _is_own(sequence: Relation, schemas: Sequence[str], away: set[int]) -> bool:
    """Tell whether a sequence goes with its schema: unless all that it feeds stays away."""
    return sequence.schema in schemas and (not sequence.feeds or not away.issuperset(sequence.feeds))


def _named(relations: Iterable[Relation], text: str, schemas: Sequence[str]) -> list[Relation]:
    found = [
        one for one in relations if one.is_table and (text == one.label or (text == one.name and one.schema in schemas))
    ]
    if not found:
        where = " or ".join(schemas)
        raise UsageError(
            f"there is no table {text!r}",
            hint=f"Write it as it is spelled there, without quotes: NAME of the schema {where}, or SCHEMA.NAME.",
        )
    return found


def _require_tables(relations: Iterable[Relation], chosen: Sequence[Relation], wanted: Wanted) -> None:
    for schema in wanted.schemas:
        if not any(one.schema == schema for one in chosen):
            others = sorted({one.schema for one in relations if one.is_table and not one.of_extension})
            there = f"Tables are in: {', '.join(others)}." if others else "The database has none at all."
            raise UsageError(f"there is no table to write in the schema {schema!r}", hint=there)
