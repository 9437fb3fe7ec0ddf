"""What earlier runs of a drill came to: one line of JSON for each, in a file that is only ever appended to.

Every line names its own schema. A line that this version does not know, be it newer, foreign or torn, is stepped over
and left as it is, so that versions can take turns on one file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import stat
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pgrescue.drilled import DrillOutcome, PastRun
from pgrescue.errors import RescueError
from pgrescue.files import sync_directory
from pgrescue.model import Verdict
from pgrescue.retry import until_returns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCHEMA: Final = 1
_MOST_RUNS: Final = 100
_LOCK_PATIENCE_S: Final = 10
# No link is followed, as who can place one could have another file appended to; nor does a named pipe hold up a drill.
_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class History:
    """The history in a file, which need not exist yet. Several processes may use it at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unreadable = 0

    @property
    def unreadable(self) -> int:
        """How many lines the last reading stepped over."""
        return self._unreadable

    def past(self, name: str) -> tuple[PastRun, ...]:
        """Return the newest 100 runs of the drill with this name, oldest first; none where there is no file.

        Raises RescueError where the file cannot be read.
        """
        self._unreadable = 0
        runs = []
        try:
            with (
                _opened(self._path, os.O_RDONLY, fcntl.LOCK_SH) as descriptor,
                os.fdopen(descriptor, "rb", closefd=False) as file,
            ):
                for line in file:
                    run = _run(line)
                    if run is None:
                        self._unreadable += bool(line.strip())
                    elif run.name == name:
                        runs.append(run)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise self._problem("read", error) from error
        return tuple(sorted(runs, key=lambda run: run.time)[-_MOST_RUNS:])

    def append(self, run: PastRun) -> None:
        """Add a run durably, whole or not at all; directories on the way to the file are made.

        Raises RescueError where that is not possible.
        """
        line = json.dumps(_document(run), allow_nan=False).encode() + b"\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with _opened(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, fcntl.LOCK_EX) as descriptor:
                _append(descriptor, line)
            sync_directory(self._path.parent)
        except OSError as error:
            raise self._problem("written", error) from error

    def _problem(self, done: str, error: OSError) -> RescueError:
        match error.errno:
            case errno.ELOOP:
                reason = "it is a symbolic link, which is not followed"
            case errno.EISDIR | errno.EINVAL | errno.ENXIO:
                reason = "it is not a regular file"
            case errno.EEXIST | errno.ENOTDIR:
                reason = "something on the way to it is no directory"
            case errno.EWOULDBLOCK:
                reason = f"another process has held its lock for {_LOCK_PATIENCE_S} s"
            case _:
                reason = error.strerror or str(error)
        return RescueError(
            f"the drill's history {self._path} cannot be {done}: {reason}",
            hint="Name a file that can be written with --history. Without one, nothing is compared with earlier runs.",
        )


@contextlib.contextmanager
def _opened(path: Path, flags: int, lock: int) -> Iterator[int]:
    """Give the descriptor of a regular file, locked among processes; raise OSError."""
    # It holds no secret: whoever draws a chart of it may be another user.
    descriptor = os.open(path, flags | _FLAGS, 0o644)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        until_returns(
            partial(fcntl.flock, descriptor, lock | fcntl.LOCK_NB),
            on=BlockingIOError,
            timeout_s=_LOCK_PATIENCE_S,
            longest_pause_s=0.1,
        )
        yield descriptor
    finally:
        os.close(descriptor)


def _append(descriptor: int, line: bytes) -> None:
    """Write at the end, on a line of its own: a kill may have torn the last one. The caller holds the lock."""
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        line = b"\n" + line
    try:
        while line:
            line = line[os.write(descriptor, line) :]
        os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, size)
        raise


def _document(run: PastRun) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "name": run.name,
        "time": run.time.astimezone(UTC).isoformat(),
        "outcome": run.outcome.value,
        "verdict": None if run.verdict is None else run.verdict.value,
        "recovery_seconds": run.recovery_seconds,
        "seconds": run.seconds,
        "size_bytes": run.size_bytes,
        "newest_commit_age_seconds": run.newest_commit_age_seconds,
        "rows": dict(run.rows),
    }


def _run(line: bytes) -> PastRun | None:
    """Return the run of a line; None where it is not one that this version knows, whole and with sound values."""
    try:
        document = json.loads(line)
        # True is 1 for Python.
        if type(document["schema"]) is not int or document["schema"] != SCHEMA or not isinstance(document["name"], str):
            return None
        verdict = document["verdict"]
        return PastRun(
            name=document["name"],
            time=_time(document["time"]),
            outcome=DrillOutcome(document["outcome"]),
            verdict=None if verdict is None else Verdict(verdict),
            recovery_seconds=_optional(document["recovery_seconds"]),
            seconds=_number(document["seconds"]),
            size_bytes=None if document["size_bytes"] is None else _count(document["size_bytes"]),
            newest_commit_age_seconds=_optional(document["newest_commit_age_seconds"]),
            rows={name: _count(rows) for name, rows in document["rows"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _time(value: Any) -> datetime:  # noqa: ANN401 - whatever JSON holds
    time = datetime.fromisoformat(value)
    if time.tzinfo is None:
        msg = "a time without its zone"
        raise ValueError(msg)
    return time.astimezone(UTC)


def _optional(value: Any) -> float | None:  # noqa: ANN401 - whatever JSON holds
    return None if value is None else _number(value)


def _number(value: Any) -> float:  # noqa: ANN401 - whatever JSON holds
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        msg = "not a number"
        raise ValueError(msg)
    return float(value)


def _count(value: Any) -> int:  # noqa: ANN401 - whatever JSON holds
    if type(value) is not int or value < 0:
        msg = "not a count"
        raise ValueError(msg)
    return value
