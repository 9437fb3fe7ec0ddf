"""Step: PostgreSQL's own crash recovery has run, and it is known how far it came."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from pgrescue.files import write_atomically
from pgrescue.model import Finding, Lsn, RecoveredTo, Severity
from pgrescue.snapshot.contents import CONTROL
from pgrescue.steps.control import read_control
from pgrescue.steps.newest_page import implausible_pages, outliers_document, scan
from pgrescue.steps.single_user import single_user
from pgrescue.steps.times import parse_log_time

if TYPE_CHECKING:
    from pgrescue.pipeline import Observer
    from pgrescue.run import Run
    from pgrescue.workspace import Workspace

_REDO_DONE = re.compile(r"redo done at ([0-9A-F]+/[0-9A-F]+)")
_LAST_COMMIT = re.compile(r"last completed transaction was at log time (.+)")


class Recover:
    """Replays the WAL from pg_control's redo position on, without opening a port.

    A copy of a running server that was not atomic replays without an error and loses rows in silence (reset.md). Its
    sign is a page that is newer than the end of the WAL.
    """

    name = "recover"
    title = "Replay the WAL (crash recovery)"

    def holds(self, run: Run) -> bool:
        """Tell whether recovery has ended: its result is written last."""
        return run.workspace.recovered.exists()

    def apply(self, run: Run, observer: Observer) -> None:
        """Measure the pages, recover, and compare with where the WAL ended."""
        newest = scan(run, observer)
        done = single_user(run, "", log="recover.log")
        redo_done = _REDO_DONE.search(done.stderr)
        last_commit = _LAST_COMMIT.search(done.stderr)
        # Recovery ends with a checkpoint, and the single-user session with another one: a few hundred bytes on.
        end = read_control(run.workspace.pgdata / CONTROL).checkpoint
        document = {
            "end_of_wal": str(end),
            "redo_done": redo_done[1] if redo_done else None,
            "last_commit": last_commit[1].strip() if last_commit else None,
            "max_page_lsn": str(newest.max_lsn) if newest.max_lsn else None,
            "max_page_at": newest.at,
            "outliers": outliers_document(newest),
        }
        write_atomically(run.workspace.recovered, json.dumps(document, indent=1) + "\n")

    def findings(self, run: Run) -> tuple[Finding, ...]:
        """Tell that nobody can prove the copy atomic, or that it was not."""
        document = json.loads(run.workspace.recovered.read_text())
        newest, end = document["max_page_lsn"], document["end_of_wal"]
        if newest is not None and Lsn.parse(newest) > Lsn.parse(end):
            return (
                *implausible_pages(document["outliers"]),
                Finding(
                    "pages_past_wal",
                    Severity.ERROR,
                    document["max_page_at"],
                    f"A page is of {newest}, but the WAL in the snapshot ends at {end}: the files were copied while "
                    "the server wrote to them. Rows are missing, and no error tells which.",
                    "Use a backup with its WAL; without one, run again with --strategy reset and compare.",
                ),
            )
        was_running = (
            "The snapshot holds postmaster.pid: the server ran while it was taken. "
            if "postmaster.pid" in run.snapshot.chosen.texts
            else ""
        )
        return (
            *implausible_pages(document["outliers"]),
            Finding(
                "atomicity_unproven",
                Severity.WARNING,
                "snapshot",
                f"{was_running}The copy recovered as after a crash. That is right only if all its files are of one "
                "instant (an atomic file system snapshot, or a server that had ended), which files cannot prove.",
                "If it is a plain copy of a running server, do not trust it; look for a backup.",
            ),
        )


def recovered_to(workspace: Workspace) -> RecoveredTo:
    """Return how far crash recovery came, with the time of the last commit that it replayed."""
    document = json.loads(workspace.recovered.read_text())
    redo_done, last_commit = document["redo_done"], document["last_commit"]
    return RecoveredTo(
        Lsn.parse(redo_done) if redo_done else Lsn.parse(document["end_of_wal"]),
        parse_log_time(last_commit) if last_commit else None,
    )
