"""A WAL archive as the user has it: the files in a directory tree, or in a tar, that are named like WAL.

It reads what barman (`wals/<TLI><LOG>/<segment>`), WAL-G (`wal_005/<segment>.lz4`), pgBackRest
(`archive/<stanza>/17-1/<16 digits>/<segment>-<sha1>.zst`), pg_receivewal and an archive_command with `cp` leave
behind (reference/formats.md §1, §3, §4, §5).
"""

from __future__ import annotations

import posixpath
import re
import tempfile
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from pgrescue.errors import SnapshotError
from pgrescue.files import write_atomically
from pgrescue.snapshot.compression import compression_of, refuse_encrypted, unpacked
from pgrescue.snapshot.directory import DirectorySource
from pgrescue.snapshot.interface import Kind
from pgrescue.snapshot.tar import TarSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pgrescue.snapshot.interface import Content, Entry, Source

LARGEST_SEGMENT: Final = 1 << 30
"""Bytes of the largest WAL segment that PostgreSQL can be made with."""

_LARGEST_TEXT: Final = 1 << 20
_HEAD_BYTES: Final = 512
_SUFFIX: Final = r"\.(?:gz|bz2|xz|lzma|zstd?|lz4|sz|snappy|br|lzo|gpg|pgp|age|enc)"
# pg_receivewal puts .partial behind the suffix of a compression, pgBackRest puts the SHA-1 behind .partial.
_SEGMENT: Final = re.compile(rf"([0-9A-F]{{24}})(?:{_SUFFIX})?(\.partial)?(?:-[0-9a-f]{{40}})?(?:{_SUFFIX}){{0,2}}")
_TEXT: Final = re.compile(rf"([0-9A-F]{{8}}\.history|[0-9A-F]{{24}}\.[0-9A-F]{{8}}\.backup)(?:{_SUFFIX}){{0,2}}")
_CONTROL_BYTES: Final = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")
_XLOG_MAGICS: Final = frozenset({0xD0, 0xD1})


def plain_name(stored_name: str) -> str | None:
    """Return the name that PostgreSQL asks for where a tool stored a file as `stored_name`; None for other files.

    `0000000100000000000000A3-<sha1>.zst` is `0000000100000000000000A3`; `.ready`, `.tmp` and the like are no WAL.
    """
    segment = _SEGMENT.fullmatch(stored_name)
    if segment is not None:
        return segment[1] + (segment[2] or "")
    text = _TEXT.fullmatch(stored_name)
    return None if text is None else text[1]


@dataclass(frozen=True)
class ArchivedFile:
    """One file of an archive; `name` is the plain one, without suffix and checksum.

    `path` is where it lies; of a file in a tar it is the tar's path with the member's below it.
    """

    path: Path
    name: str
    stored_bytes: int
    place: _Place = field(repr=False, compare=False)

    def read(self, *, limit_bytes: int = LARGEST_SEGMENT) -> bytes:
        """Return the plain content, decompressed where it is compressed, all of it in memory.

        Raises SnapshotError where it is damaged, encrypted, compressed in a way that nobody can tell, or larger than
        `limit_bytes`, which should be the segment size. A file that is too short is returned as it is.
        """
        is_text = _TEXT.fullmatch(self.name) is not None
        limit_bytes = min(limit_bytes, _LARGEST_TEXT) if is_text else limit_bytes
        what = str(self.path)
        # Data that cannot be compressed grows a little: by less than 1/8 in every format that is read.
        if self.stored_bytes > limit_bytes + limit_bytes // 8 + _HEAD_BYTES:
            raise _too_large(what, self.stored_bytes, limit_bytes)
        data = self.place.read()
        compression = compression_of(data)
        if compression is not None:
            return unpacked(data, compression, what=what, limit_bytes=limit_bytes)
        if len(data) > limit_bytes:
            raise _too_large(what, len(data), limit_bytes)
        if not (_may_be_text(data) if is_text else _may_be_wal(data)):
            _refuse(data, self)
        return data


@dataclass(frozen=True)
class WalArchive:
    """What was found in an archive, by plain name in ascending order; names of partial segments end in `.partial`.

    `is_stream` is true for a compressed tar, where each file that is read costs a pass from the tar's beginning: call
    `unpack_to` first where more than a few are wanted.
    """

    root: Path
    segments: Mapping[str, ArchivedFile]
    partial_segments: Mapping[str, ArchivedFile]
    histories: Mapping[str, ArchivedFile]
    backup_histories: Mapping[str, ArchivedFile]
    is_stream: bool = False

    def find(self, name: str) -> ArchivedFile | None:
        """Return the file of this plain name, None where the archive has none."""
        for kind in (self.segments, self.partial_segments, self.histories, self.backup_histories):
            if name in kind:
                return kind[name]
        return None

    def read(self, name: str, *, limit_bytes: int = LARGEST_SEGMENT) -> bytes:
        """Return the plain content of a file; see `ArchivedFile.read`. Raises SnapshotError where there is none."""
        found = self.find(name)
        if found is None:
            raise SnapshotError(
                f"the WAL archive {self.root} has no {name}",
                hint="Add it from where the archive was copied from, or from the pg_wal of the server.",
            )
        return found.read(limit_bytes=limit_bytes)

    def read_text(self, name: str) -> str:
        """Return a timeline or backup history file; bytes that are not UTF-8 (in a label) are replaced."""
        return self.read(name).decode(errors="replace")

    def copy(self, name: str, to: Path, *, limit_bytes: int = LARGEST_SEGMENT) -> None:
        """Put the plain content of a file at `to`, which then holds all of it or what it held before.

        Raises SnapshotError as `read` does, DiskSpaceError where there is no room. The content is not judged: it may
        be too short, or another cluster's (see `check_segment`).
        """
        write_atomically(to, self.read(name, limit_bytes=limit_bytes))

    def unpack_to(self, directory: Path) -> WalArchive:
        """Write every file, as it is stored, into an existing directory in one pass, and return that as an archive.

        Raises as `copy` does, and for files that are larger than any WAL segment.
        """
        kinds = (self.segments, self.partial_segments, self.histories, self.backup_histories)
        chosen = {file.path for kind in kinds for file in kind.values()}
        for entry, content in _named_like_wal(_open(self.root)):
            if (path := self.root / entry.path) in chosen:
                if entry.size > LARGEST_SEGMENT:
                    raise _too_large(str(path), entry.size, LARGEST_SEGMENT)
                write_atomically(directory / path.name, _all_of(content, entry.size))
                chosen.remove(path)
        return read_archive(directory)


def read_archive(root: Path) -> WalArchive:
    """Find the WAL in a directory and all below it, or in a tar as TarSource reads it; contents are read later.

    Symbolic links below `root` are not followed; `root` may be one. Where several files stand for one name, the one
    whose name is the plain one is taken, else the newest, else the first by path. Raises SnapshotError where nothing
    is named like WAL, or where something cannot be read.
    """
    source = _open(root)
    candidates = [
        (entry, _Place(source, entry, content if source.parallel else None))
        for entry, content in _named_like_wal(source)
    ]
    kinds: tuple[dict[str, ArchivedFile], ...] = ({}, {}, {}, {})
    for entry, place in sorted(candidates, key=lambda candidate: _preference(candidate[0])):
        name = plain_name(posixpath.basename(entry.path)) or ""
        kinds[_kind(name)].setdefault(name, ArchivedFile(root / entry.path, name, entry.size, place))
    if not any(kinds):
        raise SnapshotError(
            f"{root} holds no WAL: no file is named like 0000000100000000000000A3 or 00000002.history",
            hint="Name the directory that WAL is archived to, such as barman's wals or WAL-G's wal_005.",
        )
    segments, partial_segments, histories, backup_histories = (MappingProxyType(kind) for kind in kinds)
    return WalArchive(root, segments, partial_segments, histories, backup_histories, is_stream=not source.parallel)


def holds_wal(directory: Path, *, most_entries: int = 10_000) -> bool:
    """Tell whether a directory has a file named like WAL among its first entries; one that cannot be read has none."""
    if not directory.is_dir():
        return False
    try:
        for seen, (entry, _, _) in enumerate(DirectorySource(directory).entries()):
            if entry.kind is Kind.FILE and plain_name(posixpath.basename(entry.path)):
                return True
            if seen >= most_entries:
                break
    except SnapshotError:
        return False
    return False


class _Place(NamedTuple):
    """Where a file's stored bytes lie; `content` is None in a stream, which must be walked again to read one."""

    source: Source
    entry: Entry
    content: Content | None

    def read(self) -> bytes:
        """Return the bytes; raise SnapshotError where they cannot be read."""
        if self.content is not None:
            return _all_of(self.content, self.entry.size)
        for entry, content, _ in self.source.entries():
            if entry == self.entry:
                return _all_of(content, entry.size)
        raise SnapshotError(
            f"{self.source.path} does not hold {self.entry.path} any more", hint="Leave the archive alone meanwhile."
        )


def _open(root: Path) -> Source:
    if not root.exists():
        raise SnapshotError(f"{root} does not exist", hint="A WAL archive is a directory, or a tar file.")
    return TarSource(root) if root.is_file() else DirectorySource(root)


def _named_like_wal(source: Source) -> Iterator[tuple[Entry, Content]]:
    for entry, content, _ in source.entries():
        if entry.kind is Kind.FILE and plain_name(posixpath.basename(entry.path)) is not None:
            yield entry, content


def _preference(entry: Entry) -> tuple[str, bool, int, str]:
    stored_name = posixpath.basename(entry.path)
    name = plain_name(stored_name) or ""
    return (name, stored_name != name, -entry.mtime_ns, entry.path)


def _kind(name: str) -> int:
    """Return the place of a plain name's kind in the order in which WalArchive has them."""
    suffix = posixpath.splitext(name)[1]
    return ("", ".partial", ".history", ".backup").index(suffix)


def _all_of(content: Content, size: int) -> bytes:
    data = content.read(size)
    if len(data) == size:
        return data
    with tempfile.TemporaryFile() as file:  # a sparse member of a tar is read whole only this way
        content.write_to(file.fileno())
        file.seek(0)
        return file.read()


def _may_be_wal(data: bytes) -> bool:
    """Tell whether data is WAL or nothing at all: every major's pages begin with a magic 0xD0xx or 0xD1xx."""
    return not any(data[:_HEAD_BYTES]) or (len(data) > 1 and data[1] in _XLOG_MAGICS)


def _may_be_text(data: bytes) -> bool:
    return _CONTROL_BYTES.search(data[:_HEAD_BYTES]) is None


def _refuse(data: bytes, file: ArchivedFile) -> None:
    what = str(file.path)
    refuse_encrypted(data, what)
    if file.path.suffix == ".br":
        raise SnapshotError(f"{what} is compressed with brotli, which is not read", hint="Unpack it first: brotli -d")
    raise SnapshotError(
        f"{what} begins with {data[:8]!r}: that is neither WAL nor a compression that pgrescue reads",
        hint="It is encrypted (then fetch it with the backup tool, which decrypts), or damaged (then fetch it again).",
    )


def _too_large(what: str, size: int, limit_bytes: int) -> SnapshotError:
    return SnapshotError(
        f"{what} has {size} bytes, and such a file has {limit_bytes} at most",
        hint="It is damaged, something else than its name says, or from a cluster with larger segments.",
    )
