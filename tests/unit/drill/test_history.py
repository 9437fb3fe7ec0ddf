"""The history of a drill."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import resource
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from pgrescue.drill.history import History
from pgrescue.drilled import DrillOutcome, PastRun
from pgrescue.errors import RescueError
from pgrescue.model import Verdict
from tests.unit.builders import let_others_pass

if TYPE_CHECKING:
    from pathlib import Path

BEGIN = datetime(2026, 11, 1, 3, 0, tzinfo=UTC)


def _run(day: int = 0, name: str = "nightly") -> PastRun:
    return PastRun(
        name=name,
        time=BEGIN + timedelta(days=day),
        outcome=DrillOutcome.PASSED,
        verdict=Verdict.CONSISTENT,
        recovery_seconds=50.25 + day,
        seconds=80.5,
        size_bytes=1 << 40,
        newest_commit_age_seconds=-0.5,
        rows={'app public."Order\ud800s"': 1_000, "app public.ü": 0},
    )


def test_a_run_comes_back_as_it_was(tmp_path: Path) -> None:
    history = History(tmp_path / "new" / "directory" / "drill.history.jsonl")
    broken_off = PastRun("nightly", BEGIN + timedelta(days=1), DrillOutcome.UNVERIFIED)
    history.append(_run())
    history.append(broken_off)
    assert history.past("nightly") == (_run(), broken_off)
    assert history.unreadable == 0


def test_a_line_is_what_is_promised(tmp_path: Path) -> None:
    history = History(tmp_path / "h")
    elsewhere = _run().time.astimezone(timezone(timedelta(hours=2)))
    history.append(PastRun("nightly", elsewhere, DrillOutcome.FAILED, rows={"app t": 7}))
    (line,) = (tmp_path / "h").read_text().splitlines()
    assert json.loads(line) == {
        "schema": 1,
        "name": "nightly",
        "time": "2026-11-01T03:00:00+00:00",
        "outcome": "failed",
        "verdict": None,
        "recovery_seconds": None,
        "seconds": 0.0,
        "size_bytes": None,
        "newest_commit_age_seconds": None,
        "rows": {"app t": 7},
    }


def test_without_a_file_there_is_no_past(tmp_path: Path) -> None:
    assert History(tmp_path / "h").past("nightly") == ()
    assert History(tmp_path / "missing" / "h").past("nightly") == ()


def test_it_gives_the_newest_hundred_of_one_drill_oldest_first(tmp_path: Path) -> None:
    history = History(tmp_path / "h")
    for day in (*range(60, 120), *range(60)):
        history.append(_run(day))
        history.append(_run(day, name="weekly"))
    assert [run.time for run in history.past("nightly")] == [_run(day).time for day in range(20, 120)]
    assert history.past("no such") == ()


GOOD = json.loads(
    '{"schema":1,"name":"nightly","time":"2026-11-01T03:00:00+00:00","outcome":"passed","verdict":null,'
    '"recovery_seconds":null,"seconds":1,"size_bytes":null,"newest_commit_age_seconds":null,"rows":{}}'
)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"schema": True},
        {"schema": "1"},
        {"name": 7},
        {"time": "2026-11-01T03:00:00"},
        {"time": "yesterday"},
        {"time": 5},
        {"time": "0001-01-01T00:00:00+14:00"},
        {"outcome": "splendid"},
        {"verdict": "splendid"},
        {"recovery_seconds": "7"},
        {"recovery_seconds": float("nan")},
        {"recovery_seconds": float("inf")},
        {"recovery_seconds": 10**400},
        {"seconds": None},
        {"seconds": True},
        {"size_bytes": 1.5},
        {"size_bytes": -1},
        {"rows": {"t": "many"}},
        {"rows": []},
        {"rows": None},
    ],
    ids=str,
)
def test_lines_that_are_not_understood_are_stepped_over_and_kept(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "h"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps({**GOOD, **change}) + "\n")
    history = History(path)
    history.append(_run(1))
    assert len(history.past("nightly")) == 2
    assert history.unreadable == 1
    assert path.read_text().startswith(json.dumps(GOOD) + "\n" + json.dumps({**GOOD, **change}) + "\n")


@pytest.mark.parametrize(
    "line", [b"{}", b"null", b"[1]", b"\0\0\0\0", b"\xff\xfe", b'{"schema":1', b"[" * 100_000, b"9" * 5_000]
)
def test_foreign_lines_are_counted(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "h"
    path.write_bytes(line + b"\n\n" + json.dumps(GOOD).encode() + b"\n" + line)
    history = History(path)
    assert len(history.past("nightly")) == 1
    assert history.unreadable == 2
    history.past("another")
    assert history.unreadable == 2


def test_after_a_torn_line_it_goes_on_with_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "h"
    history = History(path)
    history.append(_run(0))
    whole = path.read_bytes()
    for length in range(1, len(whole)):
        path.write_bytes(whole + whole[:length])
        history.append(_run(1))
        # What lacks nothing but the newline is whole.
        assert len(history.past("nightly")) == (3 if length == len(whole) - 1 else 2)
        assert history.unreadable == (0 if length == len(whole) - 1 else 1)


def _append_many(path: Path, name: str) -> None:
    history = History(path)
    for day in range(50):
        history.append(_run(day, name))


def test_processes_can_append_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "h"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_append_many, args=(path, f"drill {number}")) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    history = History(path)
    assert [len(history.past(f"drill {number}")) for number in range(4)] == [50] * 4
    assert history.unreadable == 0


def test_a_full_disk_leaves_the_lines_before_it(tmp_path: Path) -> None:
    path = tmp_path / "h"
    history = History(path)
    history.append(_run())
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The system writes up to the limit, then refuses with EFBIG, as a disk does with ENOSPC.
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, hard))
    try:
        with pytest.raises(RescueError, match="cannot be written: File too large"):
            history.append(_run(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["symbolic link", "dangling link", "directory", "pipe"])
def test_what_is_no_regular_file_is_refused(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "h", tmp_path / "other"
    match kind:
        case "symbolic link":
            other.write_text("mine\n")
            path.symlink_to(other)
        case "dangling link":
            path.symlink_to(other)
        case "directory":
            path.mkdir()
        case _:
            os.mkfifo(path)
    reason = "it is a symbolic link" if "link" in kind else "it is not a regular file"
    with pytest.raises(RescueError, match=f"cannot be written: {reason}") as caught:
        History(path).append(_run())
    assert "--history" in caught.value.hint
    with pytest.raises(RescueError, match=f"cannot be read: {reason}"):
        History(path).past("nightly")
    assert not other.exists() or other.read_text() == "mine\n"


def test_a_file_on_the_way_is_named_as_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "h", tmp_path / "file" / "deeper" / "h"):
        with pytest.raises(RescueError, match="something on the way to it is no directory"):
            History(path).append(_run())
        with pytest.raises(RescueError, match="something on the way to it is no directory"):
            History(path).past("nightly")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_history_that_may_not_be_written_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "h"
    History(path).append(_run())
    path.chmod(0o444)
    let_others_pass(tmp_path)
    os.seteuid(65534)
    try:
        assert History(path).past("nightly") == (_run(),)
        with pytest.raises(RescueError, match="cannot be written: Permission denied"):
            History(path).append(_run(1))
    finally:
        os.seteuid(0)


def test_a_lock_that_is_never_given_back_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgrescue.drill.history._LOCK_PATIENCE_S", 0.2)
    path = tmp_path / "h"
    History(path).append(_run())
    with path.open() as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(RescueError, match="another process has held its lock"):
            History(path).append(_run(1))
    History(path).append(_run(1))
    assert len(History(path).past("nightly")) == 2
