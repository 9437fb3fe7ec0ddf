"""The report of a drill as metrics, read by Prometheus' own parser."""

from __future__ import annotations

import dataclasses

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pgrescue.drilled import DrillOutcome, DrillRun
from pgrescue.report.metrics import metrics_text
from tests import drills
from tests.reports import PASSWORD

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples_of(run: DrillRun) -> Samples:
    """Return every sample; each metric has one family with help and type, and no sample comes twice."""
    samples: Samples = {}
    names = []
    for family in text_string_to_metric_families(metrics_text(run)):
        assert family.type == "gauge"
        assert family.documentation.endswith(".")
        assert family.samples
        names.append(family.name)
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in samples
            samples[key] = sample.value
    assert len(names) == len(set(names))
    return samples


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"pgrescue_drill_{name}", frozenset(labels.items())


def test_every_value_is_there_and_right() -> None:
    name = "portal nightly"
    started = drills.STARTED.timestamp()
    assert samples_of(drills.FAILED) == {
        key("outcome", drill=name, outcome="passed"): 0,
        key("outcome", drill=name, outcome="could-not-verify"): 0,
        key("outcome", drill=name, outcome="failed"): 1,
        key("last_run_timestamp_seconds", drill=name): started,
        key("last_pass_timestamp_seconds", drill=name): started - 86_400,
        key("duration_seconds", drill=name): 1_412.6,
        key("recovery_seconds", drill=name): 1_088.0,
        key("snapshot_size_bytes", drill=name): drills.FAILED_DRILL.size_bytes,
        key("newest_commit_age_seconds", drill=name): 505.0,
        key("assertions", drill=name, outcome="passed"): 3,
        key("assertions", drill=name, outcome="could-not-verify"): 1,
        key("assertions", drill=name, outcome="failed"): 3,
        key("findings", drill=name, severity="info"): 1,
        key("findings", drill=name, severity="warning"): 1,
        key("findings", drill=name, severity="error"): 2,
        key("verdict", drill=name, verdict="consistent"): 0,
        key("verdict", drill=name, verdict="best-effort"): 0,
        key("verdict", drill=name, verdict="damaged"): 1,
        key("verdict", drill=name, verdict="failed"): 0,
        key("rows", drill=name, database="portal", table="public.orders"): 611_204,
        key("rows", drill=name, database="portal", table="public.invoices"): 915_420,
    }


def test_what_is_not_known_is_absent() -> None:
    drill = dataclasses.replace(drills.UNVERIFIED_DRILL, past=())
    samples = samples_of(dataclasses.replace(drills.UNVERIFIED, drills=(drill,)))
    assert {name.removeprefix("pgrescue_drill_") for name, _ in samples} == {
        "outcome",
        "last_run_timestamp_seconds",
        "duration_seconds",
    }
    assert samples[key("outcome", drill="billing weekly", outcome="could-not-verify")] == 1
    assert metrics_text(drills.NOTHING) == ""


def test_a_pass_is_its_own_last_pass() -> None:
    assert samples_of(drills.PASSED)[key("last_pass_timestamp_seconds", drill="portal nightly")] == (
        drills.STARTED.timestamp()
    )


def test_several_drills_share_each_family() -> None:
    samples = samples_of(drills.SEVERAL)
    actual = [dict(labels) for (name, labels), value in samples.items() if name.endswith("_outcome") and value == 1]
    outcomes = {labels["drill"]: labels["outcome"] for labels in actual}
    assert outcomes == {"portal nightly": "passed", "portal weekly": "failed", "billing weekly": "could-not-verify"}


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "line\nend", "Käse 🧀", "\x1b[31m", "a\\nb", "end\\"])
def test_labels_come_through(name: str) -> None:
    drill = dataclasses.replace(drills.PASSED_DRILL, name=name, rows={f"db {name}": 1})
    samples = samples_of(dataclasses.replace(drills.PASSED, drills=(drill,)))
    assert samples[key("rows", drill=name, database="db", table=name)] == 1


def test_names_that_are_no_utf_8_and_equal_names_spoil_nothing() -> None:
    drill = dataclasses.replace(drills.PASSED_DRILL, name="a\udcff")
    run = dataclasses.replace(drills.PASSED, drills=(drill, drill))
    metrics_text(run).encode()
    assert samples_of(run)[key("outcome", drill="a\\udcff", outcome="passed")] == 1


def test_the_counts_are_those_of_the_drill() -> None:
    run = drills.huge_run()
    samples = samples_of(run)
    assert samples[key("findings", drill="portal nightly", severity="error")] == 3_334
    for outcome in DrillOutcome:
        assert samples[key("assertions", drill="portal nightly", outcome=outcome.value)] == 2_500
    assert PASSWORD not in metrics_text(run)
