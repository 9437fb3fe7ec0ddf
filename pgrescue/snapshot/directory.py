"""A directory as a snapshot: walked in order of names, no link followed."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from pgrescue.errors import SnapshotError, UnreadableSnapshotError
from pgrescue.snapshot.interface import Entry, Kind
from pgrescue.snapshot.tar import copy_range

if TYPE_CHECKING:
    from collections.abc import Iterator


class DirectorySource:
    """A directory; see `Source` for the promises.

    A symbolic link is an entry, never a way: a copied data directory's pg_wal may point at the production's.
    """

    format = "directory"
    parallel = True
    total_bytes = None

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> Iterator[tuple[Entry, _FileContent, int]]:
        """Yield every entry below the directory, parents first; see `Source.entries`."""
        passed = 0
        for entry, content in _walk(self.path, ""):
            passed += entry.size
            yield entry, content, passed


def _walk(directory: Path, prefix: str) -> Iterator[tuple[Entry, _FileContent]]:
    try:
        with os.scandir(directory) as found:
            children = sorted(found, key=lambda child: child.name)
    except OSError as error:
        raise _unreadable(directory, error) from error
    for child in children:
        path = f"{prefix}{child.name}"
        try:
            status = child.stat(follow_symlinks=False)
            target = str(Path(child.path).readlink()) if stat.S_ISLNK(status.st_mode) else ""
        except FileNotFoundError:
            continue  # a running server removes files at any time
        except OSError as error:
            raise _unreadable(Path(child.path), error) from error
        kind = _kind(status.st_mode)
        size = status.st_size if kind is Kind.FILE else 0
        yield Entry(path, kind, size, status.st_mtime_ns, target), _FileContent(Path(child.path), size)
        if kind is Kind.DIRECTORY:
            yield from _walk(Path(child.path), f"{path}/")


def _kind(mode: int) -> Kind:
    if stat.S_ISREG(mode):
        return Kind.FILE
    if stat.S_ISDIR(mode):
        return Kind.DIRECTORY
    return Kind.SYMLINK if stat.S_ISLNK(mode) else Kind.OTHER


def _unreadable(path: Path, error: OSError) -> SnapshotError:
    return UnreadableSnapshotError(
        f"{path} cannot be read: {error.strerror}",
        hint="Run pgrescue as a user who may read the whole snapshot, or give it a tar made by one.",
    )


class _FileContent:
    """The bytes of one file; see `Content`."""

    __slots__ = ("_path", "_size")

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size

    def read(self, limit: int) -> bytes:
        """Return the first bytes of the file, as long as it was when it was listed."""
        if not self._size:
            return b""
        descriptor = self._open()
        try:
            with os.fdopen(descriptor, "rb") as file:
                return file.read(min(limit, self._size))
        except OSError as error:
            raise _unreadable(self._path, error) from error

    def write_to(self, descriptor: int) -> None:
        """Write the file as long as it was when it was listed; a file that shrank meanwhile is an error."""
        source = self._open()
        try:
            copy_range(source, 0, self._size, descriptor, path=self._path)
        finally:
            os.close(source)

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(self._path, error) from error
