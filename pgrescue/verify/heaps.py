"""Check: every row of every table is sound, in the eyes of amcheck's verify_heapam."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from pgrescue.model import BlockMap, Finding, Severity
from pgrescue.verify.maps import UNREADABLE, runs_of
from pgrescue.verify.target import Progress, is_damage, listed, open_relation, words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgrescue.verify.survey import Relation, Survey
    from pgrescue.verify.target import Connection, Fact

_CHUNK_BLOCKS = 2048
_SHOWN = 5
_MOST_UNREADABLE = 1000
_VERIFY = sql.SQL(
    "select blkno::bigint, offnum, msg from {function}(%(oid)s::oid::regclass, on_error_stop => false,"
    " check_toast => %(toast)s, skip => 'none', startblock => %(first)s, endblock => %(last)s)"
)
_CORRUPT = "corrupt rows"


class _UnreadableError(Exception):
    """Damage stopped the check of a range of blocks; its cause is the server's error."""


@dataclass
class Damage:
    """What is wrong with one relation: blocks with their kind, the number of rows, and the first few messages."""

    blocks: dict[int, str] = field(default_factory=dict)
    rows: int = 0
    problems: int = 0
    unreadable: int = 0
    messages: list[str] = field(default_factory=list)

    def add_rows(self, found: list[tuple[int, int | None, str]]) -> None:
        """Take in what verify_heapam said of a range of blocks, which no other call speaks of."""
        self.problems += len(found)
        self.rows += len({(block, offset) for block, offset, _ in found})
        for block, offset, message in found:
            self.blocks[block] = _CORRUPT
            if len(self.messages) < _SHOWN:
                self.messages.append(f"block {block}, item {offset}: {message}")

    def add_unreadable(self, first: int, last: int, why: str) -> None:
        """Take in blocks that the server cannot read."""
        self.unreadable += last - first + 1
        self.blocks.update(dict.fromkeys(range(first, last + 1), UNREADABLE))
        if len(self.messages) < _SHOWN:
            where = f"block {first}" if first == last else f"blocks {first} to {last}"
            self.messages.append(f"{where}: {why}")


def check_heap(connection: Connection, survey: Survey, relation: Relation, *, toast: bool) -> Iterator[Fact]:
    """Check one relation; `toast` follows every value that is stored out of line, too."""
    blocks = survey.blocks(relation)
    damage = Damage()
    query = _VERIFY.format(function=survey.tools.function("verify_heapam"))

    def verify(first: int, last: int) -> list[tuple[Any, ...]]:
        arguments = {"oid": relation.oid, "toast": toast, "first": first, "last": last}
        try:
            return connection.execute(query, arguments).fetchall()
        except psycopg.Error as error:
            if connection.closed or not is_damage(error):
                raise
            open_relation(connection, relation.oid)
            raise _UnreadableError from error

    for first in range(0, blocks, _CHUNK_BLOCKS):
        last = min(first + _CHUNK_BLOCKS, blocks) - 1
        _check_range(verify, first, last, damage)
        yield Progress((last - first + 1) * survey.block_size)
    if damage.blocks:
        yield from _told(survey, relation, blocks, damage)


def _check_range(verify: Callable[[int, int], list[tuple[Any, ...]]], first: int, last: int, damage: Damage) -> None:
    """Check some blocks; where one of them stops the check, find it by halves."""
    try:
        damage.add_rows(verify(first, last))
    except _UnreadableError as error:
        if first == last or damage.unreadable >= _MOST_UNREADABLE:
            damage.add_unreadable(first, last, words(error.__cause__ or error))
            return
        middle = (first + last) // 2
        _check_range(verify, first, middle, damage)
        _check_range(verify, middle + 1, last, damage)


def _told(survey: Survey, relation: Relation, blocks: int, damage: Damage) -> Iterator[Fact]:
    parts = []
    if damage.problems:
        parts.append(f"{damage.problems} problems in {damage.rows} rows")
    if damage.unreadable:
        parts.append(f"{damage.unreadable} of {blocks} blocks cannot be checked")
    total = damage.problems + damage.unreadable
    yield Finding(
        "heap_corrupt",
        Severity.ERROR,
        survey.label(relation),
        f"{', '.join(parts)}: {listed(damage.messages, total=total, shown=_SHOWN)}.",
        "Look for another snapshot. Else dump the other tables, and of this one what can be read, by ctid.",
        damage.rows or None,
    )
    yield BlockMap(survey.label(relation), relation.path or "", blocks, runs_of(damage.blocks))
