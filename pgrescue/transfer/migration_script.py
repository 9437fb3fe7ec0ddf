"""The text of a migration: statements before and after the rows, and the rows as pg_dump wrote them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from psycopg import sql

from pgrescue.errors import RescueError
from pgrescue.transfer.facts import query

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pgrescue.transfer.endpoint import Connection
    from pgrescue.transfer.migration_keys import ForeignKey
    from pgrescue.transfer.migration_scope import Relation, Scope

_NOT_UNDERSTOOD = "pg_dump wrote its output in a form that is not understood"
_REPORT_IT = "Please report this, with pg_dump's version."
# What pg_dump writes before the first entry (pg_backup_archiver.c, RestoreArchive and _doSetFixedOutputState).
_PREAMBLE = re.compile(
    rb"(?:--(?: PostgreSQL database dump| Dumped (?:from|by) [^\n]*)?|SET \w+ = [^\n]*;"
    rb"|SELECT pg_catalog\.set_config\('search_path', '', false\);|\\restrict \w+)?\n"
)
_ENTRY = (b"-- Data for Name: ", b"-- Name: ")
_END_TITLE = b"-- PostgreSQL database dump complete\n"
_END = re.compile(rb"\n--\n-- PostgreSQL database dump complete\n--\n\n(?:\\unrestrict \w+\n\n?)?\Z")
_END_BYTES = 4096
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Guard:
    """A trigger or a rule that would act on the migration's statements.

    `kind` is its word in SQL. `is_always` tells that it fires in replication, too; `on_truncate`, that TRUNCATE fires
    it.
    """

    kind: str
    table: int
    name: str
    is_always: bool
    on_truncate: bool


@dataclass(frozen=True)
class Remade:
    """A foreign key that is dropped before the rows and added after them; `holds` tells whether all rows obey it."""

    key: ForeignKey
    table: Relation
    holds: bool

    @property
    def label(self) -> str:
        """Its name for a person."""
        return f"{self.table.label}.{self.key.name}"


def read_guards(connection: Connection, scope: Scope) -> tuple[Guard, ...]:
    """Return the triggers and rules of the migration's tables; raises psycopg.Error."""
    # The tables that stand for partitions come first: before 15, theirs are switched with them.
    order = {one.oid: index for index, one in enumerate((*scope.partitioned, *scope.tables))}
    rows = connection.execute(query("guards"), {"tables": list(order)}).fetchall()
    return tuple(sorted((Guard(*row) for row in rows), key=lambda guard: (order[guard.table], guard.kind, guard.name)))


def opening(scope: Scope, guards: Sequence[Guard], remade: Sequence[Remade]) -> Iterator[sql.Composed]:
    """Yield the statements before the rows: TRUNCATE first, unless triggers would act on that.

    A key that is gone already is no error: without a transaction the file may have ended in the middle before.
    """
    for guard in guards:
        if guard.on_truncate:
            yield _switch(scope, guard, sql.SQL("DISABLE"))
    yield truncate(scope)
    for guard in guards:
        if not guard.on_truncate:
            yield _switch(scope, guard, sql.SQL("DISABLE"))
    for one in _forcing(scope):
        yield sql.SQL("ALTER TABLE ONLY {} NO FORCE ROW LEVEL SECURITY;").format(one.identifier)
    for each in remade:
        yield sql.SQL("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {};").format(
            each.table.identifier, sql.Identifier(each.key.name)
        )


def closing(scope: Scope, guards: Sequence[Guard], remade: Sequence[Remade]) -> Iterator[sql.Composed]:
    """Yield the statements after the rows: everything as it was."""
    for each in remade:
        table, name = each.table.identifier, sql.Identifier(each.key.name)
        suffix = "" if each.holds or not each.key.is_valid else " NOT VALID"
        yield sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {};").format(
            table,
            name,
            sql.SQL(each.key.definition + suffix),  # the server's own text
        )
        if each.key.comment is not None:
            yield sql.SQL("COMMENT ON CONSTRAINT {} ON {} IS {};").format(name, table, sql.Literal(each.key.comment))
    for one in _forcing(scope):
        yield sql.SQL("ALTER TABLE ONLY {} FORCE ROW LEVEL SECURITY;").format(one.identifier)
    for guard in guards:
        yield _switch(scope, guard, sql.SQL("ENABLE ALWAYS") if guard.is_always else sql.SQL("ENABLE"))


def truncate(scope: Scope) -> sql.Composed:
    """Return the statement that empties all tables; ONLY where others inherit from one and are named themselves."""
    names = [
        sql.SQL("ONLY {}").format(one.identifier) if one.has_children else sql.SQL("{}").format(one.identifier)
        for one in scope.emptied()
    ]
    return sql.SQL("TRUNCATE TABLE {} CASCADE;").format(sql.SQL(", ").join(names))


def _forcing(scope: Scope) -> list[Relation]:
    return [one for one in (*scope.partitioned, *scope.tables) if one.forces_rls]


def _switch(scope: Scope, guard: Guard, how: sql.SQL) -> sql.Composed:
    table = scope.everything[guard.table].identifier
    # A partition's trigger may be switched otherwise than its parent's: each for itself.
    return sql.SQL("ALTER TABLE ONLY {} {} {} {};").format(table, how, sql.SQL(guard.kind), sql.Identifier(guard.name))


def commented(lines: Iterable[str]) -> str:
    """Return lines as comments; what would end a line within one becomes a space."""
    return "".join(f"-- {' '.join(line.split())}".rstrip() + "\n" for line in lines)


def copy_rows(dump: BinaryIO, out: BinaryIO) -> None:
    """Copy what pg_dump wrote in plain form, without its settings at the top and its marks at both ends.

    What stands between them is copied as it is: a row may hold anything. Raises RescueError where the dump does not end
    as pg_dump ends it, or begins with something unknown.
    """
    end, begin = _end_of_rows(dump), _begin_of_rows(dump)
    dump.seek(begin)
    left = max(end - begin, 0)
    while left:
        piece = dump.read(min(left, _PIECE_BYTES))
        if not piece:
            raise RescueError("the dump became shorter while it was read")
        out.write(piece)
        left -= len(piece)


def _begin_of_rows(dump: BinaryIO) -> int:
    """Return where the first entry begins, whose comment is a line `--` and a line with its name."""
    dump.seek(0)
    position = before = 0
    for line in dump:
        if line.startswith(_ENTRY) or line == _END_TITLE:
            return before
        if not _PREAMBLE.fullmatch(line):
            raise RescueError(f"{_NOT_UNDERSTOOD}: {line[:200]!r}", hint=_REPORT_IT)
        before, position = position, position + len(line)
    raise RescueError(_NOT_UNDERSTOOD, hint=_REPORT_IT)


def _end_of_rows(dump: BinaryIO) -> int:
    """Return where the last words begin, which tell that the dump is whole."""
    size = dump.seek(0, os.SEEK_END)
    start = max(size - _END_BYTES, 0)
    dump.seek(start)
    found = _END.search(dump.read())
    if found is None:
        raise RescueError("pg_dump did not write to the end", hint="Run the same command again.")
    return start + found.start()
