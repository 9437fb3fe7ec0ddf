"""Archives that are cut short, damaged, compressed, or none at all: never silent loss, never a foreign exception."""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import lzma
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgrescue.errors import SnapshotError, TruncatedSnapshotError
from pgrescue.snapshot.interface import Kind
from pgrescue.snapshot.tar import TarSource
from tests.unit.snapshot.archives import BLOCK, Item, contents, gnu_tar, on_disk, read, tarred

if TYPE_CHECKING:
    from collections.abc import Callable

ITEMS = [
    Item("pgdata", kind=Kind.DIRECTORY),
    Item("pgdata/PG_VERSION", data=b"17\n"),
    Item("pgdata/" + "long" * 40, data=random.Random(1).randbytes(3 * BLOCK)),
    Item("pgdata/pg_wal", kind=Kind.SYMLINK, target="/wal"),
    Item("pgdata/last", data=b"z" * (BLOCK + 1)),
]
WHOLE = tarred(ITEMS)
MEMBERS = [(item.entry, item.data) for item in ITEMS]
END = len(WHOLE.rstrip(b"\0")) + (-len(WHOLE.rstrip(b"\0")) % BLOCK)

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": lambda data: bz2.compress(data, compresslevel=1),
    "xz": lzma.compress,
}


def test_the_archive_is_healthy() -> None:
    assert read(WHOLE) == MEMBERS
    assert len(WHOLE) > END


@pytest.mark.parametrize("blocks", range(1, END // BLOCK + 1))
def test_an_archive_that_ends_before_its_end_marker_is_truncated(blocks: int) -> None:
    with pytest.raises(TruncatedSnapshotError, match=r"truncated") as caught:
        read(WHOLE[: blocks * BLOCK])
    assert caught.value.hint


@pytest.mark.parametrize("blocks", range(END // BLOCK + 1, len(WHOLE) // BLOCK + 1))
def test_an_archive_that_ends_after_its_end_marker_is_whole(blocks: int) -> None:
    assert read(WHOLE[: blocks * BLOCK]) == MEMBERS


@settings(deadline=None, max_examples=60)
@given(st.integers(BLOCK, len(WHOLE)))
def test_an_archive_cut_anywhere_is_truncated_or_whole(cut: int) -> None:
    if cut >= END + BLOCK:
        assert read(WHOLE[:cut]) == MEMBERS
    else:
        with pytest.raises(TruncatedSnapshotError):
            read(WHOLE[:cut])


@pytest.mark.parametrize("cut", [0, 1, 100, BLOCK - 1])
def test_less_than_one_header_is_no_archive(cut: int) -> None:
    with pytest.raises(SnapshotError):
        read(WHOLE[:cut])


def test_a_damaged_header_is_named_by_its_byte() -> None:
    at = WHOLE.index(b"pgdata/PG_VERSION")
    damaged = WHOLE[:at] + b"X" + WHOLE[at + 1 :]
    with pytest.raises(SnapshotError, match=rf"at byte {at} .*checksum"):
        read(damaged)


@functools.cache
def _samples() -> tuple[bytes, ...]:
    """Return small archives that hold every structure the reader knows."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        with (root / "sparse").open("wb") as file:
            for place in range(0, 12 << 16, 2 << 16):
                file.seek(place)
                file.write(b"data" * 20)
        (root / ("name" * 40)).write_bytes(b"x")
        (root / "link").symlink_to("t" * 150)
        return (
            WHOLE,
            gnu_tar(root, "-S", "--format=gnu"),
            gnu_tar(root, "-S", "--format=posix"),
            gnu_tar(root, "--format=ustar", "--exclude=name*", "--exclude=link"),
        )


def _checksummed(data: bytearray, at: int) -> None:
    """Make the checksum of the block at `at` right, so that its other fields are believed."""
    block = data[at : at + BLOCK]
    block[148:156] = b" " * 8
    data[at + 148 : at + 156] = f"{sum(block):06o}\0 ".encode()


@settings(deadline=None, max_examples=150)
@given(st.data(), st.integers(0, 3), st.booleans())
def test_changed_bytes_raise_nothing_else(draw: st.DataObject, sample: int, repaired: bool) -> None:  # noqa: FBT001 - hypothesis gives it
    data = bytearray(_samples()[sample])
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, min(len(data), 12 * BLOCK) - 1))
        data[at] = draw.draw(st.integers(0, 255))
        if repaired:
            _checksummed(data, at // BLOCK * BLOCK)
    with contextlib.suppress(SnapshotError), on_disk(bytes(data)) as path:
        for entry, content, _ in TarSource(path).entries():
            assert ".." not in entry.path.split("/")
            assert len(content.read(100)) <= max(entry.size, 0)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_compressed_archives_equal_plain_ones(name: str) -> None:
    with on_disk(COMPRESSORS[name](WHOLE)) as path:
        source = TarSource(path)
        assert contents(source) == MEMBERS
        assert (source.format, source.parallel) == (f"tar, {name}", False)
        assert source.total_bytes == path.stat().st_size


def test_a_plain_archive_can_be_read_in_any_order() -> None:
    with on_disk(WHOLE) as path:
        source = TarSource(path)
        assert (source.format, source.parallel) == ("tar", True)


def test_an_archive_of_several_gzip_members_is_one() -> None:
    assert read(gzip.compress(WHOLE[:1000]) + gzip.compress(WHOLE[1000:])) == MEMBERS


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_compressed_archive_cut_anywhere_is_truncated(name: str) -> None:
    data = COMPRESSORS[name](WHOLE)
    for cut in (*range(10, len(data), len(data) // 40), len(data) - 1):
        with pytest.raises(TruncatedSnapshotError, match="truncated"):
            read(data[:cut])


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_content_that_is_read_at_its_own_time_is_truncated_too(name: str) -> None:
    big = tarred([Item("big", data=random.Random(2).randbytes(256 << 10))])
    data = COMPRESSORS[name](big)
    with on_disk(data[: len(data) // 2]) as path:
        entries = TarSource(path).entries()
        _, content, _ = next(entries)
        with pytest.raises(TruncatedSnapshotError):
            content.read(256 << 10)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_damaged_compressed_archive_is_told(name: str) -> None:
    data = bytearray(COMPRESSORS[name](WHOLE))
    for at in range(len(data) // 4, len(data) // 4 * 3, len(data) // 20):
        damaged = bytes(data[:at]) + bytes([data[at] ^ 0x55]) + bytes(data[at + 1 :])
        with pytest.raises(SnapshotError):
            read(damaged)


def test_a_wrong_checksum_at_the_end_of_gzip_is_told() -> None:
    data = gzip.compress(WHOLE)
    with pytest.raises(SnapshotError, match=r"damaged.*CRC"):
        read(data[:-8] + bytes(4) + data[-4:])


def _gzip_of(data: bytes) -> bytes:
    return gzip.compress(data)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"PGDMP\x01\x0e", "archive of pg_dump"),
        (b"Salted__12345678", "encrypted"),
        (b"\x85\x01\x0c\x03", "OpenPGP"),
        (b"PK\x03\x04\x14", "zip archive"),
        (b"--\n-- PostgreSQL database dump\n--\n", "SQL dump"),
        (b"hello world, this is a text\n", "not a tar archive"),
    ],
)
@pytest.mark.parametrize("rest", [b"", b"more" * 1000])
@pytest.mark.parametrize("wrapped", [bytes, _gzip_of])
def test_files_of_another_kind_are_called_by_their_name(
    head: bytes, words: str, rest: bytes, wrapped: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(SnapshotError, match=words) as caught:
        read(wrapped(head + rest))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("magic", "command"),
    [
        (b"\x28\xb5\x2f\xfd", "zstd -d"),
        (b"\x04\x22\x4d\x18", "lz4 -d"),
        (b"\xff\x06\0\0sNaPpY", "snzip -d"),
    ],
)
def test_a_compression_that_is_not_read_is_told_with_the_way_out(magic: bytes, command: str) -> None:
    with pytest.raises(SnapshotError, match="compressed with") as caught:
        read(magic + bytes(1000))
    assert command in caught.value.hint


def test_an_empty_file_is_truncated() -> None:
    with pytest.raises(TruncatedSnapshotError, match="is empty"):
        read(b"")


def test_what_cannot_be_opened_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(SnapshotError, match="cannot be read"):
            TarSource(path)
