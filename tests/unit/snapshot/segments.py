"""WAL segments to read, made page by page: headers are right, records are noise."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from pgrescue.snapshot.control import crc32c
from pgrescue.snapshot.wal import SegmentName

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20
BLOCK = 8192
SYSTEM = 7_000_000_000_000_000_001
FACTS: dict[str, Any] = {"system_identifier": SYSTEM, "major": 17, "segment_size": MIB}


def page(name: SegmentName, number: int, *, timeline: int | None = None, magic: int = 0xD116, info: int = 0) -> bytes:
    """Return one page of a segment, filled with something."""
    start = name.start_lsn(MIB).position
    head = struct.pack(
        "<HHIQI4x",
        magic,
        info | (0 if number else 2),
        name.timeline if timeline is None else timeline,
        start + number * BLOCK,
        0,
    )
    head = head[:24] + (struct.pack("<QII", SYSTEM, MIB, BLOCK) if number == 0 else b"")
    return head + b"\x5a" * (BLOCK - len(head))


def segment(text: str, *, pages: int = MIB // BLOCK, timeline_of: Callable[[int], int] | None = None) -> bytes:
    """Return a segment of 1 MiB whose first pages are right, and zeros behind them."""
    name = SegmentName.parse(text)
    data = b"".join(
        page(name, number, timeline=None if timeline_of is None else timeline_of(number)) for number in range(pages)
    )
    return data + bytes(MIB - len(data))


def switch_record(*, info: int = 0x40, manager: int = 0, crc: int | None = None) -> bytes:
    """Return the record of a WAL switch."""
    head = struct.pack("<IIQBB2x", 24, 0, 0x0123456789, info, manager)
    return head + struct.pack("<I", crc32c(head) if crc is None else crc)


def switched(text: str, *, pages: int, at: int, record: bytes | None = None) -> bytes:
    """Return a segment that ends in a WAL switch: its record begins `at` bytes into the last of its pages.

    Where `at` is negative, it begins on the page before and goes on behind the last page's header.
    """
    record = switch_record() if record is None else record
    data = bytearray(segment(text, pages=pages))
    last = (pages - 1) * BLOCK
    head = 40 if pages == 1 else 24
    if at < 0:
        data[last + at : last] = record[:-at]
        data[last + head : last + BLOCK] = record[-at:].ljust(BLOCK - head, b"\0")
    else:
        data[last + at : last + BLOCK] = record.ljust(BLOCK - at, b"\0")
    return bytes(data)
