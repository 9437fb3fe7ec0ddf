"""What PostgreSQL says while it replays WAL (xlogrecovery.c, xlog.c), under `lc_messages = C`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgrescue.model import Lsn, RecoveredTo
from pgrescue.steps.times import parse_log_time

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from pgrescue.run import Run
    from pgrescue.workspace import Workspace

RECOVERY_LOG = "recover.log"
"""Where the logs directory keeps what the server said while it recovered, attempt after attempt."""

_PROGRESS_SINCE = 15
_LSN = r"([0-9A-F]+/[0-9A-F]+)"
_PATTERNS = {
    "redo_start": re.compile(rf"redo starts at {_LSN}"),
    "current": re.compile(rf"redo in progress, .*current LSN: {_LSN}"),
    "consistent": re.compile(rf"consistent recovery state reached at {_LSN}"),
    "redo_done": re.compile(rf"redo done at {_LSN}"),
    "last_commit": re.compile(r"last completed transaction was at log time (.+)"),
    "stopped": re.compile(r"(recovery stopping .+)"),
    "missed": re.compile(r"(recovery ended before configured recovery target was reached)"),
    "too_early": re.compile(r"(requested recovery stop point is before consistent recovery point)"),
    "complete": re.compile(r"(archive recovery complete)"),
    "complaint": re.compile(
        r"LOG:  ((?:incorrect resource manager data checksum|record with |unexpected pageaddr|out-of-sequence timeline|"
        r"there is no contrecord flag|out-of-order block_id|BKP(?:BLOCK|IMAGE)_|"
        r"invalid (?:record length|resource manager ID|magic number|info bits|record offset|contrecord|block_id)).*)"
    ),
}
_ATTEMPT = re.compile(r"LOG:  database system (?:was|shutdown was) ")
_OF_ONE_ATTEMPT = ("missed", "too_early", "stopped", "complaint")
# Zeros, or the contents of an earlier use: what follows the last record where a server was writing when it ended.
_NATURAL_END = re.compile(r"got 0$|unexpected pageaddr|invalid magic number 0000")


@dataclass(frozen=True)
class Replay:
    """How far a replay came; None for what the server did not say.

    `stopped` is the server's sentence about a target that it reached, `is_missed` tells of one that it did not reach,
    `is_too_early` of one before the end of the backup. `complaint` is what it said of the WAL that it did not take for
    such, if anything.
    """

    redo_start: Lsn | None = None
    consistent_at: Lsn | None = None
    redo_done: Lsn | None = None
    last_commit: datetime | None = None
    stopped: str | None = None
    is_missed: bool = False
    is_too_early: bool = False
    is_complete: bool = False
    complaint: str | None = None

    @property
    def recovered_to(self) -> RecoveredTo:
        """The last position and the last commit that were replayed."""
        return RecoveredTo(self.redo_done or self.consistent_at, self.last_commit)


def current_lsn(line: str) -> Lsn | None:
    """Return how far the replay is, where the line says so."""
    for name in ("current", "redo_start", "consistent", "redo_done"):
        if match := _PATTERNS[name].search(line):
            return Lsn.parse(match[1])
    return None


def parse_replay(lines: Iterable[str]) -> Replay:
    """Read a server's log, or several of attempts after each other; the last word on a thing counts.

    What a resumed replay does not say again, such as where an earlier attempt became consistent, stays. How an earlier
    attempt ended does not matter any more.
    """
    found: dict[str, str] = {}
    for line in lines:
        if _ATTEMPT.search(line):
            for name in _OF_ONE_ATTEMPT:
                found.pop(name, None)
        for name, pattern in _PATTERNS.items():
            if match := pattern.search(line):
                found[name] = match[1]
    commit = found.get("last_commit")

    def lsn(name: str) -> Lsn | None:
        return Lsn.parse(found[name]) if name in found else None

    return Replay(
        redo_start=lsn("redo_start"),
        consistent_at=lsn("consistent"),
        redo_done=lsn("redo_done"),
        last_commit=parse_log_time(commit.strip()) if commit else None,
        stopped=found.get("stopped"),
        is_missed="missed" in found,
        is_too_early="too_early" in found,
        is_complete="complete" in found,
        complaint=found.get("complaint"),
    )


def is_damage(complaint: str | None) -> bool:
    """Tell whether what the server said of the WAL behind its last record means more than the end of it."""
    return complaint is not None and _NATURAL_END.search(complaint) is None


def progress_settings(run: Run) -> dict[str, str]:
    """Return the settings that make a replaying server say how far it is."""
    return {"log_startup_progress_interval": "500ms"} if run.snapshot.chosen.major >= _PROGRESS_SINCE else {}


def logged_replay(workspace: Workspace) -> Replay:
    """Return how far the workspace's recovery came, as its log has it."""
    log = workspace.logs / RECOVERY_LOG
    return parse_replay(log.read_text(errors="replace").splitlines()) if log.exists() else Replay()
