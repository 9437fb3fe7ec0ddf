"""The largest LSN on any page of a data directory: how far the WAL had come when its files were copied.

Which files and pages count: reference/formats.md §9, `pg_checksums.c` and `PageIsVerified` (bufpage.c).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from pgrescue.errors import SnapshotError
from pgrescue.model import Lsn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PLAUSIBLE_GAP_BYTES: Final = 1 << 40
"""How far above all other files one file's LSNs may be: no server writes 1 TiB of WAL for one file alone."""

_CHUNK_BYTES: Final = 4 << 20
_HEADER_BYTES: Final = 24
_LAYOUT_VERSION: Final = 4
_FLAGS: Final = 0x0007
_RANGE_BITS: Final = 40
_MAX_LISTED: Final = 100
_RELATION: Final = re.compile(r"(\d+)(_fsm|_vm|_init)?(?:\.\d+)?", re.ASCII)
_PAGE: Final = np.dtype(
    {
        "names": ["xlogid", "xrecoff", "flags", "lower", "upper", "special", "size_version"],
        "formats": ["<u4", "<u4", "<u2", "<u2", "<u2", "<u2", "<u2"],
        "offsets": [0, 4, 10, 12, 14, 16, 18],
    }
)


@dataclass(frozen=True)
class Outlier:
    """Pages of one file whose LSN cannot be true: how many, and the one with the largest."""

    lsn: Lsn
    at: str
    pages: int


@dataclass(frozen=True)
class PageScan:
    """What the pages say; `at` is the path in the data directory and the block of the page with `max_lsn`.

    `max_lsn` is None, and `at` empty, where no page has an LSN. `pages` counts all pages read, `unreadable_pages` those
    of them that are neither empty nor have a sound header; `outliers` are left out of `max_lsn`, largest first.
    """

    max_lsn: Lsn | None
    at: str
    pages: int
    bytes: int
    unreadable_pages: int = 0
    outliers: tuple[Outlier, ...] = ()


def scan_pages(
    pgdata: Path,
    *,
    block_size: int = 8192,
    near: Lsn | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> PageScan:
    """Read every relation file of `pgdata` once, in constant memory, and find the largest LSN that is plausible.

    Left out are empty pages, pages without a sound header, temporary relations, and unlogged relations except their
    init forks, because their LSNs are not positions in the WAL. A file whose LSNs lie more than PLAUSIBLE_GAP_BYTES
    above those of every other file, and above `near` (pg_control's checkpoint) where given, is an outlier: damaged
    pages look so, while what a server really writes reaches several files within that distance.

    `on_progress` is told the bytes read since it was told last. Raises SnapshotError for a directory that is no data
    directory, and for a file that cannot be read.
    """
    tally = _Tally()
    buffer = bytearray(max(_CHUNK_BYTES // block_size, 1) * block_size)
    root = str(pgdata)
    path = root
    try:
        for path in _relation_files(pgdata):
            relative = path[len(root) + 1 :]
            for first_block, data in _chunks(path, buffer, block_size):
                _scan_chunk(data, block_size, relative, first_block, tally)
                if on_progress is not None:
                    on_progress(len(data))
    except OSError as error:
        raise SnapshotError(
            f"{error.filename or path} cannot be read: {error.strerror}",
            hint="Look at the disk and at the file's permissions.",
        ) from error
    outliers = tally.take_outliers(near)
    top = max((item.best for item in tally.ranges.values()), key=lambda found: found.lsn, default=None)
    return PageScan(
        max_lsn=None if top is None else Lsn(top.lsn),
        at="" if top is None else top.at,
        pages=tally.pages,
        bytes=tally.pages * block_size,
        unreadable_pages=tally.unreadable,
        outliers=outliers,
    )


@dataclass(frozen=True)
class _Found:
    lsn: int
    path: str
    block: int

    @property
    def at(self) -> str:
        return f"{self.path} block {self.block}"


@dataclass
class _Range:
    """What was seen in one range of LSNs: the page with the largest, and the largest of any other file."""

    best: _Found
    pages: int = 0
    other_lsn: int | None = None

    def add(self, found: _Found, pages: int) -> None:
        """Take in the largest LSN that one chunk of a file has here, and how many of its pages lie here."""
        self.pages += pages
        ahead = found.lsn > self.best.lsn
        if found.path != self.best.path:
            self.other_lsn = max(self.other_lsn or 0, self.best.lsn if ahead else found.lsn)
        if ahead:
            self.best = found


@dataclass
class _Tally:
    """What was seen so far; `ranges` are as wide as PLAUSIBLE_GAP_BYTES, so there are few of them."""

    pages: int = 0
    unreadable: int = 0
    ranges: dict[int, _Range] = field(default_factory=dict)

    def take_outliers(self, near: Lsn | None) -> tuple[Outlier, ...]:
        """Take out, from the top, the ranges of a file that lie too far above every other file, and return them."""
        taken = []
        while self.ranges:
            top = max(self.ranges)
            found = self.ranges[top].best
            others = [item.best.lsn for item in self.ranges.values() if item.best.path != found.path]
            others += [item.other_lsn for item in self.ranges.values() if item.other_lsn is not None]
            if near:
                others.append(near.position)
            if not others or found.lsn - max(others) <= PLAUSIBLE_GAP_BYTES:
                break
            taken.append(Outlier(Lsn(found.lsn), found.at, self.ranges.pop(top).pages))
        return tuple(taken[:_MAX_LISTED])


def _chunks(path: str, buffer: bytearray, block_size: int) -> Iterator[tuple[int, memoryview]]:
    """Yield a file's pages by the buffer, with the first one's block; what fills no page at its end does not count."""
    view = memoryview(buffer)
    first_block = 0
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while blocks := _read_blocks(descriptor, view, first_block * block_size, block_size):
            yield first_block, view[: blocks * block_size]
            first_block += blocks
    finally:
        os.close(descriptor)


def _read_blocks(descriptor: int, view: memoryview, offset: int, block_size: int) -> int:
    """Fill the buffer from `offset` on and return how many whole blocks it holds; a read may give less than asked."""
    filled = 0
    while filled < len(view):
        count = os.preadv(descriptor, [view[filled:]], offset + filled)
        if count == 0:
            break
        filled += count
    return filled // block_size


def _scan_chunk(data: memoryview, block_size: int, path: str, first_block: int, tally: _Tally) -> None:
    """Take in whole pages; only the cache line with each page's header is looked at."""
    pages = np.ndarray(len(data) // block_size, dtype=_PAGE, buffer=data, strides=(block_size,))
    upper, lower, special = pages["upper"], pages["lower"], pages["special"]
    used = upper != 0
    sound = (
        used
        & (pages["size_version"] == (block_size | _LAYOUT_VERSION))
        & ((pages["flags"] & ~np.uint16(_FLAGS)) == 0)
        & (lower >= _HEADER_BYTES)
        & (lower <= upper)
        & (upper <= special)
        & (special <= block_size)
    )
    tally.pages += len(pages)
    tally.unreadable += int(np.count_nonzero(used)) - int(np.count_nonzero(sound))
    lsns = np.where(sound, (pages["xlogid"].astype(np.uint64) << np.uint64(32)) | pages["xrecoff"], np.uint64(0))
    while largest := int(lsns.max()):
        number = largest >> _RANGE_BITS
        inside = (lsns != 0) & (lsns >> np.uint64(_RANGE_BITS) == number)
        found = _Found(largest, path, first_block + int(lsns.argmax()))
        tally.ranges.setdefault(number, _Range(found)).add(found, int(np.count_nonzero(inside)))
        lsns[inside] = 0


def _relation_files(pgdata: Path) -> Iterator[str]:
    """Yield the paths of all files with pages whose LSNs are positions in the WAL."""
    base = pgdata / "base"
    if not base.is_dir():
        raise SnapshotError(f"{pgdata} is no data directory: it has no base/", hint="Name the directory of PG_VERSION.")
    yield from _files_of(str(pgdata / "global"))
    for database in _directories(str(base)):
        yield from _files_of(database)
    for tablespace in _directories(str(pgdata / "pg_tblspc")):
        for version in _directories(tablespace):
            if os.path.basename(version).startswith("PG_"):  # noqa: PTH119 (a Path for each of 100 000 files is slow)
                for database in _directories(version):
                    yield from _files_of(database)


def _directories(path: str) -> list[str]:
    """List the directories in `path`, links to such included, since tablespaces are links; none where there is none."""
    try:
        with os.scandir(path) as entries:
            return sorted(entry.path for entry in entries if entry.is_dir())
    except FileNotFoundError:
        return []


def _files_of(directory: str) -> list[str]:
    """List a database's files: regular, named as relations are, and not those of an unlogged one."""
    try:
        with os.scandir(directory) as entries:
            found = [
                (match[1], match[2], entry.path)
                for entry in entries
                if (match := _RELATION.fullmatch(entry.name)) and entry.is_file(follow_symlinks=False)
            ]
    except FileNotFoundError:
        return []
    unlogged = {number for number, fork, _ in found if fork == "_init"}
    return sorted(path for number, fork, path in found if number not in unlogged or fork == "_init")
