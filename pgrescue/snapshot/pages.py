"""The largest LSN on any page of a data directory: how far the WAL had come when its files were copied.

Which files and pages count: reference/formats.md §9, `pg_checksums.c` and `PageIsVerified` (bufpage.c).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from pgrescue.model import Lsn
from pgrescue.snapshot.relation_files import page_headers, page_lsns, read_batches, relation_files, sound_headers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PLAUSIBLE_GAP_BYTES: Final = 1 << 40
"""How far above all other files one file's LSNs may be: no server writes 1 TiB of WAL for one file alone."""

_CHUNK_BYTES: Final = 4 << 20
_RANGE_BITS: Final = 40
_MAX_LISTED: Final = 100


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
    root = str(pgdata)
    files = (file for file in relation_files(pgdata) if file.has_wal_lsns)
    for data, pieces in read_batches(files, block_size=block_size, batch_bytes=_CHUNK_BYTES):
        for piece in pieces:
            part = data[piece.start * block_size : (piece.start + piece.blocks) * block_size]
            if piece.blocks:
                _scan_chunk(part, block_size, piece.file.path[len(root) + 1 :], piece.first_block, tally)
        if on_progress is not None:
            on_progress(len(data))
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


def _scan_chunk(data: memoryview, block_size: int, path: str, first_block: int, tally: _Tally) -> None:
    """Take in whole pages; only the cache line with each page's header is looked at."""
    pages = page_headers(data, block_size)
    used = pages["upper"] != 0
    sound = used & sound_headers(pages, block_size)
    tally.pages += len(pages)
    tally.unreadable += int(np.count_nonzero(used)) - int(np.count_nonzero(sound))
    lsns = np.where(sound, page_lsns(pages), np.uint64(0))
    while largest := int(lsns.max()):
        number = largest >> _RANGE_BITS
        inside = (lsns != 0) & (lsns >> np.uint64(_RANGE_BITS) == number)
        found = _Found(largest, path, first_block + int(lsns.argmax()))
        tally.ranges.setdefault(number, _Range(found)).add(found, int(np.count_nonzero(inside)))
        lsns[inside] = 0
