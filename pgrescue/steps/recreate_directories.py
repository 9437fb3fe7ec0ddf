"""Step: the directories that backups leave out are there again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgrescue.steps.layout import left_out_directories
from pgrescue.steps.ownership import hand_over

if TYPE_CHECKING:
    from pgrescue.model import Finding
    from pgrescue.pipeline import Observer
    from pgrescue.run import Run


class RecreateDirectories:
    """pg_resetwal stops at once where pg_wal/archive_status is missing (reset.md), the server where others are."""

    name = "recreate-directories"
    title = "Make the directories again that the backup left out"

    def holds(self, run: Run) -> bool:
        """Tell whether each of them is there."""
        return all((run.workspace.pgdata / name).is_dir() for name in left_out_directories(run.snapshot.chosen.major))

    def apply(self, run: Run, observer: Observer) -> None:  # noqa: ARG002 - nothing to watch
        """Make those that are missing."""
        for name in left_out_directories(run.snapshot.chosen.major):
            path = run.workspace.pgdata / name
            if not path.is_dir():
                path.mkdir(mode=0o700)
                hand_over(run.engine, path)

    def findings(self, run: Run) -> tuple[Finding, ...]:  # noqa: ARG002 - every step is asked the same
        """Nothing is worth telling."""
        return ()
