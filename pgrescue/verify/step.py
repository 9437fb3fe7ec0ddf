"""Step: the running server was checked, before it is opened to the user."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgrescue.errors import ServerError
from pgrescue.files import write_atomically
from pgrescue.model import Finding, Severity, VerifyLevel
from pgrescue.steps.connection import session
from pgrescue.verify.verified import Verified

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any

    import psycopg

    from pgrescue.model import BlockMap
    from pgrescue.pipeline import Observer
    from pgrescue.run import Run
    from pgrescue.workspace import Workspace


class Verify:
    """A server that starts and answers proves nothing (reset.md): every relation is looked at."""

    name = "verify"
    title = "Check catalogs, tables and indexes"

    def holds(self, run: Run) -> bool:
        """Tell whether the copy was checked at this level or a higher one."""
        if run.verify is VerifyLevel.NONE:
            return True
        return run.workspace.verified.exists() and Verified.load(run.workspace.verified).level.covers(run.verify)

    def apply(self, run: Run, observer: Observer) -> None:
        """Check everything, from the beginning, and write down what was found."""
        # With psycopg and numpy, which take 0.4 s to import and which most commands never need.
        from pgrescue.verify.checks import run_checks  # noqa: PLC0415 - see above
        from pgrescue.verify.target import OPTIONS  # noqa: PLC0415 - see above

        port = run.engine.status().port
        if port is None:
            raise ServerError("the server ended before it could be checked", hint="Run the same command again.")

        def opener(database: str, /) -> AbstractContextManager[psycopg.Connection[tuple[Any, ...]]]:
            return session(run.workspace, port, database, options=OPTIONS)

        found = run_checks(opener, pgdata=run.workspace.pgdata, level=run.verify, observer=observer)
        write_atomically(run.workspace.verified, found.to_json())

    def findings(self, run: Run) -> tuple[Finding, ...]:
        """Return what the last checks found, of whatever level; without any, say so."""
        if run.workspace.verified.exists():
            return Verified.load(run.workspace.verified).findings
        return (
            Finding(
                "checks_skipped",
                Severity.WARNING,
                "server",
                "Nothing was checked (--verify none): rows may be missing, there twice, or impossible to read.",
                "Run the same command with --verify fast, or with --verify full before you rely on it.",
            ),
        )


def unreadable_blocks(workspace: Workspace) -> tuple[BlockMap, ...]:
    """Return the maps of the tables that the last checks found damaged; none where nothing was checked."""
    return Verified.load(workspace.verified).unreadable_blocks if workspace.verified.exists() else ()
