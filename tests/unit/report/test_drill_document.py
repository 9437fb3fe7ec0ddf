"""The report of a drill as JSON."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from typing import Any

import pytest

from pgrescue.drilled import DrillOutcome, DrillRun
from pgrescue.errors import ExitStatus
from pgrescue.report.document import encoded
from pgrescue.report.drill_document import drill_document, exit_status
from tests import drills
from tests.reports import PASSWORD


def document_of(run: DrillRun) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(encoded(drill_document(run)))
    return document


def names(text: str) -> set[str]:
    return set(text.split())


def test_it_has_exactly_the_promised_fields() -> None:
    document = document_of(drills.FAILED)
    assert set(document) == names("schema outcome exit_status id file started seconds notes drills")
    (drill,) = document["drills"]
    assert set(drill) == names(
        "name outcome started seconds snapshot chosen_because recovery_seconds size_bytes newest_commit rescue "
        "assertions findings ignored phases rows past regressions problem hint kept"
    )
    assert set(drill["rescue"]) == names(
        "verdict strategy engine version system_identifier databases recovered_to steps seconds"
    )
    assert set(drill["assertions"][0]) == names("kind name database outcome expected seen detail seconds")
    assert set(drill["ignored"][0]) == names("code severity object detail remedy rows reason until")


def test_values_come_through() -> None:
    document = document_of(drills.FAILED)
    assert (document["schema"], document["outcome"], document["exit_status"]) == (1, "failed", 1)
    assert (document["id"], document["started"]) == ("01JDA9M2V5", "2026-11-22T03:00:05+00:00")
    (drill,) = document["drills"]
    assert drill["newest_commit"] == {
        "time": "2026-11-22T02:51:40+00:00",
        "age_seconds": 505.0,
        "source": "the last commit that was replayed",
    }
    assert drill["rescue"]["system_identifier"] == "7421337712345678901"
    assert drill["rescue"]["recovered_to"]["lsn"] == "16/B374D848"
    assert [one["outcome"] for one in drill["assertions"]].count("could-not-verify") == 1
    assert drill["findings"][0]["rows"] == 1_834
    assert drill["ignored"][0]["until"] == "2026-12-31"
    assert drill["phases"][3] == {"name": "transfer to a throwaway server", "outcome": "failed", "seconds": 41.0}
    assert drill["rows"] == {"portal public.orders": 611_204, "portal public.invoices": 915_420}
    assert len(drill["past"]) == 7
    assert drill["past"][5]["verdict"] is None
    assert drill["past"][5]["outcome"] == "could-not-verify"
    assert datetime.fromisoformat(drill["past"][0]["time"]).tzinfo is not None
    assert drill["kept"] == "/srv/drills/portal-nightly-k2v9.drill"
    assert len(drill["regressions"]) == 4


def test_what_is_not_known_is_null() -> None:
    document = document_of(drills.UNVERIFIED)
    assert document["notes"] == ["The hook of SLACK_URL could not be told: it answered 404."]
    (drill,) = document["drills"]
    for name in ("rescue", "recovery_seconds", "size_bytes", "newest_commit", "kept"):
        assert drill[name] is None
    assert drill["problem"].startswith("No snapshot matches")


def test_the_worst_drill_decides_and_no_drill_is_no_pass() -> None:
    assert document_of(drills.SEVERAL)["exit_status"] == 1
    assert document_of(drills.NOTHING)["exit_status"] == 4
    assert document_of(drills.PASSED)["exit_status"] == 0
    statuses = [exit_status(outcome) for outcome in DrillOutcome]
    assert statuses == [ExitStatus.OK, ExitStatus.UNVERIFIED, ExitStatus.FAILED]


@pytest.mark.parametrize("run", [drills.FAILED, drills.HARMFUL_RUN])
def test_no_password_is_in_it(run: DrillRun) -> None:
    assert run.drills[0].rescue is not None
    assert PASSWORD in str(run.drills[0].rescue.url)
    assert PASSWORD not in encoded(drill_document(run))


def test_names_that_are_no_utf_8_are_escaped() -> None:
    odd = dataclasses.replace(drills.PASSED, file="a\udcff.yaml")
    encoded(drill_document(odd)).encode()
