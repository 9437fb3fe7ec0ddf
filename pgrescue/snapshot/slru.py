"""The files of pg_xact and pg_multixact: how numbers spread over them, and where the next free one is.

PostgreSQL calls these areas SLRU. A file has 32 pages, and its name is its number in hexadecimal: four digits, or
five and more where a number needs them (slru.c). Numbers wrap round at 32 bits, and so do the files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pgrescue.errors import SnapshotError

if TYPE_CHECKING:
    from collections.abc import Collection

SPACE: Final = 1 << 32
"""How many transaction ids, multixact ids and multixact members there are before the numbers wrap round."""

_PAGES_PER_SEGMENT: Final = 32
_FILE_NAME: Final = re.compile(r"[0-9A-F]{4,6}")
_MEMBERS_PER_GROUP: Final = 4
_GROUP_SIZE: Final = 20


@dataclass(frozen=True)
class Slru:
    """One such directory; `least` is the smallest number that the server hands out.

    `ages` says that the server keeps less than half of the numbers, so that files ahead can be told from those behind.
    """

    directory: str
    per_page: int
    least: int
    ages: bool

    @property
    def per_segment(self) -> int:
        """How many numbers one file covers."""
        return self.per_page * _PAGES_PER_SEGMENT

    @property
    def last_segment(self) -> int:
        """The number of the last file before they begin again at 0."""
        return (SPACE - 1) // self.per_segment


def transactions(block_size: int) -> Slru:
    """Describe pg_xact: two bits for each transaction (clog.c)."""
    return Slru("pg_xact", block_size * 4, least=3, ages=True)


def multixact_offsets(block_size: int) -> Slru:
    """Describe pg_multixact/offsets: four bytes for each multixact (multixact.c)."""
    return Slru("pg_multixact/offsets", block_size // 4, least=1, ages=True)


def multixact_members(block_size: int) -> Slru:
    """Describe pg_multixact/members: groups of four members in 20 bytes, none across two pages (multixact.c)."""
    per_page = block_size // _GROUP_SIZE * _MEMBERS_PER_GROUP
    return Slru("pg_multixact/members", per_page, least=0, ages=False)


def segment_numbers(names: Collection[str], *, last: int) -> frozenset[int]:
    """Return the numbers of the files among `names`; names that no such file has are left out."""
    numbers = (int(name, 16) for name in names if _FILE_NAME.fullmatch(name))
    return frozenset(number for number in numbers if number <= last)


def next_segment(existing: Collection[int], current: int, *, last: int) -> tuple[int, bool]:
    """Walk from `current` through the files that exist to the first that does not, and tell whether that passed 0.

    The largest number is no answer: round the wrap, the newest files have the smallest. Raises SnapshotError where
    every file exists.
    """
    present = frozenset(existing)
    for step in range(last + 1):
        number = (current + step) % (last + 1)
        if number not in present:
            return number, number < current
    raise SnapshotError(
        f"every one of the {last + 1} possible files exists, so no number is free",
        hint="No server writes that many; look at what made the files.",
    )
