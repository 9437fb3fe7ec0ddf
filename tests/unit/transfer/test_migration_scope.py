"""Which tables and sequences a migration holds."""

from __future__ import annotations

import pytest

from pgrescue.errors import UsageError
from pgrescue.transfer.migration_scope import Kind, Relation, Wanted, choose_scope, pattern

TABLES = (
    Relation(1, "public", "users", Kind.TABLE),
    Relation(2, "public", "events", Kind.PARTITIONED),
    Relation(3, "parts", "events_1", Kind.TABLE, parent=2),
    Relation(4, "public", "events_2", Kind.PARTITIONED, parent=2),
    Relation(5, "public", "events_2_1", Kind.TABLE, parent=4),
    Relation(6, "public", "_prisma_migrations", Kind.TABLE),
    Relation(7, "public", "spatial_ref_sys", Kind.TABLE, of_extension=True),
    Relation(8, "public", "far", Kind.FOREIGN),
    Relation(9, "parts", "other", Kind.TABLE),
)
SEQUENCES = (
    Relation(20, "public", "users_id_seq", Kind.SEQUENCE, feeds=(1,)),
    Relation(21, "public", "alone", Kind.SEQUENCE),
    Relation(22, "public", "_prisma_migrations_id_seq", Kind.SEQUENCE, feeds=(6,)),
    Relation(23, "elsewhere", "shared", Kind.SEQUENCE, feeds=(6, 1)),
    Relation(24, "elsewhere", "unused", Kind.SEQUENCE),
    Relation(25, "public", "of_an_extension", Kind.SEQUENCE, of_extension=True),
)
ALL = (*TABLES, *SEQUENCES)


def names(relations: tuple[Relation, ...]) -> set[str]:
    return {one.name for one in relations}


def test_a_schemas_tables_come_with_their_partitions_and_sequences_wherever_these_are() -> None:
    scope = choose_scope(ALL, Wanted())
    assert names(scope.tables) == {"users", "events_1", "events_2_1"}
    assert names(scope.partitioned) == {"events", "events_2"}
    assert names(scope.sequences) == {"users_id_seq", "alone", "shared"}
    assert names(scope.bookkeeping) == {"_prisma_migrations"}
    assert names(scope.foreign) == {"far"}
    assert names(scope.of_extensions) == {"spatial_ref_sys"}
    assert [one.name for one in scope.emptied()] == ["events", "users"]


def test_pg_dump_is_told_the_schemas_and_what_not_to_take_of_them() -> None:
    assert choose_scope(ALL, Wanted()).selection() == [
        '--schema="elsewhere"',
        '--schema="parts"',
        '--schema="public"',
        '--exclude-table="public"."_prisma_migrations"',
        '--exclude-table="public"."spatial_ref_sys"',
        '--exclude-table="parts"."other"',
        '--exclude-table="public"."_prisma_migrations_id_seq"',
        '--exclude-table="elsewhere"."unused"',
        '--exclude-table="public"."of_an_extension"',
    ]
    assert '--exclude-table="public"."users"' in choose_scope(ALL, Wanted()).selection(without={1})


def test_pg_dump_is_told_the_tables_that_were_named() -> None:
    scope = choose_scope(ALL, Wanted(tables=("users", "parts.other", "events_2")))
    assert scope.selection() == [
        '--table="public"."users"',
        '--table="public"."events_2_1"',
        '--table="parts"."other"',
        '--table="public"."users_id_seq"',
        '--table="elsewhere"."shared"',
    ]
    assert [one.name for one in scope.emptied()] == ["other", "events_2", "users"]
    assert choose_scope([TABLES[0]], Wanted(tables=("users",))).selection(without={1}) == []


def test_bookkeeping_is_taken_where_it_is_asked_for_or_named() -> None:
    scope = choose_scope(ALL, Wanted(with_bookkeeping=True))
    assert "_prisma_migrations" in names(scope.tables)
    assert "_prisma_migrations_id_seq" in names(scope.sequences)
    assert scope.bookkeeping == ()
    assert names(choose_scope(ALL, Wanted(tables=("_prisma_migrations",))).tables) == {"_prisma_migrations"}


@pytest.mark.parametrize(
    ("name", "columns", "expected"),
    [
        ("_prisma_migrations", (), True),
        ("SequelizeMeta", (), True),
        ("sequelizemeta", (), False),
        ("_Prisma_Migrations", (), False),
        ("DATABASECHANGELOG", (), True),
        ("databasechangeloglock", (), True),
        ("migrations", ("id", "migration", "batch"), True),
        ("migrations", ("id", "timestamp", "name"), True),
        ("migrations", ("id", "bird", "leaves"), False),
        ("users", (), False),
    ],
)
def test_bookkeeping_is_known_by_its_exact_name(*, name: str, columns: tuple[str, ...], expected: bool) -> None:
    assert Relation(1, "public", name, Kind.TABLE, columns=columns).is_bookkeeping is expected


def test_a_tree_with_a_foreign_partition_is_emptied_leaf_by_leaf() -> None:
    foreign = Relation(10, "public", "events_far", Kind.FOREIGN, parent=4)
    scope = choose_scope((*ALL, foreign), Wanted())
    assert [one.name for one in scope.emptied()] == ["events_1", "events_2_1", "users"]
    assert names(scope.foreign) == {"far", "events_far"}


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [
        (Wanted(schemas=("public", "nowhere")), "Tables are in: parts, public."),
        (Wanted(tables=("Users",)), "NAME of the schema public, or SCHEMA.NAME"),
        (Wanted(tables=("other",)), "NAME of the schema public, or SCHEMA.NAME"),
        (Wanted(tables=("far",)), "NAME of the schema public, or SCHEMA.NAME"),
    ],
)
def test_what_is_not_there_is_refused(wanted: Wanted, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        choose_scope(ALL, wanted)
    assert hint in refused.value.hint


def test_a_database_without_tables_is_refused() -> None:
    with pytest.raises(UsageError, match="no table to write") as refused:
        choose_scope(SEQUENCES, Wanted())
    assert refused.value.hint == "The database has none at all."


def test_a_pattern_matches_one_name() -> None:
    assert pattern("a*b?c.d|(e)") == '"a*b?c.d|(e)"'
    assert pattern('say "x"') == '"say ""x"""'
