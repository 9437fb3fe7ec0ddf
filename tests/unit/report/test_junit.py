"""The report of a drill as JUnit XML, read by others."""

from __future__ import annotations

import dataclasses
import re
from datetime import datetime
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from junitparser import Error, Failure, JUnitXml, TestCase, TestSuite

from pgrescue.drilled import DrillOutcome, DrillRun
from pgrescue.report.junit import junit_xml
from tests import drills
from tests.reports import PASSWORD

if TYPE_CHECKING:
    from pathlib import Path

RUNS = {
    "passed": drills.PASSED,
    "failed": drills.FAILED,
    "unverified": drills.UNVERIFIED,
    "several": drills.SEVERAL,
    "harmful": drills.HARMFUL_RUN,
    "nothing": drills.NOTHING,
}
# What junit-10.xsd of Jenkins' xUnit plugin allows, which rejects a whole file for anything else: children, attributes.
ALLOWED = {
    "testsuites": ({"testsuite"}, {"name", "time", "tests", "failures", "errors"}),
    "testsuite": (
        {"properties", "testcase", "system-out"},
        {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"},
    ),
    "properties": ({"property"}, set()),
    "property": (set(), {"name", "value"}),
    "testcase": ({"error", "failure", "system-out"}, {"name", "classname", "time"}),
    "error": (set(), {"type", "message"}),
    "failure": (set(), {"type", "message"}),
    "system-out": (set(), set()),
}
REQUIRED = {"testsuite": {"name", "tests", "failures", "errors"}, "property": {"name", "value"}, "testcase": {"name"}}


def suites_of(run: DrillRun, folder: Path) -> list[TestSuite]:
    file = folder / "junit.xml"
    file.write_text(junit_xml(run))
    return list(JUnitXml.fromfile(str(file)))


def properties_of(suite: TestSuite) -> dict[str, str]:
    return {item.name: item.value for item in suite.properties()}  # type: ignore[no-untyped-call]


def output_of(run: DrillRun) -> str:
    """Return what the first suite says beside its cases."""
    return ET.fromstring(junit_xml(run)).findtext("testsuite/system-out", "")


def cases_of(suite: TestSuite) -> dict[str, TestCase]:
    return {case.name: case for case in suite}


@pytest.mark.parametrize("name", RUNS)
def test_it_has_the_shape_that_ci_systems_read(name: str) -> None:
    root = ET.fromstring(junit_xml(RUNS[name]))
    assert root.tag == "testsuites"
    for element in root.iter():
        children, attributes = ALLOWED[element.tag]
        assert {child.tag for child in element} <= children
        assert set(element.attrib) <= attributes
        assert REQUIRED.get(element.tag, set()) <= set(element.attrib)
        if "time" in element.attrib:
            assert re.fullmatch(r"[0-9]+\.[0-9]{3}", element.attrib["time"])
    for counted in (root, *root.iter("testsuite")):
        assert int(counted.attrib["tests"]) == len(list(counted.iter("testcase"))) > 0
        assert int(counted.attrib["failures"]) == len(list(counted.iter("failure")))
        assert int(counted.attrib["errors"]) == len(list(counted.iter("error")))
    for suite in root.iter("testsuite"):
        assert datetime.fromisoformat(suite.attrib["timestamp"]).tzinfo is not None
    # Not even one case too few: a run that did not pass has a case that did not.
    bad = len(list(root.iter("failure"))) + len(list(root.iter("error")))
    assert bool(bad) is (RUNS[name].outcome is not DrillOutcome.PASSED)


def test_every_assertion_is_a_case(tmp_path: Path) -> None:
    (suite,) = suites_of(drills.FAILED, tmp_path)
    assert (suite.name, suite.tests, suite.failures, suite.errors, suite.skipped) == ("portal nightly", 7, 3, 1, 0)
    assert suite.time == pytest.approx(1_412.6)
    cases = cases_of(suite)
    assert {case.classname for case in cases.values()} == {"pgrescue.drill.portal nightly"}
    (failure,) = cases["recovery time"].result
    assert isinstance(failure, Failure)
    assert failure.message == "expected <= 15 min, seen 18 min 08 s"
    assert "recover took 10 min 55 s of it." in str(failure.text)
    (error,) = cases["portal: transfer to a throwaway server"].result
    assert isinstance(error, Error)
    assert error.message == "public.orders could not be read: a page of it is damaged."
    passed = cases["portal: every order has a customer"]
    assert passed.result == []
    assert passed.time == pytest.approx(3.2)
    assert passed.system_out == "expected: == 0\nseen: 0"
    properties = properties_of(suite)
    assert properties["verdict"] == "damaged"
    assert properties["strategy"] == "archive"
    assert properties["engine"] == "docker"
    assert properties["version"] == "17.11"
    assert properties["recovery_seconds"] == "1088.000"
    assert properties["size_bytes"] == str(drills.FAILED_DRILL.size_bytes)
    findings = output_of(drills.FAILED)
    assert "error page_checksum: portal: public.orders" in findings
    assert "    -> REINDEX INDEX public.customers_name_idx;" in findings
    assert "ignored until 2026-12-31: collation_version: portal: public.customers_name_idx" in findings


def test_a_drill_that_broke_off_is_an_error(tmp_path: Path) -> None:
    (suite,) = suites_of(drills.UNVERIFIED, tmp_path)
    (case,) = suite
    assert case.name == "drill"
    (error,) = case.result
    assert isinstance(error, Error)
    assert error.message == drills.UNVERIFIED_DRILL.problem
    assert drills.UNVERIFIED_DRILL.hint in str(error.text)
    assert set(properties_of(suite)) == {"outcome", "snapshot"}


@pytest.mark.parametrize(
    ("outcome", "problem", "kind"),
    [
        (DrillOutcome.FAILED, "", Failure),
        (DrillOutcome.FAILED, "It broke off.", Failure),
        (DrillOutcome.UNVERIFIED, "", Error),
        (DrillOutcome.UNVERIFIED, "It broke off.", Error),
    ],
)
def test_what_no_assertion_tells_has_a_case_of_its_own(
    tmp_path: Path, outcome: DrillOutcome, problem: str, kind: type
) -> None:
    drill = dataclasses.replace(drills.PASSED_DRILL, outcome=outcome, problem=problem)
    (suite,) = suites_of(dataclasses.replace(drills.PASSED, drills=(drill,)), tmp_path)
    assert suite.tests == 8
    (trouble,) = cases_of(suite)["drill"].result
    assert isinstance(trouble, kind)


def test_a_drill_that_passed_without_assertions_is_no_pass(tmp_path: Path) -> None:
    drill = dataclasses.replace(drills.PASSED_DRILL, assertions=())
    (suite,) = suites_of(dataclasses.replace(drills.PASSED, drills=(drill,)), tmp_path)
    assert (suite.tests, suite.errors) == (1, 1)


def test_characters_that_xml_forbids_are_shown_as_escapes(tmp_path: Path) -> None:
    drill = dataclasses.replace(
        drills.UNVERIFIED_DRILL, name="a\x00b\x1b\udcff\ufffe <&>\"' Käse", problem="]]>\x0b\nline"
    )
    (suite,) = suites_of(dataclasses.replace(drills.UNVERIFIED, drills=(drill,)), tmp_path)
    assert suite.name == "a\\x00b\\x1b\\udcff\\ufffe <&>\"' Käse"
    (error,) = cases_of(suite)["drill"].result
    assert "]]>\\x0b\nline" in str(error.text)


def test_it_holds_no_password_and_stays_readable(tmp_path: Path) -> None:
    assert PASSWORD not in junit_xml(drills.FAILED)
    (suite,) = suites_of(drills.huge_run(), tmp_path)
    assert suite.tests == 7_501
    assert "9,001 more findings in drill.json" in output_of(drills.huge_run())
    assert all(len(case.name) < 1_000 for case in suite)
