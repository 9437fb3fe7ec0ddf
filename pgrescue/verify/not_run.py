"""What every check says when it could not run."""

from __future__ import annotations

from pgrescue.model import Finding, Severity


def not_run(
    of: str,
    why: str,
    remedy: str = "What it would have found is unknown. Remove the reason, and check again.",
) -> Finding:
    """Say that a check could not run, or not to its end: that is no pass."""
    return Finding("check_not_run", Severity.WARNING, of, why, remedy)
