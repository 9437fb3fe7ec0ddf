"""Step: the server runs and lets the role `pgrescue` in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pgrescue.engine.interface import ServerState
from pgrescue.errors import ServerError
from pgrescue.retry import until_returns
from pgrescue.steps.configure import CONFIG, HBA, IDENT
from pgrescue.steps.connection import SessionError, session
from pgrescue.steps.times import parse_log_time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgrescue.model import Finding
    from pgrescue.pipeline import Observer
    from pgrescue.run import Run

# A server that was killed replays its WAL first, for as long as that takes; a hung one is for a person to judge.
_STARTUP_TIMEOUT_S = 24 * 3600
_SHOWN_LOG_LINES = 15
# What the postmaster says each time that it begins anew after the crash of a process (postmaster.c). A process that it
# starts itself and that dies at once, such as the autovacuum launcher where global/pg_filenode.map is missing, makes it
# do so for ever.
_BEGINS_ANEW = "LOG:  all server processes terminated; reinitializing"
_MOST_CRASHES = 5
_LINES_OF_CRASHES = 40 * _MOST_CRASHES
_END_PATIENCE_S = 1  # it has nothing to end well
_ON_ITS_WAY = ("starting up", "not yet accepting", "not accepting", "in recovery mode", "shutting down")


class _NotYetError(Exception):
    """The server is alive and does not answer yet."""


class Start:
    """The runbook's fifth step."""

    name = "start"
    title = "Start the server"

    def holds(self, run: Run) -> bool:
        """Tell whether the server runs and a login succeeds."""
        port = run.engine.status().port
        if port is None:
            return False
        try:
            with session(run.workspace, port):
                return True
        except SessionError:
            return False

    def apply(self, run: Run, observer: Observer) -> None:  # noqa: ARG002 - nobody knows how far a start is
        """Start it, and wait until it answers or ends."""
        since = datetime.now(tz=UTC)
        run.engine.start(server_settings(run), port=run.port)
        until_returns(lambda: _login(run, since), on=_NotYetError, timeout_s=_STARTUP_TIMEOUT_S, longest_pause_s=0.5)

    def findings(self, run: Run) -> tuple[Finding, ...]:  # noqa: ARG002 - every step is asked the same
        """Nothing is worth telling."""
        return ()


def server_settings(run: Run) -> dict[str, str]:
    """Return what the server is told on its command line, where it beats every file."""
    files = {"config_file": CONFIG, "hba_file": HBA, "ident_file": IDENT}
    return {name: run.engine.path(run.workspace.server / file) for name, file in files.items()}


def _login(run: Run, since: datetime) -> None:
    """Log in once; raise _NotYetError while the server is on its way, ServerError when it ended or refuses.

    `since` is when it was started.
    """
    status = run.engine.status()
    if status.state is not ServerState.RUNNING or status.port is None:
        raise ServerError(
            "the server ended while it started; it said last:\n"
            + "\n".join(f"  {line}" for line in run.engine.logs(tail=_SHOWN_LOG_LINES)),
            hint=f"The whole log: pgrescue logs -w {run.workspace.root}",
        )
    try:
        with session(run.workspace, status.port):
            return
    except SessionError as error:
        said = str(error)
        # Before it answers, the port is closed, or Docker's proxy hangs up: neither of these is the server's own word.
        if "FATAL:" in said and not any(words in said for words in _ON_ITS_WAY):
            raise ServerError(
                f"the server runs, but refuses the login of its own role: {said}",
                hint="The catalogs of the copy may be damaged. Look at the server's log: pgrescue logs",
            ) from error
        lines = list(run.engine.logs(tail=_LINES_OF_CRASHES))
        if crashes_again_and_again(lines, since):
            run.engine.stop(timeout_s=_END_PATIENCE_S)
            raise ServerError(
                "the server crashes again and again as it starts; it said last:\n"
                + "\n".join(f"  {line}" for line in lines[-_SHOWN_LOG_LINES:]),
                hint=f"The whole log: pgrescue logs -w {run.workspace.root}",
            ) from error
        raise _NotYetError from error


def crashes_again_and_again(lines: Iterable[str], since: datetime) -> bool:
    """Tell, by the end of a server's log, whether it has begun anew so often since then that it will for ever."""
    times = (parse_log_time(line.partition(" [")[0]) for line in lines if _BEGINS_ANEW in line)
    return sum(time is not None and time >= since for time in times) >= _MOST_CRASHES
