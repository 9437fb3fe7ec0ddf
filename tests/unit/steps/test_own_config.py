"""What is taken over from a clean database's data directory, and how the workspace keeps it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pgrescue.errors import UsageError, WorkspaceError
from pgrescue.steps.own_config import FILES, TakenConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LATIN_1 = b"cluster_name = 'caf\xe9'\r\n"


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    directory = tmp_path / "pgdata"
    directory.mkdir()
    (directory / "override.conf").touch()
    (directory / "custom.conf").write_bytes(LATIN_1)
    return directory


def test_both_files_are_read_byte_by_byte(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = TakenConfig.read(clean)
    assert found == TakenConfig(clean, {"override.conf": b"", "custom.conf": LATIN_1})
    monkeypatch.chdir(clean.parent)
    assert TakenConfig.read(clean.relative_to(clean.parent)) == found


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("replace", "problem"),
    [
        (lambda _: None, "does not exist"),
        (lambda path: path.mkdir(), "is not a regular file"),
        (os.mkfifo, "is not a regular file"),
        (lambda path: path.symlink_to("nowhere"), "does not exist"),
        (lambda path: path.symlink_to(path), "does not exist"),
    ],
    ids=["missing", "directory", "pipe", "dangling", "circular"],
)
def test_both_must_be_files(clean: Path, name: str, replace: Callable[[Path], None], problem: str) -> None:
    (clean / name).unlink()
    replace(clean / name)
    with pytest.raises(UsageError) as caught:
        TakenConfig.read(clean)
    assert caught.value.problem == f"--config-from: {clean / name} {problem}"
    assert "keep or blank" in caught.value.hint


def test_what_the_system_does_not_read_is_told_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: File name too long"):
        TakenConfig.read(tmp_path / ("x" * 300))


def test_the_workspace_keeps_them_for_the_owner_only(clean: Path, tmp_path: Path) -> None:
    taken = TakenConfig.read(clean)
    taken.save(tmp_path / "taken.json")
    assert TakenConfig.load(tmp_path / "taken.json") == taken
    assert (tmp_path / "taken.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content", [None, "", "[]", "{}", '{"directory": "/x", "contents": {"override.conf": ""}}', '{"directory": 1}']
)
def test_what_the_workspace_lost_is_to_be_named_again(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "taken.json").write_text(content)
    with pytest.raises(WorkspaceError, match="cannot be read") as caught:
        TakenConfig.load(tmp_path / "taken.json")
    assert "--config-from" in caught.value.hint
