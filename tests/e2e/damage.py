"""Damage to the files of a data directory, as a bad night leaves it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pgrescue.snapshot.control import crc32c

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 8192
FUTURE = 0x10 << 32
IMPLAUSIBLE = 0x00FF_0000 << 32
_ITEMS_AT = 24
_HINTS = 0x0300  # HEAP_XMIN_COMMITTED and HEAP_XMIN_INVALID, which together mean frozen (htup_details.h)


def set_page_lsn(page: bytearray, lsn: int) -> None:
    """Give a page another LSN."""
    struct.pack_into("<II", page, 0, lsn >> 32, lsn & 0xFFFFFFFF)


def forget_hints(page: bytearray) -> None:
    """Take the hint bits from every row of a heap page, so that the next scan sets them and makes the page dirty."""
    (flags, lower) = struct.unpack_from("<HH", page, 10)
    struct.pack_into("<H", page, 10, flags & ~0x0004)  # PD_ALL_VISIBLE: such a page's rows are not looked at
    for at in range(_ITEMS_AT, lower, 4):
        item = struct.unpack_from("<I", page, at)[0]
        offset, state = item & 0x7FFF, item >> 15 & 3
        if state == 1:
            infomask = struct.unpack_from("<H", page, offset + 20)[0]
            struct.pack_into("<H", page, offset + 20, infomask & ~_HINTS)


def rewrite_first_page(file: Path, *, lsn: int, without_hints: bool = False) -> None:
    """Change the first page of a relation file."""
    page = bytearray(file.read_bytes()[:BLOCK])
    set_page_lsn(page, lsn)
    if without_hints:
        forget_hints(page)
    with file.open("r+b") as target:
        target.write(page)


def mark_as_pgbackrest_does(pgdata: Path) -> None:
    """Set the checkpoint in pg_control to 0/DEAD, with the checksum of PostgreSQL 17 made right."""
    file = pgdata / "global" / "pg_control"
    data = bytearray(file.read_bytes())
    struct.pack_into("<Q", data, 32, 0xDEAD)
    struct.pack_into("<I", data, 288, crc32c(bytes(data[:288])))
    file.write_bytes(data)
