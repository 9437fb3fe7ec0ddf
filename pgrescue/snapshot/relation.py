"""The pages of one table's or index's main fork, many at a time: their headers, LSNs and line pointers.

Layouts: `bufpage.h` and `itemid.h`, the same in PostgreSQL 8.3 to 18. Little-endian files only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pgrescue.errors import SnapshotError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Bools: TypeAlias = NDArray[np.bool_]
Bytes: TypeAlias = NDArray[np.uint8]
Ints: TypeAlias = NDArray[np.int64]
Lsns: TypeAlias = NDArray[np.uint64]
Xids: TypeAlias = NDArray[np.uint32]

LP_UNUSED: Final = 0
LP_NORMAL: Final = 1
LP_REDIRECT: Final = 2
LP_DEAD: Final = 3

HEADER_BYTES: Final = 24
_CHUNK_BYTES: Final = 512 << 10
_LAYOUT_VERSION: Final = 4
_FLAGS: Final = 0x0007


@dataclass(frozen=True)
class RelationFile:
    """Where a relation's main fork is: the path of its first file, whose siblings are `path.1`, `path.2` and so on.

    `segment_blocks` is pg_control's `relation_segment_blocks`: how many blocks every file but the last one has.
    """

    path: Path
    block_size: int = 8192
    segment_blocks: int = 131072

    def block_count(self) -> int:
        """Count the blocks as the server does: up to the first file that is not full."""
        return sum(blocks for _, blocks in self._segments())

    def chunks(self, first_block: int = 0, end_block: int | None = None) -> Iterator[Pages]:
        """Yield the pages from `first_block` up to before `end_block` in their order, by the chunk.

        What fills no page at the end does not count. Raises SnapshotError for a file that cannot be read.
        """
        step = max(_CHUNK_BYTES // self.block_size, 1)
        start = 0
        for path, blocks in self._segments():
            end = start + blocks if end_block is None else end_block
            begin, stop = max(first_block - start, 0), min(blocks, end - start)
            if begin < stop:
                with _opened(path) as file:
                    for block in range(begin, stop, step):
                        data = np.empty(min(step, stop - block) * self.block_size, dtype=np.uint8)
                        count = file.fill(data, block * self.block_size) // self.block_size
                        numbers = np.arange(start + block, start + block + count)
                        yield Pages(numbers, data[: count * self.block_size], self.block_size)
            start += blocks

    def pages(self, blocks: Ints) -> Pages:
        """Read these blocks, given in ascending order and each once; those past the end are left out."""
        known = blocks[blocks < self.block_count()]
        data = np.zeros((len(known), self.block_size), dtype=np.uint8)
        start = 0
        for path, count in self._segments():
            inside = np.flatnonzero((known >= start) & (known < start + count))
            if len(inside):
                with _opened(path) as file:
                    for row in inside:
                        file.fill(data[row], (int(known[row]) - start) * self.block_size)
            start += count
        return Pages(known, data.reshape(-1), self.block_size)

    def _segments(self) -> Iterator[tuple[str, int]]:
        """Yield each file with how many whole blocks it has; after one that is not full there is no other (md.c)."""
        number = 0
        while True:
            path = f"{self.path}.{number}" if number else str(self.path)
            try:
                size = os.stat(path).st_size  # noqa: PTH116 (a Path made for every file of every call is slow)
            except FileNotFoundError:
                if number:
                    return
                raise _unreadable(path, "No such file or directory") from None
            blocks = min(size // self.block_size, self.segment_blocks)
            yield path, blocks
            if blocks < self.segment_blocks:
                return
            number += 1


class Pages:
    """Some pages as they lie in the file: `blocks` are their numbers, `data` their bytes, one page after the other.

    For each page: `lsns` (0 where it is not sound), `is_zero` (new, never written: PageIsNew), `is_sound` (its header
    is one of PostgreSQL 8.3 to 18); `lower` and `special` are positions in the page.
    """

    def __init__(self, blocks: Ints, data: Bytes, block_size: int) -> None:
        self.blocks = blocks
        self.data = data
        self.block_size = block_size
        words, halves = self._columns(np.uint32), self._columns(np.uint16)
        flags, upper, size_version = halves[:, 5], halves[:, 7], halves[:, 9]
        self.lower: Ints = halves[:, 6].astype(np.int64)
        self.special: Ints = halves[:, 8].astype(np.int64)
        self.is_zero: Bools = upper == 0
        self.is_sound: Bools = (
            ~self.is_zero
            & (size_version == (block_size | _LAYOUT_VERSION))
            & ((flags & ~np.uint16(_FLAGS)) == 0)
            & (self.lower >= HEADER_BYTES)
            & (self.lower <= upper)
            & (upper <= self.special)
            & (self.special <= block_size)
        )
        lsns = (words[:, 0].astype(np.uint64) << np.uint64(32)) | words[:, 1]
        self.lsns: Lsns = np.where(self.is_sound, lsns, np.uint64(0))

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def words(self) -> NDArray[np.uint32]:
        """All bytes as 32-bit numbers; a page's start, in these, is its place times `block_size // 4`."""
        return self.data.view("<u4")

    @property
    def halves(self) -> NDArray[np.uint16]:
        """All bytes as 16-bit numbers."""
        return self.data.view("<u2")

    def line_pointers(self, selected: Bools | None = None) -> LinePointers:
        """Return the line pointers of all sound pages (among them the `selected` ones), page by page."""
        used = self.is_sound if selected is None else self.is_sound & selected
        counts = np.where(used, (self.lower - HEADER_BYTES) // 4, 0)
        starts = np.cumsum(counts) - counts
        page = np.repeat(np.arange(len(self)), counts)
        within = np.arange(len(page)) - np.repeat(starts, counts)
        raw = self.words[page * (self.block_size // 4) + HEADER_BYTES // 4 + within]
        return LinePointers(counts, starts, page, within + 1, raw)

    def _columns(self, kind: type[np.uint16 | np.uint32]) -> NDArray[np.uint16 | np.uint32]:
        return self.data.view(np.dtype(kind).newbyteorder("<")).reshape(
            len(self.blocks), self.block_size // kind().itemsize
        )


class LinePointers:
    """Line pointers, flat: of each, the place of its page among the pages, and its number on the page, from 1.

    `counts` and `starts` say, for each page, how many there are and where in the flat arrays they begin.
    """

    def __init__(self, counts: Ints, starts: Ints, page: Ints, offset: Ints, raw: NDArray[np.uint32]) -> None:
        self.counts = counts
        self.starts = starts
        self.page = page
        self.offset = offset
        self.flags: Bytes = ((raw >> np.uint32(15)) & np.uint32(3)).astype(np.uint8)
        self._raw = raw

    def __len__(self) -> int:
        return len(self.page)

    @property
    def position(self) -> Ints:
        """Where on its page each item begins; for a redirected one, the number that it leads to (lp_off)."""
        return (self._raw & np.uint32(0x7FFF)).astype(np.int64)

    @property
    def length(self) -> Ints:
        """How many bytes each item has."""
        return (self._raw >> np.uint32(17)).astype(np.int64)

    def find(self, page: Ints, offset: Ints) -> Ints:
        """Return where in the flat arrays these line pointers are, -1 for those that are not there."""
        inside = (offset >= 1) & (offset <= self.counts[page])
        return np.where(inside, self.starts[page] + offset - 1, -1)


class _opened:  # noqa: N801 (used as contextlib's functions are)
    """A file open for reading inside a `with` block."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(path, error.strerror) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def fill(self, target: Bytes, offset: int) -> int:
        """Read at `offset` until `target` is full, and return how many bytes came: fewer only at the file's end."""
        view = memoryview(target)  # type: ignore[arg-type]
        filled = 0
        try:
            while filled < len(view) and (count := os.preadv(self._descriptor, [view[filled:]], offset + filled)):
                filled += count
        except OSError as error:
            raise _unreadable(self._path, error.strerror) from error
        return filled


def _unreadable(path: str, reason: str | None) -> SnapshotError:
    return SnapshotError(f"{path} cannot be read: {reason}", hint="Look at the disk and at the file's permissions.")
