"""The restore_command as PostgreSQL runs it, a shell script, against the thread that answers it."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from pgrescue.errors import DiskSpaceError
from pgrescue.run import Run, WalPlan
from pgrescue.snapshot.wal_archive import read_archive
from pgrescue.steps import wal_service
from pgrescue.steps.wal_service import COMMAND, WalService
from tests.unit.builders import RUNNING, control, data_directory, make_run, snapshot
from tests.unit.snapshot.segments import MIB, SYSTEM, segment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pgrescue.snapshot.wal import SegmentName

HISTORY = "1\t0/A00028\tno recovery target specified\n"


def name(number: int) -> str:
    return f"{1:08X}{0:08X}{number:08X}"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Return an archive of three segments and a history file."""
    directory = tmp_path / "archive"
    directory.mkdir()
    for number in (5, 6, 7):
        (directory / name(number)).write_bytes(segment(name(number)))
    (directory / "00000002.history").write_text(HISTORY)
    return directory


@pytest.fixture
def run(tmp_path: Path, archive: Path) -> Run:
    made = make_run(tmp_path, of=snapshot(data_directory(control(RUNNING, system_identifier=SYSTEM))))
    made.workspace.server.mkdir(exist_ok=True)
    (made.workspace.pgdata / "pg_wal").mkdir()
    return dataclasses.replace(made, wal=WalPlan(read_archive(archive)))


def again(run: Run, archive: Path) -> Run:
    """Return the run with what the archive holds now."""
    return dataclasses.replace(run, wal=WalPlan(read_archive(archive)))


def restore(run: Run, file: str, to: str = "pg_wal/RECOVERYXLOG") -> int:
    """Ask for a file as the server does (RestoreArchivedFile, xlogarchive.c), and return the command's status."""
    command = COMMAND.replace("%f", file).replace("%p", to)
    return subprocess.run(["/bin/sh", "-c", command], cwd=run.workspace.pgdata, check=False, timeout=20).returncode


def restored(run: Run) -> bytes:
    return (run.workspace.pgdata / "pg_wal/RECOVERYXLOG").read_bytes()


def nothing(_: SegmentName) -> None:
    """Hear nothing."""


def test_files_are_served_and_what_is_not_there_is_not(run: Run) -> None:
    heard: list[str] = []
    with WalService(run, on_request=lambda asked: heard.append(str(asked))) as service:
        assert restore(run, "00000002.history", "pg_wal/RECOVERYHISTORY") == 0
        assert restore(run, name(5)) == 0
        assert restored(run) == segment(name(5))
        assert restore(run, name(6)) == 0
        assert restored(run) == segment(name(6))
        assert restore(run, name(9)) == 1
        assert restore(run, "00000003.history") == 1
    assert (run.workspace.pgdata / "pg_wal/RECOVERYHISTORY").read_text() == HISTORY
    assert heard == [name(5), name(6), name(9)]
    assert service.served.segments == {name(5), name(6)}
    assert service.served.last == name(6)
    assert service.served.unusable == {}


def test_the_server_gets_a_file_of_its_own_that_nobody_else_reads(run: Run) -> None:
    with WalService(run, on_request=nothing):
        assert restore(run, name(5)) == 0
    assert (run.workspace.pgdata / "pg_wal/RECOVERYXLOG").stat().st_mode & 0o777 == 0o600


def test_a_file_may_be_asked_for_again(run: Run) -> None:
    """As the server does for the last one, at the end of the recovery."""
    with WalService(run, on_request=nothing) as service:
        assert [restore(run, name(number)) for number in (6, 7, 7, 6)] == [0, 0, 0, 0]
        assert restored(run) == segment(name(6))
    assert service.served.last == name(6)


def test_the_next_files_are_made_ready_before_they_are_asked_for(run: Run, archive: Path) -> None:
    ahead = run.workspace.wal / "ahead"
    with WalService(run, on_request=nothing) as service:
        assert restore(run, name(5)) == 0
        wait_until(lambda: {path.name for path in ahead.iterdir()} == {name(6), name(7)})
        shutil.rmtree(archive)
        assert restore(run, name(6)) == 0
        assert restored(run) == segment(name(6))
    assert service.served.segments == {name(5), name(6)}


def test_what_was_made_ready_and_is_not_wanted_goes(run: Run, archive: Path) -> None:
    (archive / name(40)).write_bytes(segment(name(40)))
    with WalService(again(run, archive), on_request=nothing):
        assert restore(run, name(5)) == 0
        assert restore(run, name(40)) == 0
        wait_until(lambda: not list((run.workspace.wal / "ahead").iterdir()))


def test_nothing_is_left_behind(run: Run) -> None:
    with WalService(run, on_request=nothing):
        restore(run, name(5))
    assert not run.workspace.wal.exists()


def test_what_a_killed_run_left_behind_is_not_taken_for_an_answer(run: Run) -> None:
    (run.workspace.wal / "ahead").mkdir(parents=True)
    (run.workspace.wal / "ahead" / name(5)).write_bytes(b"a part")
    with WalService(run, on_request=nothing):
        assert restore(run, name(5)) == 0
        assert restored(run) == segment(name(5))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"damaged", "neither WAL nor a compression"),
        (bytes(MIB), "no WAL page header"),
        (segment(name(5)), "recycled"),
        (segment(name(6)) + b"\0", "bytes"),
    ],
)
def test_a_file_that_is_no_such_wal_is_not_served_and_named(run: Run, archive: Path, data: bytes, words: str) -> None:
    (archive / name(6)).write_bytes(data)
    with WalService(again(run, archive), on_request=nothing) as service:
        assert restore(run, name(6)) == 1
    assert words in service.served.unusable[name(6)]
    assert service.served.segments == set()


def test_another_clusters_wal_is_not_served(run: Run, archive: Path) -> None:
    data = bytearray(segment(name(6)))
    data[24] ^= 1
    (archive / name(6)).write_bytes(data)
    with WalService(run, on_request=nothing) as service:
        assert restore(run, name(6)) == 1
    assert "another cluster" in service.served.unusable[name(6)]


def test_a_file_that_is_cut_short_is_served_as_far_as_it_goes(run: Run, archive: Path) -> None:
    (archive / name(6)).write_bytes(segment(name(6))[: MIB // 2])
    with WalService(again(run, archive), on_request=nothing) as service:
        assert restore(run, name(6)) == 0
    assert restored(run) == segment(name(6))[: MIB // 2] + bytes(MIB // 2)
    assert str(MIB // 2) in service.served.unusable[name(6)]


def test_a_partial_file_stands_in_for_a_whole_one(run: Run, archive: Path) -> None:
    (archive / f"{name(8)}.partial").write_bytes(segment(name(8), pages=3)[: 3 * 8192])
    (archive / f"{name(5)}.partial").write_bytes(b"not looked at")
    with WalService(again(run, archive), on_request=nothing) as service:
        assert restore(run, name(5)) == 0
        assert restore(run, name(8)) == 0
    assert restored(run) == segment(name(8), pages=3)
    assert service.served.partial == {name(8)}
    assert service.served.unusable == {}


def test_without_an_archive_there_is_nothing(run: Run) -> None:
    with WalService(dataclasses.replace(run, wal=WalPlan()), on_request=nothing):
        assert restore(run, name(5)) == 1


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DiskSpaceError),
        (OSError(errno.EIO, "Input/output error"), OSError),
        (RuntimeError("a bug"), RuntimeError),
    ],
)
def test_an_error_of_pgrescues_own_stops_the_server_and_is_raised(
    run: Run, monkeypatch: pytest.MonkeyPatch, raised: BaseException, seen: type[BaseException]
) -> None:
    """It must not be taken for the end of the WAL, and must not let the server wait for ever."""
    opened = os.open

    def fails(path: Any, flags: int, *others: Any, **options: Any) -> int:
        if flags & os.O_CREAT:
            raise raised
        return opened(path, flags, *others, **options)

    with pytest.raises(seen), WalService(run, on_request=nothing):  # noqa: PT012 - the block's end raises it
        monkeypatch.setattr(os, "open", fails)
        status = restore(run, name(5))
        monkeypatch.undo()
        assert status == 255
        assert restore(run, name(5)) == 255


def test_where_pgrescue_is_gone_the_server_stops(run: Run) -> None:
    with WalService(run, on_request=nothing):
        pass
    assert restore(run, name(5)) == 255
    run.workspace.wal.mkdir()
    assert restore(run, name(5)) == 255


def test_a_server_that_waits_learns_that_pgrescue_is_gone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal_service.WalService, "_answer", lambda *_: time.sleep(0.01))
    with WalService(run, on_request=nothing):
        command = COMMAND.replace("%f", name(5)).replace("%p", "pg_wal/RECOVERYXLOG")
        waiting = subprocess.Popen(["/bin/sh", "-c", command], cwd=run.workspace.pgdata)
        wait_until(lambda: any(path.suffix == ".wanted" for path in run.workspace.wal.iterdir()))
        (run.workspace.wal / "open").unlink()
        assert waiting.wait(20) == 255


def test_a_file_that_cannot_be_put_in_its_place_stops_the_server(run: Run) -> None:
    with WalService(run, on_request=nothing):
        assert restore(run, name(5), "no/such/directory/RECOVERYXLOG") == 255


def test_the_script_is_for_every_shell(run: Run) -> None:
    """The image may have dash or busybox."""
    with WalService(run, on_request=nothing):
        script = run.workspace.server / "restore.sh"
        for shell in filter(shutil.which, ("dash", "bash", "busybox")):
            words = [shell, *(["sh"] if shell == "busybox" else []), str(script), name(5), "pg_wal/RECOVERYXLOG"]
            done = subprocess.run(
                words, cwd=run.workspace.pgdata, check=False, timeout=20, env={"PATH": os.environ["PATH"]}
            )
            assert done.returncode == 0


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.005)
