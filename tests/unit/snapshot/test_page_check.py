from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrescue.errors import SnapshotError
from pgrescue.model import Lsn
from pgrescue.snapshot import page_check
from pgrescue.snapshot.checksum import page_checksums
from pgrescue.snapshot.page_check import check_pages
from pgrescue.snapshot.page_damage import MAX_RUNS, BlockDamage, BlockRun, PageCheck
from pgrescue.snapshot.pages import scan_pages
from tests.unit.snapshot.page_files import BLOCK, EMPTY, control_of, page, stopped_server

if TYPE_CHECKING:
    from pathlib import Path

USED = page(100)
BROKEN = page(100, flags=0x8000)
HASH_META = USED[:24] + (0x06440640).to_bytes(4, "little") + USED[28:-2] + (0xFF80).to_bytes(2, "little")
SPGIST_META = USED[:24] + (0xBA0BABEE).to_bytes(4, "little") + USED[28:-2] + (0xFF82).to_bytes(2, "little")


@pytest.fixture
def pgdata(tmp_path: Path) -> Path:
    (tmp_path / "base/5").mkdir(parents=True)
    (tmp_path / "global").mkdir()
    (tmp_path / "global/1262").write_bytes(USED * 2)
    return tmp_path


def damage(pgdata: Path, **asked: Any) -> dict[str, list[tuple[int, int, str]]]:
    """Return what is listed, by file."""
    check = check_pages(pgdata, **asked)
    for file in check.damaged:
        assert sum(file.counts.values()) == sum(run.last - run.first + 1 for run in file.runs)
    return {file.path: [(run.first, run.last, run.kind.value) for run in file.runs] for file in check.damaged}


def write(pgdata: Path, **files: bytes) -> None:
    """Write files of database 5: `f16384_1` is the file 16384.1, `f16384_fsm` the map."""
    for name, content in files.items():
        number, _, rest = name[1:].partition("_")
        suffix = f".{rest}" if rest.isdigit() else f"_{rest}" if rest else ""
        (pgdata / f"base/5/{number}{suffix}").write_bytes(content)


def test_sound_files(pgdata: Path) -> None:
    write(pgdata, f16384=USED * 3, f16384_fsm=USED, f16384_vm=USED, f16385=b"", f16386_init=b"")
    progress: list[int] = []
    assert check_pages(pgdata, end_of_wal=Lsn(100), on_progress=progress.append) == PageCheck(
        files=6,
        blocks=7,
        bytes=7 * BLOCK,
        unused_blocks=0,
        checksums=False,
        end_of_wal=Lsn(100),
        counts={},
        damaged=(),
    )
    assert sum(progress) == 7 * BLOCK


@pytest.mark.parametrize(
    "fields",
    [
        {"size_version": 0x2003},
        {"size_version": 0x4004},
        {"flags": 0x8000},
        {"lower": 8},
        {"lower": 5000},
        {"special": 3992},
        {"special": 9000},
        {"special": 8188},
        {"upper": 0},
    ],
)
def test_headers_that_no_server_takes(pgdata: Path, fields: dict[str, int]) -> None:
    write(pgdata, f16384=USED + page(9999, **fields) * 2 + USED)
    assert damage(pgdata, end_of_wal=Lsn(100)) == {"base/5/16384": [(1, 2, "header")]}


def test_pages_past_the_end_of_the_wal(pgdata: Path) -> None:
    write(pgdata, f16384=page(7 << 32) + page(100) + page(101), f16384_vm=page(102))
    assert damage(pgdata, end_of_wal=Lsn(100)) == {
        "base/5/16384": [(0, 0, "newer-than-wal"), (2, 2, "newer-than-wal")],
        "base/5/16384_vm": [(0, 0, "newer-than-wal")],
    }
    assert damage(pgdata) == {}


def test_lsns_that_are_no_positions_in_the_wal(pgdata: Path) -> None:
    write(pgdata, f16384=page(900), f16384_1=page(900), f16384_vm=page(900), f16384_init=page(100))
    (pgdata / "base/5/t3_16400").write_bytes(page(900))
    assert damage(pgdata, end_of_wal=Lsn(100), segment_blocks=1) == {}
    write(pgdata, f16384_init=page(101))
    assert list(damage(pgdata, end_of_wal=Lsn(100), segment_blocks=1)) == ["base/5/16384_init"]


@pytest.mark.parametrize("batch_blocks", [1, 2, 3, 100])
def test_empty_pages_before_used_ones(pgdata: Path, monkeypatch: pytest.MonkeyPatch, batch_blocks: int) -> None:
    monkeypatch.setattr(page_check, "_BATCH_BYTES", batch_blocks * BLOCK)
    write(pgdata, f16384=EMPTY + USED + EMPTY * 4 + USED + EMPTY * 3, f16385=EMPTY * 5, f16386=USED)
    assert damage(pgdata) == {"base/5/16384": [(0, 0, "zero"), (2, 5, "zero")]}
    check = check_pages(pgdata)
    assert (check.unused_blocks, check.counts) == (8, {BlockDamage.ZERO: 5})


@pytest.mark.parametrize("batch_blocks", [1, 3, 100])
def test_empty_pages_at_the_end_of_a_segment_with_used_ones_in_a_later_one(
    pgdata: Path, monkeypatch: pytest.MonkeyPatch, batch_blocks: int
) -> None:
    monkeypatch.setattr(page_check, "_BATCH_BYTES", batch_blocks * BLOCK)
    write(pgdata, f16384=USED + EMPTY, f16384_1=EMPTY * 2, f16384_2=USED + EMPTY)
    assert damage(pgdata, segment_blocks=2) == {
        "base/5/16384": [(1, 1, "zero")],
        "base/5/16384.1": [(0, 1, "zero")],
    }


def test_empty_pages_in_maps_are_nothing_special(pgdata: Path) -> None:
    write(pgdata, f16384=USED, f16384_fsm=EMPTY * 2 + USED, f16384_vm=EMPTY + USED)
    check = check_pages(pgdata)
    assert (check.damaged, check.unused_blocks) == ((), 3)


@pytest.mark.parametrize("meta", [HASH_META, SPGIST_META])
def test_empty_pages_in_indexes_that_make_room_in_advance(pgdata: Path, meta: bytes) -> None:
    write(pgdata, f16384=meta + EMPTY, f16384_1=EMPTY + USED, f16385=EMPTY + USED)
    assert damage(pgdata, segment_blocks=2) == {"base/5/16385": [(0, 0, "zero")]}


def test_files_that_end_within_a_block(pgdata: Path) -> None:
    write(pgdata, f16384=USED * 2 + b"tail", f16385=b"tail")
    assert damage(pgdata) == {"base/5/16384": [(2, 2, "partial")], "base/5/16385": [(0, 0, "partial")]}


def test_segments_that_are_too_short(pgdata: Path) -> None:
    write(pgdata, f16384=USED * 3, f16384_1=USED, f16384_2=USED * 2, f16385=USED, f16385_1=b"")
    assert damage(pgdata, segment_blocks=4) == {
        "base/5/16384": [(3, 3, "truncated")],
        "base/5/16384.1": [(1, 3, "truncated")],
    }


def test_segments_that_are_missing(pgdata: Path) -> None:
    write(pgdata, f16384=USED * 2, f16384_3=USED, f16385_1=USED, f16386=USED, f16386_2=b"")
    check = check_pages(pgdata, segment_blocks=2)
    assert damage(pgdata, segment_blocks=2) == {
        "base/5/16384.1": [(0, 1, "missing")],
        "base/5/16384.2": [(0, 1, "missing")],
        "base/5/16385": [(0, 1, "missing")],
    }
    assert [(file.first_block, file.blocks) for file in check.damaged] == [(2, 0), (4, 0), (0, 0)]


def test_a_main_fork_that_is_missing(pgdata: Path) -> None:
    write(pgdata, f16384_fsm=USED, f16385_vm=USED, f16386_init=USED, f16387_1=b"", f16388_init=USED, f16388_fsm=USED)
    assert damage(pgdata) == {
        f"base/5/{number}": [(0, 0, "main-fork-missing")] for number in (16384, 16385, 16387, 16388)
    }


def test_the_same_number_in_two_databases_is_two_relations(pgdata: Path) -> None:
    (pgdata / "base/6").mkdir()
    write(pgdata, f16384=USED)
    (pgdata / "base/6/16384_fsm").write_bytes(USED)
    assert list(damage(pgdata)) == ["base/6/16384"]


def test_runs_go_on_across_batches_and_all_are_counted(pgdata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_check, "_BATCH_BYTES", 7 * BLOCK)
    write(pgdata, f16384=BROKEN * 30, f16385=(BROKEN + USED) * (MAX_RUNS + 5))
    first, second = check_pages(pgdata).damaged
    assert first.runs == (BlockRun(0, 29, BlockDamage.HEADER),)
    assert (len(second.runs), second.counts) == (MAX_RUNS, {BlockDamage.HEADER: MAX_RUNS + 5})


def test_not_all_damaged_files_are_listed(pgdata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_check, "MAX_FILES", 2)
    write(pgdata, f1=BROKEN, f2=BROKEN * 2, f3=BROKEN * 3)
    check = check_pages(pgdata)
    assert ([file.path for file in check.damaged], check.counts) == (["base/5/1", "base/5/2"], {BlockDamage.HEADER: 6})


def test_more_empty_files_than_a_batch_lists(pgdata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgrescue.snapshot.relation_files._MAX_PIECES", 3)
    write(pgdata, **{f"f{number}": b"" for number in range(1, 20)}, f20=BROKEN)
    assert damage(pgdata) == {"base/5/20": [(0, 0, "header")]}
    assert check_pages(pgdata).files == 21


def test_other_block_sizes(pgdata: Path) -> None:
    (pgdata / "global/1262").write_bytes(page(7, block_size=32768) + page(9, block_size=32768, lower=1))
    assert damage(pgdata, block_size=32768) == {"global/1262": [(1, 1, "header")]}


def test_no_data_directory(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="no data directory"):
        check_pages(tmp_path)


def test_a_file_that_cannot_be_read_is_named(pgdata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.preadv", fail)
    with pytest.raises(SnapshotError, match="global/1262 cannot be read: Input/output error"):
        check_pages(pgdata)


def test_reads_that_give_less_than_asked(pgdata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.preadv
    monkeypatch.setattr("os.preadv", lambda fd, views, offset: whole(fd, [views[0][:5000]], offset))
    write(pgdata, f16384=USED * 3 + BROKEN + b"tail")
    assert damage(pgdata) == {"base/5/16384": [(3, 3, "header"), (4, 4, "partial")]}


KINDS = {"u": USED, "z": EMPTY, "b": BROKEN, "n": page(101)}


@given(st.lists(st.text("uzbn", max_size=6), min_size=1, max_size=4), st.integers(1, 9))
def test_every_page_is_judged_by_itself(
    tmp_path_factory: pytest.TempPathFactory, segments: list[str], batch_blocks: int
) -> None:
    root = tmp_path_factory.mktemp("data")
    (root / "base/5").mkdir(parents=True)
    files = {}
    for number, kinds in enumerate(segments):
        files[f"16384.{number}".removesuffix(".0")] = kinds
        (root / "base/5" / f"16384.{number}".removesuffix(".0")).write_bytes(b"".join(KINDS[kind] for kind in kinds))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_check, "_BATCH_BYTES", batch_blocks * BLOCK)
        check = check_pages(root, end_of_wal=Lsn(100), segment_blocks=6)
    everything = "".join(segments)
    inside = len(everything.rstrip("z"))
    counts = {
        BlockDamage.HEADER: everything.count("b"),
        BlockDamage.NEWER_THAN_WAL: everything.count("n"),
        BlockDamage.ZERO: everything[:inside].count("z"),
    }
    assert {kind: check.counts.get(kind, 0) for kind in counts} == counts
    assert check.unused_blocks == everything.count("z") - counts[BlockDamage.ZERO]
    for file in check.damaged:
        for run in file.runs:
            expected = {"header": "b", "newer-than-wal": "n", "zero": "z"}.get(run.kind)
            kinds = files[file.path.removeprefix("base/5/")]
            assert expected is None or set(kinds[run.first : run.last + 1]) == {expected}


def slow_checksum(data: bytes, block: int) -> int:
    """Compute a checksum word by word, as checksum_impl.h describes it."""
    words = np.frombuffer(data[:8] + bytes(2) + data[10:], dtype="<u4").tolist()
    sums = [int(seed) for seed in page_checksums.__globals__["_SEEDS"]]
    for word, value in enumerate([*words, *[0] * 64]):
        mixed = sums[word % 32] ^ value
        sums[word % 32] = (mixed * 16777619 & 0xFFFFFFFF) ^ mixed >> 17
    folded = block
    for one in sums:
        folded ^= one
    return folded % 65535 + 1


@pytest.mark.parametrize("block_size", [1024, 8192, 32768])
def test_checksums_are_those_of_the_description(block_size: int) -> None:
    data = np.random.default_rng(block_size).bytes(4 * block_size)
    blocks = np.array([0, 5, 131072, 0xFFFFFFFE], dtype=np.uint32)
    computed = page_checksums(memoryview(data), blocks).tolist()
    assert computed == [
        slow_checksum(data[number * block_size :][:block_size], block) for number, block in enumerate(blocks.tolist())
    ]


def _pages(file: Path) -> list[bytes]:
    content = file.read_bytes()
    return [content[start : start + BLOCK] for start in range(0, len(content), BLOCK)]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    pgdata = tmp_path_factory.mktemp("healthy") / "pgdata"
    return pgdata, stopped_server(17, pgdata)


@pytest.mark.native
def test_a_healthy_server_has_nothing_damaged(healthy: tuple[Path, dict[str, str]]) -> None:
    # The other majors: tests/unit/verify/test_files.py.
    pgdata, paths = healthy
    control = control_of(pgdata)
    check = check_pages(
        pgdata, end_of_wal=control.checkpoint, checksums=True, segment_blocks=control.relation_segment_blocks
    )
    assert check.damaged == ()
    assert check.blocks > 3000
    assert paths["elsewhere"].startswith("pg_tblspc/")
    # What would be damage elsewhere is there: in the hash index, whose buckets are not all used.
    assert EMPTY in {*_pages(pgdata / paths["numbers_hash"])}


@pytest.mark.native
def test_damage_to_real_files(healthy: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    original, paths = healthy
    pgdata = tmp_path / "pgdata"
    shutil.copytree(original, pgdata)
    end = control_of(pgdata).checkpoint

    def change(relation: str, block: int, offset: int, content: bytes) -> None:
        with (pgdata / paths[relation]).open("r+b") as file:
            file.seek(block * BLOCK + offset)
            file.write(content)

    change("orders", 3, 5000, b"\x55\xaa\x55")
    change("places", 7, 0, EMPTY)
    change("users", 1, 14, b"\xff\xff")
    change("places_btree", 2, 0, b"\x00\x10")
    os.truncate(pgdata / paths["places_gist"], 5 * BLOCK + 100)
    (pgdata / paths["elsewhere"]).unlink()
    assert damage(pgdata, end_of_wal=end, checksums=True) == {
        paths["orders"]: [(3, 3, "checksum")],
        paths["places"]: [(7, 7, "zero")],
        paths["users"]: [(1, 1, "checksum"), (1, 1, "header")],
        paths["places_btree"]: [(2, 2, "checksum")],
        paths["places_gist"]: [(5, 5, "partial")],
        paths["elsewhere"]: [(0, 0, "main-fork-missing")],
    }
    # Without checksums, a changed byte among the rows is nothing that the page tells.
    assert set(damage(pgdata)) == {paths[name] for name in ("places", "users", "places_gist", "elsewhere")}


@pytest.mark.native
def test_a_wal_that_ends_before_the_pages(healthy: tuple[Path, dict[str, str]]) -> None:
    pgdata, _ = healthy
    newest = scan_pages(pgdata)
    assert newest.max_lsn is not None
    assert damage(pgdata, end_of_wal=newest.max_lsn) == {}
    check = check_pages(pgdata, end_of_wal=Lsn(newest.max_lsn.position - 1))
    assert set(check.counts) == {BlockDamage.NEWER_THAN_WAL}
    assert newest.at in {f"{file.path} block {run.first}" for file in check.damaged for run in file.runs}
