"""What can be wrong with the files of relations, as values; `page_check` finds it, and takes numpy for that."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgrescue.model import Lsn

MAX_RUNS: Final = 1000
"""How many runs of damaged blocks are listed for one file; all are counted."""

MAX_FILES: Final = 10_000
"""How many damaged files are listed; the damage of all is counted."""


class BlockDamage(StrEnum):
    """What is wrong with a block."""

    HEADER = "header"
    """No server takes the page: its header is not sound, or the page is new by its header and not empty."""

    CHECKSUM = "checksum"
    """The page has another checksum than its content."""

    NEWER_THAN_WAL = "newer-than-wal"
    """A sound page with an LSN past the end of the WAL: the change that it holds is in no WAL."""

    ZERO = "zero"
    """The page is empty, and used ones follow it in the relation: never used, or lost.

    Since PostgreSQL 16, a table that many extend at once has some by rights (`RelationAddBlocks`, hio.c).
    """

    PARTIAL = "partial"
    """The file ends within this block."""

    TRUNCATED = "truncated"
    """The file ends before this block, and the relation goes on in a later file."""

    MISSING = "missing"
    """The whole file is missing, and the relation goes on in a later one."""

    MAIN_FORK_MISSING = "main-fork-missing"
    """The relation has maps or empty later files, and the first file of its rows is missing: unknown is how much."""


@dataclass(frozen=True, slots=True)
class BlockRun:
    """Blocks one after the other with the same damage; both ends belong to it, and are counted within the file."""

    first: int
    last: int
    kind: BlockDamage


@dataclass(frozen=True)
class DamagedFile:
    """One file: its path in the data directory, the blocks that it has, how many have which damage, and where.

    `first_block` is the number of its first block within the relation, 0 but for later segments. `runs` are in order,
    MAX_RUNS at most.
    """

    path: str
    first_block: int
    blocks: int
    counts: Mapping[BlockDamage, int]
    runs: tuple[BlockRun, ...]


@dataclass(frozen=True)
class PageCheck:
    """All relation files of a data directory; `counts` are the sums of those of the damaged files.

    `unused_blocks` are empty pages that a healthy server leaves: at the end of a relation, in its maps, and in indexes
    whose kind makes room in advance. `checksums` tells whether checksums were looked at; LSNs were compared with
    `end_of_wal`, unless that is None.
    """

    files: int
    blocks: int
    bytes: int
    unused_blocks: int
    checksums: bool
    end_of_wal: Lsn | None
    counts: Mapping[BlockDamage, int]
    damaged: tuple[DamagedFile, ...]
