"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pgrescue.errors import DiskSpaceError
from pgrescue.files import sync_directory, write_atomically


def test_a_file_is_made_and_replaced(tmp_path: Path) -> None:
    for content in ("first", "zweite Fassung ✓", ""):
        write_atomically(tmp_path / "file", content)
        assert (tmp_path / "file").read_text() == content
    write_atomically(tmp_path / "file", b"\0\xff")
    assert (tmp_path / "file").read_bytes() == b"\0\xff"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_the_mode_is_the_new_files(tmp_path: Path, mode: int) -> None:
    (tmp_path / "file").touch(mode=0o666)
    write_atomically(tmp_path / "file", "secret", mode=mode)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_nobody_else_reads_a_file_unless_its_mode_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch(mode=0o666)
    write_atomically(tmp_path / "file", "secret")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_only_what_is_to_be_durable_is_forced_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forced: list[int] = []
    monkeypatch.setattr(os, "fsync", forced.append)
    write_atomically(tmp_path / "file", "for now", durable=False)
    assert forced == []
    write_atomically(tmp_path / "file", "for ever")
    assert len(forced) == 2
    assert (tmp_path / "file").read_text() == "for ever"


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("untouched")
    (tmp_path / "link").symlink_to("target")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "target").read_text() == "untouched"
    assert not (tmp_path / "link").is_symlink()


class _Crash(BaseException):
    """What no handler of ordinary errors sees, as a Ctrl-C."""


@pytest.mark.parametrize("error", [OSError("full"), _Crash(), KeyboardInterrupt()])
@pytest.mark.parametrize("place", ["fsync", "replace"])
@pytest.mark.parametrize("old", ["old", None])
def test_a_failure_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: BaseException, old: str | None
) -> None:
    target = tmp_path / "file"
    if old is not None:
        target.write_text(old)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(*((os, "fsync", fail) if place == "fsync" else (Path, "replace", fail)))
    with pytest.raises(type(error)):
        write_atomically(target, "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ([] if old is None else [old])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def full(_: int) -> None:
        raise OSError(number, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskSpaceError, match=r"file cannot be written") as caught:
        write_atomically(tmp_path / "file", "new")
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_the_content_is_durable_before_it_has_the_name_and_the_name_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(descriptor: int) -> None:
        happened.append("directory" if Path(f"/proc/self/fd/{descriptor}").resolve() == tmp_path else "content")
        fsync(descriptor)

    def watched_replace(path: Path, target: Path) -> Path:
        happened.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    write_atomically(tmp_path / "file", "x")
    assert happened == ["content", "rename", "directory"]


def test_only_a_directory_is_synced_as_one(tmp_path: Path) -> None:
    sync_directory(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        sync_directory(tmp_path / "file")
