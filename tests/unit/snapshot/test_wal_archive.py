from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
from typing import TYPE_CHECKING

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrescue.errors import SnapshotError, TruncatedSnapshotError
from pgrescue.snapshot.compression import compression_of, unpacked
from pgrescue.snapshot.wal_archive import WalArchive, holds_wal, plain_name, read_archive

from .archives import gnu_tar, of_files
from .segments import MIB, segment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ONE, TWO, THREE = "000000010000000000000001", "000000010000000000000002", "000000010000000000000003"
HISTORY, BACKUP = "00000002.history", f"{ONE}.00000028.backup"
SHA1 = "0123456789abcdef0123456789abcdef01234567"
PLAIN = segment(ONE, pages=20)

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "zstd": lambda data: bytes(cramjam.zstd.compress(data)),
    "lz4": lambda data: bytes(cramjam.lz4.compress(data)),
    "snappy": lambda data: bytes(cramjam.snappy.compress(data)),
}
each_compression = pytest.mark.parametrize("name", COMPRESSORS)


def archive_of(directory: Path, files: dict[str, bytes]) -> WalArchive:
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return read_archive(directory)


@pytest.mark.parametrize(
    ("stored", "plain"),
    [
        (ONE, ONE),
        (f"{ONE}.gz", ONE),
        (f"{ONE}.lz4", ONE),
        (f"{ONE}.zst", ONE),
        (f"{ONE}.snappy", ONE),
        (f"{ONE}.gz.gpg", ONE),
        (f"{ONE}-{SHA1}", ONE),
        (f"{ONE}-{SHA1}.zst", ONE),
        (f"{ONE}.partial", f"{ONE}.partial"),
        (f"{ONE}.gz.partial", f"{ONE}.partial"),
        (f"{ONE}.partial.gz", f"{ONE}.partial"),
        (f"{ONE}.partial-{SHA1}.gz", f"{ONE}.partial"),
        (HISTORY, HISTORY),
        (f"{HISTORY}.lz4", HISTORY),
        (BACKUP, BACKUP),
        (f"{BACKUP}.bz2", BACKUP),
        (f"{ONE}.ready", None),
        (f"{ONE}.done", None),
        (f"{ONE}.tmp", None),
        (f"{ONE}-{SHA1}.pgbackrest.tmp", None),
        (f".{ONE}.01234567", None),
        (ONE[:-1], None),
        (f"{ONE}.gz.gz.gz.gz", None),
        (f"{ONE}\n", None),
        ("0000000a.history", None),
        ("backup.info", None),
    ],
)
def test_names_as_tools_store_them(stored: str, plain: str | None) -> None:
    assert plain_name(stored) == plain


@given(st.text(max_size=60))
def test_other_names_are_no_wal(text: str) -> None:
    assert plain_name(text) is None or len(text) >= 16


def test_what_lies_in_a_tree(tmp_path: Path) -> None:
    found = archive_of(
        tmp_path,
        {
            f"wals/0000000100000000/{TWO}.gz": gzip.compress(PLAIN),
            f"wals/0000000100000000/{ONE}": PLAIN,
            f"wals/0000000100000000/{THREE}.partial": PLAIN,
            f"wals/0000000100000000/{BACKUP}": b"START WAL LOCATION",
            f"wals/{HISTORY}": b"1\t0/1\tx\n",
            "wals/xlog.db": b"",
            f"wals/archive_status/{THREE}.ready": b"",
        },
    )
    assert list(found.segments) == [ONE, TWO]
    assert list(found.partial_segments) == [f"{THREE}.partial"]
    assert list(found.histories) == [HISTORY]
    assert list(found.backup_histories) == [BACKUP]
    assert not found.is_stream
    assert found.segments[ONE].path == tmp_path / "wals/0000000100000000" / ONE
    assert found.segments[ONE].stored_bytes == MIB
    for name in (ONE, f"{THREE}.partial", HISTORY, BACKUP):
        file = found.find(name)
        assert file is not None
        assert file.name == name
    assert found.find(THREE) is None
    assert found.read_text(HISTORY) == "1\t0/1\tx\n"


def test_a_pgbackrest_repository(tmp_path: Path) -> None:
    stored = f"archive/main/17-1/0000000100000000/{ONE}-{SHA1}.zst"
    found = archive_of(tmp_path, {stored: COMPRESSORS["zstd"](PLAIN), "archive/main/archive.info": b"[backrest]"})
    assert found.read(ONE) == PLAIN


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/loop").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / ONE).write_bytes(PLAIN)
    assert list(read_archive(tmp_path / "link").segments) == [ONE]
    assert read_archive(tmp_path).segments[ONE].path == tmp_path / "real" / ONE


def test_the_plain_file_is_preferred(tmp_path: Path) -> None:
    found = archive_of(tmp_path, {f"b/{ONE}": PLAIN, f"a/{ONE}.gz": b"\x1f\x8bnew", f"c/{ONE}": b""})
    os.utime(tmp_path / "b" / ONE, (2_000, 2_000))
    os.utime(tmp_path / "c" / ONE, (1_000, 1_000))
    os.utime(tmp_path / "a" / f"{ONE}.gz", (3_000, 3_000))
    assert read_archive(tmp_path).segments[ONE].path == tmp_path / "b" / ONE
    os.utime(tmp_path / "c" / ONE, (2_000, 2_000))
    assert read_archive(tmp_path).segments[ONE].path == tmp_path / "b" / ONE
    os.utime(tmp_path / "c" / ONE, (2_001, 2_001))
    assert read_archive(tmp_path).segments[ONE].path == tmp_path / "c" / ONE
    assert found.find(ONE) is not None


def test_no_wal_and_no_such_place(tmp_path: Path) -> None:
    (tmp_path / "backup.info").write_text("")
    with pytest.raises(SnapshotError, match="holds no WAL") as caught:
        read_archive(tmp_path)
    assert "wal_005" in caught.value.hint
    with pytest.raises(SnapshotError, match="does not exist"):
        read_archive(tmp_path / "nothing")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    found = archive_of(tmp_path, {ONE: PLAIN})
    with pytest.raises(SnapshotError, match=f"has no {TWO}"):
        found.copy(TWO, tmp_path / "out")
    (tmp_path / ONE).unlink()
    with pytest.raises(SnapshotError, match="cannot be read"):
        found.read(ONE)


@each_compression
def test_every_compression_by_its_content(name: str, tmp_path: Path) -> None:
    found = archive_of(tmp_path / "in", {ONE: COMPRESSORS[name](PLAIN), f"{TWO}.odd.gz": b"", HISTORY: b"1\t0/1\tx"})
    to = tmp_path / "out"
    to.write_bytes(b"before")
    found.copy(ONE, to, limit_bytes=MIB)
    assert to.read_bytes() == PLAIN
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@each_compression
def test_compressed_data_that_is_cut_short_or_damaged(name: str, tmp_path: Path) -> None:
    data = COMPRESSORS[name](os.urandom(100_000))
    path = tmp_path / ONE
    for broken in (data[:-1], data[: len(data) // 2], data[:20]):
        path.write_bytes(broken)
        with pytest.raises(SnapshotError, match=rf"{ONE} is (truncated|damaged)") as caught:
            read_archive(tmp_path).copy(ONE, tmp_path / "out")
        assert "Fetch it again" in caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "lz4", "snappy"])  # zstd of one shot has no checksum
def test_a_flipped_bit_is_found(name: str, tmp_path: Path) -> None:
    data = bytearray(COMPRESSORS[name](os.urandom(100_000)))
    data[len(data) // 2] ^= 1
    (tmp_path / ONE).write_bytes(data)
    with pytest.raises(SnapshotError, match="is damaged"):
        read_archive(tmp_path).read(ONE)


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "zstd", "lz4", "snappy"])
def test_several_members_or_frames(name: str) -> None:
    data = COMPRESSORS[name](PLAIN[:500_000]) + COMPRESSORS[name](PLAIN[500_000:])
    assert unpacked(data, name, what="x", limit_bytes=MIB) == PLAIN


@each_compression
@pytest.mark.parametrize("size", [1, 4096])
def test_up_to_the_limit_and_no_further(name: str, size: int) -> None:
    data = COMPRESSORS[name](b"\xd1" * size)
    assert compression_of(data) == name
    assert unpacked(data, name, what="x", limit_bytes=size) == b"\xd1" * size
    with pytest.raises(SnapshotError, match=f"x unpacks to more than {size} bytes"):
        unpacked(COMPRESSORS[name](b"\xd1" * (size + 1)), name, what="x", limit_bytes=size)


@pytest.mark.parametrize("name", ["zstd", "lz4"])
def test_a_limit_of_nothing(name: str) -> None:
    assert unpacked(COMPRESSORS[name](b""), name, what="x", limit_bytes=0) == b""
    with pytest.raises(SnapshotError, match="more than 0 bytes"):
        unpacked(COMPRESSORS[name](b"x"), name, what="x", limit_bytes=0)


def test_the_kind_of_truncation_is_kept() -> None:
    with pytest.raises(TruncatedSnapshotError):
        unpacked(gzip.compress(PLAIN)[:-9], "gzip", what="x", limit_bytes=MIB)


def test_a_file_larger_than_a_segment_can_be_is_not_even_read(tmp_path: Path) -> None:
    with (tmp_path / ONE).open("wb") as file:
        file.truncate(2 << 30)
    with pytest.raises(SnapshotError, match="has 2147483648 bytes, and such a file has 1073741824 at most"):
        read_archive(tmp_path).read(ONE)


@pytest.mark.parametrize("extra", [1, MIB])
def test_a_plain_file_longer_than_the_limit(extra: int, tmp_path: Path) -> None:
    found = archive_of(tmp_path, {ONE: segment(ONE) + bytes(extra)})
    with pytest.raises(SnapshotError, match="at most"):
        found.read(ONE, limit_bytes=MIB)


def test_a_history_is_small(tmp_path: Path) -> None:
    found = archive_of(tmp_path, {f"{HISTORY}.gz": gzip.compress(b"#" * (MIB + 1))})
    with pytest.raises(SnapshotError, match="more than 1048576"):
        found.read(HISTORY)


@pytest.mark.parametrize(
    ("stored", "data", "problem"),
    [
        (ONE, b"Salted__" + bytes(range(1, 200)), r"encrypted \(OpenSSL"),
        (ONE, b"-----BEGIN PGP MESSAGE-----", r"encrypted \(OpenPGP"),
        (ONE, b"\x85\x02\x0c\x03" + bytes(range(200)), r"encrypted \(OpenPGP"),
        (ONE, b"\xc1\xc0\x4c\x03" + bytes(range(200)), r"encrypted \(OpenPGP"),
        (ONE, b"age-encryption.org/v1\n", r"encrypted \(age"),
        (f"{ONE}.lzo", b"\x89LZO\0\r\n\x1a\n", "lzop"),
        (f"{ONE}.br", b"\x1b\xff\xff\x07", "brotli"),
        (ONE, b"PK\x03\x04....", "zip"),
        (ONE, b"\x37\x11\x42\x42", "begins with b'7.*BB': that is neither WAL nor a compression"),
        (HISTORY, b"\x00\x01secret", "neither WAL nor"),
        (f"{HISTORY}.gz", b"Salted__\x01\x02", r"encrypted \(OpenSSL"),
        (BACKUP, b"\x85\x02\x0c\x03", "OpenPGP"),
    ],
)
def test_what_cannot_be_read_is_named(stored: str, data: bytes, problem: str, tmp_path: Path) -> None:
    found = archive_of(tmp_path, {stored: data})
    name = plain_name(stored)
    assert name is not None
    with pytest.raises(SnapshotError, match=problem) as caught:
        found.copy(name, tmp_path / "out")
    assert stored in caught.value.problem
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("data", [b"", bytes(MIB), b"\x98\xd0rest", PLAIN[:100]])
def test_odd_segments_are_read_and_judged_elsewhere(data: bytes, tmp_path: Path) -> None:
    assert archive_of(tmp_path, {ONE: data}).read(ONE) == data


def test_a_label_in_another_encoding_is_text(tmp_path: Path) -> None:
    found = archive_of(tmp_path, {BACKUP: b"START WAL LOCATION: 0/1\nLABEL: caf\xe9\n"})
    assert "LABEL: caf\ufffd" in found.read_text(BACKUP)


FILES = {"archive_status/x.done": b"", ONE: PLAIN, f"{TWO}.gz": gzip.compress(PLAIN), HISTORY: b"1\t0/1\tx\n"}


@pytest.mark.parametrize("is_compressed", [False, True])
def test_a_tar(is_compressed: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a parameter of the test
    path = tmp_path / "pg_wal.tar"
    path.write_bytes(gzip.compress(of_files(FILES)) if is_compressed else of_files(FILES))
    found = read_archive(path)
    assert found.is_stream is is_compressed
    assert found.segments[ONE].path == path / ONE
    assert found.read(HISTORY) == FILES[HISTORY]  # in any order
    assert found.read(TWO) == PLAIN
    assert found.read(ONE) == PLAIN
    directory = tmp_path / "out"
    directory.mkdir()
    copied = found.unpack_to(directory)
    assert sorted(file.name for file in directory.iterdir()) == sorted([ONE, f"{TWO}.gz", HISTORY])
    assert copied.read(TWO) == PLAIN
    assert not copied.is_stream


def test_a_sparse_member_of_a_tar(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    with (source / ONE).open("wb") as file:
        file.write(PLAIN[:8192])
        file.seek(MIB - 4096)
        file.write(b"\x01" * 4096)
    (tmp_path / "x.tar").write_bytes(gnu_tar(source, "--sparse"))
    assert read_archive(tmp_path / "x.tar").read(ONE) == (source / ONE).read_bytes()


def test_a_tar_that_changed_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "pg_wal.tar.gz"
    path.write_bytes(gzip.compress(of_files(FILES)))
    found = read_archive(path)
    path.write_bytes(gzip.compress(of_files({TWO: PLAIN})))
    with pytest.raises(SnapshotError, match="any more"):
        found.read(ONE)


def test_a_tar_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(of_files({"PG_VERSION": b"17\n"}))
    with pytest.raises(SnapshotError, match="holds no WAL"):
        read_archive(path)
    path.write_bytes(of_files(FILES)[:-2000])
    with pytest.raises(TruncatedSnapshotError):
        read_archive(path)


def test_unpacking_only_what_was_chosen(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in ((f"a/{ONE}.gz", b"\x1f\x8bbroken"), (f"b/{ONE}", PLAIN)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (tmp_path / "x.tar").write_bytes(buffer.getvalue())
    directory = tmp_path / "out"
    directory.mkdir()
    assert read_archive(tmp_path / "x.tar").unpack_to(directory).read(ONE) == PLAIN
    assert [file.name for file in directory.iterdir()] == [ONE]


def test_unpacking_refuses_what_no_segment_can_be(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    with (source / ONE).open("wb") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(SnapshotError, match="at most"):
        read_archive(source).unpack_to(tmp_path)


def test_whether_a_directory_holds_wal(tmp_path: Path) -> None:
    assert not holds_wal(tmp_path / "nothing")
    (tmp_path / "a").mkdir()
    (tmp_path / ONE).mkdir()
    for number in range(5):
        (tmp_path / "a" / f"{number}").write_text("")
    assert not holds_wal(tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / f"{TWO}.zst").write_text("")
    assert holds_wal(tmp_path)
    assert not holds_wal(tmp_path, most_entries=3)


def test_a_directory_that_cannot_be_read_holds_no_wal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    assert not holds_wal(tmp_path)
