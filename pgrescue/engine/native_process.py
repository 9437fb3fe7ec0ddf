"""Looking at processes, and ending them: what `kill -9` leaves of a rescue is found again by looking."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgrescue import command
from pgrescue.errors import ServerError
from pgrescue.retry import until_returns

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC = Path("/proc")
_HAS_PROC = (_PROC / "self" / "cwd").is_symlink()
_SERVER_NAMES = frozenset({"postgres", "postmaster"})

# Every one-shot program carries this variable: the process that started it, and the workspace. A server does not: what
# it starts itself, such as a restore_command, would inherit it.
_MARK = "PGRESCUE_ONE_SHOT"

_adopted: set[int] = set()


class _StillThereError(Exception):
    """A process that was told to end has not ended yet."""


@dataclass(frozen=True)
class LockFile:
    """What postmaster.pid says; `pid` is negative for a single-user backend (miscinit.c, CreateLockFile)."""

    pid: int
    port: int | None

    @classmethod
    def read(cls, pgdata: Path) -> LockFile | None:
        """Return what the lock file in `pgdata` says, None where there is none that can be understood."""
        try:
            lines = (pgdata / "postmaster.pid").read_text(errors="replace").splitlines()
            return cls(int(lines[0]), int(lines[3]) if len(lines) > 3 else None)  # noqa: PLR2004 - pidfile.h: line 4
        except (OSError, ValueError, IndexError):
            return None


def mark(root: Path) -> dict[str, str]:
    """Return the environment that marks a one-shot program of the workspace `root`, started by this process."""
    return {_MARK: f"{os.getpid()}:{root}"}


def adopt(pid: int) -> None:
    """Take a child of this process that nobody waits for: is_alive reaps it when it has ended."""
    _adopted.add(pid)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not.

    Only adopted children are reaped: the exit status of others belongs to who waits for them.
    """
    if pid in _adopted:
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                return True
        _adopted.discard(pid)
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _state(pid) != "Z"


def is_server(pid: int, pgdata: Path) -> bool:
    """Tell whether a process is a living `postgres` at work in `pgdata`; a recycled number is not."""
    if pid <= 0 or not is_alive(pid):
        return False
    if _HAS_PROC:
        return _name(pid) in _SERVER_NAMES and _works_in(pid, pgdata)
    ps = shutil.which("ps")
    if ps is None:
        return False
    said = command.run([ps, "-p", str(pid), "-o", "comm="], timeout_s=30)
    return Path(said.stdout.strip()).name in _SERVER_NAMES


def leftovers(root: Path, pgdata: Path) -> tuple[int, ...]:
    """Return the one-shot programs whose pgrescue is gone, and what is left of a server that lost its postmaster."""
    postmaster = LockFile.read(pgdata)
    serves = postmaster is not None and is_server(postmaster.pid, pgdata)

    def is_left(pid: int) -> bool:
        starter = _starter(pid, root)
        if starter is None:
            return not serves and is_server(pid, pgdata)
        return starter not in _ancestors(pid) and is_alive(pid)

    return tuple(pid for pid in _pids() if is_left(pid))


def is_contained(pid: int) -> bool:
    """Tell whether a process runs in a container: its lock file's number then means nothing here."""
    try:
        return (_PROC / str(pid) / "ns" / "pid").readlink() != (_PROC / "self" / "ns" / "pid").readlink()
    except OSError:
        return False


def dead_segments(pgdata: Path) -> tuple[str, ...]:
    """Return the ids of the System V segments that a crashed server of `pgdata` left: 56 bytes, with nobody attached.

    The key is the inode number of the data directory, cut to 32 bits (sysv_shmem.c, PGSharedMemoryCreate).
    """
    try:
        directory = pgdata.stat()
        table = (_PROC / "sysvipc" / "shm").read_text().splitlines()
    except OSError:
        return ()
    columns = table[0].split()
    rows = [dict(zip(columns, line.split(), strict=False)) for line in table[1:]]
    return tuple(
        row["shmid"]
        for row in rows
        if int(row["key"]) & 0xFFFFFFFF == directory.st_ino & 0xFFFFFFFF
        and int(row["uid"]) == directory.st_uid
        and row["nattch"] == "0"
    )


def end(*pids: int, by: signal.Signals, timeout_s: float) -> bool:
    """Send a signal and wait until all processes are gone; tell whether they are, after `timeout_s` at most."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, by)

    def gone() -> None:
        if any(is_alive(pid) for pid in pids):
            raise _StillThereError

    try:
        until_returns(gone, on=_StillThereError, timeout_s=timeout_s, longest_pause_s=0.1)
    except _StillThereError:
        return False
    return True


def end_by_force(*pids: int, first: signal.Signals, patience_s: float) -> None:
    """End processes, by SIGKILL where `first` does not do it within `patience_s`.

    Raises ServerError where even that does not: a process that hangs in the kernel, on a dead disk for instance.
    """
    if pids and not end(*pids, by=first, timeout_s=patience_s) and not end(*pids, by=signal.SIGKILL, timeout_s=30):
        alive = ", ".join(str(pid) for pid in pids if is_alive(pid))
        raise ServerError(
            f"the processes {alive} do not end, not even by SIGKILL",
            hint="Look at them with `ps -o pid,stat,wchan,args`; state D means that the disk does not answer.",
        )


def _pids() -> Iterator[int]:
    if _HAS_PROC:
        yield from (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal())


def _starter(pid: int, root: Path) -> int | None:
    """Return who started a one-shot program of the workspace; None for any other process."""
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    for entry in environment:
        name, _, value = entry.partition(b"=")
        if name == _MARK.encode():
            starter, _, where = os.fsdecode(value).partition(":")
            return int(starter) if where == str(root) and starter.isdecimal() else None
    return None


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        fields = _stat(pid)
        if len(fields) < 2:  # noqa: PLR2004 - the state and the parent, proc(5)
            return
        pid = int(fields[1])
        yield pid


def _works_in(pid: int, pgdata: Path) -> bool:
    try:
        return os.path.samestat((_PROC / str(pid) / "cwd").stat(), pgdata.stat())
    except OSError:
        return False


def _name(pid: int) -> str:
    try:
        return (_PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""


def _state(pid: int) -> str:
    return next(iter(_stat(pid)), "")


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat after the name, which may itself hold spaces and parentheses."""
    try:
        return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
