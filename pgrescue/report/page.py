"""What the pages of a rescue and of a drill have in common: findings, damaged blocks, time lines, and the templates."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgrescue.model import Outcome, Severity
from pgrescue.report.cells import COLUMNS, grid_of, kinds_of, span
from pgrescue.report.shown import cut, duration, fit, short, size
from pgrescue.report.words import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgrescue.model import BlockMap, Finding, StepReport
    from pgrescue.report.cells import Grid, Kind

# What keeps a page small enough to be opened and read: the JSON report has all findings.
_MOST_FINDINGS = 300
_MOST_MAPS = 20
_MOST_RELATIONS = 500
_MOST_RUNS = 100
_MOST_CODES = 40
FEW = 12

_TITLES = {Severity.ERROR: "Errors", Severity.WARNING: "Warnings", Severity.INFO: "Notes"}
_OUTCOME_MARKS = {Outcome.DONE: "✓", Outcome.HELD: "=", Outcome.SKIPPED: "○", Outcome.FAILED: "✗"}


@dataclass(frozen=True)
class Group:
    """The findings of one severity; `codes` counts them, also those that are not shown."""

    severity: Severity
    title: str
    shown: tuple[Finding, ...]
    total: int
    codes: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Map:
    """A damaged relation, how many of its blocks are damaged, and its map."""

    relation: BlockMap
    damaged: int
    grid: Grid
    runs: tuple[tuple[str, int, Kind], ...]
    """Range, number of blocks and kind of the first runs."""


@dataclass(frozen=True)
class Damage:
    """How many relations were looked at and are damaged, their damaged blocks, and the maps of the worst.

    `unmapped` are further ones, each with the number of its damaged blocks.
    """

    relations: int
    damaged: int
    blocks: int
    maps: tuple[Map, ...]
    unmapped: tuple[tuple[BlockMap, int], ...]


@dataclass(frozen=True)
class Bar:
    """A step on the time line: where it begins and how long it is, in percent of all steps."""

    name: str
    outcome: Outcome
    mark: str
    words: str
    took: str
    begin: float
    length: float


def rendered(template: str, values: Mapping[str, object]) -> str:
    """Return a page, which is valid UTF-8 whatever the values are."""
    # Not at the top: only the end of a rescue needs it, and a command line should start quickly.
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - see above

    environment = Environment(
        loader=PackageLoader("pgrescue", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=fit,
    )
    environment.filters.update(size=size, duration=duration, cut=cut, short=short)
    environment.globals.update(few=FEW, columns=COLUMNS)
    return environment.get_template(template).render(values)


def groups_of(findings: Sequence[Finding]) -> tuple[Group, ...]:
    """Return the findings by severity, the gravest first, without empty groups."""
    groups = []
    for severity in reversed(Severity):
        own = [finding for finding in findings if finding.severity is severity]
        if own:
            codes = Counter(finding.code for finding in own).most_common(_MOST_CODES)
            groups.append(Group(severity, _TITLES[severity], tuple(own[:_MOST_FINDINGS]), len(own), tuple(codes)))
    return tuple(groups)


def damage_of(blocks: Sequence[BlockMap]) -> Damage:
    """Return what is damaged of the relations that were looked at, the most damaged first."""
    damaged = sorted((relation for relation in blocks if relation.damaged), key=_damaged_blocks, reverse=True)
    kinds = kinds_of(damaged[:_MOST_MAPS])
    return Damage(
        relations=len(blocks),
        damaged=len(damaged),
        blocks=sum(map(_damaged_blocks, damaged)),
        maps=tuple(_map(relation, kinds) for relation in damaged[:_MOST_MAPS]),
        unmapped=tuple((item, _damaged_blocks(item)) for item in damaged[_MOST_MAPS:_MOST_RELATIONS]),
    )


def bars_of(steps: Sequence[StepReport]) -> tuple[Bar, ...]:
    """Return steps one after another, as they ran."""
    whole = sum(step.seconds for step in steps) or 1.0
    bars, begun = [], 0.0
    for step in steps:
        begin, length = 100 * begun / whole, 100 * step.seconds / whole
        begun += step.seconds
        mark, words = _OUTCOME_MARKS[step.outcome], OUTCOMES[step.outcome]
        bars.append(Bar(step.name, step.outcome, mark, words, duration(step.seconds), begin, length))
    return tuple(bars)


def _damaged_blocks(relation: BlockMap) -> int:
    return sum(run.last - run.first + 1 for run in relation.damaged)


def _map(relation: BlockMap, kinds: Mapping[str, Kind]) -> Map:
    runs = sorted(relation.damaged, key=lambda run: run.first)[:_MOST_RUNS]
    rows = ((span(run.first, run.last), run.last - run.first + 1, kinds[run.kind]) for run in runs)
    return Map(relation, _damaged_blocks(relation), grid_of(relation, kinds), tuple(rows))
