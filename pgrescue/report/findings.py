"""Findings in the order and the groups in which the reports for persons show them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgrescue.model import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgrescue.model import Finding


def same_findings(findings: Iterable[Finding]) -> tuple[tuple[Finding, ...], ...]:
    """Return findings by what they say, the gravest first; those of a group differ in object and rows alone."""
    order = list(reversed(Severity))
    same: dict[tuple[Severity, str, str, str], list[Finding]] = {}
    for finding in sorted(findings, key=lambda item: order.index(item.severity)):
        same.setdefault((finding.severity, finding.code, finding.detail, finding.remedy), []).append(finding)
    return tuple(map(tuple, same.values()))


def objects_of(group: tuple[Finding, ...], *, most: int) -> str:
    """Name the objects of a group, each with its rows, and say how many more there are."""
    named = ", ".join(f"{finding.object}{_rows(finding)}" for finding in group[:most])
    return f"{named}, and {len(group) - most} more" if len(group) > most else named


def _rows(finding: Finding) -> str:
    if finding.rows is None:
        return ""
    return f" ({finding.rows:,} {'row' if finding.rows == 1 else 'rows'})"
