"""Foreign keys that rows cannot be inserted under, and tables that a migration reaches beyond its own."""

from __future__ import annotations

import pytest

from pgrescue.transfer.migration_keys import ForeignKey, cyclic, emptied_besides, made_anew, referred_to_besides
from pgrescue.transfer.migration_scope import Kind, Relation, Scope, Wanted, choose_scope

A, B, C, D, E = 1, 2, 3, 4, 5
LETTERS = "abcde"


def key(
    oid: int, table: int, parent: int, *, above: int | None = None, valid: bool = True, deferred: bool = False
) -> ForeignKey:
    return ForeignKey(oid, f"k{oid}", table, parent, above, valid, deferred, "FOREIGN KEY …", None)


def scope_of(*tables: int, among: tuple[Relation, ...] = ()) -> Scope:
    """Return a scope of some of the tables a to e, and of others that are given."""
    relations = [Relation(oid, "public", LETTERS[oid - 1], Kind.TABLE) for oid in (A, B, C, D, E)]
    wanted = tuple(one.name for one in (*relations, *among) if one.oid in tables)
    return choose_scope([*relations, *among], Wanted(tables=wanted))


def oids(keys: tuple[ForeignKey, ...]) -> set[int]:
    return {one.oid for one in keys}


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ([(A, B), (B, C), (A, C)], set()),
        ([(A, A)], {1}),
        ([(A, B), (B, A)], {1, 2}),
        ([(A, B), (B, C), (C, A), (C, D), (E, A)], {1, 2, 3}),
        ([(A, B), (B, A), (B, C), (C, D), (D, C)], {1, 2, 4, 5}),
        ([(A, B), (A, B), (B, A)], {1, 2, 3}),
        ([], set()),
    ],
)
def test_only_what_is_in_a_cycle_is_cyclic(edges: list[tuple[int, int]], expected: set[int]) -> None:
    assert cyclic([key(number, *edge) for number, edge in enumerate(edges, start=1)]) == expected


def test_a_long_chain_with_a_cycle_at_its_end() -> None:
    chain = [key(n, n, n + 1) for n in range(1, 3000)]
    assert cyclic([*chain, key(9000, 3000, 2999)]) == {2999, 9000}


def test_a_cycle_that_leads_through_a_table_outside_is_none_of_the_rows() -> None:
    keys = [key(1, A, B), key(2, B, C), key(3, C, A)]
    assert made_anew(keys, scope_of(A, B)) == ()
    assert oids(made_anew(keys, scope_of(A, B, C))) == {1, 2, 3}


def test_keys_that_rows_violate_are_made_anew_also_where_their_parent_is_outside() -> None:
    keys = [key(1, A, B, valid=False), key(2, A, C), key(3, D, A, valid=False)]
    assert oids(made_anew(keys, scope_of(A))) == {1}
    assert oids(made_anew(keys, scope_of(A), dangling={2})) == {1, 2}


def test_keys_to_tables_that_come_last_are_made_anew() -> None:
    keys = [key(1, A, B), key(2, B, C), key(3, B, D), key(4, D, C)]
    assert oids(made_anew(keys, scope_of(A, B, C, D), last={C, D})) == {2, 3}


def test_a_late_key_is_made_anew_only_where_its_table_is_altered_after_the_rows() -> None:
    keys = [key(1, A, B, deferred=True), key(2, A, C, valid=False), key(3, D, E, deferred=True)]
    assert made_anew([keys[0], keys[2]], scope_of(A, B, D, E)) == ()
    assert oids(made_anew(keys, scope_of(A, B, C, D, E))) == {1, 2}
    assert oids(made_anew([keys[0], keys[2]], scope_of(A, D), altered={D})) == {3}


def test_of_a_partitions_key_that_of_the_partitioned_table_is_made_anew() -> None:
    tree = (
        Relation(10, "public", "p", Kind.PARTITIONED),
        Relation(11, "public", "p_1", Kind.TABLE, parent=10),
        Relation(12, "public", "p_2", Kind.TABLE, parent=10),
    )
    there = [key(1, A, 10), key(2, A, 11, above=1), key(3, A, 12, above=1)]
    back = [key(4, 10, B), key(5, 11, B, above=4), key(6, 12, B, above=4)]
    late = key(7, 12, C, deferred=True)
    keys = [*there, *back, late]
    assert oids(made_anew(keys, scope_of(A, B, C, 10, among=tree))) == {1, 4, 7}
    assert oids(made_anew(keys, scope_of(B, 11, among=tree))) == {4}
    assert made_anew(keys, scope_of(A, B, C, among=tree)) == ()


def test_truncate_goes_on_along_keys_to_and_through_partitions() -> None:
    tree = (
        Relation(10, "public", "p", Kind.PARTITIONED),
        Relation(11, "public", "p_1", Kind.TABLE, parent=10),
        Relation(12, "public", "p_far", Kind.FOREIGN, parent=10),
    )
    keys = [key(1, 10, A), key(2, 11, A, above=1), key(3, B, 11, above=9), key(4, C, B), key(5, D, D), key(6, A, E)]
    scope = scope_of(A, among=tree)
    assert [one.name for one in emptied_besides(keys, scope)] == ["b", "c", "p"]
    assert [one.name for one in referred_to_besides(keys, scope)] == ["e"]
    assert emptied_besides(keys, scope_of(A, B, C, 10, among=tree)) == ()
    assert referred_to_besides(keys, scope_of(A, E, among=tree)) == ()
