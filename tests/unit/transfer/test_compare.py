"""Each way in which two databases can differ is seen, and equal ones are called equal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fixtures import Server
from pgrescue.transfer.compare import (
    CompareLevel,
    compare_counts,
    compare_sequences,
    compare_table,
    compare_validity,
    differences,
    is_same_database,
)
from pgrescue.transfer.endpoint import Endpoint
from pgrescue.transfer.sessions import Pair, reading, writing
from pgrescue.transfer.stream import LibpqReader
from pgrescue.transfer.tables import read_tables
from tests.targets import new_database

if TYPE_CHECKING:
    from collections.abc import Iterator

MADE = """
create sequence counter;
create table held (id integer primary key, words text, amount numeric, at timestamptz);
insert into held select g, md5(g::text), g / 3.0, '2026-01-01'::timestamptz + g * interval '1 h'
  from generate_series(1, 500) as g;
create table other (id integer references held);
insert into other values (1), (1), (2);
create view seen as select * from held;
create schema own;
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as opened:
        yield opened


@pytest.fixture
def pair(server: Server) -> Iterator[Pair]:
    """Give sessions on two databases that were made alike."""
    names = [new_database(server), new_database(server)]
    for name in names:
        with server.connect(name) as connection:
            connection.execute(MADE.encode())
    here, there = (Endpoint.parse(server.conninfo(name), "--url") for name in names)
    with (
        reading(here, encoding="UTF8", snapshot=None) as source,
        writing(there, encoding="UTF8", role=None, purpose="test") as target,
    ):
        yield Pair(source, LibpqReader(source), target)


def unequal(pair: Pair, level: CompareLevel = CompareLevel.HASH) -> list[str]:
    compared = [compare_table(pair, table, level) for table in read_tables(pair.source)]
    return [finding.object for finding in differences(compared)]


def test_equal_databases_are_equal(pair: Pair) -> None:
    assert unequal(pair) == []
    assert list(compare_sequences(pair.source, pair.target)) == []
    assert list(compare_counts(pair.source, pair.target, but_for={})) == []
    assert list(compare_validity(pair.source, pair.target)) == []
    for level in CompareLevel:
        assert is_same_database(pair, level, but_for={})


@pytest.mark.parametrize(
    "change",
    [
        "update held set words = words || ' ' where id = 7",
        "update held set amount = amount + 0.0000000000000000001 where id = 7",
        "update held set at = at + interval '1 microsecond' where id = 7",
        "update held set words = null where id = 7",
        "update held set words = (array['x', 'y'])[1 + id % 2] where id in (7, 8)",
    ],
)
def test_the_hash_sees_any_change_of_a_value(pair: Pair, change: str) -> None:
    pair.target.execute("set search_path = public")
    pair.target.execute(change.encode())
    assert unequal(pair) == ["public.held"]
    assert unequal(pair, CompareLevel.COUNT) == []
    assert not is_same_database(pair, CompareLevel.HASH, but_for={})


def test_the_order_of_rows_and_their_place_do_not_matter(pair: Pair) -> None:
    pair.target.execute("update public.held set words = words")
    pair.target.execute("vacuum full public.held")
    assert unequal(pair) == []


def test_null_is_not_empty_and_one_row_twice_is_not_another_twice(pair: Pair) -> None:
    pair.target.execute("update public.other set id = 2 where ctid = '(0,1)'")
    assert unequal(pair) == ["public.other"]
    pair.target.execute("update public.held set words = '' where id = 1")
    pair.source.execute("rollback")
    pair.source.execute("update public.held set words = null where id = 1")
    assert "public.held" in unequal(pair)


def test_rows_that_are_missing_are_counted(pair: Pair) -> None:
    pair.target.execute("delete from public.other where id = 1")
    compared = [compare_table(pair, table, CompareLevel.COUNT) for table in read_tables(pair.source)]
    (finding,) = differences(compared)
    assert (finding.code, finding.object, finding.rows) == ("content_differs", "public.other", 2)
    assert "3 rows" in finding.detail


def test_a_table_whose_owner_is_under_its_policies_is_read_whole(pair: Pair) -> None:
    for side in (pair.source, pair.target):
        side.execute("commit") if side is pair.source else None
        side.execute("alter table public.held enable row level security, force row level security")
    assert unequal(pair) == []
    row = pair.target.execute("select relforcerowsecurity from pg_class where relname = 'held'").fetchone()
    assert row == (True,)


@pytest.mark.parametrize("change", ["select nextval('public.counter')", "drop sequence public.counter"])
def test_a_sequence_that_stands_elsewhere(pair: Pair, change: str) -> None:
    pair.target.execute(change.encode())
    assert [one.object for one in compare_sequences(pair.source, pair.target)] == ["public.counter"]
    assert not is_same_database(pair, CompareLevel.NONE, but_for={})


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ("drop view public.seen", ["columns", "views"]),
        ("create index on public.held (words)", ["indexes"]),
        ("alter table public.other drop constraint other_id_fkey", ["foreign keys"]),
        ("create function public.f() returns integer language sql return 1", ["routines"]),
        ("create type public.e as enum ('a')", ["enums"]),
        ("alter table public.held alter words set default 'x'", ["column defaults"]),
        ("select lo_create(4711)", ["large objects"]),
        ("drop schema own", ["schemas"]),
    ],
)
def test_objects_of_each_kind_are_counted(pair: Pair, change: str, kinds: list[str]) -> None:
    pair.target.execute(change.encode())
    assert [one.object for one in compare_counts(pair.source, pair.target, but_for={})] == kinds


def test_what_is_left_out_on_purpose_is_not_missed(pair: Pair) -> None:
    pair.target.execute("drop view public.seen")
    left = {"views": 1, "columns": 4}
    assert list(compare_counts(pair.source, pair.target, but_for=left)) == []
    assert is_same_database(pair, CompareLevel.HASH, but_for=left)


def test_a_constraint_that_is_not_valid_is_named(pair: Pair) -> None:
    pair.target.execute("alter table public.held add constraint small check (id < 10) not valid")
    assert [one.object for one in compare_validity(pair.source, pair.target)] == ["public.held.small"]
    pair.target.execute("update pg_index set indisvalid = false where indexrelid = 'public.held_pkey'::regclass")
    assert [one.object for one in compare_validity(pair.source, pair.target)] == [
        "public.held.small",
        "public.held_pkey",
    ]
