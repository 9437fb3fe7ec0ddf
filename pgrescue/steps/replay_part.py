"""Step: as much of the backup's WAL as there is has been replayed, before the WAL is reset."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pgrescue.errors import CopyRefusedError, SnapshotError
from pgrescue.files import write_atomically
from pgrescue.model import Finding, Severity
from pgrescue.pipeline import Observer, Unit
from pgrescue.snapshot.contents import CONTROL
from pgrescue.snapshot.control import recovering_from
from pgrescue.steps.ownership import hand_over
from pgrescue.steps.remove_backup_label import RemoveBackupLabel
from pgrescue.steps.replay_log import RECOVERY_LOG, current_lsn, logged_replay, progress_settings
from pgrescue.steps.single_user import single_user

if TYPE_CHECKING:
    from pgrescue.run import Run

_WAL = "pg_wal"
_MOST_NAMED = 20


class ReplayPart:
    """The WAL from the backup's start on, up to the first gap, as if the server had crashed there.

    PostgreSQL refuses to end the recovery of a backup before the backup's end. Without its label, and with pg_control
    pointing at the checkpoint that the backup began with, it replays what there is. The first change of each page in
    that WAL is a whole page (full_page_writes is on during a backup), so that every page that the WAL touches is right
    as of its end; all others stay as they were copied. That brings back what was in memory when the files were copied.
    """

    name = "replay-part"
    title = "Replay the WAL up to the first gap"

    def holds(self, run: Run) -> bool:
        """Tell whether there is nothing to replay, it was tried, or it is too late: WAL that was found meanwhile."""
        return not _segments(run) or run.workspace.replayed_part.exists() or run.workspace.reset_plan.exists()

    def apply(self, run: Run, observer: Observer) -> None:
        """Put the WAL into the copy, turn pg_control back, replay; what fails leaves a copy that can be reset."""
        segments = _segments(run)
        for number, name in enumerate(segments, start=1):
            _stage(run, name)
            observer.advanced(number, len(segments), Unit.ITEMS)
        original = run.workspace.removed / CONTROL
        if not original.exists():
            original.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(original, (run.workspace.pgdata / CONTROL).read_bytes())
        label = run.snapshot.chosen.backup_label
        assert label is not None  # noqa: S101 - _segments says so
        turned_back = recovering_from(
            original.read_bytes(), checkpoint=label.checkpoint, redo=label.start_lsn, timeline=label.start_timeline
        )
        remove = RemoveBackupLabel()
        if not remove.holds(run):
            remove.apply(run, observer)
        control = run.workspace.pgdata / CONTROL
        write_atomically(control, turned_back)
        hand_over(run.engine, control)

        def heard(line: str) -> None:
            if (lsn := current_lsn(line)) is not None:
                observer.advanced(lsn.position, None, Unit.LSN)

        problem = None
        try:
            single_user(run, "", log=RECOVERY_LOG, settings=progress_settings(run), on_line=heard)
        except CopyRefusedError as error:
            problem = error.problem
            # What it wrote stays: a page that was replayed in part is no worse than one that was copied early.
            write_atomically(control, original.read_bytes())
            hand_over(run.engine, control)
        document = {"files": len(segments), "problem": problem}
        write_atomically(run.workspace.replayed_part, json.dumps(document, indent=1) + "\n")

    def findings(self, run: Run) -> tuple[Finding, ...]:
        """Tell how far it came."""
        if not run.workspace.replayed_part.exists():
            return ()
        document = json.loads(run.workspace.replayed_part.read_text())
        if document["problem"]:
            return (
                Finding(
                    "wal_replay_failed",
                    Severity.WARNING,
                    _WAL,
                    f"The {document['files']} WAL files from the backup's start on could not be replayed before the "
                    f"reset: {document['problem']}",
                    "Nothing to do, unless an undamaged copy of these files can be found.",
                ),
            )
        reached = logged_replay(run.workspace).recovered_to
        missing = f" What is missing: {', '.join(run.wal.missing[:_MOST_NAMED])}." if run.wal.missing else ""
        return (
            Finding(
                "wal_replayed_in_part",
                Severity.INFO,
                _WAL,
                f"Before the reset the WAL was replayed from the backup's start to {reached.lsn}"
                f"{f' (last commit at {reached.time})' if reached.time else ''}; the backup ends at "
                f"{run.wal.backup_end or 'an unknown position'}.{missing}",
                "Find the missing or damaged WAL, and rescue again into another workspace: then nothing is lost.",
            ),
        )


def _segments(run: Run) -> tuple[str, ...]:
    """Return the files to replay: none without the first of them, nor where the user asked for the bare reset."""
    if run.snapshot.chosen.backup_label is None or not run.may_fall:
        return ()
    return run.wal.run_from_start


def _stage(run: Run, name: str) -> None:
    target = run.workspace.pgdata / _WAL / name
    archive = run.wal.archive
    if target.exists() or archive is None or archive.find(name) is None:
        return
    try:
        archive.copy(name, target)
    except SnapshotError:  # the replay ends before it, as at any other gap
        return
    hand_over(run.engine, target)
