"""`global/pg_control` of PostgreSQL 12 to 18: what the server wrote down last about its data directory.

Offsets and the version table: reference/formats.md §8, compiled from PostgreSQL's `catalog/pg_control.h`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from pgrescue.errors import SnapshotError, UnreadableSnapshotError
from pgrescue.model import Lsn, Timeline
from pgrescue.snapshot.wal import SegmentName

FILE_SIZE: Final = 8192
"""Bytes of the file since PostgreSQL 9.6, whatever it holds (PG_CONTROL_FILE_SIZE)."""

PGBACKREST_MARK: Final = Lsn(0xDEAD)
"""What pgBackRest's restore writes as the checkpoint, so that only backup_label can start the copy."""

_FLOAT_FORMAT: Final = 1234567.0
_SIGNEDNESS_OFFSET: Final = 256
_CRC_OFFSETS: Final = MappingProxyType({1201: 288, 1300: 288, 1700: 288, 1800: 292})
_CATALOGS: Final = MappingProxyType(
    {
        (1201, 201909212): 12,
        (1300, 202007201): 13,
        (1300, 202107181): 14,
        (1300, 202209061): 15,
        (1300, 202307071): 16,
        (1700, 202406281): 17,
        (1800, 202506291): 18,
    }
)
_OTHER_FORMATS: Final = MappingProxyType(
    {
        942: "PostgreSQL 9.4 or 9.5",
        960: "PostgreSQL 9.6",
        1002: "PostgreSQL 10",
        1100: "PostgreSQL 11",
        1902: "a beta of PostgreSQL 19",
    }
)


class DatabaseState(StrEnum):
    """What the server was doing when it last wrote the file, in pg_controldata's words and DBState's order."""

    STARTING_UP = "starting up"
    SHUT_DOWN = "shut down"
    SHUT_DOWN_IN_RECOVERY = "shut down in recovery"
    SHUTTING_DOWN = "shutting down"
    IN_CRASH_RECOVERY = "in crash recovery"
    IN_ARCHIVE_RECOVERY = "in archive recovery"
    IN_PRODUCTION = "in production"


class WalLevel(StrEnum):
    """How much the server wrote to its WAL, in the setting's words and order."""

    MINIMAL = "minimal"
    REPLICA = "replica"
    LOGICAL = "logical"


_Decoder = Callable[[bytes, int], object]


def _number(code: str) -> _Decoder:
    layout = struct.Struct(f"<{code}")

    def decode(data: bytes, offset: int) -> int:
        (value,) = layout.unpack_from(data, offset)
        return int(value)

    return decode


_u32 = _number("I")
_i32 = _number("i")
_u64 = _number("Q")


def _lsn(data: bytes, offset: int) -> Lsn:
    return Lsn(int.from_bytes(data[offset : offset + 8], "little"))


def _timeline(data: bytes, offset: int) -> Timeline:
    return Timeline(int.from_bytes(data[offset : offset + 4], "little"))


def _flag(data: bytes, offset: int) -> bool:
    return data[offset] != 0


def _time(data: bytes, offset: int) -> datetime:
    (seconds,) = struct.unpack_from("<q", data, offset)
    return datetime.fromtimestamp(seconds, UTC)


def _float(data: bytes, offset: int) -> float:
    (value,) = struct.unpack_from("<d", data, offset)
    return float(value)


def _state(data: bytes, offset: int) -> DatabaseState:
    return list(DatabaseState)[int.from_bytes(data[offset : offset + 4], "little")]


def _wal_level(data: bytes, offset: int) -> WalLevel:
    return list(WalLevel)[int.from_bytes(data[offset : offset + 4], "little")]


def _at(offset: int, decode: _Decoder) -> Mapping[str, object]:
    """Say where in the file a field lies and how its bytes are read."""
    return MappingProxyType({"offset": offset, "decode": decode})


@dataclass(frozen=True, kw_only=True)
class ControlFile:
    """One pg_control: PostgreSQL's names, positions as Lsn, times in UTC, sizes in bytes unless the name says else.

    `redo` to `checkpoint_time` are the copy of the latest checkpoint record. `next_xid` has 64 bits, its epoch above.
    """

    major: int
    default_char_signed: bool | None
    """Whether `char` is signed where the cluster was made; None before PostgreSQL 18, which does not record it."""

    system_identifier: int = field(metadata=_at(0, _u64))
    pg_control_version: int = field(metadata=_at(8, _u32))
    catalog_version: int = field(metadata=_at(12, _u32))
    state: DatabaseState = field(metadata=_at(16, _state))
    time: datetime = field(metadata=_at(24, _time))
    checkpoint: Lsn = field(metadata=_at(32, _lsn))

    redo: Lsn = field(metadata=_at(40, _lsn))
    timeline: Timeline = field(metadata=_at(48, _timeline))
    previous_timeline: Timeline = field(metadata=_at(52, _timeline))
    full_page_writes: bool = field(metadata=_at(56, _flag))
    next_xid: int = field(metadata=_at(64, _u64))
    next_oid: int = field(metadata=_at(72, _u32))
    next_multi: int = field(metadata=_at(76, _u32))
    next_multi_offset: int = field(metadata=_at(80, _u32))
    oldest_xid: int = field(metadata=_at(84, _u32))
    oldest_xid_db: int = field(metadata=_at(88, _u32))
    oldest_multi: int = field(metadata=_at(92, _u32))
    oldest_multi_db: int = field(metadata=_at(96, _u32))
    checkpoint_time: datetime = field(metadata=_at(104, _time))
    oldest_commit_ts_xid: int = field(metadata=_at(112, _u32))
    newest_commit_ts_xid: int = field(metadata=_at(116, _u32))
    oldest_active_xid: int = field(metadata=_at(120, _u32))

    unlogged_lsn: Lsn = field(metadata=_at(128, _lsn))
    min_recovery_point: Lsn = field(metadata=_at(136, _lsn))
    min_recovery_timeline: Timeline = field(metadata=_at(144, _timeline))
    backup_start: Lsn = field(metadata=_at(152, _lsn))
    backup_end: Lsn = field(metadata=_at(160, _lsn))
    backup_end_required: bool = field(metadata=_at(168, _flag))

    wal_level: WalLevel = field(metadata=_at(172, _wal_level))
    wal_log_hints: bool = field(metadata=_at(176, _flag))
    max_connections: int = field(metadata=_at(180, _i32))
    max_worker_processes: int = field(metadata=_at(184, _i32))
    max_wal_senders: int = field(metadata=_at(188, _i32))
    max_prepared_xacts: int = field(metadata=_at(192, _i32))
    max_locks_per_xact: int = field(metadata=_at(196, _i32))
    track_commit_timestamp: bool = field(metadata=_at(200, _flag))

    max_align: int = field(metadata=_at(204, _u32))
    float_format: float = field(metadata=_at(208, _float))
    block_size: int = field(metadata=_at(216, _u32))
    relation_segment_blocks: int = field(metadata=_at(220, _u32))
    wal_block_size: int = field(metadata=_at(224, _u32))
    wal_segment_size: int = field(metadata=_at(228, _u32))
    name_data_length: int = field(metadata=_at(232, _u32))
    index_max_keys: int = field(metadata=_at(236, _u32))
    toast_max_chunk_size: int = field(metadata=_at(240, _u32))
    large_object_block_size: int = field(metadata=_at(244, _u32))
    data_checksum_version: int = field(metadata=_at(252, _u32))

    @property
    def is_clean_shutdown(self) -> bool:
        """Tell whether the server had ended in order, so that no WAL is needed to start."""
        return self.state in {DatabaseState.SHUT_DOWN, DatabaseState.SHUT_DOWN_IN_RECOVERY}

    @property
    def is_pgbackrest_mark(self) -> bool:
        """Tell whether this is an unstarted pgBackRest restore, which must start from its backup_label."""
        return self.checkpoint == PGBACKREST_MARK

    @property
    def has_checksums(self) -> bool:
        """Tell whether data pages carry checksums."""
        return self.data_checksum_version != 0

    def wal_segment(self, lsn: Lsn) -> str:
        """Return the name of the WAL file that holds `lsn` on the timeline of the latest checkpoint."""
        return str(SegmentName.from_lsn(lsn, self.timeline, self.wal_segment_size))


def parse_control(data: bytes) -> ControlFile:
    """Read the whole file; raise SnapshotError for what is not an intact pg_control of PostgreSQL 12 to 18."""
    major, crc_offset = _format_of(data)
    expected = int.from_bytes(data[crc_offset : crc_offset + 4], "little")
    found = crc32c(data[:crc_offset])
    if found != expected:
        raise SnapshotError(
            f"pg_control is damaged: its checksum is {expected:08X}, its content has {found:08X}",
            hint="Take pg_control from another copy of the same backup.",
        )
    values: dict[str, Any] = {}
    for item in fields(ControlFile):
        if "decode" not in item.metadata:
            continue
        try:
            values[item.name] = item.metadata["decode"](data, item.metadata["offset"])
        except (ValueError, IndexError, OverflowError, OSError) as error:
            raise _implausible(item.name, "out of range", item.metadata["offset"]) from error
    signed = data[_SIGNEDNESS_OFFSET] != 0 if major >= 18 else None  # noqa: PLR2004 (the major that records it)
    control = ControlFile(major=major, default_char_signed=signed, **values)
    _check(control)
    return control


def recovering_from(data: bytes, *, checkpoint: Lsn, redo: Lsn, timeline: Timeline) -> bytes:
    """Return a pg_control of a server that crashed after this checkpoint, so that recovery begins there.

    All that a backup or a standby noted of where it must reach is gone: the caller knows that it cannot be reached.
    """
    _, crc_offset = _format_of(data)
    offsets = {item.name: item.metadata["offset"] for item in fields(ControlFile) if "offset" in item.metadata}
    changed = bytearray(data)
    for name, value in (
        ("checkpoint", checkpoint.position),
        ("redo", redo.position),
        ("min_recovery_point", 0),
        ("backup_start", 0),
        ("backup_end", 0),
    ):
        struct.pack_into("<Q", changed, offsets[name], value)
    struct.pack_into("<I", changed, offsets["state"], list(DatabaseState).index(DatabaseState.IN_PRODUCTION))
    for name, value in (("timeline", timeline), ("previous_timeline", timeline), ("min_recovery_timeline", 0)):
        struct.pack_into("<I", changed, offsets[name], value)
    changed[offsets["backup_end_required"]] = 0
    struct.pack_into("<I", changed, crc_offset, crc32c(bytes(changed[:crc_offset])))
    return bytes(changed)


def _format_of(data: bytes) -> tuple[int, int]:
    """Return the major and where its CRC lies, or raise the SnapshotError that says what the file is instead."""
    if len(data) != FILE_SIZE:
        raise SnapshotError(
            f"pg_control has {len(data)} bytes, not {FILE_SIZE}",
            hint="The file is cut short or is something else; take it from another copy of the same backup.",
        )
    if not any(data):
        raise SnapshotError(
            "pg_control holds only zeros",
            hint="A copy made during a crash or from a sparse file looks so; take the file from another copy.",
        )
    version, catalog = struct.unpack_from("<II", data, 8)
    crc_offset = _CRC_OFFSETS.get(version)
    if crc_offset is None:
        raise _unknown_version(version)
    major = _CATALOGS.get((version, catalog))
    if major is None:
        raise UnreadableSnapshotError(
            f"pg_control has the catalog version {catalog}, which no release of PostgreSQL 12 to 18 has",
            hint="It comes from a pre-release or a fork; only the very server that wrote it can open this data.",
        )
    return major, crc_offset


def _unknown_version(version: int) -> SnapshotError:
    """Say what a pg_control_version that pgrescue does not read stands for."""
    swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
    if swapped in _CRC_OFFSETS or swapped in _OTHER_FORMATS:
        return UnreadableSnapshotError(
            f"pg_control comes from a big-endian machine (its version {swapped} reads as {version} here)",
            hint="A data directory cannot be moved across byte orders: restore it on such a machine and use pg_dump.",
        )
    known = ", ".join(str(number) for number in _CRC_OFFSETS)
    if version in _OTHER_FORMATS:
        return UnreadableSnapshotError(
            f"pg_control has version {version}: {_OTHER_FORMATS[version]}",
            hint=f"pgrescue reads the versions {known} (PostgreSQL 12 to 18).",
        )
    return SnapshotError(
        f"pg_control has the unknown version {version}; known are {known} (PostgreSQL 12 to 18)",
        hint="The file is damaged, encrypted or compressed, or comes from a newer PostgreSQL.",
    )


def _implausible(name: str, value: object, offset: int) -> SnapshotError:
    return SnapshotError(
        f"pg_control is implausible: {name} at byte {offset} is {value}",
        hint="Its checksum fits, so a program other than PostgreSQL wrote it; take the file from another copy.",
    )


def _check(control: ControlFile) -> None:
    """Raise SnapshotError for values that PostgreSQL never writes and that later arithmetic must not meet."""
    if control.float_format != _FLOAT_FORMAT:
        raise UnreadableSnapshotError(
            "pg_control comes from a machine with another floating-point format",
            hint="Restore it on a machine of the same kind and use pg_dump.",
        )
    plausible = {
        "block_size": _power_of_two(control.block_size, 1 << 10, 1 << 15),
        "wal_block_size": _power_of_two(control.wal_block_size, 1 << 10, 1 << 16),
        "wal_segment_size": _power_of_two(control.wal_segment_size, 1 << 20, 1 << 30),
        "relation_segment_blocks": control.relation_segment_blocks > 0,
        "timeline": control.timeline > 0,
    }
    for item in fields(control):
        if not plausible.get(item.name, True):
            raise _implausible(item.name, getattr(control, item.name), item.metadata["offset"])


def _power_of_two(value: int, least: int, most: int) -> bool:
    return least <= value <= most and value & (value - 1) == 0


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_CRC32C: Final = _crc32c_table()


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli, reflected) that PostgreSQL keeps of its WAL records and of pg_control."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC32C[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF
