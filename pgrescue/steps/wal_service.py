"""WAL files for a recovering server, handed over one by one: pgrescue's own restore_command.

The server, in a container or not, and pgrescue share nothing but the workspace. So the command is a small shell script
that leaves a request in `wal/` and waits for the answer; a thread of pgrescue answers. No archive has to be copied or
mounted, whatever its layout and compression, and the disk needs room for a few segments only.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from pgrescue.errors import SnapshotError
from pgrescue.files import write_atomically
from pgrescue.snapshot.wal import SegmentName, SegmentState
from pgrescue.snapshot.wal_segment import check_segment
from pgrescue.steps.ownership import hand_over

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from pgrescue.run import Run

SCRIPT = "restore.sh"
COMMAND = f'sh ../server/{SCRIPT} "%f" "%p"'
"""The restore_command: PostgreSQL runs it in the data directory, so that it needs no path of host or container."""

_LOOK_EVERY_S = 0.005
_AHEAD = 2  # segments made ready before the server asks: unpacking one takes about as long as replaying one
_OPEN, _WANTED, _READY, _ABSENT = "open", ".wanted", ".ready", ".absent"

_TEXT = f"""\
#!/bin/sh
# Written by pgrescue: the restore_command while it recovers the copy. It asks pgrescue for the WAL file $1 and moves it
# to $2. Status 1: the archive does not have it. 255: pgrescue is gone or failed, which PostgreSQL must not take for the
# end of the WAL; above 125 it stops instead (archive_module and recovery: "restore_command" in the manual).
# Not with `:`, a special builtin: POSIX shells end with a status of their own where its redirection fails.
ask="../wal/$1.$$"
true >"$ask{_WANTED}" || exit 255
while :; do
    if [ -e "$ask{_READY}" ]; then mv -f "$ask{_READY}" "$2" && exit 0; exit 255; fi
    if [ -e "$ask{_ABSENT}" ]; then rm -f "$ask{_ABSENT}"; exit 1; fi
    if [ ! -e ../wal/{_OPEN} ]; then exit 255; fi
    sleep 0.01 2>/dev/null || sleep 1
done
"""


@dataclass
class Served:
    """What the server was given: how many segments, the last one, and files of the archive that could not be used."""

    segments: set[str] = field(default_factory=set)
    last: str | None = None
    partial: set[str] = field(default_factory=set)
    unusable: dict[str, str] = field(default_factory=dict)


class WalService:
    """Answers the server's requests for WAL files for the length of a block.

    `on_request` hears the name of every segment that the server asks for, in the order of the replay. An error of
    pgrescue's own (a full disk) makes the recovery stop, and is raised when the block is left.
    """

    def __init__(self, run: Run, *, on_request: Callable[[SegmentName], None]) -> None:
        self._run = run
        self._archive = run.wal.archive
        self._on_request = on_request
        self._directory = run.workspace.wal
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="wal-service", daemon=True)
        self._error: BaseException | None = None
        self._control = run.snapshot.chosen.control
        self.served = Served()

    def __enter__(self) -> Self:
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(mode=0o700)
        (self._directory / "ahead").mkdir(mode=0o700)
        script = self._run.workspace.server / SCRIPT
        write_atomically(script, _TEXT)
        (self._directory / _OPEN).touch()
        hand_over(self._run.engine, self._directory, script)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        (self._directory / _OPEN).unlink(missing_ok=True)
        self._over.set()
        self._thread.join()
        shutil.rmtree(self._directory, ignore_errors=True)
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        """Answer requests until the end; let the server stop, not wait for ever, where pgrescue itself fails."""
        try:
            while not self._over.is_set():
                wanted = [name for name in os.listdir(self._directory) if name.endswith(_WANTED)]  # noqa: PTH208 - fast
                for name in sorted(wanted):
                    self._answer(name.removesuffix(_WANTED))
                if not wanted:
                    time.sleep(_LOOK_EVERY_S)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that leaves the block
            self._error = error
            (self._directory / _OPEN).unlink(missing_ok=True)

    def _answer(self, ask: str) -> None:
        name = ask.rpartition(".")[0]
        (self._directory / f"{ask}{_WANTED}").unlink()
        segment = SegmentName.find(name)
        if segment is not None:
            self._on_request(segment)
        ahead = self._directory / "ahead" / name
        if not (ahead.exists() or self._fetch(name, ahead)):
            (self._directory / f"{ask}{_ABSENT}").touch()
            return
        ahead.rename(self._directory / f"{ask}{_READY}")
        if segment is not None:
            self.served.segments.add(name)
            self.served.last = name
            self._prepare(segment)

    def _prepare(self, segment: SegmentName) -> None:
        """Make the next segments ready, and drop those that nobody asked for."""
        following = segment
        keep = set()
        for _ in range(_AHEAD):
            following = following.next(self._control.wal_segment_size)
            keep.add(str(following))
            path = self._directory / "ahead" / str(following)
            if not path.exists() and not self._is_asked():
                self._fetch(str(following), path)
        for path in (self._directory / "ahead").iterdir():
            if path.name not in keep:
                path.unlink()

    def _is_asked(self) -> bool:
        return any(name.endswith(_WANTED) for name in os.listdir(self._directory))  # noqa: PTH208 - fast

    def _fetch(self, name: str, to: Path) -> bool:
        """Write a plain file for the server; tell whether the archive has one that can be used."""
        if self._archive is None:
            return False
        segment = SegmentName.find(name)
        found = self._archive.find(name)
        if found is None and segment is not None:
            # The end of a timeline, or of what pg_receivewal had got, is archived under this name.
            found = self._archive.find(f"{name}.partial")
            if found is not None:
                self.served.partial.add(name)
        if found is None:
            return False
        size = self._control.wal_segment_size
        try:
            data = found.read(limit_bytes=size)
            if segment is not None:
                if len(data) < size and found.name == name:
                    self.served.unusable[name] = f"{name} has {len(data)} of {size} bytes, which were used"
                data = data.ljust(size, b"\0")
                self._judge(segment, data)
        except SnapshotError as error:
            self.served.unusable[name] = error.problem
            return False
        write_atomically(to, data, durable=False)
        hand_over(self._run.engine, to)
        return True

    def _judge(self, segment: SegmentName, data: bytes) -> None:
        """Raise SnapshotError for a segment of another cluster or place; its last pages the server judges itself."""
        report = check_segment(
            segment,
            data,
            system_identifier=self._control.system_identifier,
            major=self._control.major,
            segment_size=self._control.wal_segment_size,
        )
        if report.state is not SegmentState.VALID:
            raise SnapshotError(f"{segment} {report.problem}")
