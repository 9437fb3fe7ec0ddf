"""The report of a drill as JUnit XML, which CI systems show as tests .

The elements and attributes are those of junit-10.xsd of Jenkins' xUnit plugin, the strictest of its readers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from pgrescue.drilled import DrillOutcome
from pgrescue.report.drill_words import MEANINGS
from pgrescue.report.shown import cut, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pgrescue.drilled import Assertion, DrillReport, DrillRun
    from pgrescue.model import Finding

_JSON = "drill.json"
_MOST_FINDINGS = 1_000
_MOST_IN_A_MESSAGE = 1_000


def junit_xml(run: DrillRun) -> str:
    """Return a suite for each drill and a case for each assertion, as XML 1.0 in UTF-8.

    What could not be verified is an error, never skipped: CI systems let skipped tests pass. A drill with no assertion
    that says why it did not pass has a case of its own, and so has a run without drills.
    """
    root = ET.Element("testsuites", name="pgrescue drill")
    for drill in run.drills:
        root.append(_suite(drill))
    if not run.drills:
        root.append(_suite_of_nothing(run))
    for name in ("tests", "failures", "errors"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    root.set("time", _seconds(run.seconds))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _suite(drill: DrillReport) -> ET.Element:
    cases = [_case(drill, one) for one in drill.assertions]
    cases += _case_of_the_drill(drill)
    suite = _suite_of(drill.name, cases, seconds=drill.seconds, started=drill.started.isoformat(timespec="seconds"))
    properties = ET.Element("properties")
    for name, value in _properties(drill):
        ET.SubElement(properties, "property", name=name, value=visible(value))
    suite.insert(0, properties)
    if drill.findings or drill.ignored:
        ET.SubElement(suite, "system-out").text = visible("\n".join(_findings(drill)))
    return suite


def _suite_of_nothing(run: DrillRun) -> ET.Element:
    case = ET.Element("testcase", classname="pgrescue.drill", name="drill", time="0.000")
    ET.SubElement(case, "error", message="no drill ran", type=run.outcome.value).text = visible("\n".join(run.notes))
    return _suite_of("drill", [case], seconds=run.seconds, started=run.started.isoformat(timespec="seconds"))


def _suite_of(name: str, cases: Sequence[ET.Element], *, seconds: float, started: str) -> ET.Element:
    suite = ET.Element("testsuite", name=visible(name), tests=str(len(cases)))
    suite.set("failures", str(sum(case.find("failure") is not None for case in cases)))
    suite.set("errors", str(sum(case.find("error") is not None for case in cases)))
    suite.set("skipped", "0")
    suite.set("time", _seconds(seconds))
    suite.set("timestamp", started)
    suite.extend(cases)
    return suite


def _case(drill: DrillReport, one: Assertion) -> ET.Element:
    name = f"{one.database}: {one.name}" if one.database else one.name
    case = _empty_case(drill, name, seconds=one.seconds)
    words = f"expected: {one.expected}\nseen: {one.seen}"
    if one.outcome is DrillOutcome.PASSED:
        ET.SubElement(case, "system-out").text = visible(words)
    else:
        # Why it could not be told says more than what was to be told.
        why = one.detail.partition("\n")[0] if one.outcome is DrillOutcome.UNVERIFIED else ""
        message = why or f"expected {one.expected}, seen {one.seen}"
        _add_trouble(case, one.outcome, message, f"{words}\n{one.detail}".rstrip())
    return case


def _case_of_the_drill(drill: DrillReport) -> Iterator[ET.Element]:
    """Yield a case where the assertions do not tell all: the drill broke off, or did not pass for another reason."""
    told = {one.outcome for one in drill.assertions}
    if not drill.problem and (drill.outcome in told or (drill.outcome is DrillOutcome.PASSED and told)):
        return
    # A failure only where nothing else is one: a drill that broke off has the rest of it unverified.
    outcome = DrillOutcome.UNVERIFIED
    if drill.outcome is DrillOutcome.FAILED and DrillOutcome.FAILED not in told:
        outcome = DrillOutcome.FAILED
    case = _empty_case(drill, "drill", seconds=drill.seconds)
    _add_trouble(case, outcome, drill.problem or MEANINGS[outcome], f"{drill.problem}\n{drill.hint}".strip())
    yield case


def _empty_case(drill: DrillReport, name: str, *, seconds: float) -> ET.Element:
    classname = visible(f"pgrescue.drill.{drill.name}")
    return ET.Element("testcase", classname=classname, name=visible(name), time=_seconds(seconds))


def _add_trouble(case: ET.Element, outcome: DrillOutcome, message: str, text: str) -> None:
    tag = "failure" if outcome is DrillOutcome.FAILED else "error"
    trouble = ET.SubElement(case, tag, message=visible(message[:_MOST_IN_A_MESSAGE]), type=outcome.value)
    trouble.text = visible(cut(text, _JSON))


def _properties(drill: DrillReport) -> Iterator[tuple[str, str]]:
    """Yield what is known of the drill; what is not known is left out."""
    yield "outcome", drill.outcome.value
    yield "snapshot", drill.snapshot
    if drill.rescue is not None:
        yield "verdict", drill.rescue.verdict.value
        yield "strategy", drill.rescue.strategy.value
        yield "engine", drill.rescue.engine.value
        yield "version", str(drill.rescue.version)
    if drill.recovery_seconds is not None:
        yield "recovery_seconds", _seconds(drill.recovery_seconds)
    if drill.size_bytes is not None:
        yield "size_bytes", str(drill.size_bytes)
    if drill.newest_commit is not None:
        yield "newest_commit", drill.newest_commit.time.isoformat()
        yield "newest_commit_age_seconds", _seconds(drill.newest_commit.age_seconds)
    for regression in drill.regressions:
        yield "regression", regression


def _findings(drill: DrillReport) -> Iterator[str]:
    yield from _lines(drill.findings[:_MOST_FINDINGS])
    if len(drill.findings) > _MOST_FINDINGS:
        yield f"({len(drill.findings) - _MOST_FINDINGS:,} more findings in {_JSON})"
    for one in drill.ignored[:_MOST_FINDINGS]:
        yield f"ignored until {one.until.isoformat()}: {one.finding.code}: {one.finding.object} ({one.reason})"
    if len(drill.ignored) > _MOST_FINDINGS:
        yield f"({len(drill.ignored) - _MOST_FINDINGS:,} more ignored findings in {_JSON})"


def _lines(findings: Iterable[Finding]) -> Iterator[str]:
    for finding in findings:
        yield f"{finding.severity.value} {finding.code}: {finding.object}"
        for text in (finding.detail, f"-> {finding.remedy}" if finding.remedy else ""):
            yield from (f"    {line}" for line in cut(text, _JSON).splitlines() if line)


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}"
