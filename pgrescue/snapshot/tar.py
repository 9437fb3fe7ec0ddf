"""Tar archives, plain or compressed, read from front to back.

A plain archive is addressed by position, so that contents can be copied in any order, and by the kernel.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import lzma
import os
import weakref
import zlib
from typing import TYPE_CHECKING, BinaryIO, cast

from pgrescue.errors import SnapshotError, TruncatedSnapshotError, UnreadableSnapshotError
from pgrescue.snapshot.tar_format import BLOCK, Archive, Member, members, refuse_other_files, truncated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from pgrescue.snapshot.interface import Entry

_CHUNK = 1 << 20

_COMPRESSIONS: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\xff\x06\0\0sNaPpY", "snappy"),
)
_READERS: Mapping[str, Callable[[BinaryIO], BinaryIO]] = {
    "gzip": lambda raw: cast("BinaryIO", gzip.GzipFile(fileobj=raw)),
    "bzip2": lambda raw: cast("BinaryIO", bz2.BZ2File(raw)),
    "xz": lambda raw: cast("BinaryIO", lzma.LZMAFile(raw)),  # noqa: SIM115 - its caller closes it
}
_UNPACKERS = {"zstd": "zstd -d", "lz4": "lz4 -d", "snappy": "snzip -d"}


class TarSource:
    """A tar archive; see `Source` for the promises."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _reading(path), path.open("rb") as file:
            head = file.read(BLOCK)
            self.total_bytes: int | None = os.fstat(file.fileno()).st_size
        self._compression = next((name for magic, name in _COMPRESSIONS if head.startswith(magic)), None)
        if self._compression is None:
            refuse_other_files(path, head)
        elif self._compression not in _READERS:
            raise UnreadableSnapshotError(
                f"{path} is compressed with {self._compression}, which this version does not read",
                hint=f"Unpack it first: {_UNPACKERS[self._compression]} {path.name}",
            )

    @property
    def format(self) -> str:
        """What it is, in the user's words."""
        return "tar" if self._compression is None else f"tar, {self._compression}"

    @property
    def parallel(self) -> bool:
        """Plain archives are addressed by position, compressed ones are streams."""
        return self._compression is None

    def entries(self) -> Iterator[tuple[Entry, _TarContent, int]]:
        """Yield every entry in the archive's order; see `Source.entries`."""
        with _reading(self.path):
            if self._compression is None:
                archive = _Positioned(self.path)
                yield from _walk(archive, lambda: archive.position)
                return
            with self.path.open("rb", buffering=0) as raw:
                file = cast("BinaryIO", raw)
                with _READERS[self._compression](file) as decompressed:
                    stream = _Streamed(decompressed, self.path)
                    yield from _walk(stream, file.tell)
                    stream.read_on()  # its checksum stands at its very end


def _walk(archive: Archive, passed: Callable[[], int]) -> Iterator[tuple[Entry, _TarContent, int]]:
    for member in members(archive):
        content = _TarContent(archive, member)
        yield member.entry, content, passed()
        archive.seek(member.end)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what the operating system and the decompressors raise into errors with a remedy."""
    again = "Fetch it again, and compare its size with the original's."
    try:
        yield
    except EOFError as error:
        raise TruncatedSnapshotError(f"{path} is truncated: its compressed data ends too early", hint=again) from error
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise SnapshotError(f"{path} is damaged: {error}", hint=again) from error
    except OSError as error:
        if error.errno is None:  # how bz2 says that data is damaged
            raise SnapshotError(f"{path} is damaged: {error}", hint=again) from error
        raise UnreadableSnapshotError(
            f"{path} cannot be read: {error.strerror}",
            hint="See whether its disk is sound, and whether you may read it: ls -l",
        ) from error


class _Positioned:
    """A plain archive: every read names its position, so that threads can share it.

    The file is closed with the last content that refers to it: threads write contents when the walk has ended already.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = 0
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self._size = os.fstat(self._descriptor).st_size

    def read(self, size: int) -> bytes:
        data = self.read_at(self.position, size)
        self.position += len(data)
        return data

    def read_at(self, start: int, size: int) -> bytes:
        with _reading(self.path):
            return os.pread(self._descriptor, size, start)

    def seek(self, position: int) -> None:
        if position > self._size:
            raise truncated(self.path, self._size, position)
        self.position = position

    def copy(self, start: int, size: int, descriptor: int) -> None:
        copy_range(self._descriptor, start, size, descriptor, path=self.path)


class _Streamed:
    """A compressed archive: what was passed is gone."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.path = path
        self.position = 0
        self._file = file

    def read(self, size: int) -> bytes:
        parts = []
        with _reading(self.path):  # contents are read outside of the walk
            while size and (part := self._file.read(size)):
                parts.append(part)
                size -= len(part)
                self.position += len(part)
        return b"".join(parts)

    def read_at(self, start: int, size: int) -> bytes:
        self.seek(start)
        return self.read(size)

    def read_on(self) -> None:
        while self.read(_CHUNK):
            pass

    def seek(self, position: int) -> None:
        if position < self.position:
            msg = f"byte {position} of a stream that is at byte {self.position} already"
            raise ValueError(msg)
        while self.position < position:
            if not self.read(min(_CHUNK, position - self.position)):
                raise truncated(self.path, self.position, position)

    def copy(self, start: int, size: int, descriptor: int) -> None:
        self.seek(start)
        while size:
            data = self.read(min(_CHUNK, size))
            if not data:
                raise truncated(self.path, self.position, self.position + size)
            write_all(descriptor, data)
            size -= len(data)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`, however many calls that takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def copy_range(source: int, start: int, size: int, descriptor: int, *, path: Path) -> None:
    """Copy `size` bytes of `source` from `start` to where `descriptor` stands, in the kernel where it can.

    Raises TruncatedSnapshotError, with `path`, where `source` ends before.
    """
    by_kernel = hasattr(os, "copy_file_range")
    while size:
        copied = 0
        if by_kernel:
            try:
                copied = os.copy_file_range(source, descriptor, size, offset_src=start)
            except OSError as error:
                # Between file systems, or on one that has no such operation: copy by hand.
                if error.errno not in {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM}:
                    raise
                by_kernel = False
                continue
        else:
            data = os.pread(source, min(size, _CHUNK), start)
            write_all(descriptor, data)
            copied = len(data)
        if not copied:
            raise truncated(path, start, start + size)
        start += copied
        size -= copied


class _TarContent:
    """The bytes of one member; see `Content`."""

    __slots__ = ("_archive", "_member")

    def __init__(self, archive: Archive, member: Member) -> None:
        self._archive = archive
        self._member = member

    def read(self, limit: int) -> bytes:
        """Return the first bytes; of a sparse file only those that are stored in one piece from its beginning."""
        data = b""
        for offset, start, length in self._member.pieces:
            if offset != len(data) or len(data) >= limit:
                break
            wanted = min(length, limit - len(data))
            data += (piece := self._archive.read_at(start, wanted))
            if len(piece) < wanted:
                raise truncated(self._archive.path, start + len(piece), start + length)
        return data

    def write_to(self, descriptor: int) -> None:
        """Write the file, with holes where a sparse member has them."""
        at = 0
        for offset, start, length in self._member.pieces:
            if offset != at:
                os.lseek(descriptor, offset, os.SEEK_SET)
            self._archive.copy(start, length, descriptor)
            at = offset + length
        if at != self._member.entry.size:
            os.ftruncate(descriptor, self._member.entry.size)
