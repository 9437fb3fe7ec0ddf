"""The report of a drill as Markdown, for the summary that GitHub shows of a job, and for merge requests."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from pgrescue.drilled import DrillOutcome
from pgrescue.model import Severity
from pgrescue.report.drill_words import MEANINGS, advice, meaning, tally
from pgrescue.report.findings import objects_of, same_findings
from pgrescue.report.measures import measures
from pgrescue.report.shown import counted, duration, short, visible
from pgrescue.report.words import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pgrescue.drilled import DrillReport, DrillRun, IgnoredFinding
    from pgrescue.model import Finding

# GitHub refuses a step's summary of more than 1 MiB, and a step may have written something before.
MOST_BYTES = 900_000
_MOST_GROUPS = 100
_MOST_OBJECTS = 20
_MOST_ROWS = 200
_MOST_CHARACTERS = 2_000
_MARKS = {DrillOutcome.PASSED: "✅", DrillOutcome.UNVERIFIED: "❔", DrillOutcome.FAILED: "❌"}
_TITLES = {Severity.ERROR: "Errors", Severity.WARNING: "Warnings", Severity.INFO: "Notes"}
_SPECIAL = re.compile(r"[\\`*_\[\]|~]")
# What GitHub makes links, pictures and formulas of in what Markdown left as text: mentions, issues and emojis.
_REFERRING = re.compile(r"@(?=\w)|#(?=\d)|GH-(?=\d)|:(?=[\w+-]+:)")
_ENDS = re.compile(r"\n+")


def drill_markdown(run: DrillRun, *, most_bytes: int = MOST_BYTES) -> str:
    """Return the report, the outcome first; past `most_bytes` of UTF-8 it is cut at the end of a line, and says so."""
    parts = [f"## {_MARKS[run.outcome]} Restore drill: {run.outcome.value}", "", f"**{_text(meaning(run))}**", ""]
    parts += [
        f"{_code(run.file)}, begun {run.started:%F %T %Z}, took {duration(run.seconds)}, run {_code(run.id)}.",
        "",
    ]
    for note in run.notes:
        parts += [f"> Note: {_text(note)}", ""]
    if len(run.drills) > 1:
        parts += [*_overview(run), ""]
    for drill in run.drills:
        parts += _drill(drill, run)
    return _within("\n".join(parts), most_bytes)


def _overview(run: DrillRun) -> Iterator[str]:
    rows = []
    for drill in run.drills:
        verdict = "no rescue" if drill.rescue is None else drill.rescue.verdict.value
        recovery = "not known" if drill.recovery_seconds is None else duration(drill.recovery_seconds)
        rows.append((_text(drill.name), _outcome(drill.outcome), verdict, _text(tally(drill)), recovery))
    return _table(("Drill", "Outcome", "Verdict", "Assertions", "Recovery"), rows)


def _drill(drill: DrillReport, run: DrillRun) -> Iterator[str]:
    yield f"### {_MARKS[drill.outcome]} {_text(drill.name)}: {drill.outcome.value}"
    yield ""
    yield f"{MEANINGS[drill.outcome]} {_text(tally(drill).capitalize())}."
    yield ""
    yield from _facts(drill)
    yield ""
    if drill.problem:
        yield f"> **Broke off:** {_text(drill.problem, newline='<br>')}"
        yield ""
    for regression in drill.regressions:
        yield f"- ⚠️ **Worse than before:** {_text(regression)}"
    yield ""
    yield "**What to do next**"
    yield ""
    for item in advice(drill, file=run.file, program="pgrescue"):
        yield f"1. {_text(item.text)}" + (f"<br>{_code(item.command)}" if item.command else "")
    yield ""
    for title, lines in (
        ("Assertions", _assertions(drill)),
        ("Timings", _timings(drill)),
        ("Findings", _findings(drill.findings)),
        ("Ignored findings", _ignored(drill.ignored)),
    ):
        if told := list(lines):
            yield from (f"#### {title}", "", *told, "")
    yield from _phases(drill)


def _facts(drill: DrillReport) -> Iterator[str]:
    because = f" ({_text(drill.chosen_because)})" if drill.chosen_because else ""
    yield f"- Snapshot: {_code(drill.snapshot)}{because}"
    if (rescue := drill.rescue) is not None:
        server = f"PostgreSQL {_text(str(rescue.version))}, engine {rescue.engine}, strategy {rescue.strategy}"
        yield f"- Verdict: **{rescue.verdict}** ({server})"
    if (newest := drill.newest_commit) is not None:
        yield f"- Newest commit: {newest.time:%F %T %Z} ({_text(newest.source)})"


def _assertions(drill: DrillReport) -> Iterator[str]:
    rows = []
    for one in drill.assertions[:_MOST_ROWS]:
        detail = "" if one.outcome is DrillOutcome.PASSED else one.detail
        seen = "<br>".join(filter(None, (_text(one.seen), _text(detail))))
        rows.append((_outcome(one.outcome), _text(one.name), _text(one.database), _text(one.expected), seen))
    if rows:
        yield from _table(("Outcome", "Assertion", "Database", "Expected", "Seen"), rows)
    yield from _left(len(drill.assertions) - len(rows), "assertion")


def _timings(drill: DrillReport) -> Iterator[str]:
    rows = [(_text(one.title), one.shown, _text(one.usual), one.change) for one in measures(drill)]
    return _table(("", "This run", "Median of earlier runs", "Change"), rows)


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield errors and warnings open, and notes folded; those that say the same of several objects once."""
    for severity in reversed(Severity):
        own = [finding for finding in findings if finding.severity is severity]
        if not own:
            continue
        groups = same_findings(own)
        title = f"{_TITLES[severity]} ({len(own):,})"
        folded = severity is Severity.INFO
        yield from (f"<details><summary>{title}</summary>", "") if folded else (f"**{title}**", "")
        for group in groups[:_MOST_GROUPS]:
            yield f"- {_code(group[0].code)}: {_text(objects_of(group, most=_MOST_OBJECTS))}"
            if group[0].detail:
                yield f"  <br>{_text(group[0].detail)}"
            if group[0].remedy:
                yield f"  <br>**What to do:** {_text(group[0].remedy)}"
        yield from _left(len(groups) - _MOST_GROUPS, "kind", "kinds")
        yield from ("", "</details>", "") if folded else ("",)


def _ignored(ignored: Sequence[IgnoredFinding]) -> Iterator[str]:
    rows = [
        (_code(one.finding.code), _text(one.finding.object), _text(one.reason), one.until.isoformat())
        for one in ignored[:_MOST_ROWS]
    ]
    if rows:
        yield from _table(("Code", "Object", "Reason", "Until"), rows)
    yield from _left(len(ignored) - len(rows), "ignored finding")


def _phases(drill: DrillReport) -> Iterator[str]:
    steps = [("rescue: ", one) for one in (() if drill.rescue is None else drill.rescue.steps)]
    parts = [*(("", one) for one in drill.phases), *steps]
    if not parts:
        return
    rows = [(_text(f"{of}{one.name}"), OUTCOMES[one.outcome], duration(one.seconds)) for of, one in parts[:_MOST_ROWS]]
    yield from ("<details><summary>Phases and steps</summary>", "")
    yield from _table(("Phase", "Outcome", "Time"), rows)
    yield from _left(len(parts) - len(rows), "phase")
    yield from ("", "</details>", "")


def _left(number: int, one: str, many: str = "") -> Iterator[str]:
    if number > 0:
        yield ""
        yield f"{counted(number, f'more {one}', f'more {many or one + chr(115)}')} in drill.json."


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _outcome(outcome: DrillOutcome) -> str:
    return f"{_MARKS[outcome]} {outcome.value}"


def _text(text: str, *, newline: str = "<br>") -> str:
    """Return a text that is shown as it is, in one line: no markup, no link, no mention, no cell's end."""
    return _plain(text, between="&#8203;").replace("\n", newline)


def _code(text: str) -> str:
    """Return a text as code, in which GitHub looks for no mentions, so that it can be copied."""
    return f"<code>{_plain(short(text))}</code>".replace("\n", "<br>")


def _plain(text: str, *, between: str = "") -> str:
    """Return a text in which Markdown finds no markup and no address; line ends stay.

    GitHub looks for mentions when the markup is gone: only a character `between` keeps it from seeing them.
    """
    if len(text) > _MOST_CHARACTERS:
        text = f"{text[:_MOST_CHARACTERS]}… ({len(text) - _MOST_CHARACTERS:,} more characters in drill.json)"
    escaped = _SPECIAL.sub(r"\\\g<0>", html.escape(visible(text), quote=False))
    # Before there are character references, which have a # of their own.
    escaped = _REFERRING.sub(rf"\g<0>{between}", escaped)
    escaped = escaped.replace("://", "&#58;//").replace("www.", "www&#46;").replace("$", "<span>$</span>")
    return _ENDS.sub("\n", escaped.strip("\n")).replace("\t", " ")


def _within(text: str, most_bytes: int) -> str:
    """Cut a text at the end of a line, close what is folded, and say that there was more."""
    data = text.encode()
    if len(data) <= most_bytes:
        return text
    note = "\n\n**The report is longer than a summary may be: all of it is in drill.json and drill.html.**\n"
    close = "\n\n</details>"
    kept = data[: max(0, most_bytes - len(f"{close}{note}".encode()))].decode(errors="ignore")
    kept = kept[: kept.rfind("\n") + 1].rstrip("\n")
    return f"{kept}{close if kept.count('<details>') > kept.count('</details>') else ''}{note}"
