"""Each error has its exit status."""

from __future__ import annotations

import pytest

from pgrescue import errors
from pgrescue.errors import ExitStatus, RescueError, SnapshotError, TruncatedSnapshotError, UsageError

KINDS = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, RescueError)]
USAGE = {"UsageError", "SnapshotError", "TruncatedSnapshotError", "UnreadableSnapshotError", "WorkspaceError"}


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_cannot_be_meant_is_a_usage_error(kind: type[RescueError]) -> None:
    assert kind("problem").status is (ExitStatus.USAGE if kind.__name__ in USAGE else ExitStatus.FAILED)


def test_problem_and_hint_are_kept() -> None:
    error = SnapshotError("what was found", hint="what to do")
    assert (error.problem, error.hint, str(error)) == ("what was found", "what to do", "what was found")
    assert RescueError("alone").hint == ""


def test_a_truncated_snapshot_is_a_snapshot_error() -> None:
    assert issubclass(TruncatedSnapshotError, SnapshotError)
    assert issubclass(SnapshotError, UsageError)


def test_exit_statuses_are_the_promised_ones() -> None:
    assert {status.name: int(status) for status in ExitStatus} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "LESSER_VERDICT": 3,
        "UNVERIFIED": 4,
        "BUG": 70,
        "INTERRUPTED": 130,
    }
