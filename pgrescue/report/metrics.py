"""The report of a drill as metrics for Prometheus, in the text format that node_exporter's textfile collector reads.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from pgrescue.drilled import DrillOutcome
from pgrescue.model import Severity, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgrescue.drilled import DrillReport, DrillRun


class _Sample(NamedTuple):
    """A value with the labels that it has beside the drill's name."""

    value: float
    labels: tuple[tuple[str, str], ...] = ()


def metrics_text(run: DrillRun) -> str:
    """Return a gauge for each thing that is known; what is not known is left out, as a 0 would be a lie."""
    return "".join(_family(name, words, of, run) for name, words, of in _GAUGES)


def _family(name: str, words: str, of: Callable[[DrillReport], Iterator[_Sample]], run: DrillRun) -> str:
    samples: dict[str, float] = {}
    for drill in run.drills:
        for value, labels in of(drill):
            samples[_labels((("drill", drill.name), *labels))] = value
    if not samples:
        return ""
    lines = [f"# HELP {name} {words}", f"# TYPE {name} gauge"]
    lines += [f"{name}{labels} {_number(value)}" for labels, value in samples.items()]
    return "".join(f"{line}\n" for line in lines)


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(value: str) -> str:
    """Return a label's value as the format wants it: it is UTF-8, and three characters are escaped."""
    text = value.encode(errors="backslashreplace").decode()
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))


def _outcome(drill: DrillReport) -> Iterator[_Sample]:
    for outcome in DrillOutcome:
        yield _Sample(int(outcome is drill.outcome), (("outcome", outcome.value),))


def _last_run(drill: DrillReport) -> Iterator[_Sample]:
    yield _Sample(drill.started.timestamp())


def _last_pass(drill: DrillReport) -> Iterator[_Sample]:
    runs = (*drill.past, drill.as_past())
    passed = [run.time.timestamp() for run in runs if run.outcome is DrillOutcome.PASSED]
    if passed:
        yield _Sample(max(passed))


def _duration(drill: DrillReport) -> Iterator[_Sample]:
    yield _Sample(drill.seconds)


def _recovery(drill: DrillReport) -> Iterator[_Sample]:
    if drill.recovery_seconds is not None:
        yield _Sample(drill.recovery_seconds)


def _size(drill: DrillReport) -> Iterator[_Sample]:
    if drill.size_bytes is not None:
        yield _Sample(drill.size_bytes)


def _newest_commit_age(drill: DrillReport) -> Iterator[_Sample]:
    if drill.newest_commit is not None:
        yield _Sample(drill.newest_commit.age_seconds)


def _assertions(drill: DrillReport) -> Iterator[_Sample]:
    if drill.assertions:
        numbers = Counter(one.outcome for one in drill.assertions)
        for outcome in DrillOutcome:
            yield _Sample(numbers[outcome], (("outcome", outcome.value),))


def _findings(drill: DrillReport) -> Iterator[_Sample]:
    """Yield the findings by severity; without a rescue nobody looked for any."""
    if drill.rescue is not None or drill.findings:
        numbers = Counter(finding.severity for finding in drill.findings)
        for severity in Severity:
            yield _Sample(numbers[severity], (("severity", severity.value),))


def _verdict(drill: DrillReport) -> Iterator[_Sample]:
    if drill.rescue is not None:
        for verdict in Verdict:
            yield _Sample(int(verdict is drill.rescue.verdict), (("verdict", verdict.value),))


def _rows(drill: DrillReport) -> Iterator[_Sample]:
    for name, rows in drill.rows.items():
        database, _, table = name.partition(" ")
        yield _Sample(rows, (("database", database), ("table", table)))


_GAUGES: tuple[tuple[str, str, Callable[[DrillReport], Iterator[_Sample]]], ...] = (
    ("pgrescue_drill_outcome", "What the drill came to: 1 for its outcome, 0 for the others.", _outcome),
    ("pgrescue_drill_last_run_timestamp_seconds", "When the drill began last.", _last_run),
    ("pgrescue_drill_last_pass_timestamp_seconds", "When the last drill that passed began.", _last_pass),
    ("pgrescue_drill_duration_seconds", "How long the whole drill took.", _duration),
    ("pgrescue_drill_recovery_seconds", "How long it took from the snapshot to an open server.", _recovery),
    ("pgrescue_drill_snapshot_size_bytes", "The size of the restored data directory.", _size),
    (
        "pgrescue_drill_newest_commit_age_seconds",
        "How old the newest commit was at the drill's begin.",
        _newest_commit_age,
    ),
    ("pgrescue_drill_assertions", "The number of assertions with each outcome.", _assertions),
    ("pgrescue_drill_findings", "The number of findings that count, by severity.", _findings),
    ("pgrescue_drill_verdict", "What may be believed of the copy: 1 for its verdict, 0 for the others.", _verdict),
    ("pgrescue_drill_rows", "The rows of the tables that were counted.", _rows),
)
