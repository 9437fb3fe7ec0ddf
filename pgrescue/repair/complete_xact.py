"""Step: pg_xact can be read to its end, and knows the commits that rows know of."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

from pgrescue.files import write_atomically
from pgrescue.model import Finding, Severity
from pgrescue.pipeline import Observer, Unit
from pgrescue.snapshot.contents import CONTROL
from pgrescue.steps.control import read_control

if TYPE_CHECKING:
    from pathlib import Path

    from pgrescue.run import Run

_XACT = "pg_xact"
_DONE = "commits-completed.json"  # in removed/, which is emptied when the copy is made anew
_PAGES_PER_SEGMENT = 32  # SLRU_PAGES_PER_SEGMENT
_XIDS_PER_BYTE = 4
_COMMITTED = 0b01


class CompleteXact:
    """pg_xact may have been copied before the pages of the tables: then their newest commits are not in it.

    Its last file is filled up with zeros (no end known), since the reset made the server believe that all of it was
    used. Then every transaction that a row says has committed is recorded so: other rows of it become visible, and
    VACUUM FREEZE, which refuses to freeze what pg_xact does not call committed, works.
    """

    name = "complete-xact"
    title = "Complete the record of commits (pg_xact)"

    def holds(self, run: Run) -> bool:
        """Tell whether it was done on this copy, or nothing is to be repaired."""
        return not run.repairs or not run.computes_reset or (run.workspace.removed / _DONE).exists()

    def apply(self, run: Run, observer: Observer) -> None:
        """Keep the files in removed/, fill up the last one, and set the bits; the mark that it is done comes last."""
        from pgrescue.snapshot.hinted_commits import hinted_commits  # noqa: PLC0415 - numpy takes 0.2 s to import

        control = read_control(run.workspace.pgdata / CONTROL)
        directory = run.workspace.pgdata / _XACT
        size = _PAGES_PER_SEGMENT * control.block_size
        for file in sorted(directory.iterdir()) if directory.is_dir() else ():
            _keep(file, run.workspace.removed / _XACT / file.name)
            if file.stat().st_size < size:
                os.truncate(file, size)
        total_bytes = run.snapshot.chosen.size_bytes
        read_bytes = 0

        def advance(more: int) -> None:
            nonlocal read_bytes
            read_bytes += more
            observer.advanced(read_bytes, max(total_bytes, read_bytes), Unit.BYTES)

        xids = [int(xid) for xid in hinted_commits(run.workspace.pgdata, control, on_progress=advance)]
        recorded = sum(_record(directory, xid, size) for xid in xids)
        write_atomically(run.workspace.removed / _DONE, json.dumps({"recorded": recorded}) + "\n")

    def findings(self, run: Run) -> tuple[Finding, ...]:
        """Tell how many commits were recorded."""
        mark = run.workspace.removed / _DONE
        recorded = json.loads(mark.read_text())["recorded"] if mark.exists() else 0
        if not recorded:
            return ()
        return (
            Finding(
                "commits_completed",
                Severity.INFO,
                _XACT,
                f"{recorded:,} transactions had committed according to rows that they wrote, and had no end in the "
                "copy of pg_xact, which was copied before. They were recorded as committed.",
                "Nothing to do; the files as they were lie in removed/pg_xact.",
            ),
        )


def _keep(file: Path, target: Path) -> None:
    if not target.exists():
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def _record(directory: Path, xid: int, size: int) -> bool:
    """Write that a transaction has committed; tell whether there is a file for it."""
    number, place = divmod(xid // _XIDS_PER_BYTE, size)
    file = directory / f"{number:04X}"
    if not file.exists():
        return False
    shift = xid % _XIDS_PER_BYTE * 2
    descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        (byte,) = os.pread(descriptor, 1, place)
        os.pwrite(descriptor, bytes([byte & ~(0b11 << shift) | _COMMITTED << shift]), place)
    finally:
        os.close(descriptor)
    return True
