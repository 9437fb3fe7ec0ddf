"""The rescue report as one page for a browser, which needs nothing beside it and holds no secret."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, assert_never

from pgrescue.model import Outcome, Severity, Verdict
from pgrescue.report.cells import COLUMNS, grid_of, kinds_of, span
from pgrescue.report.words import OUTCOMES, STRATEGIES, VERDICTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pgrescue.model import BlockMap, Finding, RescueReport
    from pgrescue.report.cells import Grid, Kind

# What keeps the page small enough to be opened and read: report.json has all findings.
_MOST_FINDINGS = 300
_MOST_CHARACTERS = 6_000
_MOST_IN_A_LINE = 400
_MOST_MAPS = 20
_MOST_RELATIONS = 500
_MOST_RUNS = 100
_MOST_DATABASES = 200
_MOST_CODES = 40
_FEW = 12

_TITLES = {Severity.ERROR: "Errors", Severity.WARNING: "Warnings", Severity.INFO: "Notes"}
_OUTCOME_MARKS = {Outcome.DONE: "✓", Outcome.HELD: "=", Outcome.SKIPPED: "○", Outcome.FAILED: "✗"}
# What a browser would drop, refuse or let turn the text around it: control characters, lone surrogates (file names that
# are no UTF-8) and overrides of the writing direction.
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_KIB, _MINUTE, _HOUR = 1024, 60, 3600


@dataclass(frozen=True)
class _Advice:
    """One thing to do next, and the command for it where there is one."""

    text: str
    command: str = ""


@dataclass(frozen=True)
class _Group:
    """The findings of one severity; `codes` counts them, also those that are not shown."""

    severity: Severity
    title: str
    shown: tuple[Finding, ...]
    total: int
    codes: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class _Map:
    """A damaged relation, how many of its blocks are damaged, and its map."""

    relation: BlockMap
    damaged: int
    grid: Grid
    runs: tuple[tuple[str, int, Kind], ...]
    """Range, number of blocks and kind of the first runs."""


@dataclass(frozen=True)
class _Bar:
    """A step on the time line: where it begins and how long it is, in percent of all steps."""

    name: str
    outcome: Outcome
    mark: str
    words: str
    took: str
    begin: float
    length: float


def report_page(report: RescueReport, *, blocks: Sequence[BlockMap], program: str) -> str:
    """Return the report as one HTML page, which is valid UTF-8 and refers to nothing outside of itself.

    `blocks` are the relations that were looked at; `program` is how a shell finds pgrescue, so that the commands shown
    can be pasted. Of very many findings or damaged relations only the first are shown, and the page says so.
    """
    # Not at the top: only the end of a rescue needs it, and a command line should start quickly.
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - see above

    environment = Environment(
        loader=PackageLoader("pgrescue", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_fit,
    )
    environment.filters.update(size=_size, duration=_duration, cut=_cut, short=_short)
    return environment.get_template("report.html.j2").render(_values(report, blocks, program))


def _values(report: RescueReport, blocks: Sequence[BlockMap], program: str) -> dict[str, Any]:
    """Return what the template shows. The URL with the password is not among it: the page may be passed on."""
    damaged = sorted((relation for relation in blocks if relation.damaged), key=_damaged_blocks, reverse=True)
    kinds = kinds_of(damaged[:_MOST_MAPS])
    return {
        "report": report,
        "title": report.workspace.name,
        "meaning": VERDICTS[report.verdict],
        "strategy": STRATEGIES.get(report.strategy, ""),
        "advice": tuple(_advice(report, program)),
        "groups": _groups(report.findings),
        "removal": f"{program} rm {_named(report)}",
        "commands": tuple(_commands(report, program)),
        "databases": report.databases[:_MOST_DATABASES],
        "databases_bytes": sum(database.size_bytes for database in report.databases),
        "relations": len(blocks),
        "damaged": len(damaged),
        "damaged_blocks": sum(map(_damaged_blocks, damaged)),
        "maps": tuple(_map(relation, kinds) for relation in damaged[:_MOST_MAPS]),
        "unmapped": tuple((item, _damaged_blocks(item)) for item in damaged[_MOST_MAPS:_MOST_RELATIONS]),
        "columns": COLUMNS,
        "bars": _bars(report),
        "few": _FEW,
    }


def _advice(report: RescueReport, program: str) -> Iterator[_Advice]:
    """Say what to do next, in three lines at most (RECOVERY.md, "Read the verdict")."""
    workspace = _named(report)
    look = f"{program} psql {workspace}"
    move = "Move the data to a new cluster: RECOVERY.md, part 4."
    match report.verdict:
        case Verdict.CONSISTENT:
            yield _Advice("Look at the data.", look)
            yield _Advice(move)
            yield _Advice("Keep the snapshot until the new cluster is in use.")
        case Verdict.BEST_EFFORT:
            yield _Advice("Change nothing on the rescued server before it is dumped.")
            yield _Advice("Compare with what you know: last orders, sums, counts.", look)
            yield _Advice(move)
        case Verdict.DAMAGED:
            yield _Advice("Read the errors below: they name what is damaged or missing, and what to do about it.")
            yield _Advice("Change nothing on the rescued server. Dump what can be had: RECOVERY.md, part 4.", look)
            yield _Advice("Look for a better snapshot, and for the WAL archive, at the same time. Keep this one.")
        case Verdict.FAILED:
            yield _Advice("Read the errors below, then the log.", f"{program} logs {workspace}")
            yield _Advice("Mend the cause and run the same command again: the workspace stays as it is.")
            yield _Advice("Keep the snapshot, the old volume and the old disk, even a broken one.")
        case _:
            assert_never(report.verdict)


def _commands(report: RescueReport, program: str) -> Iterator[tuple[str, str]]:
    workspace = _named(report)
    if report.shown_url is not None:
        yield "psql", f"{program} psql {workspace}"
        yield "Stop the server", f"{program} stop {workspace}"
    yield "Server log", f"{program} logs {workspace}"


def _named(report: RescueReport) -> str:
    return f"-w {shlex.quote(str(report.workspace))}"


def _groups(findings: Sequence[Finding]) -> tuple[_Group, ...]:
    """Return the findings by severity, the gravest first, without empty groups."""
    groups = []
    for severity in reversed(Severity):
        own = [finding for finding in findings if finding.severity is severity]
        if own:
            codes = Counter(finding.code for finding in own).most_common(_MOST_CODES)
            groups.append(_Group(severity, _TITLES[severity], tuple(own[:_MOST_FINDINGS]), len(own), tuple(codes)))
    return tuple(groups)


def _damaged_blocks(relation: BlockMap) -> int:
    return sum(run.last - run.first + 1 for run in relation.damaged)


def _map(relation: BlockMap, kinds: Mapping[str, Kind]) -> _Map:
    runs = sorted(relation.damaged, key=lambda run: run.first)[:_MOST_RUNS]
    rows = ((span(run.first, run.last), run.last - run.first + 1, kinds[run.kind]) for run in runs)
    return _Map(relation, _damaged_blocks(relation), grid_of(relation, kinds), tuple(rows))


def _bars(report: RescueReport) -> tuple[_Bar, ...]:
    """Return the steps one after another, as they ran."""
    whole = sum(step.seconds for step in report.steps) or 1.0
    bars, begun = [], 0.0
    for step in report.steps:
        begin, length = 100 * begun / whole, 100 * step.seconds / whole
        begun += step.seconds
        mark, words = _OUTCOME_MARKS[step.outcome], OUTCOMES[step.outcome]
        bars.append(_Bar(step.name, step.outcome, mark, words, _duration(step.seconds), begin, length))
    return tuple(bars)


def _fit(value: object) -> object:
    """Make what would vanish or mislead in a page visible, as Python writes it in a text."""
    if hasattr(value, "__html__"):
        return value
    return _UNFIT.sub(lambda found: ascii(found[0])[1:-1], str(value).replace("\r\n", "\n"))


def _cut(text: str) -> str:
    """Return the beginning of a very long text, and say how much more there is."""
    left = len(text) - _MOST_CHARACTERS
    return text if left <= 0 else f"{text[:_MOST_CHARACTERS]}…\n({left:,} more characters in report.json)"


def _short(text: str) -> str:
    """Return the beginning of a very long name."""
    return text if len(text) <= _MOST_IN_A_LINE else f"{text[:_MOST_IN_A_LINE]}…"


def _size(size_bytes: int) -> str:
    """Return a size with three digits or so."""
    amount, units = float(size_bytes), iter(("bytes", "KiB", "MiB", "GiB", "TiB", "PiB"))
    unit = next(units)
    for larger in units:
        if amount < _KIB:
            break
        amount, unit = amount / _KIB, larger
    digits = 0 if unit == "bytes" or amount >= 100 else 1  # noqa: PLR2004 - three digits
    return f"{amount:,.{digits}f} {unit}"


def _duration(seconds: float) -> str:
    """Return a duration: `1.2 s`, `3 min 07 s`, `2 h 05 min`."""
    if round(seconds, 1) < _MINUTE:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02} s"
    return f"{whole // _HOUR:,} h {whole % _HOUR // _MINUTE:02} min"
