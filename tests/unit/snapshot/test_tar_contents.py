"""Contents of members: copied by the kernel or by hand, with their holes, from several threads."""

from __future__ import annotations

import concurrent.futures
import errno
import gzip
import os
import random
from typing import TYPE_CHECKING, Any

import pytest

from pgrescue.errors import TruncatedSnapshotError
from pgrescue.snapshot.interface import Entry, Kind
from pgrescue.snapshot.tar import TarSource, copy_range
from tests.unit.snapshot.archives import Item, contents, gnu_tar, header, on_disk, read, tarred, written

if TYPE_CHECKING:
    from pathlib import Path

RELATION = random.Random(3).randbytes((2 << 20) + 17)
FILES = [Item("empty"), Item("relation", data=RELATION), Item("last", data=b"end")]
EXTENTS = 30
GAP = 128 << 10


@pytest.fixture(params=["kernel", "EXDEV", "ENOSYS", "EINVAL", "EOPNOTSUPP", "EPERM", "absent"])
def copying(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make the kernel's copy work, fail in each way that means "not here", or be absent as on macOS."""
    way = str(request.param)
    if way == "absent":
        monkeypatch.delattr(os, "copy_file_range")
    elif way != "kernel":

        def refuse(*_: Any, **__: Any) -> int:
            raise OSError(getattr(errno, way), "not here")

        monkeypatch.setattr(os, "copy_file_range", refuse)
    return way


def _sparse(path: Path) -> bytes:
    """Write a file with many holes, one at its end; return its bytes."""
    with path.open("wb") as file:
        for number in range(EXTENTS):
            file.seek(number * GAP)
            file.write(f"extent {number}".encode().ljust(4096, b"."))
        file.truncate(EXTENTS * GAP + 5)
    return path.read_bytes()


@pytest.mark.usefixtures("copying")
def test_every_way_of_copying_gives_the_same_bytes() -> None:
    assert read(tarred(FILES)) == [(item.entry, item.data) for item in FILES]


@pytest.mark.usefixtures("copying")
@pytest.mark.parametrize("form", ["gnu", "posix"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_sparse_file_keeps_its_bytes_and_its_holes(tmp_path: Path, form: str, wrapped: bool) -> None:  # noqa: FBT001 - pytest gives it
    data = _sparse(tmp_path / "sparse")
    archive = gnu_tar(tmp_path, "-S", f"--format={form}", names=["sparse"])
    assert len(archive) < len(data) / 2
    with on_disk(gzip.compress(archive) if wrapped else archive) as path, (tmp_path / "out").open("wb") as out:
        for entry, content, _ in TarSource(path).entries():
            assert (entry.path, entry.kind, entry.size) == ("sparse", Kind.FILE, len(data))
            content.write_to(out.fileno())
    assert (tmp_path / "out").read_bytes() == data
    assert (tmp_path / "out").stat().st_blocks * 512 < len(data) / 2


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_a_sparse_file_without_any_data(tmp_path: Path, form: str) -> None:
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(1 << 20)
    [(entry, data)] = read(gnu_tar(tmp_path, "-S", f"--format={form}", names=["hole"]))
    assert entry == Entry("hole", Kind.FILE, 1 << 20, entry.mtime_ns)
    assert data == bytes(1 << 20)


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_what_follows_a_sparse_file_is_found(tmp_path: Path, form: str) -> None:
    _sparse(tmp_path / "a")
    (tmp_path / "b").write_bytes(b"next")
    members = read(gnu_tar(tmp_path, "-S", f"--format={form}", names=["a", "b"]))
    assert [(entry.path, data) for entry, data in members][1:] == [("b", b"next")]


def test_a_sparse_member_in_an_old_pax_format_is_refused_with_the_way_out(tmp_path: Path) -> None:
    _sparse(tmp_path / "sparse")
    for version in ("0.0", "0.1"):
        archive = gnu_tar(tmp_path, "-S", "--format=posix", f"--sparse-version={version}", names=["sparse"])
        with pytest.raises(Exception, match="PAX format 0") as caught:
            read(archive)
        assert "GNU tar" in getattr(caught.value, "hint", "")


@pytest.mark.parametrize(("limit", "expected"), [(0, b""), (10, RELATION[:10]), (3 << 20, RELATION)])
@pytest.mark.parametrize("wrapped", [False, True])
def test_reading_stops_at_the_limit(limit: int, expected: bytes, wrapped: bool) -> None:  # noqa: FBT001 - pytest gives it
    data = tarred(FILES)
    with on_disk(gzip.compress(data) if wrapped else data) as path:
        found = {entry.path: content.read(limit) for entry, content, _ in TarSource(path).entries()}
    assert found == {"empty": b"", "relation": expected, "last": b"end"[:limit]}


def test_a_plain_archives_contents_outlive_the_walk() -> None:
    with on_disk(tarred(FILES)) as path:
        kept = [content for _, content, _ in TarSource(path).entries()]
        assert [written(content) for content in reversed(kept)] == [item.data for item in reversed(FILES)]
        assert [content.read(5) for content in kept] == [item.data[:5] for item in FILES]


def test_a_streams_content_is_never_silently_another_one() -> None:
    with on_disk(gzip.compress(tarred(FILES))) as path:
        entries = TarSource(path).entries()
        kept = [content for _, content, _ in entries]
        with pytest.raises(ValueError, match="stream"):
            kept[1].read(10)


def test_threads_copy_and_read_at_once() -> None:
    items = [Item(f"file{number}", data=random.Random(number).randbytes(300_000 + number)) for number in range(24)]
    with on_disk(tarred(items)) as path, concurrent.futures.ThreadPoolExecutor(8) as pool:
        copies, heads = [], []
        for _, content, _ in TarSource(path).entries():
            copies.append(pool.submit(written, content))
            heads.append(pool.submit(content.read, 1000))
        assert [future.result() for future in copies] == [item.data for item in items]
        assert [future.result() for future in heads] == [item.data[:1000] for item in items]


@pytest.mark.usefixtures("copying")
def test_a_source_that_ends_too_early_is_truncated(tmp_path: Path) -> None:
    path = tmp_path / "source"
    path.write_bytes(b"0123456789")
    with path.open("rb") as source, (tmp_path / "out").open("wb") as out:
        with pytest.raises(TruncatedSnapshotError, match="ends at byte 10"):
            copy_range(source.fileno(), 4, 100, out.fileno(), path=path)
        copy_range(source.fileno(), 4, 6, out.fileno(), path=path)


def test_an_error_of_the_disk_is_no_reason_to_copy_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(OSError, match="No space left"):
        read(tarred(FILES))


def test_a_file_cut_while_it_is_read_is_truncated() -> None:
    data = header("late", size=4096) + b"d" * 4096 + bytes(1024)
    with on_disk(data) as path:
        assert contents(TarSource(path))[0][1] == b"d" * 4096
        for _, content, _ in TarSource(path).entries():
            os.truncate(path, 1000)
            with pytest.raises(TruncatedSnapshotError):
                content.read(4096)
            with pytest.raises(TruncatedSnapshotError):
                written(content)
            break
