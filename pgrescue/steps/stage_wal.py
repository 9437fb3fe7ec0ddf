"""Step: the WAL that lies beside the snapshot is in the copy's pg_wal."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from pgrescue.errors import SnapshotError
from pgrescue.files import write_atomically
from pgrescue.model import Finding, Severity
from pgrescue.pipeline import Observer, Unit
from pgrescue.steps.ownership import hand_over

if TYPE_CHECKING:
    from pgrescue.run import Run

_WAL = "pg_wal"


class StageWal:
    """pg_basebackup writes it as pg_wal.tar beside base.tar; a pg_wal that was a link lies on another volume."""

    name = "stage-wal"
    title = "Put the WAL into the copy"

    def holds(self, run: Run) -> bool:
        """Tell whether there is nothing to put there, or it was done: the list of it is written last."""
        return run.wal.archive is None or run.workspace.staged.exists()

    def apply(self, run: Run, observer: Observer) -> None:
        """Write each file that the copy does not have; what cannot be read is named, and PostgreSQL judges the rest."""
        archive = run.wal.archive
        staged: list[str] = []
        unusable: dict[str, str] = {}
        if archive is not None:
            if archive.is_stream:
                run.workspace.wal.mkdir(mode=0o700, exist_ok=True)
                archive = archive.unpack_to(run.workspace.wal)
            first = run.wal.first_segment
            wanted = [name for name in sorted(archive.segments) if first is None or name[8:] >= first[8:]]
            names = [*archive.histories, *wanted]
            for number, name in enumerate(names, start=1):
                target = run.workspace.pgdata / _WAL / name
                if not target.exists():
                    try:
                        archive.copy(name, target)
                    except SnapshotError as error:
                        unusable[name] = error.problem
                        continue
                    hand_over(run.engine, target)
                    staged.append(name)
                observer.advanced(number, len(names), Unit.ITEMS)
            shutil.rmtree(run.workspace.wal, ignore_errors=True)
        document = {"staged": staged, "unusable": unusable}
        write_atomically(run.workspace.staged, json.dumps(document, indent=1) + "\n")

    def findings(self, run: Run) -> tuple[Finding, ...]:
        """Name what could not be read."""
        if not run.workspace.staged.exists():
            return ()
        document = json.loads(run.workspace.staged.read_text())
        return tuple(
            Finding(
                "wal_not_replayed",
                Severity.WARNING,
                name,
                f"The WAL file could not be used: {problem}",
                "Find an undamaged copy of it, and rescue again into another workspace.",
            )
            for name, problem in document["unusable"].items()
        )
