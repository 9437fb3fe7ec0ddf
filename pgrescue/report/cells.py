"""The map of a damaged relation as cells in rows, few enough to be looked at however large the relation is."""

from __future__ import annotations

import string
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pgrescue.model import BlockMap, DamagedBlocks

COLUMNS = 40
_ROWS = 25
_NAMED_RUNS = 3


@dataclass(frozen=True)
class Kind:
    """A kind of damage, with the letter that stands for it and its place among all kinds, from 0."""

    name: str
    letter: str
    place: int


@dataclass(frozen=True)
class Cell:
    """A cell that holds damaged blocks, the kind with the most of them, and which blocks these are."""

    column: int
    row: int
    kind: Kind
    title: str


@dataclass(frozen=True)
class Grid:
    """A relation as `count` cells of `blocks_per_cell` blocks, read like text; only damaged ones are listed.

    `kinds` are those of this relation, each with the number of its blocks, the most frequent first.
    """

    blocks: int
    blocks_per_cell: int
    count: int
    kinds: tuple[tuple[Kind, int], ...]
    cells: tuple[Cell, ...]

    @property
    def full_rows(self) -> int:
        """The rows in which no cell is missing."""
        return self.count // COLUMNS

    @property
    def last_row(self) -> int:
        """The number of cells in the row after these."""
        return self.count % COLUMNS

    @property
    def rows(self) -> int:
        """The number of rows, also where the last one is not full."""
        return -(-self.count // COLUMNS)


def kinds_of(relations: Iterable[BlockMap]) -> Mapping[str, Kind]:
    """Return the kinds of damage by name, the most frequent first: a kind looks the same in every relation."""
    blocks: Counter[str] = Counter()
    for relation in relations:
        blocks.update(_blocks_by_kind(relation))
    taken: set[str] = set()
    kinds = {}
    for place, (name, _) in enumerate(blocks.most_common()):
        letter = _letter(name, taken)
        taken.add(letter)
        kinds[name] = Kind(name, letter, place)
    return kinds


def grid_of(relation: BlockMap, kinds: Mapping[str, Kind]) -> Grid:
    """Return the map of a relation; blocks past its end, such as missing ones, lengthen it."""
    blocks = max([relation.blocks, *(run.last + 1 for run in relation.damaged)])
    per_cell = max(1, -(-blocks // (COLUMNS * _ROWS)))
    within: dict[int, list[DamagedBlocks]] = {}
    for run in sorted(relation.damaged, key=lambda run: run.first):
        for number in range(run.first // per_cell, run.last // per_cell + 1):
            within.setdefault(number, []).append(run)
    cells = tuple(_cell(number, per_cell, blocks, runs, kinds) for number, runs in sorted(within.items()))
    own = tuple((kinds[name], number) for name, number in _blocks_by_kind(relation).most_common())
    return Grid(blocks, per_cell, -(-blocks // per_cell), own, cells)


def span(first: int, last: int) -> str:
    """Return a range of blocks as a person writes it."""
    return f"{first:,}" if first == last else f"{first:,}\N{EN DASH}{last:,}"


def _blocks_by_kind(relation: BlockMap) -> Counter[str]:
    blocks: Counter[str] = Counter()
    for run in relation.damaged:
        blocks[run.kind] += run.last - run.first + 1
    return blocks


def _letter(name: str, taken: set[str]) -> str:
    """Choose the first letter of the name that is free, or any other; `?` where all are taken."""
    own = [letter for letter in name.upper() if letter in string.ascii_uppercase]
    return next((letter for letter in (*own, *string.ascii_uppercase, *string.digits) if letter not in taken), "?")


def _cell(number: int, per_cell: int, blocks: int, runs: Sequence[DamagedBlocks], kinds: Mapping[str, Kind]) -> Cell:
    begin, end = number * per_cell, min((number + 1) * per_cell, blocks) - 1
    parts = [(max(run.first, begin), min(run.last, end), run.kind) for run in runs]
    amounts: Counter[str] = Counter()
    for first, last, kind in parts:
        amounts[kind] += last - first + 1
    named = [f"{kind} {span(first, last)}" for first, last, kind in parts[:_NAMED_RUNS]]
    if len(parts) > _NAMED_RUNS:
        named.append(f"{len(parts) - _NAMED_RUNS:,} more")
    title = f"block{'' if begin == end else 's'} {span(begin, end)}: {', '.join(named)}"
    return Cell(number % COLUMNS, number // COLUMNS, kinds[amounts.most_common(1)[0][0]], title)
