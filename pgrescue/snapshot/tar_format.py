"""The layout of tar archives: ustar, GNU and PAX (POSIX.1-2001), sparse members included.

It follows POSIX `pax` and GNU tar's manual ("Basic Tar Format", "Storing Sparse Files").
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pgrescue.errors import SnapshotError, TruncatedSnapshotError, UnreadableSnapshotError
from pgrescue.snapshot.interface import Entry, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

BLOCK = 512
ZEROS = bytes(BLOCK)
_LARGEST_EXTENSION = 1 << 20  # a PAX header or a long name of more than 1 MiB is no header but damage

_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"S": Kind.FILE,
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"5": Kind.DIRECTORY,
}


class Archive(Protocol):
    """An archive's bytes, from front to back."""

    path: Path
    position: int

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes and move past them; fewer only at the end."""

    def read_at(self, start: int, size: int) -> bytes:
        """Return up to `size` bytes from `start`; where any order is possible, several threads may ask."""

    def seek(self, position: int) -> None:
        """Move forward to `position`; raise TruncatedSnapshotError where the archive ends before."""

    def copy(self, start: int, size: int, descriptor: int) -> None:
        """Write `size` bytes from `start` to where `descriptor` stands."""


def truncated(path: Path, end: int, wanted: int) -> TruncatedSnapshotError:
    """Return the error for an archive that ends at byte `end` within something that goes on to `wanted`."""
    return TruncatedSnapshotError(
        f"{path} is truncated: it ends at byte {end}, in the middle of a file that goes on to byte {wanted}",
        hint="Fetch it again, and compare its size with the original's.",
    )


@dataclass(frozen=True, slots=True)
class Member:
    """An entry and where its bytes lie: pieces of (offset in the file, offset in the archive, length)."""

    entry: Entry
    pieces: tuple[tuple[int, int, int], ...]
    end: int


def members(archive: Archive) -> Iterator[Member]:
    """Yield the members; the end-of-archive marker is required, since without it nobody knows what is missing."""
    shared: dict[str, str] = {}
    own: dict[str, str] = {}
    while True:
        at = archive.position
        block = archive.read(BLOCK)
        if at == 0:
            refuse_other_files(archive.path, block)
        if len(block) < BLOCK:
            raise TruncatedSnapshotError(
                f"{archive.path} is truncated: it ends at byte {at + len(block)} without an end-of-archive marker",
                hint="Fetch it again, and compare its size with the original's.",
            )
        if block == ZEROS:
            return
        header = _Header.parse(block, at, archive.path)
        match header.type:
            case b"x":
                own.update(_pax_records(_extension(archive, header), at, archive.path))
            case b"g":
                shared.update(_pax_records(_extension(archive, header), at, archive.path))
            case b"L":
                own["path"] = _text(_extension(archive, header).split(b"\0", 1)[0])
            case b"K":
                own["linkpath"] = _text(_extension(archive, header).split(b"\0", 1)[0])
            case _:
                yield _member(archive, header, {**shared, **own})
                own = {}


def refuse_other_files(path: Path, head: bytes) -> None:
    """Raise SnapshotError, with words for what it is, unless a tar header comes first."""
    if len(head) == BLOCK and (head == ZEROS or checksum_fits(head)):
        return
    known = (
        (b"PGDMP", "an archive of pg_dump, not a physical snapshot", "Restore it with pg_restore."),
        (b"Salted__", "encrypted (OpenSSL, as pgBackRest does)", "Decrypt it first, or restore it with pgbackrest."),
        (b"\x85", "encrypted (OpenPGP)", "Decrypt it first: gpg -d"),
        (b"PK\x03\x04", "a zip archive", "Unpack it first: unzip"),
        (b"--\n-- PostgreSQL", "an SQL dump, not a physical snapshot", "Run it with psql against an empty database."),
    )
    for magic, what, remedy in known:
        if head.startswith(magic):
            raise UnreadableSnapshotError(f"{path} is {what}", hint=remedy)
    if not head:
        raise TruncatedSnapshotError(f"{path} is empty", hint="Fetch it again.")
    raise SnapshotError(
        f"{path} is not a tar archive: it begins with {head[:8]!r}",
        hint="pgrescue reads a tar of a data directory (plain, gzip, bzip2 or xz), or the directory itself.",
    )


@dataclass(frozen=True, slots=True)
class _Header:
    """One 512-byte header block; numbers and names as they stand in it."""

    name: str
    size: int
    mtime: int
    type: bytes
    linkname: str
    block: bytes
    at: int

    @classmethod
    def parse(cls, block: bytes, at: int, path: Path) -> _Header:
        if not checksum_fits(block):
            raise SnapshotError(
                f"{path} is damaged: at byte {at} there is no tar header (its checksum is wrong)",
                hint="Fetch it again, and compare its size with the original's.",
            )
        raw_name, raw_size, raw_mtime, kind, raw_link, magic, prefix = struct.unpack_from(
            "100s 24x 12s 12s 8x c 100s 8s 80x 155s", block
        )
        name = _text(raw_name.split(b"\0", 1)[0])
        if magic == b"ustar\x0000" and prefix[0]:  # GNU's own format keeps other things where POSIX has the prefix
            name = _text(prefix.split(b"\0", 1)[0]) + "/" + name
        try:
            size, mtime = _number(raw_size), _number(raw_mtime)
        except ValueError as error:
            raise SnapshotError(f"{path} is damaged: the tar header at byte {at} holds no number: {error}") from error
        return cls(name, size, mtime, kind, _text(raw_link.split(b"\0", 1)[0]), block, at)


def checksum_fits(block: bytes) -> bool:
    """Tell whether the header's checksum is right; ancient archivers summed signed bytes, which POSIX tolerates."""
    try:
        wanted = _number(block[148:156])
    except ValueError:
        return False
    summed = sum(block) - sum(block[148:156]) + 8 * 0x20
    if summed == wanted:
        return True
    high = sum(1 for byte in block[:148] + block[156:] if byte > 0x7F)  # noqa: PLR2004 - the largest signed byte
    return summed - 256 * high == wanted


def _number(field: bytes) -> int:
    """Read a header's number: octal digits, or GNU's base 256 for what does not fit."""
    if field[0] == 0x80:  # noqa: PLR2004 - GNU tar's mark of a positive base-256 number
        return int.from_bytes(field[1:], "big")
    if field[0] == 0xFF:  # noqa: PLR2004 - of a negative one
        return int.from_bytes(field, "big", signed=True)
    text = field.split(b"\0", 1)[0].strip()
    return int(text, 8) if text else 0


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _extension(archive: Archive, header: _Header) -> bytes:
    """Return the content of a header that describes the next one, and move past it."""
    if not 0 <= header.size <= _LARGEST_EXTENSION:
        raise SnapshotError(
            f"{archive.path} is damaged: the extended header at byte {header.at} is {header.size} bytes"
        )
    data = archive.read(_padded(header.size))[: header.size]
    if len(data) < header.size:
        raise truncated(archive.path, archive.position, header.at + BLOCK + header.size)
    return data


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _pax_records(data: bytes, at: int, path: Path) -> dict[str, str]:
    """Read records of length, space, key, equals sign, value and newline."""
    records: dict[str, str] = {}
    position = 0
    data = data.rstrip(b"\0")
    while position < len(data):
        digits, space, _ = data[position : position + 20].partition(b" ")
        if not space or not digits.isdigit() or not 0 < int(digits) <= len(data) - position:
            raise SnapshotError(f"{path} is damaged: the PAX header at byte {at} has a record without a length")
        record = data[position + len(digits) + 1 : position + int(digits)]
        key, _, value = record.removesuffix(b"\n").partition(b"=")
        records[_text(key)] = _text(value)
        position += int(digits)
    return records


def _member(archive: Archive, header: _Header, pax: Mapping[str, str]) -> Member:
    kind = _KINDS.get(header.type, Kind.OTHER)
    name = pax.get("GNU.sparse.name", pax.get("path", header.name))
    if kind is Kind.FILE and name.endswith("/"):  # how archivers before POSIX wrote a directory
        kind = Kind.DIRECTORY
    try:
        stored = int(pax["size"]) if "size" in pax else header.size
        mtime_ns = int(float(pax["mtime"]) * 1_000_000_000) if "mtime" in pax else header.mtime * 1_000_000_000
    except (ValueError, OverflowError) as error:
        raise SnapshotError(f"{archive.path} is damaged: the PAX header before byte {header.at}: {error}") from error
    if kind in {Kind.HARDLINK, Kind.SYMLINK, Kind.DIRECTORY}:
        stored = 0 if kind is not Kind.HARDLINK or "size" not in pax else stored
    if stored < 0:
        raise SnapshotError(f"{archive.path} is damaged: the tar header at byte {header.at} says {stored} bytes")
    target = pax.get("linkpath", header.linkname)
    path = normalized(name, archive.path)
    if kind is Kind.HARDLINK:
        target = normalized(target, archive.path)
    begin = archive.position
    end = begin + _padded(stored)
    size = stored
    pieces: tuple[tuple[int, int, int], ...] = ((0, begin, stored),) if stored and kind is Kind.FILE else ()
    if kind is Kind.FILE and (header.type == b"S" or any(key.startswith("GNU.sparse.") for key in pax)):
        size, pieces, end = _sparse(archive, header, pax, stored)
    return Member(Entry(path, kind, size if kind is Kind.FILE else 0, mtime_ns, target), pieces, end)


def normalized(name: str, archive: Path) -> str:
    """Return a member's name as a relative path without `.` parts; refuse one that leads out of the archive.

    A leading slash is dropped, as GNU tar does: WAL-G writes every name so.
    """
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts or "\0" in name:
        raise SnapshotError(
            f"{archive} holds a member that would leave the workspace: {name!r}",
            hint="No backup tool writes such a name. Find out where this archive comes from before you go on.",
        )
    return "/".join(parts)


def _sparse(
    archive: Archive, header: _Header, pax: Mapping[str, str], stored: int
) -> tuple[int, tuple[tuple[int, int, int], ...], int]:
    """Return real size, pieces and end of a sparse member: GNU's old format, or PAX version 1.0."""
    begin = archive.position
    try:
        if header.type == b"S":
            extents, real = _old_gnu_extents(archive, header.block)
            data = archive.position
            end = data + _padded(stored)
        elif pax.get("GNU.sparse.major") == "1":
            extents, real = _pax_extents(archive), int(pax["GNU.sparse.realsize"])
            data = archive.position
            end = begin + _padded(stored)
        else:
            raise UnreadableSnapshotError(
                f"{archive.path} holds {header.name!r} as a sparse member in PAX format 0.x, which is not read",
                hint="Unpack it with GNU tar, and give pgrescue the directory.",
            )
    except (ValueError, KeyError) as error:
        raise SnapshotError(f"{archive.path} is damaged: the map of the sparse member at byte {header.at}") from error
    if data > end:
        raise SnapshotError(f"{archive.path} is damaged: the map of the sparse member at byte {header.at}")
    pieces = []
    for offset, length in extents:
        if offset < 0 or length < 0 or offset + length > real or data + length > end:
            raise SnapshotError(f"{archive.path} is damaged: the map of the sparse member at byte {header.at}")
        pieces.append((offset, data, length))
        data += length
    return real, tuple(piece for piece in pieces if piece[2]), end


def _old_gnu_extents(archive: Archive, block: bytes) -> tuple[list[tuple[int, int]], int]:
    """Read the map in the header (4 extents) and in the blocks that follow it (21 each)."""
    real = _number(block[483:495])
    extents = _extent_fields(block[386:482])
    more = block[482]
    while more:
        block = archive.read(BLOCK)
        if len(block) < BLOCK:
            raise truncated(archive.path, archive.position, archive.position + BLOCK)
        extents += _extent_fields(block[:504])
        more = block[504]
    return extents, real


def _extent_fields(data: bytes) -> list[tuple[int, int]]:
    fields = (data[at : at + 24] for at in range(0, len(data), 24))
    return [(_number(field[:12]), _number(field[12:])) for field in fields if field[0]]


def _pax_extents(archive: Archive) -> list[tuple[int, int]]:
    """Read the map of version 1.0: decimal lines at the beginning of the data, padded to a block."""
    text = b""
    numbers: list[int] = []
    while not numbers or len(numbers) < 1 + 2 * numbers[0]:
        block = archive.read(BLOCK)
        if len(block) < BLOCK:
            raise truncated(archive.path, archive.position, archive.position + BLOCK)
        text += block
        numbers = [int(line) for line in text.split(b"\n")[:-1] if line.strip(b"\0")]
    count = numbers[0]
    return list(zip(numbers[1 : 1 + 2 * count : 2], numbers[2 : 2 + 2 * count : 2], strict=True))
