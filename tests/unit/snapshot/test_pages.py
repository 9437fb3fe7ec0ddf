from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrescue.errors import SnapshotError
from pgrescue.model import Lsn
from pgrescue.snapshot import pages
from pgrescue.snapshot.pages import PLAUSIBLE_GAP_BYTES, Outlier, PageScan, scan_pages

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 8192


def page(lsn: int, *, block_size: int = BLOCK, **fields: int) -> bytes:
    values = {"checksum": 0, "flags": 0, "lower": 40, "upper": 4000, "special": block_size}
    values |= {"size_version": block_size | 4} | fields
    header = struct.pack("<IIHHHHHH", lsn >> 32, lsn & 0xFFFFFFFF, *values.values())
    return header.ljust(block_size, b"\xaa")


@pytest.fixture
def pgdata(tmp_path: Path) -> Path:
    (tmp_path / "base/5").mkdir(parents=True)
    (tmp_path / "global").mkdir()
    (tmp_path / "global/1262").write_bytes(page(100) + page(200))
    return tmp_path


def test_the_largest_lsn_and_where(pgdata: Path) -> None:
    (pgdata / "base/5/16384").write_bytes(page(300) + page(900) + page(400))
    (pgdata / "base/5/16384.1").write_bytes(page(500))
    progress: list[int] = []
    assert scan_pages(pgdata, on_progress=progress.append) == PageScan(
        max_lsn=Lsn(900), at="base/5/16384 block 1", pages=6, bytes=6 * BLOCK
    )
    assert sum(progress) == 6 * BLOCK


def test_a_file_larger_than_the_buffer(pgdata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_CHUNK_BYTES", 3 * BLOCK)
    (pgdata / "base/5/16384").write_bytes(b"".join(page(1000 + number) for number in range(10)) + b"tail")
    scan = scan_pages(pgdata)
    assert scan.at == "base/5/16384 block 9"
    assert scan.pages == 12


def test_what_has_no_lsn_of_the_wal(pgdata: Path) -> None:
    names = ["t3_16400", "pg_filenode.map", "PG_VERSION", "pg_internal.init", "16384.old", "16384_x", "pg_control"]
    for name in names:
        (pgdata / "base/5" / name).write_bytes(page(10_000))
    for name in ("17000", "17000.1", "17000_fsm", "17000_vm"):
        (pgdata / "base/5" / name).write_bytes(page(20_000))
    (pgdata / "base/5/17000_init").write_bytes(page(700))
    (pgdata / "base/5/pgsql_tmp").mkdir()
    (pgdata / "base/5/pgsql_tmp/1").write_bytes(page(30_000))
    scan = scan_pages(pgdata)
    assert (scan.max_lsn, scan.at, scan.pages) == (Lsn(700), "base/5/17000_init block 0", 3)


def test_forks_of_logged_relations_count(pgdata: Path) -> None:
    (pgdata / "base/5/16384_vm").write_bytes(page(800))
    (pgdata / "base/5/16384_fsm").write_bytes(page(600))
    assert scan_pages(pgdata).at == "base/5/16384_vm block 0"


@pytest.mark.parametrize(
    "fields",
    [
        {"size_version": 0x2003},
        {"size_version": 0x4004},
        {"size_version": 0xFFFF},
        {"flags": 0x8000},
        {"lower": 8},
        {"lower": 5000},
        {"special": 3999},
        {"special": 9000},
    ],
)
def test_pages_without_a_sound_header_are_counted_and_left_out(pgdata: Path, fields: dict[str, int]) -> None:
    (pgdata / "base/5/16384").write_bytes(page(5000, **fields))
    scan = scan_pages(pgdata)
    assert (scan.max_lsn, scan.unreadable_pages) == (Lsn(200), 1)


def test_new_pages_are_left_out_and_no_damage(pgdata: Path) -> None:
    (pgdata / "base/5/16384").write_bytes(bytes(BLOCK) + page(5000, upper=0) + page(0))
    scan = scan_pages(pgdata)
    assert (scan.max_lsn, scan.unreadable_pages, scan.pages) == (Lsn(200), 0, 5)


def test_other_block_sizes(tmp_path: Path) -> None:
    (tmp_path / "base/1").mkdir(parents=True)
    (tmp_path / "base/1/1259").write_bytes(page(7, block_size=32768) + page(9, block_size=32768))
    scan = scan_pages(tmp_path, block_size=32768)
    assert (scan.max_lsn, scan.pages, scan.bytes) == (Lsn(9), 2, 65536)


def test_tablespaces_behind_links_and_in_place(pgdata: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("space")
    for root, lsn in ((outside, 5000), (pgdata / "pg_tblspc/2", 4000)):
        database = root / "PG_17_202406281/5"
        database.mkdir(parents=True)
        (database / "16400").write_bytes(page(lsn))
    (outside / "other/5").mkdir(parents=True)
    (outside / "other/5/16400").write_bytes(page(99_000))
    (pgdata / "pg_tblspc/1").symlink_to(outside)
    scan = scan_pages(pgdata)
    assert scan.at == "pg_tblspc/1/PG_17_202406281/5/16400 block 0"
    assert scan.pages == 4


FAR = PLAUSIBLE_GAP_BYTES * 3


def test_a_page_far_above_every_other_file_is_an_outlier(pgdata: Path) -> None:
    (pgdata / "base/5/16384").write_bytes(page(300) + page(FAR) + page(FAR - 5) + page(400))
    scan = scan_pages(pgdata)
    assert (scan.max_lsn, scan.at) == (Lsn(400), "base/5/16384 block 3")
    assert scan.outliers == (
        Outlier(Lsn(FAR), "base/5/16384 block 1", 1),
        Outlier(Lsn(FAR - 5), "base/5/16384 block 2", 1),
    )


def test_several_files_that_high_are_the_truth(pgdata: Path) -> None:
    (pgdata / "base/5/16384").write_bytes(page(FAR))
    (pgdata / "base/5/16385").write_bytes(page(FAR - PLAUSIBLE_GAP_BYTES))
    scan = scan_pages(pgdata)
    assert (scan.max_lsn, scan.outliers) == (Lsn(FAR), ())


def test_another_file_in_the_same_range_is_seen_behind_the_first(pgdata: Path) -> None:
    low = 5 * PLAUSIBLE_GAP_BYTES
    (pgdata / "base/5/16384").write_bytes(page(low + 20) + page(low + PLAUSIBLE_GAP_BYTES + 5))
    (pgdata / "base/5/16385").write_bytes(page(low + 10))
    assert scan_pages(pgdata).outliers == ()


def test_what_pg_control_knows_makes_a_lone_file_plausible(pgdata: Path) -> None:
    (pgdata / "base/5/16384").write_bytes(page(FAR))
    assert scan_pages(pgdata, near=Lsn(FAR - 100)).max_lsn == Lsn(FAR)
    assert scan_pages(pgdata, near=Lsn(50)).max_lsn == Lsn(200)


def test_one_file_alone_is_believed(tmp_path: Path) -> None:
    (tmp_path / "base/1").mkdir(parents=True)
    (tmp_path / "base/1/1259").write_bytes(page(FAR) + page(1))
    assert scan_pages(tmp_path).max_lsn == Lsn(FAR)
    assert scan_pages(tmp_path, near=Lsn(1)).max_lsn == Lsn(1)


def test_nothing_with_an_lsn(tmp_path: Path) -> None:
    (tmp_path / "base/1").mkdir(parents=True)
    (tmp_path / "base/1/1259").write_bytes(b"")
    scan = scan_pages(tmp_path)
    assert (scan.max_lsn, scan.at, scan.pages) == (None, "", 0)


def test_no_data_directory(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="no data directory"):
        scan_pages(tmp_path)


def test_a_file_that_cannot_be_read_is_named(pgdata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.preadv", fail)
    with pytest.raises(SnapshotError, match=r"global/1262 cannot be read: Input/output error"):
        scan_pages(pgdata)


@given(st.lists(st.integers(0, PLAUSIBLE_GAP_BYTES), min_size=1, max_size=20))
def test_it_is_the_largest(tmp_path_factory: pytest.TempPathFactory, lsns: list[int]) -> None:
    root = tmp_path_factory.mktemp("data")
    (root / "base/1").mkdir(parents=True)
    (root / "base/1/1259").write_bytes(b"".join(page(lsn) for lsn in lsns))
    (root / "base/1/1260").write_bytes(np.random.default_rng(sum(lsns)).bytes(BLOCK))
    scan = scan_pages(root)
    assert scan.max_lsn == (Lsn(max(lsns)) if max(lsns) else None)
    assert scan.pages == len(lsns) + 1
