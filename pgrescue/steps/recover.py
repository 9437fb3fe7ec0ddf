"""Step: PostgreSQL's own crash recovery has run, and it is known how far it came."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pgrescue.errors import TornCopyError
from pgrescue.files import write_atomically
from pgrescue.model import Finding, Lsn, Severity
from pgrescue.pipeline import Observer, Unit
from pgrescue.snapshot.contents import CONTROL
from pgrescue.steps.control import read_control
from pgrescue.steps.newest_page import implausible_pages, outliers_document, scan
from pgrescue.steps.replay_log import RECOVERY_LOG, current_lsn, progress_settings
from pgrescue.steps.single_user import single_user

if TYPE_CHECKING:
    from pgrescue.run import Run


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
        wanted = run.wal.reaches

        def heard(line: str) -> None:
            if (lsn := current_lsn(line)) is not None:
                observer.advanced(lsn.position, None if wanted is None else max(wanted, lsn).position, Unit.LSN)

        single_user(run, "", log=RECOVERY_LOG, settings=progress_settings(run), on_line=heard)
        # Recovery ends with a checkpoint, and the single-user session with another one: a few hundred bytes on.
        end = read_control(run.workspace.pgdata / CONTROL).checkpoint
        document = {
            "end_of_wal": str(end),
            "max_page_lsn": str(newest.max_lsn) if newest.max_lsn else None,
            "max_page_at": newest.at,
            "outliers": outliers_document(newest),
        }
        write_atomically(run.workspace.recovered, json.dumps(document, indent=1) + "\n")

    def findings(self, run: Run) -> tuple[Finding, ...]:
        """Tell that nobody can prove the copy atomic, or that it was not."""
        document = json.loads(run.workspace.recovered.read_text())
        if torn := _torn(document):
            return (
                *implausible_pages(document["outliers"]),
                Finding(
                    "pages_past_wal",
                    Severity.ERROR,
                    document["max_page_at"],
                    torn,
                    "Use a backup with its WAL; without one, rescue with --strategy reset into another workspace.",
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


class RequireAtomic:
    """A copy that was not atomic is for the next strategy, unless the user insists on this one."""

    name = "require-atomic"
    title = "See whether the files are of one instant"

    def holds(self, run: Run) -> bool:
        """Tell whether no page shows the opposite, or nothing else may be tried."""
        return not (run.may_fall and _torn(json.loads(run.workspace.recovered.read_text())))

    def apply(self, run: Run, observer: Observer) -> None:  # noqa: ARG002 - nothing to watch
        """Raise TornCopyError."""
        torn = _torn(json.loads(run.workspace.recovered.read_text()))
        raise TornCopyError(torn, hint="Use a backup with its WAL.")

    def findings(self, run: Run) -> tuple[Finding, ...]:  # noqa: ARG002 - every step is asked the same
        """Nothing is worth telling: Recover tells it."""
        return ()


def _torn(document: dict[str, Any]) -> str:
    """Say how it shows that the files are of several instants; nothing where it does not."""
    newest, end = document["max_page_lsn"], document["end_of_wal"]
    if newest is None or Lsn.parse(newest) <= Lsn.parse(end):
        return ""
    return (
        f"A page is of {newest}, but the WAL in the snapshot ends at {end}: the files were copied while the server "
        "wrote to them. Rows are missing, and no error tells which."
    )
