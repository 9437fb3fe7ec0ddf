"""Foreign keys of a migration: which ones its rows can be inserted under, and how far a TRUNCATE … CASCADE goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgrescue.transfer.facts import query
from pgrescue.transfer.migration_scope import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from pgrescue.transfer.endpoint import Connection
    from pgrescue.transfer.migration_scope import Relation, Scope


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key of the table `table` to the table `parent`.

    `above` is the key of a partitioned table that it is a part of; `is_deferred` tells that it is checked at the end of
    the transaction.
    """

    oid: int
    name: str
    table: int
    parent: int
    above: int | None
    is_valid: bool
    is_deferred: bool
    definition: str
    comment: str | None


def read_foreign_keys(connection: Connection) -> tuple[ForeignKey, ...]:
    """Return all foreign keys of the database; raises psycopg.Error."""
    return tuple(ForeignKey(*row) for row in connection.execute(query("foreign_keys")).fetchall())


def made_anew(
    keys: Sequence[ForeignKey],
    scope: Scope,
    *,
    dangling: AbstractSet[int] = frozenset(),
    altered: AbstractSet[int] = frozenset(),
    last: AbstractSet[int] = frozenset(),
) -> tuple[ForeignKey, ...]:
    """Return the foreign keys that must not be there while the rows are inserted.

    pg_dump --data-only writes a table after those that it refers to, but for cycles, a table that refers to itself
    included, and for partitions, whose keys are those of the partitioned table, which has no data of its own
    (pg_dump.c, getConstraints and getTableDataFKConstraints). Under a key that is not valid, rows that violate it
    cannot be inserted; `dangling` are other keys with such rows. A table with a key that is checked at the
    transaction's end cannot be altered before that: the tables that are `altered` after the rows must have none, nor
    those to which a key is added then. The tables that come `last` come after all that refer to them.
    """
    touching = [key for key in keys if key.table in scope.oids]
    inside = [key for key in touching if key.parent in scope.oids]
    anew = {key.oid for key in touching if key.oid in dangling or not key.is_valid}
    anew |= {key.oid for key in inside if key.above is not None or (key.parent in last and key.table not in last)}
    anew |= cyclic([key for key in inside if key.oid not in anew])
    by_oid = {key.oid: key for key in keys}
    while True:
        tops = {_top(by_oid, by_oid[oid]) for oid in anew}
        busy = set(altered) | {key.table for key in tops}
        busy |= {part.oid for oid in busy for part in scope.partitions.under(oid)}
        more = {key.oid for key in touching if key.is_deferred and key.table in busy} - anew
        if not more:
            return tuple(key for key in keys if key in tops)
        anew |= more


def _top(by_oid: Mapping[int, ForeignKey], key: ForeignKey) -> ForeignKey:
    """Return the key that can be dropped: of a partition's, that of the partitioned table."""
    while key.above is not None and key.above in by_oid:
        key = by_oid[key.above]
    return key


def cyclic(keys: Sequence[ForeignKey]) -> set[int]:
    """Return the keys that are part of a cycle: whose parent refers, by others, to the table itself."""
    onward: dict[int, list[int]] = {}
    for key in keys:
        onward.setdefault(key.table, []).append(key.parent)
        onward.setdefault(key.parent, [])
    component = _components(onward)
    return {key.oid for key in keys if component[key.table] == component[key.parent]}


def _components(onward: Mapping[int, Sequence[int]]) -> dict[int, int]:
    """Return a number for each node, the same for those that lead to each other (Kosaraju's way)."""
    back: dict[int, list[int]] = {node: [] for node in onward}
    for node, others in onward.items():
        for other in others:
            back[other].append(node)
    found: dict[int, int] = {}
    for start in reversed(_by_end(onward)):
        waiting = [start]
        while waiting:
            node = waiting.pop()
            if node not in found:
                found[node] = start
                waiting += (other for other in back[node] if other not in found)
    return found


def _by_end(onward: Mapping[int, Sequence[int]]) -> list[int]:
    """Return the nodes in the order in which a search in depth has seen all that they lead to."""
    ended: list[int] = []
    seen: set[int] = set()
    for start in onward:
        path = [] if start in seen else [(start, iter(onward[start]))]
        seen.add(start)
        while path:
            node, others = path[-1]
            unseen = next((other for other in others if other not in seen), None)
            if unseen is None:
                ended.append(node)
                path.pop()
            else:
                seen.add(unseen)
                path.append((unseen, iter(onward[unseen])))
    return ended


def emptied_besides(keys: Iterable[ForeignKey], scope: Scope) -> tuple[Relation, ...]:
    """Return the tables that are not in the migration and that its TRUNCATE … CASCADE empties too."""
    children: dict[int, set[int]] = {}
    for key in keys:
        children.setdefault(key.parent, set()).add(key.table)
    seen = set(scope.oids)
    waiting = list(seen)
    while waiting:
        oid = waiting.pop()
        new = (children.get(oid, set()) | {part.oid for part in scope.partitions.under(oid)}) - seen
        seen |= new
        waiting += new
    more = [scope.everything[oid] for oid in seen - scope.oids if oid in scope.everything]
    return _topmost(one for one in more if one.kind is not Kind.FOREIGN)


def referred_to_besides(keys: Iterable[ForeignKey], scope: Scope) -> tuple[Relation, ...]:
    """Return the tables that are not in the migration and that must have the rows which its own refer to."""
    oids = scope.oids
    wanted = {key.parent for key in keys if key.table in oids and key.parent not in oids}
    return _topmost(scope.everything[oid] for oid in wanted if oid in scope.everything)


def _topmost(relations: Iterable[Relation]) -> tuple[Relation, ...]:
    """Leave out partitions whose parent is there too."""
    found = list(relations)
    oids = {one.oid for one in found}
    return tuple(sorted((one for one in found if one.parent not in oids), key=lambda one: one.label))
