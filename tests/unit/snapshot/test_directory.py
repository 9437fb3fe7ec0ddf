"""A directory as a snapshot: nothing followed, nothing hidden."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pgrescue.errors import SnapshotError, TruncatedSnapshotError
from pgrescue.snapshot.directory import DirectorySource
from pgrescue.snapshot.interface import Entry, Kind, Source
from tests.unit.snapshot.archives import contents, written
from tests.unit.snapshot.identity import unprivileged

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def root() -> Iterator[Path]:
    """Give a directory that an unprivileged identity can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        path.chmod(0o755)
        yield path


def test_entries_come_in_the_order_of_names_parents_first(root: Path) -> None:
    (root / "b" / "c").mkdir(parents=True)
    (root / "b/c/file").write_bytes(b"deep")
    (root / "b.txt").write_bytes(b"12")
    (root / "a").write_bytes(b"")
    assert [(entry.path, entry.kind, data) for entry, data in contents(DirectorySource(root))] == [
        ("a", Kind.FILE, b""),
        ("b", Kind.DIRECTORY, b""),
        ("b/c", Kind.DIRECTORY, b""),
        ("b/c/file", Kind.FILE, b"deep"),
        ("b.txt", Kind.FILE, b"12"),
    ]


def test_an_entry_tells_size_and_time(root: Path) -> None:
    (root / "file").write_bytes(b"12345")
    os.utime(root / "file", ns=(1, 1_700_000_000_123_456_789))
    source: Source = DirectorySource(root)
    [(entry, content, passed)] = source.entries()
    assert entry == Entry("file", Kind.FILE, 5, 1_700_000_000_123_456_789)
    assert (content.read(3), passed, source.total_bytes) == (b"123", 5, None)
    assert (source.format, source.parallel) == ("directory", True)


def test_no_link_is_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"of production")
    (root / "to-directory").symlink_to(tmp_path)
    (root / "to-file").symlink_to(tmp_path / "secret")
    (root / "dangling").symlink_to("/nowhere")
    found = {entry.path: (entry, content) for entry, content, _ in DirectorySource(root).entries()}
    assert {name: (entry.kind, entry.target, entry.size) for name, (entry, _) in found.items()} == {
        "dangling": (Kind.SYMLINK, "/nowhere", 0),
        "to-directory": (Kind.SYMLINK, str(tmp_path), 0),
        "to-file": (Kind.SYMLINK, str(tmp_path / "secret"), 0),
    }
    assert found["to-file"][1].read(100) == b""


def test_a_file_that_became_a_link_is_not_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"of production")
    (root / "file").write_bytes(b"of the snapshot")
    [(_, content, _)] = DirectorySource(root).entries()
    assert content.read(100) == written(content) == b"of the snapshot"
    (root / "file").unlink()
    (root / "file").symlink_to(tmp_path / "secret")
    with pytest.raises(SnapshotError, match="cannot be read"):
        content.read(100)
    with pytest.raises(SnapshotError, match="cannot be read"):
        written(content)


def test_pipes_and_sockets_are_other_and_empty(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
        found = [(entry.path, entry.kind, content.read(10)) for entry, content, _ in DirectorySource(root).entries()]
    assert found == [("pipe", Kind.OTHER, b""), ("socket", Kind.OTHER, b"")]


def test_what_may_not_be_read_is_an_error(root: Path) -> None:
    (root / "open").mkdir()
    (root / "open/file").write_bytes(b"data")
    (root / "closed").mkdir(mode=0o700)
    with unprivileged():
        entries = {entry.path: content for entry, content, _ in DirectorySource(root / "open").entries()}
        assert entries["file"].read(4) == b"data"
    (root / "open/file").chmod(0)
    (root / "closed").chmod(0)
    with unprivileged():
        with pytest.raises(SnapshotError, match="file cannot be read: Permission denied") as caught:
            entries["file"].read(4)
        assert caught.value.hint
        with pytest.raises(SnapshotError, match="file cannot be read: Permission denied"):
            written(entries["file"])
        with pytest.raises(SnapshotError, match="closed cannot be read: Permission denied"):
            list(DirectorySource(root).entries())


def test_a_file_that_vanishes_during_the_walk_is_passed_over(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        (root / name).touch()
    real = os.scandir

    def scandir_then_remove(path: Any) -> Any:
        found = list(real(path))
        (root / "b").unlink()
        return contextlib.nullcontext(found)

    monkeypatch.setattr(os, "scandir", scandir_then_remove)
    assert [entry.path for entry, _, _ in DirectorySource(root).entries()] == ["a", "c"]


def test_a_file_is_copied_as_long_as_it_was_listed(root: Path) -> None:
    (root / "file").write_bytes(b"0123456789")
    [(_, content, _)] = DirectorySource(root).entries()
    (root / "file").write_bytes(b"0123456789 and more")
    assert written(content) == content.read(100) == b"0123456789"
    (root / "file").write_bytes(b"0123")
    with pytest.raises(TruncatedSnapshotError):
        written(content)
