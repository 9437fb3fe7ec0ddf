"""Where in a relation the damage is."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from pgrescue.model import BlockMap, DamagedBlocks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

UNREADABLE: Final = "unreadable"
"""The kind of a block that the server refuses to read (DamagedBlocks)."""


def runs_of(blocks: Mapping[int, str]) -> tuple[DamagedBlocks, ...]:
    """Return damaged blocks with their kinds in order, neighbours of one kind together."""
    runs: list[DamagedBlocks] = []
    for block in sorted(blocks):
        if runs and runs[-1].last == block - 1 and runs[-1].kind == blocks[block]:
            runs[-1] = DamagedBlocks(runs[-1].first, block, blocks[block])
        else:
            runs.append(DamagedBlocks(block, block, blocks[block]))
    return tuple(runs)


def merged(maps: Iterable[BlockMap]) -> tuple[BlockMap, ...]:
    """Return one map for each relation, from those that several checks made of it."""
    found: dict[str, BlockMap] = {}
    for item in maps:
        known = found.get(item.relation, item)
        kinds = {block: run.kind for run in (*item.damaged, *known.damaged) for block in range(run.first, run.last + 1)}
        found[item.relation] = dataclasses.replace(item, damaged=runs_of(kinds))
    return tuple(found.values())
