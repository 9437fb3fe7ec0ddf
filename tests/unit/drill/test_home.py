"""The directory of a drill: made, locked, cleared away, also after a kill."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pgrescue.drill.home import SUFFIX, Home, Keep, clear_remains, open_home
from pgrescue.errors import RescueError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

# A drill at work: it says where, fills its directory, and waits.
WORKER = """
import signal, sys, time
from pathlib import Path
from pgrescue.drill.home import open_home
def interrupt(number, frame):
    raise KeyboardInterrupt
signal.signal(signal.SIGTERM, interrupt)
try:
    with open_home(Path(sys.argv[1]), sys.argv[2]) as home:
        home.workspace.root.mkdir()
        (home.workspace.root / "data").write_text("x" * 100_000)
        if sys.argv[3:] == ["keep"]:
            home.keep()
        print(home.root, flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@contextmanager
def worker(base: Path, slug: str, *options: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(base), slug, *options], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def killed(base: Path, slug: str, *options: str) -> Path:
    """Return the directory of a drill that was killed."""
    with worker(base, slug, *options) as (process, root):
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert (root / "rescue.pgrescue" / "data").exists()
    return root


def is_locked(root: Path) -> bool:
    descriptor = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def test_a_drill_has_a_directory_of_its_own_and_nothing_is_left(tmp_path: Path) -> None:
    base = tmp_path / "not" / "there"
    with open_home(base, "nightly") as home, open_home(base, "nightly") as second:
        assert home.root.parent == base
        assert home.root != second.root
        assert home.root.name.startswith("nightly-")
        assert home.root.name.endswith(SUFFIX)
        assert stat.S_IMODE(home.root.stat().st_mode) == 0o711
        assert is_locked(home.root)
        assert {home.workspace.root.parent, home.target.root.parent, home.fetched.parent} == {home.root}
        home.fetched.mkdir()
        (home.fetched / "file").write_text("x")
        locked = home.root
    assert list(base.iterdir()) == []
    assert not locked.exists()


def test_it_goes_with_whatever_ends_the_drill(tmp_path: Path) -> None:
    for error in (RescueError("it broke off"), KeyboardInterrupt(), ZeroDivisionError()):
        with pytest.raises(type(error)) as caught, open_home(tmp_path, "nightly"):
            raise error
        assert caught.value is error
        assert list(tmp_path.iterdir()) == []


def test_what_is_kept_stays_and_is_not_locked(tmp_path: Path) -> None:
    with open_home(tmp_path, "nightly") as home:
        assert [home.is_kept, home.keep(), home.is_kept] == [False, None, True]  # type: ignore[func-returns-value]
    assert home.root.is_dir()
    assert not is_locked(home.root)
    with open_home(tmp_path, "nightly"):
        pass
    assert home.root.is_dir()
    assert sorted(Keep) == ["always", "never", "on-failure"]


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"schema": 1}', b"\xff"])
def test_what_cannot_be_read_is_left_alone(tmp_path: Path, content: str | bytes | None) -> None:
    with open_home(tmp_path, "nightly") as home:
        (mark,) = home.root.iterdir()
        mark.unlink()
        if content is not None:
            mark.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert home.root.is_dir()
    clear_remains(tmp_path, "nightly")
    assert home.root.is_dir()
    mark.write_text(json.dumps({"is_kept": False}))
    clear_remains(tmp_path, "nightly")
    assert not home.root.exists()


def test_remains_of_a_killed_drill_are_cleared_away_by_the_next_of_its_name(tmp_path: Path) -> None:
    killed_root, other = killed(tmp_path, "nightly"), killed(tmp_path, "nightly-2")
    kept = killed(tmp_path, "nightly", "keep")
    bystanders = [
        tmp_path / "nightly-notes.drill",
        tmp_path / "nightly.yaml",
        tmp_path / "nightly-20261122T081500-abcd",
    ]
    for bystander in bystanders:
        bystander.mkdir()
    with open_home(tmp_path, "nightly") as home:
        assert not killed_root.exists()
        assert sorted(tmp_path.iterdir()) == sorted([home.root, other, kept, *bystanders])


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    elsewhere = killed(tmp_path / "elsewhere", "nightly")
    link = tmp_path / elsewhere.name
    link.symlink_to(elsewhere)
    clear_remains(tmp_path, "nightly")
    assert (elsewhere / "rescue.pgrescue" / "data").exists()
    assert link.is_symlink()


def test_a_drill_at_work_is_left_alone(tmp_path: Path) -> None:
    with worker(tmp_path, "nightly") as (process, root):
        with open_home(tmp_path, "nightly") as home:
            assert sorted(tmp_path.iterdir()) == sorted([home.root, root])
        assert (root / "rescue.pgrescue" / "data").exists()
        process.send_signal(signal.SIGTERM)
        assert process.communicate()[0] == "interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_drills_that_begin_at_the_same_moment_do_not_hinder_each_other(tmp_path: Path) -> None:
    """Each looks for remains while the others are just being made."""
    problems: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(25):
                with open_home(tmp_path, "nightly") as home:
                    assert home.root.is_dir()
        except BaseException as error:  # noqa: BLE001 - told by the test
            problems.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert list(tmp_path.iterdir()) == []


def test_who_looks_for_remains_does_not_hinder_a_drill_that_begins(tmp_path: Path) -> None:
    """It takes each lock for a moment, to find out whose directory that is."""
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            for root in tmp_path.iterdir():
                with suppress(OSError):
                    descriptor = os.open(root, os.O_RDONLY)
                    with suppress(BlockingIOError):
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    time.sleep(0.001)
                    os.close(descriptor)

    looking = [threading.Thread(target=look) for _ in range(4)]
    for thread in looking:
        thread.start()
    try:
        for _ in range(200):
            with open_home(tmp_path, "nightly") as home:
                assert home.root.is_dir()
    finally:
        is_over.set()
        for thread in looking:
            thread.join()


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for base in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere"), Path("/proc")):
        with (
            pytest.raises(UsageError, match=f"the drill cannot work in {base}: ") as caught,
            open_home(base, "nightly"),
        ):
            raise AssertionError
        assert "--work-dir" in caught.value.hint


def test_nothing_is_left_where_a_directory_cannot_be_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RescueError("the disk is full")

    monkeypatch.setattr("pgrescue.drill.home.write_atomically", full)
    with pytest.raises(RescueError, match="the disk is full"), open_home(tmp_path, "nightly"):
        raise AssertionError
    assert list(tmp_path.iterdir()) == []


class Interrupting(Home):
    """A drill's directory that gets a signal while it is cleared away."""

    def clear_away(self) -> None:
        """Do so."""
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        super().clear_away()


def test_no_signal_breaks_off_the_clearing_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the drill had passed, it is the next one that must not begin."""
    monkeypatch.setattr("pgrescue.drill.home.Home", Interrupting)
    with pytest.raises(KeyboardInterrupt), open_home(tmp_path, "nightly"):
        pass
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), open_home(tmp_path, "nightly"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def a_damaged_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make drills whose server nobody can find."""

    class Damaged(Home):
        def __init__(self, root: Path) -> None:
            super().__init__(root)
            self.workspace.root.mkdir()
            self.workspace.ledger.write_text("{}")

    monkeypatch.setattr("pgrescue.drill.home.Home", Damaged)


@pytest.mark.usefixtures("a_damaged_ledger")
def test_an_interruption_is_not_lost_where_something_stays(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt) as caught, open_home(tmp_path, "nightly"):
        raise KeyboardInterrupt
    (left,) = tmp_path.iterdir()
    assert f"{left} could not be removed: " in caught.value.__notes__[0]


@pytest.mark.usefixtures("a_damaged_ledger")
def test_what_cannot_be_cleared_away_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RescueError, match="could not be removed") as caught, open_home(tmp_path, "nightly"):
        pass
    (left,) = tmp_path.iterdir()
    assert f"pgrescue rm --yes -w {left / 'rescue.pgrescue'}; rm -r {left}" in caught.value.hint
    assert not is_locked(left)
