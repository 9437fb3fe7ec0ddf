"""Where which relations are damaged, from both checks, for the report's maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgrescue.verify.name_damage import damaged_files
from pgrescue.verify.step import unreadable_blocks

if TYPE_CHECKING:
    from pgrescue.model import BlockMap
    from pgrescue.workspace import Workspace


def damaged_blocks(workspace: Workspace) -> tuple[BlockMap, ...]:
    """Return the maps of all damaged relations: what the files show, and what the server could not read."""
    return (*damaged_files(workspace), *unreadable_blocks(workspace))
