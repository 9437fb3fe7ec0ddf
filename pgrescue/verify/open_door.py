"""Step: the server works as a server does again, now that nobody looks at its files any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgrescue.errors import ServerError
from pgrescue.files import write_atomically
from pgrescue.model import Severity
from pgrescue.retry import until_returns
from pgrescue.steps.configure import OPENED
from pgrescue.steps.connection import SessionError, session
from pgrescue.steps.health_check import Health
from pgrescue.steps.ownership import hand_over
from pgrescue.verify.check_files import FileCheck
from pgrescue.verify.step import Verify

if TYPE_CHECKING:
    from pgrescue.model import Finding
    from pgrescue.pipeline import Observer
    from pgrescue.run import Run

_OPEN = "# Written by pgrescue when the checks were over.\nautovacuum = 'on'\n"
_SHUT = "# Written by pgrescue: the checks found damage, and VACUUM would wipe out traces of it.\nautovacuum = 'off'\n"


class _NotInForceError(Exception):
    """The server has not read its settings yet."""


class OpenDoor:
    """Autovacuum begins when the checks are over, unless they found damage: it would prune what can still be had."""

    name = "open"
    title = "Open the server"

    def holds(self, run: Run) -> bool:
        """Tell whether the setting is in the file, and in force."""
        file = run.workspace.server / OPENED
        port = run.engine.status().port
        if port is None or not file.exists() or file.read_text() != _wanted(run):
            return False
        try:
            with session(run.workspace, port) as connection:
                return f"autovacuum = '{connection.execute('show autovacuum').fetchall()[0][0]}'" in _wanted(run)
        except SessionError:
            return False

    def apply(self, run: Run, observer: Observer) -> None:  # noqa: ARG002 - nothing to watch
        """Write the setting, and wait until it is in force: a signal on its way is not."""
        file = run.workspace.server / OPENED
        write_atomically(file, _wanted(run))
        hand_over(run.engine, file)
        port = run.engine.status().port
        if port is None:
            raise ServerError("the server ended before it was opened", hint="Run the same command again.")
        try:
            with session(run.workspace, port) as connection:
                connection.execute("select pg_catalog.pg_reload_conf()")
            until_returns(lambda: self._require_force(run), on=_NotInForceError, timeout_s=60)
        except SessionError as error:
            raise ServerError(f"the server does not take its settings: {error}") from error

    def _require_force(self, run: Run) -> None:
        if not self.holds(run):
            raise _NotInForceError

    def findings(self, run: Run) -> tuple[Finding, ...]:  # noqa: ARG002 - every step is asked the same
        """Nothing is worth telling."""
        return ()


def _wanted(run: Run) -> str:
    """Return the file's content: with damage found by either check, the server stays as it is."""
    found = (
        *Health.load(run.workspace).findings,
        *FileCheck.load(run.workspace).findings,
        *Verify().findings(run),
    )
    return _SHUT if any(finding.severity is Severity.ERROR for finding in found) else _OPEN
