"""Step: the copy has its backup_label again, from what the WAL archive knows of the backup."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgrescue.files import write_atomically
from pgrescue.model import Finding, Severity
from pgrescue.steps.ownership import hand_over
from pgrescue.steps.remove_backup_label import LABEL

if TYPE_CHECKING:
    from pgrescue.pipeline import Observer
    from pgrescue.run import Run


class RebuildBackupLabel:
    """pgBackRest's copies must start from it; the archive's backup history file has the same lines (formats.md §5)."""

    name = "rebuild-backup-label"
    title = "Rebuild backup_label"

    def holds(self, run: Run) -> bool:
        """Tell whether the snapshot has its own, it is there, or recovery, which removes it, has ended."""
        return (
            run.wal.label is None
            or (run.workspace.pgdata / LABEL).exists()
            or (run.workspace.pgdata / f"{LABEL}.old").exists()
        )

    def apply(self, run: Run, observer: Observer) -> None:  # noqa: ARG002 - nothing to watch
        """Write it."""
        write_atomically(run.workspace.pgdata / LABEL, run.wal.label or "")
        hand_over(run.engine, run.workspace.pgdata / LABEL)

    def findings(self, run: Run) -> tuple[Finding, ...]:
        """Tell where it comes from."""
        if run.wal.label is None:
            return ()
        return (
            Finding(
                "backup_label_rebuilt",
                Severity.INFO,
                LABEL,
                "The snapshot has no backup_label, and pgBackRest's mark says that it must start from one. It was "
                "rebuilt from the backup history file in the archive whose backup encloses pg_control's checkpoint.",
                "Nothing to do.",
            ),
        )
