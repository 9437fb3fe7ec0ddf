"""The contract of a snapshot's format: entries in the order in which they lie there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Kind(StrEnum):
    """What an entry is; OTHER stands for devices, pipes and sockets, which no data directory has."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    HARDLINK = "hard link"
    OTHER = "special file"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a snapshot.

    `path` is relative, with `/` between its parts, no `.` or `..` part, and empty for the top directory itself.
    `size` is the file's length in bytes once it is written. `target` is where a link points, as it stands there; a
    hard link's is a path like `path`.
    """

    path: str
    kind: Kind
    size: int = 0
    mtime_ns: int = 0
    target: str = ""


class Content(Protocol):
    """The bytes of one file."""

    def read(self, limit: int) -> bytes:
        """Return the first `limit` bytes, or all where there are fewer."""

    def write_to(self, descriptor: int) -> None:
        """Write all of the file to an empty file open for writing; raise SnapshotError where bytes are missing."""


class Source(Protocol):
    """A snapshot in one format. It only ever reads."""

    @property
    def path(self) -> Path:
        """The file or directory that is read."""

    @property
    def format(self) -> str:
        """What it is, in the user's words: `tar`, `tar, gzip`, `directory`."""

    @property
    def parallel(self) -> bool:
        """Tell whether contents may be read in any order, from several threads, and after the iterator has ended.

        Where not, an entry's content is gone when the next entry is asked for.
        """

    @property
    def total_bytes(self) -> int | None:
        """How many bytes of the source there are to read; None where nobody can know it before."""

    def entries(self) -> Iterator[tuple[Entry, Content, int]]:
        """Yield every entry, its content (empty for all but files) and how many bytes of the source are passed.

        Raises SnapshotError at the first place that cannot be understood, TruncatedSnapshotError where the source
        ends too early.
        """
