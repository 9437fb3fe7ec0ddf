"""The verdict: what may be believed, from what was done and what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from pgrescue.model import Severity, StrategyName, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgrescue.model import Finding


def judge(strategy: StrategyName, findings: Iterable[Finding]) -> Verdict:
    """Return the verdict on a server that runs (DESIGN.md, "Verdicts").

    An error among the findings means damage, whatever was done. A clean shutdown proves consistency, and so does the
    recovery of a backup, which PostgreSQL refuses to end before; crash recovery does so for an atomic copy, which the
    files cannot show, and a reset never does.
    """
    if any(finding.severity is Severity.ERROR for finding in findings):
        return Verdict.DAMAGED
    match strategy:
        case StrategyName.CLEAN | StrategyName.ARCHIVE | StrategyName.REPLAY:
            return Verdict.CONSISTENT
        case StrategyName.CRASH | StrategyName.RESET:
            return Verdict.BEST_EFFORT
        case _:
            assert_never(strategy)
