"""Progress and summaries for a person, on a terminal or in a log."""

from __future__ import annotations

import shlex
import threading
import time
from typing import TYPE_CHECKING, assert_never

from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from pgrescue.model import Lsn, Outcome, Severity, TransferOutcome, Verdict
from pgrescue.pipeline import Observer, Unit
from pgrescue.report.findings import objects_of, same_findings
from pgrescue.report.shown import visible
from pgrescue.report.words import OUTCOMES, VERDICTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console
    from rich.progress import Task

    from pgrescue.model import Finding, RescueReport, StepReport, TransferReport

_PLAIN_EVERY_S = 10.0
_REDRAW_EVERY_S = 0.1
_STYLES = {
    Verdict.CONSISTENT: "bold green",
    Verdict.BEST_EFFORT: "bold yellow",
    Verdict.DAMAGED: "bold red",
    Verdict.FAILED: "bold red",
}
_TRANSFER_STYLES = {
    TransferOutcome.MOVED: "bold green",
    TransferOutcome.ALREADY_THERE: "bold green",
    TransferOutcome.READY: "bold green",
    TransferOutcome.REFUSED: "bold red",
    TransferOutcome.FAILED: "bold red",
}
_MOST_OBJECTS = 20
_ROWS = {
    "rows_lost": "lost",
    "rows_perhaps_lost": "deleted or lost",
    "rows_undecided": "perhaps never committed",
    "rows_brought_back": "brought back in an older version",
    "duplicates_set_aside": "older versions set aside",
    "rows_unreadable_set_aside": "unreadable and set aside",
    "rows_uncertain": "left as they were",
}
_FINDING_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "dim"}


def observer_for(console: Console) -> Observer:
    """Return an observer that draws where `console` is a terminal, and writes plain lines elsewhere."""
    return Live(console) if console.is_terminal else Plain(console)


class Plain:
    """An observer for logs: a line when a step ends, and one every ten seconds while it lasts.

    Every line begins with `prefix`: several may write to the same log.
    """

    def __init__(self, console: Console, *, prefix: str = "") -> None:
        self._console = console
        self._prefix = prefix
        self._title = ""
        self._spoken = 0.0
        self._first: tuple[int, float] | None = None
        self._lock = threading.Lock()

    def started(self, name: str, title: str) -> None:  # noqa: ARG002 - the title says it
        """Remember what is under way."""
        self._title = title
        self._first = None
        self._spoken = time.monotonic()

    def advanced(self, done: int, total: int | None, unit: Unit, detail: str = "") -> None:
        """Say how far it is, now and then."""
        with self._lock:
            if time.monotonic() - self._spoken < _PLAIN_EVERY_S:
                return
            self._spoken = time.monotonic()
        amount = _amount(done, unit)
        of = "" if total is None else f" of {_amount(total, unit)}"
        also = f", {detail}" if detail else ""
        self._line(f"{self._title}: {amount}{of}{also}{self._rate(done, unit)}")

    def _rate(self, done: int, unit: Unit) -> str:
        """Return how fast a replay is, from its first report on."""
        if unit is not Unit.LSN:
            return ""
        if self._first is None:
            self._first = (done, time.monotonic())
            return ""
        passed, since = done - self._first[0], time.monotonic() - self._first[1]
        return f", {passed / (1 << 20) / since:,.0f} MiB/s" if since > 0 else ""

    def noted(self, text: str) -> None:
        """Write the text."""
        self._line(text)

    def ended(self, record: StepReport) -> None:
        """Say how the step ended."""
        self._line(f"{self._title}: {OUTCOMES[record.outcome]}, {record.seconds:.1f} s")

    def _line(self, text: str) -> None:
        self._console.print(f"{self._prefix}{text}", markup=False, highlight=False, soft_wrap=True)


class Live:
    """An observer for terminals: a moving line for the step under way, a plain line for each that ended."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._title = ""
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._unit: Unit | None = None
        self._begin = 0
        self._drawn = 0.0
        self._lock = threading.Lock()

    def started(self, name: str, title: str) -> None:  # noqa: ARG002 - the title says it
        """Show a spinner."""
        self._title = title
        self._show(None, None)

    def advanced(self, done: int, total: int | None, unit: Unit, detail: str = "") -> None:
        """Turn the spinner into a bar with amount and rate."""
        with self._lock:
            now = time.monotonic()
            if now - self._drawn < _REDRAW_EVERY_S and done != total:
                return
            self._drawn = now
            if unit is not self._unit:
                self._begin = done if unit is Unit.LSN else 0
                self._show(unit, None)
            if self._progress is not None and self._task is not None:
                left = None if total is None else total - self._begin
                self._progress.update(
                    self._task, completed=max(done - self._begin, 0), total=left, detail=escape(detail)
                )

    def noted(self, text: str) -> None:
        """Write the text above the moving line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def ended(self, record: StepReport) -> None:
        """Leave one line of the step."""
        self._hide()
        style = {Outcome.FAILED: "bold red", Outcome.DONE: "green"}.get(record.outcome, "dim")
        self._console.print(
            f"[{style}]{OUTCOMES[record.outcome]:>11}[/]  {escape(self._title)}  [dim]{record.seconds:.1f} s[/]",
            highlight=False,
        )

    def _show(self, unit: Unit | None, total: int | None) -> None:
        self._hide()
        self._unit = unit
        self._progress = Progress(*_columns(unit), console=self._console, transient=True)
        self._task = self._progress.add_task(escape(self._title), total=total, begin=self._begin, detail="")
        self._progress.start()

    def _hide(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._progress = None
        self._unit = None


def _columns(unit: Unit | None) -> Iterable[ProgressColumn]:
    yield SpinnerColumn()
    yield TextColumn("{task.description}")
    if unit is not None:
        yield BarColumn()
    if unit is Unit.BYTES:
        yield DownloadColumn(binary_units=True)
        yield TransferSpeedColumn()
        yield TextColumn("{task.fields[detail]}")
    elif unit is Unit.LSN:
        yield _LsnColumn()
        yield TransferSpeedColumn()
    elif unit is Unit.ITEMS:
        yield MofNCompleteColumn()
    yield TimeElapsedColumn()


def _amount(number: int, unit: Unit) -> str:
    match unit:
        case Unit.BYTES:
            return f"{number / (1 << 20):,.0f} MiB"
        case Unit.LSN:
            return str(Lsn(number))
        case Unit.ITEMS:
            return f"{number:,}"
        case _:
            assert_never(unit)


class _LsnColumn(ProgressColumn):
    """The position reached and the one wanted: a bar counts from where the replay began."""

    def render(self, task: Task) -> Text:
        """Return them in PostgreSQL's notation."""
        begin = task.fields["begin"]
        of = "" if task.total is None else f" of {Lsn(begin + int(task.total))}"
        return Text(f"{Lsn(begin + int(task.completed))}{of}")


def print_findings(console: Console, findings: Iterable[Finding]) -> None:
    """Write findings, the gravest first, each with its remedy; those that say the same of several objects once."""
    for group in same_findings(findings):
        first = group[0]
        words = visible(f"{first.code}: {objects_of(group, most=_MOST_OBJECTS)}")
        console.print(
            f"[{_FINDING_STYLES[first.severity]}]{first.severity.value}[/] {escape(words)}",
            highlight=False,
            soft_wrap=True,
        )
        for text in (first.detail, f"-> {first.remedy}" if first.remedy else ""):
            for line in filter(None, visible(text).splitlines()):
                console.print(f"    {line}", markup=False, highlight=False, soft_wrap=True)


def print_report(console: Console, report: RescueReport, *, program: str = "pgrescue") -> None:
    """Write what a tired person needs: what to believe, what is wrong, how to connect, what to do next.

    `program` is how a shell finds pgrescue, so that the commands shown can be pasted.
    """
    # The values of a reset are for experts, who find them in report.json and in RECOVERY.md.
    shown = [finding for finding in report.findings if finding.severity is not Severity.INFO]
    console.print()
    print_findings(console, shown)
    told_less = len(report.findings) - len(shown)
    if told_less:
        console.print(f"({told_less} more of severity info in report.json)", style="dim", highlight=False)
    console.print()
    console.print(
        f"[{_STYLES[report.verdict]}]Verdict: {report.verdict.value}.[/] {VERDICTS[report.verdict]}",
        highlight=False,
        soft_wrap=True,
    )
    for line in _facts(report, program):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _rows_concerned(report: RescueReport) -> str:
    """Sum up what became of single rows."""
    sums = {
        word: sum(finding.rows or 0 for finding in report.findings if finding.code == code)
        for code, word in _ROWS.items()
    }
    return ", ".join(f"{count:,} {word}" for word, count in sums.items() if count)


def _facts(report: RescueReport, program: str) -> Iterator[str]:
    workspace = f"-w {shlex.quote(str(report.workspace))}"
    yield f"Report:   {report.workspace}/report.json"
    if report.shown_url is None:
        yield f"Log:      {program} logs {workspace}"
        yield f"Remove:   {program} rm {workspace}"
        return
    names = ", ".join(f"{item.name} ({item.size_bytes / (1 << 20):,.0f} MiB)" for item in report.databases)
    if report.recovered_to.lsn is not None:
        commit = report.recovered_to.time
        yield f"Reached:  {report.recovered_to.lsn}" + (f", last commit {commit:%F %T} UTC" if commit else "")
    if rows := _rows_concerned(report):
        yield f"Rows:     {rows}, each one in {report.workspace}/manifest.json"
    yield f"Server:   PostgreSQL {report.version} ({report.engine}, strategy {report.strategy}), {names}"
    yield f"psql:     {program} psql {workspace}"
    service = shlex.quote(f"{report.workspace}/pg_service.conf")
    yield f"     or:  PGSERVICEFILE={service} psql service=pgrescue"
    yield f"Stop:     {program} stop {workspace}"
    yield f"Remove:   {program} rm {workspace}"
    yield f"Next:     {program} to-cluster {workspace} --target-url URL --dry-run, see RECOVERY.md"
    yield f"Connect:  {report.shown_url}"


def print_transfer(console: Console, report: TransferReport) -> None:
    """Write what a tired person needs: what is wrong, whether the target may be used, what to do next."""
    console.print()
    print_findings(console, report.findings)
    console.print()
    console.print(
        f"[{_TRANSFER_STYLES[report.outcome]}]{report.outcome.value}.[/] {_words(report)}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"Source:   {report.source}, PostgreSQL {report.source_version}", markup=False, highlight=False, soft_wrap=True
    )
    console.print(
        f"Target:   {report.target}, PostgreSQL {report.target_version}", markup=False, highlight=False, soft_wrap=True
    )
    if report.tables:
        equal = sum(one.is_equal for one in report.tables)
        rows = sum(one.rows for one in report.tables)
        how = "every row by its hash" if report.compare == "hash" else "by the number of rows"
        console.print(
            f"Compared: {equal} of {len(report.tables)} tables equal, {rows:,} rows ({how})",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _words(report: TransferReport) -> str:
    match report.outcome:
        case TransferOutcome.MOVED:
            return f"The database {report.database} is in the target, and took {report.seconds:,.0f} s."
        case TransferOutcome.ALREADY_THERE:
            return "The target holds exactly this database already; nothing was written."
        case TransferOutcome.READY:
            return "Nothing speaks against the transfer; nothing was written (--dry-run)."
        case TransferOutcome.REFUSED:
            count = sum(finding.severity is Severity.ERROR for finding in report.findings)
            what = "1 finding" if count == 1 else f"{count} findings"
            return f"{what} of severity error must be mended first; nothing was written."
        case TransferOutcome.FAILED:
            return "Everything was moved, and the target is not the same as the source: do not use it."
        case _:
            assert_never(report.outcome)
