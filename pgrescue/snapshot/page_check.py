"""Whether the files of all relations are whole and their pages sound: one pass over a directory that no server uses.

What a server itself checks of a page that it reads: `PageIsVerified` (bufpage.c); how relations lie in files: `md.c`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from pgrescue.snapshot.checksum import page_checksums
from pgrescue.snapshot.page_damage import MAX_FILES, MAX_RUNS, BlockDamage, BlockRun, DamagedFile, PageCheck
from pgrescue.snapshot.relation_files import Fork, page_headers, page_lsns, read_batches, relation_files, sound_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pgrescue.model import Lsn
    from pgrescue.snapshot.relation_files import Piece, RelationFile

    Mask = NDArray[np.bool_]

SEGMENT_BLOCKS: Final = 131072
"""Blocks in a full segment of a relation (RELSEG_SIZE: 1 GiB), as long as pg_control says nothing else."""

_BATCH_BYTES: Final = 4 << 20
_MAPS: Final = frozenset({Fork.FSM, Fork.VM})
_CONTENT_AT: Final = 24
# Hash indexes make room for all buckets of a split at once, and write only the last page of it (`_hash_alloc_buckets`,
# hashpage.c). SP-GiST puts pages of the wrong parity aside before anything is written to them (`allocNewBuffer`,
# spgutils.c). The first page of either is known by the magic number of its content and by its last two bytes.
_SPARSE_INDEXES: Final = frozenset({(0x06440640, 0xFF80), (0xBA0BABEE, 0xFF82)})


def check_pages(
    pgdata: Path,
    *,
    block_size: int = 8192,
    segment_blocks: int = SEGMENT_BLOCKS,
    end_of_wal: Lsn | None = None,
    checksums: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> PageCheck:
    """Read every relation file of `pgdata` once, in constant memory, and tell which blocks are damaged.

    The server must be stopped. `block_size` and `segment_blocks` are pg_control's. Pages past `end_of_wal` are looked
    for where it is given, and where LSNs are positions in the WAL: in an unlogged relation only in its init fork.
    `checksums` is for clusters that have them. `on_progress` is told the bytes read since it was told last.
    Raises SnapshotError for a directory that is no data directory, and for a file that cannot be read.
    """
    look = _Look(block_size, segment_blocks, None if end_of_wal is None else end_of_wal.position, checksums)
    total = _Total(len(str(pgdata)) + 1, segment_blocks)
    files = _scan(relation_files(pgdata), look, on_progress)
    for _, relation in groupby(files, key=lambda seen: (seen.file.directory, seen.file.number)):
        total.add(list(relation))
    return PageCheck(
        files=total.files,
        blocks=total.blocks,
        bytes=total.blocks * block_size,
        unused_blocks=total.empty - total.counts[BlockDamage.ZERO],
        checksums=checksums,
        end_of_wal=end_of_wal,
        counts=MappingProxyType(dict(total.counts)),
        damaged=tuple(total.damaged),
    )


@dataclass
class _Damage:
    """What is wrong with one file so far; the runs of one kind come in ascending order."""

    counts: Counter[BlockDamage] = field(default_factory=Counter)
    runs: list[tuple[int, int, BlockDamage]] = field(default_factory=list)
    latest: dict[BlockDamage, int] = field(default_factory=dict)

    def add(self, kind: BlockDamage, runs: Sequence[tuple[int, int]]) -> None:
        """Take in runs, given by their first and last block; one that goes on where the last one ended extends it."""
        for first, last in runs:
            self.counts[kind] += last - first + 1
            latest = self.latest.get(kind)
            if latest is not None and self.runs[latest][1] + 1 == first:
                self.runs[latest] = (self.runs[latest][0], last, kind)
            elif len(self.runs) < MAX_RUNS:
                self.latest[kind] = len(self.runs)
                self.runs.append((first, last, kind))


@dataclass
class _Zeros:
    """The empty pages at the end of what was read of a fork: damage as soon as a used one follows."""

    expected: bool
    runs: list[tuple[_Seen, int, int]] = field(default_factory=list)

    def take_in(self, seen: _Seen, empty: Mask, first_block: int) -> None:
        """Take in which of the next pages are empty: damage are those before a used one, here or later."""
        seen.empty += int(np.count_nonzero(empty))
        if self.expected:
            return
        used = np.flatnonzero(~empty)
        end = int(used[-1]) + 1 if len(used) else 0
        if end:
            self.used_page_follows()
            seen.add(BlockDamage.ZERO, _runs(empty[:end], first_block))
        if end < len(empty):
            self.runs.append((seen, first_block + end, first_block + len(empty) - 1))

    def used_page_follows(self) -> None:
        """Make damage of the empty pages that were waiting."""
        for seen, first, last in self.runs:
            seen.add(BlockDamage.ZERO, [(first, last)])
        self.runs.clear()


@dataclass
class _Seen:
    """One file, read to its end when the next one comes; `zeros` are shared by the files of a fork."""

    file: RelationFile
    zeros: _Zeros
    blocks: int = 0
    tail_bytes: int = 0
    empty: int = 0
    damage: _Damage | None = None

    def add(self, kind: BlockDamage, runs: Sequence[tuple[int, int]]) -> None:
        """Note damage of this file, if it is any."""
        if runs:
            self.damage = self.damage or _Damage()
            self.damage.add(kind, runs)

    def take_in(self, piece: Piece, marks: _Marks | None) -> None:
        """Take in the next pages, which have nothing to note where `marks` is None."""
        self.blocks += piece.blocks
        self.tail_bytes = piece.tail_bytes
        if marks is not None:
            part = slice(piece.start, piece.start + piece.blocks)
            self.zeros.take_in(self, marks.empty[part], piece.first_block)
            self.add(BlockDamage.HEADER, _runs(marks.invalid[part], piece.first_block))
            self.add(BlockDamage.CHECKSUM, _runs(marks.wrong[part], piece.first_block))
            if self.file.has_wal_lsns:
                self.add(BlockDamage.NEWER_THAN_WAL, _runs(marks.newer[part], piece.first_block))
        elif piece.blocks:
            self.zeros.used_page_follows()


@dataclass(frozen=True)
class _Marks:
    """The pages of a batch that are not as most are."""

    empty: Mask
    invalid: Mask
    wrong: Mask
    newer: Mask

    def any(self) -> bool:
        return any(bool(mask.any()) for mask in (self.empty, self.invalid, self.wrong, self.newer))


@dataclass(frozen=True)
class _Look:
    """What is asked of each page."""

    block_size: int
    segment_blocks: int
    limit: int | None
    checksums: bool

    def at(self, data: memoryview, pieces: Sequence[Piece]) -> _Marks:
        """Look at all pages of a batch at once; of most, only the header is read where no checksums are asked for."""
        headers = page_headers(data, self.block_size)
        used = headers["upper"] != 0
        sound = sound_headers(headers, self.block_size)
        sound &= used
        empty = _empty_pages(data, used)
        wrong = newer = np.zeros(len(headers), dtype=np.bool_)
        if self.checksums and len(headers):
            wrong = used & (page_checksums(data, self._block_numbers(pieces)) != headers["checksum"])
        if self.limit is not None:
            newer = sound & ~wrong & (page_lsns(headers) > self.limit)
        return _Marks(empty, ~(sound | empty), wrong, newer)

    def _block_numbers(self, pieces: Sequence[Piece]) -> NDArray[np.uint32]:
        firsts = (piece.file.segment * self.segment_blocks + piece.first_block for piece in pieces)
        numbers = [np.arange(first, first + piece.blocks) for first, piece in zip(firsts, pieces, strict=True)]
        return np.concatenate(numbers).astype(np.uint32)  # as in the server, numbers of 32 bits that wrap


def _scan(files: Iterable[RelationFile], look: _Look, on_progress: Callable[[int], None] | None) -> Iterator[_Seen]:
    """Yield each file with what its pages show; later files of the same fork may still add to it."""
    seen: _Seen | None = None
    for data, pieces in read_batches(files, block_size=look.block_size, batch_bytes=_BATCH_BYTES):
        marks = look.at(data, pieces)
        noted = marks if marks.any() else None
        for piece in pieces:
            if seen is None or seen.file is not piece.file:
                if seen is not None:
                    yield seen
                seen = _begin(seen, piece, data[piece.start * look.block_size :][: look.block_size])
            seen.take_in(piece, noted)
        if on_progress is not None:
            on_progress(len(data))
    if seen is not None:
        yield seen


def _begin(before: _Seen | None, piece: Piece, first_page: memoryview) -> _Seen:
    """Begin with the next file, whose first page it is unless the file is empty."""
    file = piece.file
    if before is not None and _fork_of(before.file) == _fork_of(file):
        return _Seen(file, before.zeros)
    expected = file.fork in _MAPS or (piece.blocks > 0 and _is_sparse_index(first_page))
    return _Seen(file, _Zeros(expected))


def _fork_of(file: RelationFile) -> tuple[str, int, Fork]:
    return file.directory, file.number, file.fork


@dataclass
class _Total:
    """All that was found; `prefix` is the length of the data directory's path with its slash."""

    prefix: int
    segment_blocks: int
    files: int = 0
    blocks: int = 0
    empty: int = 0
    counts: Counter[BlockDamage] = field(default_factory=Counter)
    damaged: list[DamagedFile] = field(default_factory=list)

    def add(self, relation: Sequence[_Seen]) -> None:
        """Take in all files of one relation, and look whether it is whole."""
        first = relation[0].file
        for _, group in groupby(relation, key=lambda seen: seen.file.fork):
            self._add_fork(list(group))
        forks = {seen.file.fork for seen in relation}
        has_main = any(seen.file.fork is Fork.MAIN and (seen.file.segment == 0 or seen.blocks) for seen in relation)
        if not has_main and forks != {Fork.INIT}:
            damage = _Damage()
            damage.add(BlockDamage.MAIN_FORK_MISSING, [(0, 0)])
            self._keep(f"{first.directory}/{first.number}", 0, 0, damage)

    def _add_fork(self, segments: Sequence[_Seen]) -> None:
        # What a server cut off a relation leaves empty files behind (`mdtruncate`), so only those with blocks count.
        last = max((seen.file.segment for seen in segments if seen.blocks or seen.tail_bytes), default=-1)
        expected = 0
        for seen in segments:
            if seen.file.segment <= last:
                self._add_missing(seen.file, expected)
            expected = seen.file.segment + 1
            if seen.tail_bytes:
                seen.add(BlockDamage.PARTIAL, [(seen.blocks, seen.blocks)])
            if seen.file.segment < last and seen.blocks < self.segment_blocks:
                seen.add(BlockDamage.TRUNCATED, [(seen.blocks, self.segment_blocks - 1)])
            self._add_file(seen)

    def _add_missing(self, file: RelationFile, expected: int) -> None:
        """Take in the segments between `expected` and this one, each with all its blocks missing."""
        name = file.path.removesuffix(f".{file.segment}")
        for segment in range(expected, file.segment)[:MAX_RUNS]:
            damage = _Damage()
            damage.add(BlockDamage.MISSING, [(0, self.segment_blocks - 1)])
            self._keep(f"{name}.{segment}" if segment else name, segment, 0, damage)

    def _add_file(self, seen: _Seen) -> None:
        self.files += 1
        self.blocks += seen.blocks
        self.empty += seen.empty
        if seen.damage is not None:
            self._keep(seen.file.path, seen.file.segment, seen.blocks, seen.damage)

    def _keep(self, path: str, segment: int, blocks: int, damage: _Damage) -> None:
        self.counts += damage.counts
        if len(self.damaged) < MAX_FILES:
            runs = tuple(BlockRun(*run) for run in sorted(damage.runs))
            counts = MappingProxyType(dict(damage.counts))
            self.damaged.append(DamagedFile(path[self.prefix :], segment * self.segment_blocks, blocks, counts, runs))


def _is_sparse_index(first_page: memoryview) -> bool:
    """Tell whether this is the beginning of an index in which empty pages are nothing special."""
    magic = int.from_bytes(first_page[_CONTENT_AT : _CONTENT_AT + 4], "little")
    return (magic, int.from_bytes(first_page[-2:], "little")) in _SPARSE_INDEXES


def _empty_pages(data: memoryview, used: Mask) -> Mask:
    """Tell which pages hold nothing but zeros; only those are read that are new by their header."""
    empty = ~used
    if empty.any():
        words = np.frombuffer(data, dtype=np.uint64).reshape(len(used), -1)
        empty[empty] = np.bitwise_or.reduce(words if empty.all() else words[empty], axis=1) == 0
    return empty


def _runs(mask: Mask, first_block: int) -> list[tuple[int, int]]:
    """Return the first and the last block of each run of what is marked."""
    marked = np.flatnonzero(mask)
    if not len(marked):
        return []
    breaks = np.flatnonzero(np.diff(marked) != 1)
    firsts = marked[np.concatenate(([0], breaks + 1))] + first_block
    lasts = marked[np.concatenate((breaks, [-1]))] + first_block
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))
