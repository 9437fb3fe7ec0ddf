"""Real files for the readers, and a writer of pg_control to make those that no server at hand makes."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pgrescue.snapshot.control import crc32c

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = Path(__file__).parent / "data"


_LAYOUT = {
    "system_identifier": (0, "Q"),
    "pg_control_version": (8, "I"),
    "catalog_version": (12, "I"),
    "state": (16, "I"),
    "time": (24, "q"),
    "checkpoint": (32, "Q"),
    "redo": (40, "Q"),
    "timeline": (48, "I"),
    "next_xid": (64, "Q"),
    "next_multi": (76, "I"),
    "next_multi_offset": (80, "I"),
    "oldest_multi": (92, "I"),
    "min_recovery_point": (136, "Q"),
    "wal_level": (172, "i"),
    "block_size": (216, "I"),
    "wal_segment_size": (228, "I"),
}


def encode(template: bytes, **changes: int) -> bytes:
    """Return `template` with the fields changed and its checksum made right."""
    data = bytearray(template)
    for name, value in changes.items():
        offset, code = _LAYOUT[name]
        struct.pack_into(f"<{code}", data, offset, value)
    crc_offset = 292 if struct.unpack_from("<I", data, 8)[0] == 1800 else 288
    struct.pack_into("<I", data, crc_offset, crc32c(bytes(data[:crc_offset])))
    return bytes(data)


@pytest.fixture
def sample() -> Callable[[str], bytes]:
    """Read a file that a real server or tool wrote."""
    return lambda name: (DATA / name).read_bytes()
