from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrescue.errors import SnapshotError
from pgrescue.model import Lsn, Timeline
from pgrescue.snapshot.control import ControlFile, DatabaseState, WalLevel, crc32c, parse_control
from pgrescue.snapshot.wal import SegmentName

from .conftest import DATA, encode

if TYPE_CHECKING:
    from collections.abc import Callable

REAL = [f"pg_control_{major}{state}" for major in (15, 16, 17, 18) for state in ("", "_running")]
TEMPLATE = (DATA / "pg_control_17.bin").read_bytes()

OnOff = {"on": True, "off": False, "yes": True, "no": False}


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC)


def _printed(control: ControlFile) -> dict[str, tuple[object, Callable[[str], object]]]:
    """Pair each line of pg_controldata with the value that was read and how the line says it."""
    return {
        "pg_control version number": (control.pg_control_version, int),
        "Catalog version number": (control.catalog_version, int),
        "Database system identifier": (control.system_identifier, int),
        "Database cluster state": (control.state, DatabaseState),
        "pg_control last modified": (control.time, _time),
        "Latest checkpoint location": (control.checkpoint, Lsn.parse),
        "Latest checkpoint's REDO location": (control.redo, Lsn.parse),
        "Latest checkpoint's REDO WAL file": (control.wal_segment(control.redo), str),
        "Latest checkpoint's TimeLineID": (control.timeline, int),
        "Latest checkpoint's PrevTimeLineID": (control.previous_timeline, int),
        "Latest checkpoint's full_page_writes": (control.full_page_writes, OnOff.__getitem__),
        "Latest checkpoint's NextXID": (f"{control.next_xid >> 32}:{control.next_xid & 0xFFFFFFFF}", str),
        "Latest checkpoint's NextOID": (control.next_oid, int),
        "Latest checkpoint's NextMultiXactId": (control.next_multi, int),
        "Latest checkpoint's NextMultiOffset": (control.next_multi_offset, int),
        "Latest checkpoint's oldestXID": (control.oldest_xid, int),
        "Latest checkpoint's oldestXID's DB": (control.oldest_xid_db, int),
        "Latest checkpoint's oldestActiveXID": (control.oldest_active_xid, int),
        "Latest checkpoint's oldestMultiXid": (control.oldest_multi, int),
        "Latest checkpoint's oldestMulti's DB": (control.oldest_multi_db, int),
        "Latest checkpoint's oldestCommitTsXid": (control.oldest_commit_ts_xid, int),
        "Latest checkpoint's newestCommitTsXid": (control.newest_commit_ts_xid, int),
        "Time of latest checkpoint": (control.checkpoint_time, _time),
        "Fake LSN counter for unlogged rels": (control.unlogged_lsn, Lsn.parse),
        "Minimum recovery ending location": (control.min_recovery_point, Lsn.parse),
        "Min recovery ending loc's timeline": (control.min_recovery_timeline, int),
        "Backup start location": (control.backup_start, Lsn.parse),
        "Backup end location": (control.backup_end, Lsn.parse),
        "End-of-backup record required": (control.backup_end_required, OnOff.__getitem__),
        "wal_level setting": (control.wal_level, WalLevel),
        "wal_log_hints setting": (control.wal_log_hints, OnOff.__getitem__),
        "max_connections setting": (control.max_connections, int),
        "max_worker_processes setting": (control.max_worker_processes, int),
        "max_wal_senders setting": (control.max_wal_senders, int),
        "max_prepared_xacts setting": (control.max_prepared_xacts, int),
        "max_locks_per_xact setting": (control.max_locks_per_xact, int),
        "track_commit_timestamp setting": (control.track_commit_timestamp, OnOff.__getitem__),
        "Maximum data alignment": (control.max_align, int),
        "Database block size": (control.block_size, int),
        "Blocks per segment of large relation": (control.relation_segment_blocks, int),
        "WAL block size": (control.wal_block_size, int),
        "Bytes per WAL segment": (control.wal_segment_size, int),
        "Maximum length of identifiers": (control.name_data_length, int),
        "Maximum columns in an index": (control.index_max_keys, int),
        "Maximum size of a TOAST chunk": (control.toast_max_chunk_size, int),
        "Size of a large-object chunk": (control.large_object_block_size, int),
        "Data page checksum version": (control.data_checksum_version, int),
        "Default char data signedness": (control.default_char_signed, {"signed": True, "unsigned": False}.get),
    }


NOT_READ = {"Date/time type storage", "Float8 argument passing", "Mock authentication nonce"}
"""What pg_controldata prints and nothing in a rescue needs."""


@pytest.mark.parametrize("name", REAL)
def test_every_field_equals_what_pg_controldata_prints(name: str, sample: Callable[[str], bytes]) -> None:
    control = parse_control(sample(f"{name}.bin"))
    lines = dict(line.split(":", 1) for line in sample(f"{name}.txt").decode().splitlines())
    printed = _printed(control)
    assert set(lines) - NOT_READ == {key for key in printed if key in lines}
    for key, text in lines.items():
        if key not in NOT_READ:
            found, read = printed[key]
            assert found == read(text.strip()), key
    assert control.major == int(name.split("_")[2])
    assert set(printed) - set(lines) <= ({"Default char data signedness"} if control.major < 18 else set())


@pytest.mark.parametrize("name", REAL)
def test_clean_shutdown_is_told_from_a_running_server(name: str, sample: Callable[[str], bytes]) -> None:
    control = parse_control(sample(f"{name}.bin"))
    assert control.is_clean_shutdown is ("running" not in name)
    assert not control.is_pgbackrest_mark
    assert (control.default_char_signed is None) is (control.major < 18)


@pytest.mark.parametrize(
    ("version", "catalog", "major"), [(1201, 201909212, 12), (1300, 202007201, 13), (1300, 202107181, 14)]
)
def test_older_majors_share_the_layout(version: int, catalog: int, major: int) -> None:
    control = parse_control(encode(TEMPLATE, pg_control_version=version, catalog_version=catalog))
    assert control.major == major
    assert control.wal_segment_size == 1 << 20


def test_wal_segment_is_on_the_checkpoints_timeline() -> None:
    control = parse_control(encode(TEMPLATE, timeline=0x2A, wal_segment_size=16 << 20))
    assert control.timeline == Timeline(42)
    assert control.wal_segment(Lsn.parse("16/B374D848")) == "0000002A00000016000000B3"


def test_the_mark_of_pgbackrest() -> None:
    control = parse_control(encode(TEMPLATE, checkpoint=0xDEAD))
    assert control.is_pgbackrest_mark


@pytest.mark.parametrize("state", list(DatabaseState))
def test_states(state: DatabaseState) -> None:
    control = parse_control(encode(TEMPLATE, state=list(DatabaseState).index(state)))
    assert control.state is state
    assert control.is_clean_shutdown is (state in {"shut down", "shut down in recovery"})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "has 0 bytes, not 8192"),
        (TEMPLATE[:512], "has 512 bytes, not 8192"),
        (TEMPLATE + b"\0", "has 8193 bytes, not 8192"),
        (bytes(8192), "only zeros"),
        (b"\xff" * 8192, "unknown version"),
        (TEMPLATE[:8] + (1700).to_bytes(4, "big") + TEMPLATE[12:], "big-endian"),
        (TEMPLATE[:100] + b"\x55" + TEMPLATE[101:], "damaged"),
        (TEMPLATE[:288] + b"\0\0\0\0" + TEMPLATE[292:], "damaged"),
    ],
)
def test_what_is_no_pg_control_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(SnapshotError, match=words) as caught:
        parse_control(data)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pg_control_version": 1100}, "PostgreSQL 11"),
        ({"pg_control_version": 1902}, "PostgreSQL 19"),
        ({"pg_control_version": 1950}, "unknown version 1950; known are 1201, 1300, 1700, 1800"),
        ({"catalog_version": 202501011}, "catalog version 202501011"),
        ({"pg_control_version": 1300}, "catalog version 202406281"),
        ({"state": 7}, "state at byte 16"),
        ({"wal_level": 3}, "wal_level at byte 172"),
        ({"wal_level": -1}, "wal_level at byte 172"),
        ({"time": 1 << 60}, "time at byte 24"),
        ({"time": -(1 << 63)}, "time at byte 24"),
        ({"block_size": 0}, "block_size at byte 216 is 0"),
        ({"wal_segment_size": 3 << 20}, "wal_segment_size at byte 228"),
        ({"timeline": 0}, "timeline at byte 48 is 0"),
    ],
)
def test_values_that_postgresql_never_writes_are_refused(changes: dict[str, int], words: str) -> None:
    with pytest.raises(SnapshotError, match=words):
        parse_control(encode(TEMPLATE, **changes))


@given(
    system_identifier=st.integers(0, (1 << 64) - 1),
    checkpoint=st.integers(0, (1 << 64) - 1),
    redo=st.integers(0, (1 << 64) - 1),
    timeline=st.integers(1, (1 << 32) - 1),
    next_xid=st.integers(0, (1 << 64) - 1),
    next_multi=st.integers(0, (1 << 32) - 1),
    time=st.integers(0, 1 << 35),
)
def test_what_was_written_is_read(**values: int) -> None:
    control = parse_control(encode(TEMPLATE, **values))
    assert control.system_identifier == values["system_identifier"]
    assert control.checkpoint == Lsn(values["checkpoint"])
    assert control.redo == Lsn(values["redo"])
    assert control.timeline == values["timeline"]
    assert control.next_xid == values["next_xid"]
    assert control.next_multi == values["next_multi"]
    assert control.time == datetime.fromtimestamp(values["time"], UTC)


@given(st.integers(0, 287), st.integers(1, 255))
def test_one_changed_byte_is_noticed(offset: int, change: int) -> None:
    data = bytearray(TEMPLATE)
    data[offset] ^= change
    with pytest.raises(SnapshotError):
        parse_control(bytes(data))


@given(st.dictionaries(st.integers(0, 287), st.integers(0, 255), min_size=1, max_size=40))
def test_garbage_with_a_right_checksum_raises_nothing_else(changes: dict[int, int]) -> None:
    data = bytearray(TEMPLATE)
    for offset, value in changes.items():
        data[offset] = value
    with contextlib.suppress(SnapshotError):
        control = parse_control(encode(bytes(data)))
        assert control.major == 17
        assert SegmentName.find(control.wal_segment(control.redo)) is not None


@given(st.binary(max_size=64))
def test_any_bytes_raise_nothing_else(start: bytes) -> None:
    with pytest.raises(SnapshotError):
        parse_control(start.ljust(8192, b"\x01"))


def test_crc32c_of_the_standard_check_value() -> None:
    assert crc32c(b"123456789") == 0xE3069283
