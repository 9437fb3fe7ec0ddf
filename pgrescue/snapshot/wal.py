"""Names and first pages of WAL files: which one holds a position, and whether a file is the one its name says."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from pgrescue.errors import SnapshotError
from pgrescue.model import Lsn, Timeline

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER_SIZE: Final = 40
"""Bytes of the long header on the first page of every WAL file (SizeOfXLogLongPHD)."""

_LONG_HEADER: Final = 0x0002
_ALL_FLAGS: Final = 0x000F
_HEADER: Final = struct.Struct("<HHIQI4xQII")
_MAJORS: Final = MappingProxyType({0xD101: 12, 0xD106: 13, 0xD10D: 14, 0xD110: 15, 0xD113: 16, 0xD116: 17, 0xD118: 18})
_NAME: Final = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})(\.partial)?")
_SEGMENT_SIZES: Final = frozenset(1 << power for power in range(20, 31))


@dataclass(frozen=True, order=True)
class SegmentName:
    """The name of a WAL file: its timeline, and its place as two 32-bit halves.

    `seg` counts within the 4 GiB that `log` names, so what a name means in bytes needs the segment size, a power of
    two from 1 MiB to 1 GiB. Methods raise SnapshotError for another size and for a name that cannot occur with it.
    """

    timeline: Timeline
    log: int
    seg: int
    partial: bool = False

    @classmethod
    def parse(cls, name: str) -> SegmentName:
        """Read `0000000100000000000000A3`, or the same with `.partial`; raise SnapshotError for anything else."""
        found = cls.find(name)
        if found is None:
            raise SnapshotError(
                f"{name!r} is not the name of a WAL file",
                hint="Such a name has 24 upper-case hexadecimal digits, for example 0000000100000000000000A3.",
            )
        return found

    @classmethod
    def find(cls, name: str) -> SegmentName | None:
        """Read a file name of a pg_wal directory or archive; None for history files and whatever else lies there."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        return cls(Timeline(int(match[1], 16)), int(match[2], 16), int(match[3], 16), partial=match[4] is not None)

    @classmethod
    def from_lsn(cls, lsn: Lsn, timeline: Timeline, segment_size: int) -> SegmentName:
        """Return the name of the file that holds the byte at `lsn`."""
        return cls.from_number(lsn.position // _checked(segment_size), timeline, segment_size)

    @classmethod
    def from_number(cls, number: int, timeline: Timeline, segment_size: int) -> SegmentName:
        """Return the name of the file with this number, counted from the beginning of the WAL."""
        log, seg = divmod(number, (1 << 32) // _checked(segment_size))
        if not 0 <= log < 1 << 32:
            raise SnapshotError(
                f"WAL file number {number} lies outside of the 64 bits of a WAL position",
                hint="A position that PostgreSQL wrote is far below; the value that it was computed from is damaged.",
            )
        return cls(timeline, log, seg)

    def number(self, segment_size: int) -> int:
        """Return the file's number, counted from the beginning of the WAL."""
        per_log = (1 << 32) // _checked(segment_size)
        if self.seg >= per_log:
            raise SnapshotError(
                f"there is no WAL file {self} where files have {segment_size >> 20} MiB",
                hint="Look at the segment size in pg_control or backup.info: the files come from another cluster.",
            )
        return self.log * per_log + self.seg

    def start_lsn(self, segment_size: int) -> Lsn:
        """Return the position of the file's first byte."""
        return Lsn(self.number(segment_size) * segment_size)

    def next(self, segment_size: int) -> SegmentName:
        """Return the name of the file after this one on the same timeline."""
        return self.from_number(self.number(segment_size) + 1, self.timeline, segment_size)

    def complete(self) -> SegmentName:
        """Return the name without `.partial`."""
        return replace(self, partial=False)

    def __str__(self) -> str:
        return f"{self.timeline:08X}{self.log:08X}{self.seg:08X}" + (".partial" if self.partial else "")


def segments_between(first: SegmentName, last: SegmentName, segment_size: int) -> Iterator[SegmentName]:
    """Yield the names from `first` to `last`, both included; raise SnapshotError where that is no ascending range.

    Both must be on one timeline: where another one begins, only its history file knows.
    """
    start, stop = first.number(segment_size), last.number(segment_size)
    if first.timeline != last.timeline:
        raise SnapshotError(
            f"WAL files {first} and {last} are on different timelines",
            hint="The history file of the later timeline says where it begins.",
        )
    if stop < start:
        raise SnapshotError(
            f"WAL file {last} comes before {first}", hint="The backup's begin and end are exchanged or damaged."
        )
    return (SegmentName.from_number(number, first.timeline, segment_size) for number in range(start, stop + 1))


@dataclass(frozen=True)
class WalPageHeader:
    """The long header of a WAL file's first page; sizes in bytes."""

    magic: int
    info: int
    timeline: Timeline
    page_address: Lsn
    system_identifier: int
    segment_size: int
    block_size: int

    @property
    def major(self) -> int:
        """The PostgreSQL major that wrote the page."""
        return _MAJORS[self.magic]


def parse_long_page_header(data: bytes) -> WalPageHeader | None:
    """Read the first HEADER_SIZE bytes of a WAL file; None where they are not such a header of PostgreSQL 12 to 18.

    Files that the server made in advance and never wrote to hold zeros and give None.
    """
    if len(data) < HEADER_SIZE:
        return None
    magic, info, timeline, address, _remaining, system_identifier, segment_size, block_size = _HEADER.unpack_from(data)
    if magic not in _MAJORS or not info & _LONG_HEADER or info & ~_ALL_FLAGS or segment_size not in _SEGMENT_SIZES:
        return None
    return WalPageHeader(magic, info, Timeline(timeline), Lsn(address), system_identifier, segment_size, block_size)


class SegmentState(StrEnum):
    """Whether a WAL file holds what its name says, and if not, why; the words finish "the file …"."""

    VALID = "holds the WAL that its name says"
    UNUSED = "has no WAL page header: it was made in advance, or is damaged, compressed or encrypted"
    RECYCLED = "was recycled: it still holds the WAL of an earlier position"
    OTHER_SYSTEM = "belongs to another cluster"
    OTHER_MAJOR = "was written by another PostgreSQL major"
    OTHER_SEGMENT_SIZE = "has another WAL segment size"


def segment_state(
    name: SegmentName,
    header: WalPageHeader | None,
    *,
    system_identifier: int,
    major: int,
    segment_size: int,
) -> SegmentState:
    """Judge a WAL file by its first page, against what pg_control says.

    A recycled file keeps the page address (and may keep the timeline) of its earlier use until it is written to. An
    earlier timeline than the name's is right: the first file of a timeline begins with a copy of its parent's.
    """
    if header is None:
        return SegmentState.UNUSED
    if header.system_identifier != system_identifier:
        return SegmentState.OTHER_SYSTEM
    if header.major != major:
        return SegmentState.OTHER_MAJOR
    if header.segment_size != segment_size:
        return SegmentState.OTHER_SEGMENT_SIZE
    if header.page_address != name.start_lsn(segment_size) or header.timeline > name.timeline:
        return SegmentState.RECYCLED
    return SegmentState.VALID


def _checked(segment_size: int) -> int:
    """Return the size; raise SnapshotError where no PostgreSQL has such segments."""
    if segment_size not in _SEGMENT_SIZES:
        raise SnapshotError(
            f"{segment_size} bytes is no WAL segment size",
            hint="It is a power of two from 1 MiB to 1 GiB; the file that says otherwise is damaged.",
        )
    return segment_size
