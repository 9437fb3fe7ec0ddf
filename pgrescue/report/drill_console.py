"""The report of a drill for a person, on a terminal or in a log: the outcome comes last, where the eye is."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.text import Text

from pgrescue.drilled import DrillOutcome
from pgrescue.model import Severity
from pgrescue.report.console import print_findings
from pgrescue.report.drill_words import MARKS, MEANINGS, advice, meaning, tally
from pgrescue.report.measures import measures
from pgrescue.report.shown import counted, duration, short, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from pgrescue.drilled import Assertion, DrillReport, DrillRun

_STYLES = {
    DrillOutcome.PASSED: "bold green",
    DrillOutcome.UNVERIFIED: "bold yellow",
    DrillOutcome.FAILED: "bold red",
}


def print_drill(console: Console, run: DrillRun, *, program: str = "pgrescue") -> None:
    """Write what a tired person needs: what was expected and seen, what is wrong, and last what it came to.

    `program` is how a shell finds pgrescue, so that the commands shown can be pasted.
    """
    for drill in run.drills:
        console.print()
        _print_one(console, drill)
    console.print()
    for note in run.notes:
        _line(console, f"Note: {note}")
    for drill in run.drills:
        _say(console, drill.outcome, f"{short(drill.name)}: {drill.outcome.value}.", MEANINGS[drill.outcome])
        for line in _next(drill, run, program):
            _line(console, f"    {line}")
    if len(run.drills) != 1:
        words = f"{meaning(run)} {_numbers(run)}".rstrip()
        _say(console, run.outcome, f"Outcome: {run.outcome.value}.", f"{words} ({duration(run.seconds)})")


def _print_one(console: Console, drill: DrillReport) -> None:
    _marked(console, "bold", short(drill.name))
    for line in _facts(drill):
        _line(console, f"  {line}")
    for one in drill.assertions:
        _print_assertion(console, one)
    told = [finding for finding in drill.findings if finding.severity is not Severity.INFO]
    print_findings(console, told)
    for words in _folded(drill, len(drill.findings) - len(told)):
        _marked(console, "dim", f"({words} in drill.json)")
    for line in _timings(drill):
        _line(console, f"  {line}")
    for regression in drill.regressions:
        _marked(console, "yellow", "worse:", f" {short(regression)}")


def _facts(drill: DrillReport) -> Iterator[str]:
    why = f" ({drill.chosen_because})" if drill.chosen_because else ""
    yield f"Snapshot: {short(drill.snapshot)}{short(why)}"
    if (rescue := drill.rescue) is not None:
        yield (
            f"Restored: verdict {rescue.verdict}, PostgreSQL {rescue.version} ({rescue.engine}, strategy "
            f"{rescue.strategy})"
        )
    if (newest := drill.newest_commit) is not None:
        yield f"Newest commit: {newest.time:%F %T %Z} ({newest.source})"


def _timings(drill: DrillReport) -> Iterator[str]:
    for measure in measures(drill):
        if measure.now is not None:
            usual = f"; median of earlier runs {measure.usual}" if measure.usual else ""
            change = f", {measure.change}" if measure.change else ""
            yield f"{measure.title}: {measure.shown}{usual}{change}"


def _print_assertion(console: Console, one: Assertion) -> None:
    name = f"{one.database}: {one.name}" if one.database else one.name
    words = f"{short(name)}: expected {short(one.expected)}, seen {short(one.seen) or 'nothing'}"
    _marked(console, _STYLES[one.outcome], MARKS[one.outcome], f" {words}")
    if one.outcome is not DrillOutcome.PASSED:
        for line in filter(None, one.detail.splitlines()):
            _line(console, f"    {short(line)}")


def _folded(drill: DrillReport, notes: int) -> Iterator[str]:
    if notes:
        yield f"{notes:,} more of severity info"
    if drill.ignored:
        yield counted(len(drill.ignored), "ignored finding")


def _next(drill: DrillReport, run: DrillRun, program: str) -> Iterator[str]:
    """Say why it came to this, and what to do."""
    yield f"{tally(drill).capitalize()}; it took {duration(drill.seconds)}."
    yield from map(short, drill.problem.splitlines())
    for one in drill.assertions:
        if one.outcome is DrillOutcome.UNVERIFIED:
            yield f"Not verified: {short(one.name)}"
    for item in advice(drill, file=run.file, program=program):
        yield f"-> {short(item.text)}"
        if item.command:
            yield f"   {item.command}"


def _numbers(run: DrillRun) -> str:
    numbers = Counter(drill.outcome for drill in run.drills)
    parts = [f"{numbers[outcome]:,} {outcome.value}" for outcome in reversed(DrillOutcome) if numbers[outcome]]
    return f"{counted(len(run.drills), 'drill')}: {', '.join(parts)}." if parts else ""


def _say(console: Console, outcome: DrillOutcome, what: str, words: str) -> None:
    _marked(console, _STYLES[outcome], f"{MARKS[outcome]} {what}", f" {words}")


def _marked(console: Console, style: str, what: str, words: str = "") -> None:
    """Write a line of which the first part has a style."""
    console.print(Text.assemble((_in_a_line(what), style), _in_a_line(words)), highlight=False, soft_wrap=True)


def _line(console: Console, text: str) -> None:
    console.print(_in_a_line(text), markup=False, highlight=False, soft_wrap=True)


def _in_a_line(text: str) -> str:
    """Return a text as one line: a line end in a name must not begin a line that looks like another's."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")
