"""The only place that runs programs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from pgrescue.errors import ToolError
from pgrescue.signals import shielded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pgrescue.model import Owner

_WITHIN = 199  # far above what a command holds open, below every usual limit
_PATIENCE_S = 2.0
_PAUSE_S = 0.01
_within_free = threading.Lock()

# How a program names the directory that was given as `within`. The kernel follows this link without looking at the
# permissions of what lies above the directory (proc(5), /proc/pid/fd); the number is the same for every program.
WITHIN = Path(f"/proc/self/fd/{_WITHIN}")


@dataclass(frozen=True)
class Completed:
    """A program that ended: its arguments, its exit status (negative: the signal) and what it printed."""

    args: tuple[str, ...]
    status: int
    stdout: str
    stderr: str

    def check(self, problem: str, *, hint: str = "") -> Completed:
        """Return itself, or raise ToolError with `problem` and the last lines that the program printed."""
        if self.status == 0:
            return self
        said = (self.stderr.strip() or self.stdout.strip() or "it printed nothing").splitlines()
        shown = "\n".join(f"  {line}" for line in said[-12:])
        raise ToolError(f"{problem}\n{Path(self.args[0]).name} ended with status {self.status}:\n{shown}", hint=hint)


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    """Return this process's environment without libpq's and the locale's settings, which change what tools say."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C", **(extra or {})}


class _Identity(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]
    umask: int


def _identity(owner: Owner | None) -> _Identity:
    """Return the arguments that make a child run as `owner`, with no supplementary group of the caller's."""
    if owner is None or (os.geteuid(), os.getegid()) == (owner.uid, owner.gid):
        return {}
    return {"user": owner.uid, "group": owner.gid, "extra_groups": [], "umask": 0o077}


@contextlib.contextmanager
def _reaching(within: Path | None) -> Iterator[tuple[int, ...]]:
    """Hold `within` open under the number of WITHIN while a program starts; yield the descriptors to hand over."""
    if within is None:
        yield ()
        return
    with _within_free:
        opened = os.open(within, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            placed = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, _WITHIN)
        finally:
            os.close(opened)
        try:
            if placed != _WITHIN:
                raise ToolError(f"the file descriptor {_WITHIN}, which a program needs to reach {within}, is in use")
            yield (placed,)
        finally:
            os.close(placed)


def run(
    args: Sequence[str],
    *,
    stdin: Path | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    owner: Owner | None = None,
    within: Path | None = None,
    timeout_s: float | None = None,
    on_stderr: Callable[[str], None] | None = None,
) -> Completed:
    """Run a program to its end, as `owner` where one is given, and return what it printed.

    `on_stderr` is told each line of stderr as it comes, without its end; it and `timeout_s` exclude each other.
    `cwd` is entered, and `within` is opened, before the identity changes: the program reaches `within` as WITHIN even
    where it may not pass the directories above (Linux only). A program that cannot be started, or that outlives
    `timeout_s` (it is killed), raises ToolError. On any exception, Ctrl-C included, it does not outlive the call.
    """
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(stdin.open("rb")) if stdin else subprocess.DEVNULL
        try:
            with _reaching(within) as kept:
                process = subprocess.Popen(
                    list(args),
                    stdin=source,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    cwd=cwd,
                    env=_environment(env),
                    pass_fds=kept,
                    **_identity(owner),
                )
        except OSError as error:
            raise ToolError(f"{args[0]} cannot be run: {error.strerror or error}") from error
        stack.enter_context(process)
        try:
            if on_stderr is None:
                stdout, stderr = process.communicate(timeout=timeout_s)
            else:
                stdout, stderr = _listen(process, on_stderr)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise ToolError(f"{Path(args[0]).name} did not end within {timeout_s:g} s and was stopped") from error
        except BaseException:
            process.kill()
            raise
    return Completed(tuple(args), process.returncode, stdout.decode(errors="replace"), stderr.decode(errors="replace"))


def _listen(process: subprocess.Popen[bytes], on_stderr: Callable[[str], None]) -> tuple[bytes, bytes]:
    """Read both outputs to their ends, telling of each line of stderr on the way."""
    assert process.stdout is not None  # noqa: S101 - both are pipes, for mypy
    assert process.stderr is not None  # noqa: S101 - as above
    printed: list[bytes] = []
    with contextlib.closing(process.stdout) as stdout:
        reader = threading.Thread(target=lambda: printed.append(stdout.read()), daemon=True)
        reader.start()
        said = bytearray()
        try:
            for line in process.stderr:
                said += line
                on_stderr(line.decode(errors="replace").rstrip("\n"))
        except BaseException:
            process.kill()  # else the reader, which holds stdout, would wait for the program's own end
            raise
        reader.join()
    process.wait()
    return b"".join(printed), bytes(said)


def spawn(
    args: Sequence[str],
    *,
    log: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    owner: Owner | None = None,
    within: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program that outlives this process: in a session of its own, both outputs appended to `log`.

    `cwd`, `owner` and `within` mean what they mean for `run`.
    """
    with log.open("ab") as output:
        try:
            with _reaching(within) as kept:
                return subprocess.Popen(
                    list(args),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    env=_environment(env),
                    start_new_session=True,
                    pass_fds=kept,
                    **_identity(owner),
                )
        except OSError as error:
            raise ToolError(f"{args[0]} cannot be run: {error.strerror or error}") from error


def attend(
    args: Sequence[str], *, env: Mapping[str, str], cwd: Path | None = None, timeout_s: float | None = None
) -> int | None:
    """Run a program of the user's with this process's environment and `env`, and return its exit status.

    None stands for one that outlived `timeout_s`. What it prints goes to stderr as it comes. It has no stdin, and
    neither it nor what it started outlives the call, Ctrl-C included.
    """
    with contextlib.ExitStack() as stack:
        with shielded():  # else Ctrl-C in this moment would leave a program that nobody knows of
            try:
                process = subprocess.Popen(
                    list(args),
                    stdin=subprocess.DEVNULL,
                    stdout=sys.stderr.fileno(),
                    cwd=cwd,
                    env={**os.environ, **env},
                    process_group=0,  # to be ended as a whole: a shell does not take its children with it
                )
            except OSError as error:
                raise ToolError(f"{args[0]} cannot be run: {error.strerror or error}") from error
            stack.enter_context(process)
            stack.callback(_end_group, process)
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End all that is left of a process group, by force after a moment; a second Ctrl-C is that, too."""
    try:
        _signal_group(process, signal.SIGTERM)
    finally:
        _signal_group(process, signal.SIGKILL)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a process group, and wait a moment for its end."""
    end = time.monotonic() + _PATIENCE_S
    # macOS says that it is not permitted where only dead processes are left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
        while time.monotonic() < end:
            process.poll()  # a dead leader counts as long as nobody asks for it
            os.killpg(process.pid, 0)
            time.sleep(_PAUSE_S)


def replace_process(args: Sequence[str], *, env: Mapping[str, str]) -> None:
    """Become the program `args`, keeping terminal and signals: for interactive clients such as psql."""
    try:
        os.execvpe(args[0], list(args), {**os.environ, **env})  # noqa: S606 - an argument list, no shell
    except OSError as error:
        raise ToolError(f"{args[0]} cannot be run: {error.strerror or error}") from error
