"""What to know about a migration before it is applied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from pgrescue.model import Finding, Severity
from pgrescue.transfer.migration_keys import emptied_besides, referred_to_besides

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pgrescue.transfer.facts import Facts
    from pgrescue.transfer.migration_keys import ForeignKey
    from pgrescue.transfer.migration_scope import Relation, Scope
    from pgrescue.transfer.migration_script import Guard, Remade

_MOST_NAMED = 20


@dataclass(frozen=True)
class Known:
    """Everything that was found out about a source for a migration.

    `views` are the materialized views that hold rows, in the order in which they can be refreshed, `objects` the
    numbers of the large objects, `money` tells how values of the type money are written, where there are any. `wide`
    has the bytes of the widest row, about, of the tables of which few rows fit into one INSERT.
    """

    facts: Facts
    scope: Scope
    guards: tuple[Guard, ...]
    keys: tuple[ForeignKey, ...]
    remade: tuple[Remade, ...]
    views: tuple[tuple[str, str], ...]
    objects: tuple[int, ...]
    money: str | None
    wide: Mapping[int, int]


def findings_of(known: Known) -> Iterator[Finding]:
    """Yield what is worth telling, without asking the source again."""
    yield from _left_out(known)
    yield from _besides(known)
    yield from _keys(known.remade)
    yield from _large_objects(known)
    yield from _circumstances(known)
    if known.views:
        names = [sql.Identifier(*view).as_string(None) for view in known.views]
        yield Finding(
            "views_to_refresh",
            Severity.WARNING,
            _listed(names),
            "Materialized views keep their old rows: the migration does not refresh them.",
            "Afterwards, in this order: REFRESH MATERIALIZED VIEW of each. The head of the file has the statements.",
        )


def _left_out(known: Known) -> Iterator[Finding]:
    scope = known.scope
    if scope.bookkeeping:
        yield Finding(
            "bookkeeping_left_out",
            Severity.INFO,
            _labels(scope.bookkeeping),
            "Tables in which tools keep what they did to the schema are left out: the target has its own.",
            "Nothing; --with-bookkeeping takes them in.",
        )
    if scope.foreign:
        yield Finding(
            "migration_leaves_out",
            Severity.WARNING,
            _labels(scope.foreign),
            "The rows of foreign tables lie on another server: they are neither emptied nor filled.",
            "Move them from there.",
        )
    if scope.of_extensions and not scope.is_named:
        yield Finding(
            "migration_leaves_out",
            Severity.INFO,
            _labels(scope.of_extensions),
            "Tables of extensions are left out: CREATE EXTENSION fills them in the target.",
            "Rows that the app itself put there: name the table with --table.",
        )


def _besides(known: Known) -> Iterator[Finding]:
    if more := emptied_besides(known.keys, known.scope):
        yield Finding(
            "migration_empties_more",
            Severity.WARNING,
            _labels(more),
            "These tables are not in the file, and TRUNCATE … CASCADE empties them too: they refer to tables that are.",
            "Take them in as well (--schema, --table), or apply the file only where they may be emptied.",
        )
    if parents := referred_to_besides(known.keys, known.scope):
        yield Finding(
            "migration_refers_to_more",
            Severity.WARNING,
            _labels(parents),
            "These tables are not in the file, and rows in it refer to theirs: where the target lacks those, it fails.",
            "Take them in as well (--schema, --table), or apply the file only where they are filled.",
        )


def _keys(remade: Sequence[Remade]) -> Iterator[Finding]:
    if remade:
        yield Finding(
            "foreign_keys_made_anew",
            Severity.INFO,
            _listed([one.label for one in remade]),
            "The rows cannot be inserted under these foreign keys: cycles, tables that refer to themselves, "
            "partitioned tables, very long rows, keys that are not valid or are checked late. The file drops them "
            "before the rows, and adds them again at its end.",
            "Nothing. It takes the time to check all their rows.",
        )
    for one in remade:
        if not one.holds and one.key.is_valid:
            yield Finding(
                "constraint_not_valid",
                Severity.WARNING,
                one.label,
                "Rows refer to others that are not there, so the file adds the foreign key again as NOT VALID.",
                "Mend the rows, then ALTER TABLE … VALIDATE CONSTRAINT.",
            )


def _large_objects(known: Known) -> Iterator[Finding]:
    count = len(known.objects)
    if count and known.scope.is_named:
        yield Finding(
            "large_objects_by_number",
            Severity.WARNING,
            "large objects",
            f"The database has {count:,}, which belong to no table: with --table they are left out.",
            "Where the tables refer to some, leave out --table.",
        )
    elif count:
        yield Finding(
            "large_objects_by_number",
            Severity.INFO,
            "large objects",
            f"All {count:,} are in the file. They replace those of the same numbers in the target, and belong to "
            "whoever applies it.",
            "Give them to another role, where need be, with ALTER LARGE OBJECT and GRANT.",
        )


def _circumstances(known: Known) -> Iterator[Finding]:
    if known.facts.encoding == "SQL_ASCII":
        yield Finding(
            "migration_needs_setting",
            Severity.WARNING,
            known.facts.database,
            "The database knows no encoding (SQL_ASCII): the file holds its bytes as they are.",
            "Apply it to a database of SQL_ASCII, with PGCLIENTENCODING=SQL_ASCII.",
        )
    if known.money is not None:
        yield Finding(
            "migration_needs_setting",
            Severity.WARNING,
            known.facts.database,
            f"Values of the type money are written as lc_monetary = {known.money!r} has it.",
            "Apply it where lc_monetary is the same: another one reads other amounts.",
        )


def _labels(relations: Sequence[Relation]) -> str:
    return _listed([one.label for one in relations])


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f", and {more} more" if more > 0 else "")
