"""A whole WAL segment: how far its pages are the ones that its name says.

The rules are those of `XLogReaderValidatePageHeader` (xlogreader.c). Records are not read: their checksums are the
server's business.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pgrescue.model import Lsn
from pgrescue.snapshot.control import crc32c
from pgrescue.snapshot.wal import (
    HEADER_SIZE,
    SegmentName,
    SegmentState,
    parse_long_page_header,
    segment_state,
)

if TYPE_CHECKING:
    from pgrescue.model import Timeline

_BLOCK_SIZES: Final = frozenset(1 << power for power in range(10, 17))
_SHORT_HEADER_SIZE: Final = 24
_LONG_HEADER: Final = 0x0002
_ALL_FLAGS: Final = 0x000F
_ALIGNMENT: Final = 8
_RECORD: Final = struct.Struct("<I12xBB2xI")
_CRC_OFFSET: Final = 20
_RM_XLOG: Final = 0
_XLOG_SWITCH: Final = 0x40
_INFO_MASK: Final = 0xF0


@dataclass(frozen=True, kw_only=True)
class SegmentReport:
    """What a segment holds.

    `state` judges its first page; `valid_until` is the end of the last page that follows the ones before it without a
    gap, and the segment's first byte where no page is valid. `ends_in_switch` tells that these pages end in the record
    of a WAL switch and that nothing but zeros follows, so that the segment is complete though not full.
    """

    name: SegmentName
    state: SegmentState
    size_bytes: int
    segment_size: int
    valid_until: Lsn
    ends_in_switch: bool = False

    @property
    def is_whole(self) -> bool:
        """Tell whether recovery can read past it: it is full of valid pages, or complete up to a WAL switch."""
        end = self.name.start_lsn(self.segment_size).position + self.segment_size
        return self.size_bytes == self.segment_size and (self.ends_in_switch or self.valid_until.position == end)

    def holds(self, end_lsn: Lsn) -> bool:
        """Tell whether recovery can read it up to `end_lsn`, or to its end where that lies behind."""
        return self.is_whole or (self.size_bytes == self.segment_size and end_lsn <= self.valid_until)

    @property
    def problem(self) -> str:
        """Say what is wrong, to follow the segment's name; empty where it is whole."""
        if self.size_bytes != self.segment_size:  # first, since such a file often has no first page either
            return f"has {self.size_bytes} bytes instead of {self.segment_size}"
        if self.state is not SegmentState.VALID:
            return str(self.state)
        return "" if self.is_whole else f"is valid only up to {self.valid_until}"


def check_segment(
    name: SegmentName,
    data: bytes,
    *,
    system_identifier: int,
    major: int,
    segment_size: int,
) -> SegmentReport:
    """Judge a segment by all of its pages, against what pg_control says; `data` is its plain content.

    A page is valid where it has the first one's magic, the address that its place says, and a timeline that is neither
    older than the page before's nor newer than the name's: the first segment of a timeline begins with its parent's
    pages. What follows the last valid page may be the contents of an earlier use, or zeros. Raises SnapshotError only
    for a name or a size that cannot be.
    """
    header = parse_long_page_header(data[:HEADER_SIZE])
    state = segment_state(name, header, system_identifier=system_identifier, major=major, segment_size=segment_size)
    valid = 0
    ends_in_switch = False
    if header is not None and state is SegmentState.VALID and header.block_size in _BLOCK_SIZES:
        pages = data[:segment_size]
        valid = header.block_size * _valid_pages(pages, header.block_size, name.timeline)
        only_zeros_follow = pages.count(0, valid) == len(pages) - valid
        ends_in_switch = valid < len(pages) and only_zeros_follow and _ends_in_switch(pages[:valid], header.block_size)
    return SegmentReport(
        name=name,
        state=state,
        size_bytes=len(data),
        segment_size=segment_size,
        valid_until=Lsn(name.start_lsn(segment_size).position + valid),
        ends_in_switch=ends_in_switch,
    )


def _valid_pages(data: bytes, block_size: int, newest: Timeline) -> int:
    """Count the pages that follow each other from the first one on, which is taken for valid in itself."""
    import numpy as np  # noqa: PLC0415 - it takes 0.2 s to import; few commands read WAL

    page = np.dtype([("magic", "<u2"), ("info", "<u2"), ("timeline", "<u4"), ("address", "<u8")])
    pages = np.ndarray(len(data) // block_size, dtype=page, buffer=data, strides=(block_size,))
    if not len(pages):
        return 0
    offsets = np.arange(len(pages), dtype=np.uint64) * np.uint64(block_size)
    timelines = pages["timeline"]
    sound = (
        (pages["magic"] == pages["magic"][0])
        & ((pages["info"] & np.uint16(~_ALL_FLAGS & 0xFFFF)) == 0)
        & (pages["address"] == pages["address"][0] + offsets)
        & (timelines <= np.uint32(newest))
    )
    sound[1:] &= timelines[1:] >= timelines[:-1]
    return len(sound) if sound.all() else int(sound.argmin())


def _ends_in_switch(data: bytes, block_size: int) -> bool:
    """Tell whether the last record of valid pages is a WAL switch.

    CopyXLogRecordToWAL (xlog.c) leaves zeros behind it to the end of the segment, page headers included. It is 24
    bytes without data, aligned to 8, and may lie across two pages. Its checksum makes sure of it.
    """
    payload = b"".join(
        data[at + _header_size(data, at) : at + block_size]
        for at in range(max(len(data) - 2 * block_size, 0), len(data), block_size)
    )
    end = -(-len(payload.rstrip(b"\0")) // _ALIGNMENT) * _ALIGNMENT
    record = payload[max(end - _RECORD.size, 0) : end]
    if len(record) < _RECORD.size:
        return False
    length, info, manager, crc = _RECORD.unpack(record)
    is_switch = length == _RECORD.size and manager == _RM_XLOG and info & _INFO_MASK == _XLOG_SWITCH
    return bool(is_switch and crc == crc32c(record[:_CRC_OFFSET]))


def _header_size(data: bytes, at: int) -> int:
    (info,) = struct.unpack_from("<H", data, at + 2)
    return HEADER_SIZE if info & _LONG_HEADER else _SHORT_HEADER_SIZE
