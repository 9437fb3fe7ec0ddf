"""Step: the copy has no backup_label, which would demand WAL that is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgrescue.files import sync_directory
from pgrescue.model import Finding, Severity

if TYPE_CHECKING:
    from pgrescue.pipeline import Observer
    from pgrescue.run import Run

LABEL = "backup_label"
_MOST_NAMED = 20


class RemoveBackupLabel:
    """The runbook's second step. What makes the copy start is also what makes it inconsistent: it is told."""

    name = "remove-backup-label"
    title = "Remove backup_label"

    def holds(self, run: Run) -> bool:
        """Tell whether there is none."""
        return not (run.workspace.pgdata / LABEL).exists()

    def apply(self, run: Run, observer: Observer) -> None:  # noqa: ARG002 - nothing to watch
        """Move it to removed/."""
        (run.workspace.pgdata / LABEL).replace(run.workspace.removed / LABEL)
        sync_directory(run.workspace.removed)

    def findings(self, run: Run) -> tuple[Finding, ...]:
        """Tell which WAL the label asks for, since having it is the better way."""
        label = run.snapshot.chosen.backup_label
        if label is None:
            return ()
        shown = ", ".join(run.wal.missing[:_MOST_NAMED])
        missing = f" What is missing: {shown}{' …' if len(run.wal.missing) > _MOST_NAMED else ''}." if shown else ""
        return (
            Finding(
                "backup_label_removed",
                Severity.WARNING,
                LABEL,
                f"The backup needs the WAL from {label.start_lsn} on (file {label.start_segment}) to be consistent. "
                f"It was started without.{missing}",
                "If a WAL archive can be found, recover with it instead (--wal); pgrescue inspect names the files.",
            ),
        )
