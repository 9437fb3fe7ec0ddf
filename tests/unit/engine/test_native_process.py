"""Finding and ending processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pgrescue.engine import native_process as process
from pgrescue.engine.native_process import LockFile

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc")

GONE = 4_194_303  # the highest number a process can have on Linux (PID_MAX_LIMIT)


def lock(pgdata: Path, text: str) -> None:
    (pgdata / "postmaster.pid").write_text(text)


def test_a_lock_file_tells_process_and_port(tmp_path: Path) -> None:
    assert LockFile.read(tmp_path) is None
    lock(tmp_path, "12\n/data\n1700000000\n5433\n\n127.0.0.1\n 1 2\nready   \n")
    assert LockFile.read(tmp_path) == LockFile(12, 5433)
    lock(tmp_path, "-12\n/data\n1700000000\n")
    assert LockFile.read(tmp_path) == LockFile(-12, None)
    for broken in ("", "\n", "x\n", "12\n/data\n0\nport\n"):
        lock(tmp_path, broken)
        assert LockFile.read(tmp_path) is None


def test_a_process_of_another_name_or_place_is_no_server(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"], cwd=tmp_path) as sleeper:
        assert process.is_alive(sleeper.pid)
        assert not process.is_server(sleeper.pid, tmp_path)
        sleeper.kill()
    with named_postgres(tmp_path) as imitation:
        assert process.is_server(imitation.pid, tmp_path)
        assert not process.is_server(imitation.pid, tmp_path / "other")
        assert process.leftovers(tmp_path / "root", tmp_path) == (imitation.pid,)
        lock(tmp_path, f"{imitation.pid}\n")
        assert process.leftovers(tmp_path / "root", tmp_path) == ()
        imitation.kill()
    assert not process.is_server(-1, tmp_path)
    assert not process.is_server(GONE, tmp_path)


def named_postgres(cwd: Path) -> subprocess.Popen[bytes]:
    started = subprocess.Popen(
        ["sh", "-c", "echo -n postgres > /proc/$$/comm; echo; read x"],
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert started.stdout is not None
    started.stdout.readline()
    return started


def test_a_zombie_is_dead_and_is_left_to_who_waits_for_it() -> None:
    child = subprocess.Popen(["sh", "-c", "exit 7"])
    deadline = time.monotonic() + 10
    while process.is_alive(child.pid):
        assert time.monotonic() < deadline
    assert child.wait() == 7


def test_an_adopted_child_is_reaped() -> None:
    child = subprocess.Popen(["sleep", "0.05"])
    process.adopt(child.pid)
    child.returncode = 0
    assert process.is_alive(child.pid)
    assert process.end(child.pid, by=signal.SIGCONT, timeout_s=10)
    assert not Path(f"/proc/{child.pid}").exists()
    assert not process.is_alive(child.pid)


def test_what_does_not_listen_is_ended_by_force() -> None:
    stubborn = subprocess.Popen(["sh", "-c", "trap '' TERM; echo; while :; do sleep 0.1; done"], stdout=subprocess.PIPE)
    with stubborn:
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
        assert not process.end(stubborn.pid, by=signal.SIGTERM, timeout_s=0.3)
        process.end_by_force(stubborn.pid, first=signal.SIGTERM, patience_s=0.3)
        assert stubborn.wait() == -signal.SIGKILL
    process.end_by_force(first=signal.SIGTERM, patience_s=0.1)


def test_a_one_shot_is_left_over_when_its_starter_is_gone(tmp_path: Path) -> None:
    starter = "import subprocess, sys\nprint(subprocess.Popen(['sleep', '60'], stdout=2).pid, flush=True)\ninput()\n"
    program = [sys.executable, "-c", starter]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          env={**os.environ, **process.mark(tmp_path)}) as child:  # fmt: skip
        assert child.stdout is not None
        pid = int(child.stdout.readline())
        assert process.leftovers(tmp_path, tmp_path / "pgdata") == ()  # this process started it, and lives
        child.kill()
    assert process.leftovers(tmp_path, tmp_path / "pgdata") == (pid,)  # its line of parents is broken
    assert process.leftovers(tmp_path / "other", tmp_path / "pgdata") == ()
    process.end_by_force(pid, first=signal.SIGTERM, patience_s=5)
    assert process.leftovers(tmp_path, tmp_path / "pgdata") == ()


def test_this_process_is_in_no_container_of_its_own() -> None:
    assert not process.is_contained(os.getpid())
    assert not process.is_contained(GONE)


def test_a_directory_without_a_crash_has_no_segments(tmp_path: Path) -> None:
    assert process.dead_segments(tmp_path) == ()
    assert process.dead_segments(tmp_path / "nothing") == ()
