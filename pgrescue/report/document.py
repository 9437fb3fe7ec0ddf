"""The rescue report as JSON (DESIGN.md, "Commands")."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgrescue.errors import RescueError
    from pgrescue.model import Finding, RescueReport, TransferReport

SCHEMA = 1


def report_document(report: RescueReport, *, with_password: bool) -> dict[str, Any]:
    """Return the report with the fields that the design promises, ready for JSON.

    Without the password the URL names the password file: such a document can be kept and passed on.
    """
    recovered = report.recovered_to
    return {
        "schema": SCHEMA,
        "verdict": report.verdict.value,
        "strategy": report.strategy.value,
        "engine": report.engine.value,
        "version": str(report.version),
        "system_identifier": str(report.system_identifier),
        "workspace": str(report.workspace),
        "url": report.url if with_password else report.shown_url,
        "databases": [{"name": item.name, "size_bytes": item.size_bytes} for item in report.databases],
        "recovered_to": {
            "lsn": None if recovered.lsn is None else str(recovered.lsn),
            "time": None if recovered.time is None else recovered.time.isoformat(),
        },
        "steps": [{"name": step.name, "outcome": step.outcome.value, "seconds": step.seconds} for step in report.steps],
        "findings": [finding_document(finding) for finding in report.findings],
        "seconds": report.seconds,
    }


def transfer_document(report: TransferReport) -> dict[str, Any]:
    """Return the report, ready for JSON; it holds no secret."""
    return {
        "schema": SCHEMA,
        "outcome": report.outcome.value,
        "source": report.source,
        "database": report.database,
        "target": report.target,
        "source_version": report.source_version,
        "target_version": report.target_version,
        "compare": report.compare,
        "tables": [
            {"name": one.name, "rows": one.rows, "size_bytes": one.size_bytes, "equal": one.is_equal}
            for one in report.tables
        ],
        "steps": [{"name": step.name, "outcome": step.outcome.value, "seconds": step.seconds} for step in report.steps],
        "findings": [finding_document(finding) for finding in report.findings],
        "seconds": report.seconds,
    }


def finding_document(finding: Finding) -> dict[str, Any]:
    """Return a finding, ready for JSON."""
    return {
        "code": finding.code,
        "severity": finding.severity.value,
        "object": finding.object,
        "detail": finding.detail,
        "remedy": finding.remedy,
        "rows": finding.rows,
    }


def error_document(error: RescueError) -> dict[str, Any]:
    """Return an error that kept a command from having any other result, ready for JSON."""
    return {
        "schema": SCHEMA,
        "error": {"problem": error.problem, "hint": error.hint, "exit_status": int(error.status)},
    }


def encoded(document: dict[str, Any]) -> str:
    """Return a document as one JSON text; file names that are no UTF-8 keep their odd bytes as escapes."""
    text = json.dumps(document, indent=1, ensure_ascii=False)
    return text.encode(errors="backslashreplace").decode()
