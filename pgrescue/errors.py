"""What can go wrong, each with its problem, its remedy and its exit status."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """Exit statuses of every command (DESIGN.md, "Verdicts and exit statuses")."""

    OK = 0
    FAILED = 1
    USAGE = 2
    LESSER_VERDICT = 3
    UNVERIFIED = 4
    BUG = 70
    INTERRUPTED = 130


class RescueError(Exception):
    """A problem that the user can read and act on: what was found, what was expected, what to do.

    `problem` is one or more sentences; `hint` is the remedy, or empty where the problem already says it.
    """

    status = ExitStatus.FAILED

    def __init__(self, problem: str, *, hint: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint


class UsageError(RescueError):
    """What was asked for cannot be meant: a wrong option, or a path that holds something else."""

    status = ExitStatus.USAGE


class SnapshotError(UsageError):
    """The snapshot is not one, is incomplete, or is of a kind that pgrescue does not read."""


class TruncatedSnapshotError(SnapshotError):
    """The snapshot's file ends before its content does."""


class UnreadableSnapshotError(SnapshotError):
    """The snapshot cannot be reached, or is of a kind that this version does not read: its content may be sound."""


class WorkspaceError(UsageError):
    """The workspace belongs to something else, or something else lies where it should be."""


class WorkspaceBusyError(RescueError):
    """Another pgrescue is at work in the same workspace."""


class DiskSpaceError(RescueError):
    """There is too little room for the copy."""


class EngineError(RescueError):
    """PostgreSQL's programs cannot be had or run on this machine."""


class TargetNotReachedError(RescueError):
    """Replay cannot end where the user wants it to: no other strategy would, and none is tried."""


class ToolError(RescueError):
    """One of PostgreSQL's programs ended with an error."""


class CopyRefusedError(RescueError):
    """PostgreSQL met the copy and would not run on it: another strategy may help."""


class TornCopyError(CopyRefusedError):
    """PostgreSQL recovered the copy, whose files are not of one instant: the next strategy goes on with it as it is."""


class ServerError(RescueError):
    """The server did not start, or ended."""


class PortInUseError(ServerError):
    """Something else listens where the server should."""


class StepError(RescueError):
    """A step ended and its goal is not met."""
