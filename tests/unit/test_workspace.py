"""Where a rescue happens: nothing foreign is touched, nobody else comes in."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pgrescue.errors import UsageError, WorkspaceBusyError, WorkspaceError
from pgrescue.workspace import Workspace, default_root, existing, find
from tests.unit.snapshot.identity import unprivileged

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "x.pgrescue")


def listing(root: Path) -> dict[str, tuple[int, float, bytes | str]]:
    """Describe everything below a directory, so that any change shows."""
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
            str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else b"",
        )
        for path in root.rglob("*")
    }


def test_everything_lies_within_the_root(workspace: Workspace) -> None:
    places = [getattr(workspace, name) for name, value in vars(Workspace).items() if isinstance(value, property)]
    flat = [path for place in places for path in (place if isinstance(place, tuple) else (place,))]
    assert len(flat) > 10
    assert all(path.is_relative_to(workspace.root) and path != workspace.root for path in flat)


def test_a_new_workspace_is_private(workspace: Workspace) -> None:
    workspace.create(shared=False)
    assert workspace.root.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in workspace.root.iterdir()} == {
        "removed": 0o700,
        "logs": 0o700,
    }


def test_a_shared_one_can_be_passed_through(workspace: Workspace) -> None:
    workspace.create(shared=True)
    assert workspace.root.stat().st_mode & 0o777 == 0o711
    assert workspace.removed.stat().st_mode & 0o777 == 0o700


def test_missing_directories_above_are_made(tmp_path: Path) -> None:
    Workspace(tmp_path / "a" / "b").create(shared=False)
    assert (tmp_path / "a/b/logs").is_dir()


def test_a_workspace_is_created_again_without_a_change(workspace: Workspace) -> None:
    workspace.create(shared=False)
    workspace.ledger.write_text("{}")
    workspace.pgdata.mkdir()
    (workspace.removed / "backup_label").write_text("kept")
    before = listing(workspace.root)
    workspace.create(shared=False)
    assert listing(workspace.root) == before


def _begun(root: Path) -> None:
    root.mkdir()


def _half(root: Path) -> None:
    (root / "removed").mkdir(parents=True)


def _whole(root: Path) -> None:
    Workspace(root).create(shared=False)


@pytest.mark.parametrize("killed", [_begun, _half, _whole])
def test_what_a_kill_before_the_ledger_left_is_used_again(workspace: Workspace, killed: Callable[[Path], None]) -> None:
    killed(workspace.root)
    workspace.create(shared=False)
    assert workspace.removed.is_dir()
    assert workspace.logs.is_dir()


def _file(root: Path) -> None:
    root.write_text("a letter")


def _link(root: Path) -> None:
    (root.parent / "elsewhere").mkdir()
    root.symlink_to("elsewhere")


def _dangling(root: Path) -> None:
    root.symlink_to("nowhere")


def _full(root: Path) -> None:
    root.mkdir()
    (root / "letter").write_text("dear")


def _full_logs(root: Path) -> None:
    (root / "logs").mkdir(parents=True)
    (root / "logs/mine.log").write_text("dear")


def _logs_is_a_file(root: Path) -> None:
    root.mkdir()
    (root / "logs").write_text("a log")


def _logs_is_a_link(root: Path) -> None:
    root.mkdir()
    (root.parent / "elsewhere").mkdir()
    (root / "logs").symlink_to("../elsewhere")


def _below_a_file(root: Path) -> None:
    root.parent.rmdir()
    root.parent.write_text("a file")


@pytest.mark.parametrize(
    "foreign", [_file, _link, _dangling, _full, _full_logs, _logs_is_a_file, _logs_is_a_link, _below_a_file]
)
def test_what_is_foreign_is_refused_and_untouched(tmp_path: Path, foreign: Callable[[Path], None]) -> None:
    workspace = Workspace(tmp_path / "home" / "x.pgrescue")
    workspace.root.parent.mkdir()
    foreign(workspace.root)
    before = listing(tmp_path)
    with pytest.raises(WorkspaceError) as caught:
        workspace.create(shared=True)
    assert "--workspace" in caught.value.hint
    assert listing(tmp_path) == before


def test_what_may_not_be_entered_is_told() -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        workspace = Workspace(Path(directory, "x.pgrescue"))
        workspace.create(shared=False)
        workspace.ledger.write_text("{}")
        assert existing(workspace.root) == workspace
        workspace.root.chmod(0)
        with unprivileged():
            with pytest.raises(WorkspaceError, match="Permission denied"):
                workspace.create(shared=False)
            with pytest.raises(WorkspaceError, match="Permission denied"):
                existing(workspace.root)
        workspace.root.chmod(0o700)


@pytest.mark.parametrize("left", [_begun, _half, _whole])
def test_an_unused_workspace_is_discarded(workspace: Workspace, left: Callable[[Path], None]) -> None:
    left(workspace.root)
    workspace.discard_if_unused()
    assert not workspace.root.exists()
    workspace.discard_if_unused()


@pytest.mark.parametrize("used", [_full, _full_logs])
def test_a_used_one_is_kept(workspace: Workspace, used: Callable[[Path], None]) -> None:
    used(workspace.root)
    before = listing(workspace.root)
    workspace.discard_if_unused()
    assert listing(workspace.root) == before


HOLD = """
import pathlib, sys, time
from pgrescue.workspace import Workspace
with Workspace(pathlib.Path(sys.argv[1])).locked():
    print("locked", flush=True)
    time.sleep(600)
"""


def test_a_second_process_is_kept_out_until_the_first_is_gone(workspace: Workspace) -> None:
    workspace.create(shared=False)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workspace.root)], stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "locked\n"
            with pytest.raises(WorkspaceBusyError, match="another pgrescue"), workspace.locked():
                pass
        finally:
            other.send_signal(signal.SIGKILL)
        other.wait()
        with workspace.locked():
            pass


def test_a_lock_is_let_go_when_the_block_ends(workspace: Workspace) -> None:
    workspace.create(shared=False)
    with workspace.locked(), pytest.raises(WorkspaceBusyError), workspace.locked():
        pass
    with contextlib.suppress(ZeroDivisionError), workspace.locked():
        raise ZeroDivisionError
    with workspace.locked():
        pass


def _make(root: Path) -> Path:
    root.mkdir()
    (root / "ledger.json").touch()
    return root


def test_no_workspace_is_found_where_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty.pgrescue").mkdir()
    with pytest.raises(UsageError, match="no workspace") as caught:
        find(tmp_path)
    assert "pgrescue local" in caught.value.hint


def test_the_only_workspace_is_found(tmp_path: Path) -> None:
    root = _make(tmp_path / "data.pgrescue")
    _make(tmp_path / "other")
    assert find(tmp_path) == find(root) == existing(root) == Workspace(root)


def test_of_several_workspaces_none_is_guessed(tmp_path: Path) -> None:
    for name in ("b", "a"):
        _make(tmp_path / f"{name}.pgrescue")
    with pytest.raises(UsageError, match=r"a\.pgrescue, b\.pgrescue"):
        find(tmp_path)


def test_a_named_directory_without_a_ledger_is_no_workspace(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no ledger\.json"):
        existing(tmp_path)
    with pytest.raises(UsageError, match=r"no ledger\.json"):
        existing(tmp_path / "absent")


def test_a_workspace_is_named_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _make(tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    assert existing(Path("here")).root == tmp_path / "here"


@pytest.mark.parametrize(
    ("snapshot", "name"),
    [
        ("/b/data.tar", "data.pgrescue"),
        ("/b/data.tar.gz", "data.pgrescue"),
        ("/b/data.tgz", "data.pgrescue"),
        ("/b/data.tar.bz2", "data.pgrescue"),
        ("/b/data.tar.xz", "data.pgrescue"),
        ("/b/2026.11.22", "2026.11.22.pgrescue"),
        ("/var/lib/pgdata", "pgdata.pgrescue"),
        ("/", "snapshot.pgrescue"),
    ],
)
def test_the_default_place_is_named_after_the_snapshot(snapshot: str, name: str) -> None:
    assert default_root(Path(snapshot), Path("/home")) == Path("/home") / name
