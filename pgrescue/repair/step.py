"""Step: what the reset tore apart is put together, set aside or named."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from pgrescue.engine.interface import ServerState
from pgrescue.errors import DiskSpaceError, ServerError
from pgrescue.files import write_atomically
from pgrescue.model import Finding, Severity
from pgrescue.steps.connection import SessionError
from pgrescue.steps.start import Start, server_settings

if TYPE_CHECKING:
    from pgrescue.pipeline import Observer
    from pgrescue.run import Run

_FULL = "No space left on device"


class Repair:
    """Heaps, indexes and catalogs of a copy are of different instants; afterwards they agree, or it is told where not.

    The server is stopped at the end: a check of its files comes next.
    """

    name = "repair"
    title = "Repair what the reset tore apart"

    def holds(self, run: Run) -> bool:
        """Tell whether the repair has ended, or is not wanted."""
        return not _is_wanted(run) or run.workspace.repaired.exists()

    def apply(self, run: Run, observer: Observer) -> None:
        """Repair; an attempt that was killed is carried on, not begun again."""
        # They take half a second to import, numpy and psycopg among them, which only a repair needs.
        from pgrescue.repair.outcome import findings_document  # noqa: PLC0415 - see above
        from pgrescue.repair.site import Site  # noqa: PLC0415 - see above
        from pgrescue.repair.work import repair  # noqa: PLC0415 - see above

        port = _start(run, observer)
        try:
            outcome = repair(Site(run, port), observer)
        except SessionError as error:
            raise ServerError(
                f"the server does not let the repair in, or ended: {error}",
                hint="Look at the server's log (pgrescue logs), then run the same command again.",
            ) from error
        run.engine.stop()
        if any(_FULL in finding.detail for finding in outcome.findings):
            raise DiskSpaceError(
                f"the disk of {run.workspace.root} became full while the copy was repaired",
                hint="Free as much as the copy's indexes take, and run the same command again: the repair goes on.",
            )
        os.sync()  # the server itself forced nothing to the disk
        write_atomically(run.workspace.manifest, outcome.manifest())
        write_atomically(run.workspace.repaired, findings_document(outcome.findings))

    def findings(self, run: Run) -> tuple[Finding, ...]:
        """Tell what was done and found."""
        if not _is_wanted(run):
            return (_skipped(run),)
        stored = json.loads(run.workspace.repaired.read_text())
        return tuple(Finding.from_document(found) for found in stored["findings"])


def _is_wanted(run: Run) -> bool:
    """Tell whether to repair: after a plain reset the server would wait for ever for transactions of the future."""
    return run.repairs and run.computes_reset


def _start(run: Run, observer: Observer) -> int:
    """Start the server so that it does without the indexes of the catalogs, which it needs for letting anybody in.

    Without fsync a repair takes half the time; a copy that a machine went down on is made anew anyway.
    """
    if run.engine.status().state is ServerState.RUNNING:
        run.engine.stop()
    run.engine.start({**server_settings(run), "ignore_system_indexes": "on", "fsync": "off"}, port=run.port)
    Start().apply(run, observer)
    port = run.engine.status().port
    if port is None:
        raise ServerError("the server ended before the repair began", hint="Run the same command again.")
    return port


def _skipped(run: Run) -> Finding:
    reason = "as asked for" if not run.repairs else "since pg_resetwal chose its values itself (--plain-reset)"
    return Finding(
        "repair_skipped",
        Severity.WARNING,
        "all databases",
        f"Nothing was repaired, {reason}. Heaps and indexes were copied at different times: queries may miss rows or "
        "find old ones without an error, unique keys may be there twice, and rows may be lost without being named.",
        "Rescue again without --no-repair and --plain-reset, into another workspace.",
    )
