"""Where each file of a data directory goes."""

from __future__ import annotations

import pytest

from pgrescue.steps.layout import Place, is_tablespace, left_out_directories, place_of

DATA, ASIDE, NOWHERE = Place.DATA, Place.ASIDE, Place.NOWHERE


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("", DATA),
        ("PG_VERSION", DATA),
        ("backup_label", DATA),
        ("postgresql.conf", DATA),
        ("override.conf", DATA),
        ("global/pg_control", DATA),
        ("global/1262", DATA),
        ("base/1/1259", DATA),
        ("base/1/1259_fsm", DATA),
        ("base/1/16384.1", DATA),
        ("base/16384/PG_VERSION", DATA),
        ("base/16384/postmaster.pid", DATA),
        ("pg_wal/000000010000000000000001", DATA),
        ("pg_wal/archive_status/000000010000000000000001.done", DATA),
        ("pg_xact/0000", DATA),
        ("pg_multixact/members/0000", DATA),
        ("pg_logical/replorigin_checkpoint", DATA),
        ("pg_twophase/00000001", DATA),
        ("pg_tblspc/16400/PG_17_202406281/5/16401", DATA),
        ("postmaster.pid", ASIDE),
        ("postmaster.opts", ASIDE),
        ("standby.signal", ASIDE),
        ("recovery.signal", ASIDE),
        ("recovery.conf", ASIDE),
        ("postgresql.auto.conf", ASIDE),
        ("tablespace_map", ASIDE),
        ("global/pg_control.old", ASIDE),
        ("pg_replslot", DATA),
        ("pg_replslot/slot_1", ASIDE),
        ("pg_replslot/slot_1/state", ASIDE),
        ("pg_dynshmem", DATA),
        ("pg_dynshmem/mmap.1", NOWHERE),
        ("pg_notify/0000", NOWHERE),
        ("pg_serial/0000", NOWHERE),
        ("pg_snapshots/00000003-1", NOWHERE),
        ("pg_stat_tmp/global.stat", NOWHERE),
        ("pg_stat/pgstat.stat", DATA),
        ("pg_subtrans/0000", NOWHERE),
        ("pg_subtrans", DATA),
        ("base/pgsql_tmp", NOWHERE),
        ("base/pgsql_tmp/pgsql_tmp123.0", NOWHERE),
        ("pg_tblspc/16400/PG_17_202406281/pgsql_tmp/pgsql_tmp1.2", NOWHERE),
        ("base/1/pg_internal.init", NOWHERE),
        ("global/pg_internal.init", NOWHERE),
        ("global/pg_internal.init.4711", NOWHERE),
        ("global/pg_internal.initial", DATA),
        ("base/16384/t3_16500", NOWHERE),
        ("base/16384/t3_16500_vm", NOWHERE),
        ("base/16384/t3_16500.1", NOWHERE),
        ("base/16384/t3_16500_fsm.1", NOWHERE),
        ("base/16384/16500_vm", DATA),
        ("base/16384/t3", DATA),
    ],
)
def test_the_place_of_a_file(path: str, place: Place) -> None:
    assert place_of(path) is place


@pytest.mark.parametrize("major", [12, 16, 17, 18])
def test_directories_come_after_the_ones_above_them(major: int) -> None:
    names = left_out_directories(major)
    assert len(set(names)) == len(names)
    for number, name in enumerate(names):
        above = name.rpartition("/")[0]
        assert not above or above in names[:number]


def test_wal_summaries_came_with_17() -> None:
    assert "pg_wal/archive_status" in left_out_directories(12)
    assert "pg_wal/summaries" not in left_out_directories(16)
    assert "pg_wal/summaries" in left_out_directories(17)


def test_what_is_never_empty_is_never_made() -> None:
    assert not {"base", "global", "pg_xact", "pg_multixact"} & set(left_out_directories(17))


@pytest.mark.parametrize(
    ("path", "answer"),
    [("pg_tblspc/16400", True), ("pg_tblspc", False), ("pg_tblspc/16400/PG_17_202406281", False), ("pg_wal", False)],
)
def test_a_tablespaces_entry(path: str, answer: bool) -> None:  # noqa: FBT001 - pytest gives it
    assert is_tablespace(path) is answer
