"""The report as JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest

from pgrescue.errors import DiskSpaceError, SnapshotError
from pgrescue.model import RecoveredTo, Verdict
from pgrescue.report.document import encoded, error_document, report_document
from tests.unit.report.conftest import PASSWORD

if TYPE_CHECKING:
    from pgrescue.model import RescueReport


def test_it_has_exactly_the_promised_fields(report: RescueReport) -> None:
    document = json.loads(encoded(report_document(report, with_password=True)))
    assert set(document) == {
        "schema",
        "verdict",
        "strategy",
        "engine",
        "version",
        "system_identifier",
        "workspace",
        "url",
        "databases",
        "recovered_to",
        "steps",
        "findings",
        "seconds",
    }
    assert document["schema"] == 1
    assert [document[name] for name in ("verdict", "strategy", "engine")] == ["best-effort", "crash", "native"]
    assert (document["version"], document["workspace"]) == ("17.11", "/rescue/my data.pgrescue")
    assert document["databases"][0] == {"name": "app", "size_bytes": 5 << 20}
    assert document["recovered_to"] == {"lsn": "0/900028", "time": "2026-11-22T08:18:51+00:00"}
    assert document["steps"][0] == {"name": "unpack", "outcome": "done", "seconds": 1.25}
    assert document["findings"][1] == {
        "code": "a_warning",
        "severity": "warning",
        "object": "object",
        "detail": "[bold]not markup[/]",
        "remedy": "remedy",
        "rows": 7,
    }
    assert document["seconds"] == 2.5


def test_the_system_identifier_is_a_text_since_a_number_would_lose_digits(report: RescueReport) -> None:
    assert report_document(report, with_password=True)["system_identifier"] == "18446744073709551615"


def test_only_the_document_with_the_password_holds_it(report: RescueReport) -> None:
    assert PASSWORD in encoded(report_document(report, with_password=True))
    kept = encoded(report_document(report, with_password=False))
    assert PASSWORD not in kept
    assert json.loads(kept)["url"] == report.shown_url


def test_a_failed_rescue_has_the_same_fields(report: RescueReport) -> None:
    failed = dataclasses.replace(
        report,
        verdict=Verdict.FAILED,
        url=None,
        shown_url=None,
        databases=(),
        recovered_to=RecoveredTo(),
    )
    document = report_document(failed, with_password=True)
    assert set(document) == set(report_document(report, with_password=True))
    assert (document["verdict"], document["url"]) == ("failed", None)
    assert document["recovered_to"] == {"lsn": None, "time": None}


def test_names_in_other_scripts_stay_readable(report: RescueReport) -> None:
    assert "Käse" in encoded({"name": "Käse"})
    assert encoded(report_document(report, with_password=True)).startswith("{")


@pytest.mark.parametrize(("error", "status"), [(SnapshotError("what", hint="do"), 2), (DiskSpaceError("what"), 1)])
def test_an_error_is_a_document_too(error: SnapshotError, status: int) -> None:
    assert error_document(error) == {
        "schema": 1,
        "error": {"problem": "what", "hint": error.hint, "exit_status": status},
    }
