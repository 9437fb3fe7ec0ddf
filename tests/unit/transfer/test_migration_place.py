"""Where a migration is written, and that it stays out of git where it is sensitive."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from pgrescue.errors import UsageError
from pgrescue.transfer.migration_place import addition, find_place, ignored

if TYPE_CHECKING:
    from pathlib import Path


def repository(root: Path) -> Path:
    (root / ".git").mkdir(parents=True)
    return root


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.mark.parametrize(
    "name", ["", "  ", ".", "..", ".hidden", "a/b", "/abs", "a\\b", "-x", "a\nb", "a\0b", "x" * 256]
)
def test_a_name_that_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no name of a migration"):
        find_place(name, tmp_path, is_sensitive=False)


@pytest.mark.parametrize("name", ["20261122081500_restore", "with space", "größer", "a.b", "x" * 255])
def test_other_names_are_taken(tmp_path: Path, name: str) -> None:
    place = find_place(name, tmp_path / "db" / "migrations", is_sensitive=False)
    assert tree(tmp_path) == set()
    with place.writing() as file:
        file.write(b"rows")
        assert not place.file.exists()
    assert tree(tmp_path / "db" / "migrations") == {name, f"{name}/migration.sql"}
    assert (tmp_path / "db" / "migrations" / name / "migration.sql").read_bytes() == b"rows"
    assert place.file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("existing", ["file", "directory", "dangling link"])
def test_an_existing_migration_is_not_overwritten(tmp_path: Path, existing: str) -> None:
    path = tmp_path / "x" / "migration.sql"
    path.parent.mkdir()
    match existing:
        case "file":
            path.write_text("old")
        case "directory":
            path.mkdir()
        case _:
            path.symlink_to("nowhere")
    with pytest.raises(UsageError, match="not overwritten"):
        find_place("x", tmp_path, is_sensitive=False)


def test_a_folder_that_holds_something_else_is_used_and_rests_of_a_kill_go(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for name in ("README.md", ".migration.sql.0123abcd", ".other.0123abcd"):
        (tmp_path / "x" / name).write_text("")
    with find_place("x", tmp_path, is_sensitive=False).writing() as file:
        file.write(b"rows")
    assert tree(tmp_path / "x") == {"README.md", ".other.0123abcd", "migration.sql"}


def test_one_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    place = find_place("x", tmp_path, is_sensitive=False)
    with contextlib.ExitStack() as stack:
        stack.enter_context(place.writing()).write(b"rows")
        place.file.write_text("another's")
        with pytest.raises(UsageError, match="not overwritten"):
            stack.close()
    assert place.file.read_text() == "another's"
    assert tree(tmp_path) == {"x", "x/migration.sql"}


@pytest.mark.parametrize("error", [OSError("gone"), KeyboardInterrupt()])
def test_nothing_is_left_of_one_that_was_not_ended(tmp_path: Path, error: BaseException) -> None:
    def write() -> None:
        with find_place("x", tmp_path / "db" / "migrations", is_sensitive=False).writing() as file:
            file.write(b"half of the rows")
            raise error

    with pytest.raises(type(error)):
        write()
    assert tree(tmp_path) == set()


def test_a_file_in_the_way_and_a_place_that_may_not_be_written_to_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "db").write_text("")
    with pytest.raises(UsageError, match="not a directory"):
        find_place("x", tmp_path / "db" / "migrations", is_sensitive=False)
    # Root may write anywhere.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UsageError, match="may not be written to"):
        find_place("x", tmp_path, is_sensitive=False)


def test_a_sensitive_one_needs_a_repository(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no git repository"):
        find_place("x", tmp_path, is_sensitive=True)
    assert tree(tmp_path) == set()


def test_the_top_of_the_repository_is_that_of_the_real_place(tmp_path: Path) -> None:
    outer = repository(tmp_path / "outer")
    inner = outer / "inner"
    inner.mkdir()
    (inner / ".git").write_text("gitdir: elsewhere")
    (tmp_path / "link").symlink_to(inner)
    find_place("x", tmp_path / "link" / "db", is_sensitive=True).ignore()
    assert (inner / ".gitignore").read_text() == "/db/x/\n"
    assert not (outer / ".gitignore").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", b"/x/\n"),
        (b"a\n", b"/x/\n"),
        (b"a", b"\n/x/"),
        (b"a\r\n", b"/x/\r\n"),
        (b"a\r\nb", b"\r\n/x/"),
        (b"a\n/x/\nb", b""),
        (b"a\r\n/x/\r\n", b""),
        (b"/x/", b""),
        (b"#/x/\n/x/y\n", b"/x/\n"),
    ],
)
def test_the_line_is_added_once_and_lines_end_as_before(content: bytes, expected: bytes) -> None:
    assert addition(content, b"/x/") == expected


def test_a_gitignore_keeps_what_it_had_and_its_mode(tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo")
    (repo / ".gitignore").write_bytes(b"caf\xe9")
    (repo / ".gitignore").chmod(0o640)
    for _ in range(2):
        find_place("x", repo / "db", is_sensitive=True).ignore()
    assert (repo / ".gitignore").read_bytes() == b"caf\xe9\n/db/x/"
    assert (repo / ".gitignore").stat().st_mode & 0o777 == 0o640


def test_a_gitignore_that_cannot_be_written_stops_everything(tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo")
    (repo / ".gitignore").mkdir()
    with pytest.raises(UsageError, match="cannot be written"):
        find_place("x", repo, is_sensitive=True).ignore()


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")
@pytest.mark.parametrize("name", ["plain", "a*b", "[x]", "what?", "!not", "#no", "trailing ", "größer", "a b"])
def test_git_itself_leaves_out_the_folder_and_nothing_else(tmp_path: Path, name: str) -> None:
    def is_ignored(path: Path) -> bool:
        command = ["git", "-C", str(repo), "check-ignore", "--no-index", "-q", str(path.relative_to(repo))]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    repo = tmp_path / "repo"
    subprocess.run(["git", "init", "-q", repo], check=True)
    place = find_place(name, repo / "db [1]", is_sensitive=True)
    assert ignored(repo, place.folder).startswith(b"/db \\[1]/")
    place.ignore()
    assert is_ignored(place.file)
    for other in ("plainly", "axb", "x", "whats"):
        assert not is_ignored(repo / "db [1]" / other / "migration.sql")
    assert not is_ignored(repo / "db 1" / name / "migration.sql")
