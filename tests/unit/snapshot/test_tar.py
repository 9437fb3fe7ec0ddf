"""Tar archives in every dialect."""

from __future__ import annotations

import os
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgrescue.errors import SnapshotError, TruncatedSnapshotError
from pgrescue.snapshot.interface import Entry, Kind, Source
from pgrescue.snapshot.tar import TarSource
from tests.unit.snapshot.archives import (
    BLOCK,
    Item,
    contents,
    gnu_tar,
    header,
    on_disk,
    pax,
    read,
    record,
    tarred,
)

if TYPE_CHECKING:
    from pathlib import Path

END = bytes(2 * BLOCK)

_segments = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=60).filter(
    lambda name: name not in {".", ".."}
)
_names = st.lists(_segments, min_size=1, max_size=6).map("/".join).filter(lambda name: len(name) <= 300)
_data = st.one_of(st.binary(max_size=64), st.sampled_from([BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK]).map(bytes))
_times = st.integers(0, (1 << 33) - 1)
_items = st.one_of(
    st.builds(Item, _names, data=_data, mtime=_times),
    st.builds(Item, _names, kind=st.sampled_from([Kind.DIRECTORY, Kind.OTHER]), mtime=_times),
    st.builds(Item, _names, kind=st.sampled_from([Kind.SYMLINK, Kind.HARDLINK]), target=_names, mtime=_times),
)


def _fits_ustar(item: Item) -> bool:
    return max(len(item.name.encode()), len(item.target.encode())) < 100


@settings(deadline=None, max_examples=60)
@given(st.lists(_items, max_size=6), st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_what_tarfile_wrote_is_read(items: list[Item], form: int) -> None:
    assert read(tarred(items, form)) == [(item.entry, item.data) for item in items]


@settings(deadline=None, max_examples=30)
@given(st.lists(_items.filter(_fits_ustar), max_size=6))
def test_what_tarfile_wrote_as_ustar_is_read(items: list[Item]) -> None:
    assert read(tarred(items, tarfile.USTAR_FORMAT)) == [(item.entry, item.data) for item in items]


def test_the_prefix_of_ustar_belongs_to_the_name() -> None:
    name = "/".join(["directory"] * 20)
    assert len(name) > 100
    assert read(tarred([Item(name, data=b"x")], tarfile.USTAR_FORMAT))[0][0].path == name


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"V"])
def test_what_no_data_directory_holds_is_other(kind: bytes) -> None:
    [(entry, _)] = read(header("special", kind=kind) + END)
    assert entry.kind is Kind.OTHER


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "base" / "1").mkdir(parents=True)
    (root / "base/1/empty").touch()
    (root / "base/1/block").write_bytes(b"b" * BLOCK)
    (root / "base/1/relation").write_bytes(bytes(range(256)) * 33)
    (root / "pg_wal").symlink_to("/mnt/wal")
    os.link(root / "base/1/relation", root / "base/1/twin")
    os.mkfifo(root / "pipe")
    return root


GNU_FORMATS = ("gnu", "oldgnu", "pax", "posix", "ustar", "v7")


@pytest.mark.parametrize("form", GNU_FORMATS)
def test_what_gnu_tar_wrote_is_read(tree: Path, form: str) -> None:
    # v7 has no place for a pipe.
    members = read(gnu_tar(tree, f"--format={form}", "--exclude=pipe"))
    found = {entry.path: (entry.kind, entry.target, data) for entry, data in members}
    relation = bytes(range(256)) * 33
    assert found == {
        "": (Kind.DIRECTORY, "", b""),
        "base": (Kind.DIRECTORY, "", b""),
        "base/1": (Kind.DIRECTORY, "", b""),
        "base/1/block": (Kind.FILE, "", b"b" * BLOCK),
        "base/1/empty": (Kind.FILE, "", b""),
        "base/1/relation": (Kind.FILE, "", relation),
        "base/1/twin": (Kind.HARDLINK, "base/1/relation", b""),
        "pg_wal": (Kind.SYMLINK, "/mnt/wal", b""),
    }
    sizes = {entry.path: entry.size for entry, _ in members}
    assert sizes["base/1/relation"] == len(relation)
    assert sizes["base/1/twin"] == 0


@pytest.mark.parametrize("form", ["gnu", "pax", "ustar"])
def test_a_pipe_from_gnu_tar_is_other(tree: Path, form: str) -> None:
    kinds = {entry.path: entry.kind for entry, _ in read(gnu_tar(tree, f"--format={form}"))}
    assert kinds["pipe"] is Kind.OTHER


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_long_names_of_gnu_tar(tmp_path: Path, form: str) -> None:
    name = "/".join(["ein langer Name mit Umläuten " * 4] * 3)
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_bytes(b"far away")
    (tmp_path / "link").symlink_to("t" * 250)
    found = {entry.path: (entry.target, data) for entry, data in read(gnu_tar(tmp_path, f"--format={form}"))}
    assert found[name] == ("", b"far away")
    assert found["link"] == ("t" * 250, b"")


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_names_that_are_not_unicode(tmp_path: Path, form: str) -> None:
    name = os.fsdecode(b"latin-\xe4")
    (tmp_path / name).write_bytes(b"x")
    assert [entry.path for entry, _ in read(gnu_tar(tmp_path, f"--format={form}", names=[name]))] == [name]


def test_modification_times_have_fractions_in_pax(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    os.utime(tmp_path / "f", ns=(1_700_000_000_250_000_000, 1_700_000_000_250_000_000))
    [(entry, _)] = read(gnu_tar(tmp_path, "--format=pax", names=["f"]))
    assert entry.mtime_ns // 1000 == pytest.approx(1_700_000_000_250_000, abs=1)


def test_a_size_beyond_octal_is_read_and_its_missing_data_noticed(tmp_path: Path) -> None:
    size = 9 << 30
    path = tmp_path / "huge.tar"
    path.write_bytes(header("huge", size=size))
    with pytest.raises(TruncatedSnapshotError, match=str(BLOCK + size)):
        list(TarSource(path).entries())
    os.truncate(path, BLOCK + size + len(END))  # a hole: no disk is used
    [(entry, content, _)] = TarSource(path).entries()
    assert entry == Entry("huge", Kind.FILE, size)
    assert content.read(10) == bytes(10)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("/pgdata/base", "pgdata/base"),
        ("//base", "base"),
        ("./base", "base"),
        ("././base//1/./2", "base/1/2"),
        ("..data", "..data"),
        ("data..", "data.."),
    ],
)
def test_names_become_relative(name: str, path: str) -> None:
    assert read(header(name) + END) == [(Entry(path, Kind.FILE), b"")]
    [(link, _)] = read(header("link", kind=b"1", linkname=name) + END)
    assert link.target == path


@pytest.mark.parametrize("name", ["..", "../x", "a/../b", "a/..", "/../etc/passwd", "./../x"])
def test_a_member_that_would_leave_the_workspace_is_refused(name: str) -> None:
    for block in (header(name), header(name, kind=b"5"), header("link", kind=b"1", linkname=name)):
        with pytest.raises(SnapshotError, match="leave the workspace"):
            read(header("healthy") + block + END)


def test_the_target_of_a_symbolic_link_is_only_told() -> None:
    assert read(header("pg_wal", kind=b"2", linkname="../../wal") + END)[0][0].target == "../../wal"


def test_a_name_with_a_null_is_refused() -> None:
    assert read(pax(record("path", "ab")) + header("short") + END)[0][0].path == "ab"
    with pytest.raises(SnapshotError, match="leave the workspace"):
        read(pax(record("path", "a\0b")) + header("short") + END)


def test_pax_records_win_over_the_header() -> None:
    records = record("path", "päth") + record("size", "3") + record("mtime", "1.5") + record("linkpath", "elsewhere")
    member = header("short", size=BLOCK * 9) + b"abc".ljust(BLOCK, b"\0")
    assert read(pax(records) + member + header("next") + END) == [
        (Entry("päth", Kind.FILE, 3, 1_500_000_000, "elsewhere"), b"abc"),
        (Entry("next", Kind.FILE), b""),
    ]


def test_global_records_hold_until_a_members_own() -> None:
    members = pax(record("mtime", "7"), b"g") + header("a") + pax(record("mtime", "9")) + header("b") + header("c")
    assert [entry.mtime_ns // 10**9 for entry, _ in read(members + END)] == [7, 9, 7]


@pytest.mark.parametrize(
    "records",
    [
        b"nonsense",
        b"99 path=x\n",
        b"0 path=x\n",
        b"-5 path=x\n",
        record("size", "many"),
        record("size", "-1"),
        record("mtime", "soon"),
        record("mtime", "nan"),
        record("mtime", "inf"),
        record("GNU.sparse.major", "0") + record("GNU.sparse.map", "0,1"),
        record("GNU.sparse.major", "1") + record("GNU.sparse.realsize", "many"),
    ],
)
def test_damaged_pax_records_are_refused(records: bytes) -> None:
    with pytest.raises(SnapshotError, match=r"damaged|not read|truncated"):
        read(pax(records) + header("member") + END)


def test_an_old_archiver_wrote_a_directory_as_a_file_with_a_slash() -> None:
    assert read(header("base/", kind=b"\0") + END)[0][0].kind is Kind.DIRECTORY


def test_a_checksum_of_signed_bytes_is_right_too() -> None:
    block = bytearray(header("n\u00e4me"))
    signed = sum(byte - 256 * (byte > 127) for byte in block[:148] + b" " * 8 + block[156:])
    block[148:156] = f"{signed:06o}\0 ".encode()
    assert read(bytes(block) + END)[0][0].path == "näme"


def test_an_empty_archive_has_no_entries() -> None:
    assert read(END) == []


def test_progress_never_goes_back_and_ends_within_the_file(tree: Path) -> None:
    with on_disk(gnu_tar(tree)) as path:
        source: Source = TarSource(path)
        passed = [count for _, _, count in source.entries()]
        assert source.total_bytes is not None
        assert passed == sorted(passed)
        assert 0 < passed[-1] <= source.total_bytes
        assert contents(source) == contents(source)
