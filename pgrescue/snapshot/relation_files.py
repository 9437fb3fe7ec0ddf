"""The files of a data directory that hold pages, and how their pages are read: once, and in constant memory.

Names: `relpath.c` and `md.c`; the header of a page: `bufpage.h`. What else lies beside these files, such as pg_control,
is left out by its name; so are temporary relations (`t3_16400`), which a server deletes when it starts.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from pgrescue.errors import SnapshotError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_RELATION: Final = re.compile(r"(\d+)(?:_(fsm|vm|init))?(?:\.([1-9]\d*))?", re.ASCII)
_HEADER_BYTES: Final = 24
_LAYOUT_VERSION: Final = 4
_FLAGS: Final = 0x0007
_ALIGNMENT: Final = 8  # MAXALIGN on every 64-bit machine
_MAX_PIECES: Final = 4096  # empty files fill no batch
_PAGE: Final = np.dtype(
    {
        "names": ["xlogid", "xrecoff", "checksum", "flags", "lower", "upper", "special", "size_version"],
        "formats": ["<u4", "<u4", "<u2", "<u2", "<u2", "<u2", "<u2", "<u2"],
        "offsets": [0, 4, 8, 10, 12, 14, 16, 18],
    }
)


class Fork(StrEnum):
    """What a file holds of its relation, in PostgreSQL's words and order; the first is the rows or the index itself."""

    MAIN = "main"
    FSM = "fsm"
    VM = "vm"
    INIT = "init"


@dataclass(frozen=True, slots=True)
class RelationFile:
    """One file of a relation: `segment` 0 is the file without a number in its name.

    `path` and `directory` begin with the data directory. `has_wal_lsns` tells whether the LSNs of its pages are
    positions in the WAL, which those of an unlogged relation are not, its init fork excepted.
    """

    path: str
    directory: str
    number: int
    fork: Fork
    segment: int
    has_wal_lsns: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """Pages of one file, one after the other: `first_block` is counted within the file, `start` within the batch.

    Every file has one at least, if without any block. `tail_bytes` are those after the last whole block of the file.
    """

    file: RelationFile
    first_block: int
    blocks: int
    start: int
    tail_bytes: int


def relation_files(pgdata: Path) -> Iterator[RelationFile]:
    """Yield the files of all relations: those of one relation one after the other, by fork and segment.

    Raises SnapshotError for a directory that is no data directory.
    """
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


def read_batches(
    files: Iterable[RelationFile], *, block_size: int, batch_bytes: int
) -> Iterator[tuple[memoryview, list[Piece]]]:
    """Read the files in order, and yield their whole pages by the batch, with what they are.

    A batch is good until the next one is asked for. Raises SnapshotError for a file that cannot be read.
    """
    view = memoryview(bytearray(max(batch_bytes // block_size, 1) * block_size))
    capacity = len(view) // block_size
    pieces: list[Piece] = []
    start = 0
    for file in files:
        try:
            descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                first_block, ended = 0, False
                while not ended:
                    if start == capacity or len(pieces) == _MAX_PIECES:
                        yield view[: start * block_size], pieces
                        pieces, start = [], 0
                    count, ended = _read(descriptor, view[start * block_size :], first_block * block_size)
                    blocks, tail = divmod(count, block_size)
                    pieces.append(Piece(file, first_block, blocks, start, tail))
                    first_block += blocks
                    start += blocks
            finally:
                os.close(descriptor)
        except OSError as error:
            raise SnapshotError(
                f"{error.filename or file.path} cannot be read: {error.strerror}",
                hint="Look at the disk and at the file's permissions.",
            ) from error
    if pieces:
        yield view[: start * block_size], pieces


def page_headers(data: memoryview, block_size: int) -> NDArray[np.void]:
    """Return the headers of whole pages, in place: only the cache line with each page's header is ever looked at."""
    return np.ndarray(len(data) // block_size, dtype=_PAGE, buffer=data, strides=(block_size,))


def sound_headers(headers: NDArray[np.void], block_size: int) -> NDArray[np.bool_]:
    """Tell which headers a server accepts (`PageIsVerified`), and of which size and layout (`PageHeaderIsValid`)."""
    lower, upper, special = headers["lower"], headers["upper"], headers["special"]
    sound: NDArray[np.bool_] = (
        (headers["size_version"] == (block_size | _LAYOUT_VERSION))
        & ((headers["flags"] & ~np.uint16(_FLAGS)) == 0)
        & (lower >= _HEADER_BYTES)
        & (lower <= upper)
        & (upper <= special)
        & (special <= block_size)
        & (special % _ALIGNMENT == 0)
    )
    return sound


def page_lsns(headers: NDArray[np.void]) -> NDArray[np.uint64]:
    """Return each page's LSN as a position in bytes."""
    lsns: NDArray[np.uint64] = (headers["xlogid"].astype(np.uint64) << np.uint64(32)) | headers["xrecoff"]
    return lsns


def _read(descriptor: int, view: memoryview, offset: int) -> tuple[int, bool]:
    """Fill the view from `offset` on; return how many bytes it got, for a read may give less, and whether all came."""
    filled = 0
    while filled < len(view):
        count = os.preadv(descriptor, [view[filled:]], offset + filled)
        if count == 0:
            return filled, True
        filled += count
    return filled, False


def _directories(path: str) -> list[str]:
    """List the directories in `path`, links to such included, since tablespaces are links; none where there is none."""
    try:
        with os.scandir(path) as entries:
            return sorted(entry.path for entry in entries if entry.is_dir())
    except FileNotFoundError:
        return []


_ORDER: Final = {fork: number for number, fork in enumerate(Fork)}


def _files_of(directory: str) -> Iterator[RelationFile]:
    """Yield the files of a database: regular, named as relations are."""
    try:
        with os.scandir(directory) as entries:
            found = [
                (int(match[1]), Fork(match[2] or "main"), int(match[3] or 0), entry.path)
                for entry in entries
                if (match := _RELATION.fullmatch(entry.name)) and entry.is_file(follow_symlinks=False)
            ]
    except FileNotFoundError:
        return
    found.sort(key=lambda item: (item[0], _ORDER[item[1]], item[2]))
    unlogged = {number for number, fork, _, _ in found if fork is Fork.INIT}
    for number, fork, segment, path in found:
        yield RelationFile(path, directory, number, fork, segment, fork is Fork.INIT or number not in unlogged)
