"""One drill from its file to its report: find, rescue, ask, rehearse, clear away."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pgrescue.drill.databases import Databases
from pgrescue.drill.home import Home, Keep, open_home
from pgrescue.drill.judgement import (
    expired,
    newest_commit,
    on_age,
    on_checks,
    on_recovery_time,
    on_verdict,
    problem_of,
    sift,
)
from pgrescue.drill.newest import NoSnapshotError, choose_snapshot
from pgrescue.drill.plan import last_rows, questions_of
from pgrescue.drill.questions import Circumstances, ask, newest_of
from pgrescue.drill.record import Answer, Question, Record
from pgrescue.drill.redact import without_rows
from pgrescue.drill.reference import compare_schema, read_objects, read_reference, write_reference
from pgrescue.drill.regressions import regressions
from pgrescue.drill.rehearsal import given_target, rehearse_transfer, run_after
from pgrescue.drill.scenario import SchemaCheck, VerifyCheck
from pgrescue.drilled import AssertionKind, DrillOutcome, DrillReport
from pgrescue.engine.choose import EngineRequest, reopen
from pgrescue.errors import RescueError
from pgrescue.files import size_of
from pgrescue.ledger import Ledger
from pgrescue.model import Verdict
from pgrescue.strategy.rescue import RescuePlan, is_broken
from pgrescue.strategy.wal_plan import WalRequest
from pgrescue.transfer.source import rescued
from pgrescue.verify.blocks import damaged_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pgrescue.drill.history import History
    from pgrescue.drill.scenario import Check, Drill
    from pgrescue.drilled import PastRun
    from pgrescue.model import RescueReport
    from pgrescue.pipeline import Observer
    from pgrescue.transfer.source import Source

# The server is on this machine: it answers at once, or it has crashed.
_CONNECT_TIMEOUT_S = "5"


class Rescuer(Protocol):
    """Rescues a snapshot in a workspace, and keeps the report there."""

    def __call__(self, path: Path, root: Path, plan: RescuePlan, observer: Observer) -> RescueReport:
        """Return the report, also of a rescue that failed; raise RescueError where none could begin."""


@dataclass(frozen=True)
class Setting:
    """How drills are run: where they work, what they know of earlier runs, what they leave, who rescues.

    `file` is the drill file: commands run in its directory.
    """

    file: Path
    work_dir: Path
    history: History
    rescue: Rescuer
    env: Mapping[str, str]
    keep: Keep = Keep.NEVER
    writes_schema: bool = False


def run_drill(drill: Drill, setting: Setting, observer: Observer) -> DrillReport:
    """Run one drill, and clear away after it; what goes wrong is in the report.

    A signal ends it after clearing away, as KeyboardInterrupt.
    """
    started, begun = datetime.now(tz=UTC), time.monotonic()
    record = Record(observer, questions_of(drill), snapshot=drill.snapshot.text)
    past, notes = _past(setting.history, drill.name)
    kept, home = None, None
    try:
        with open_home(setting.work_dir, drill.slug) as home:
            try:
                _Drill(drill, setting, home, record, past, started).run()
            except RescueError as error:
                record.broke_off(error)
            if _is_to_be_kept(setting.keep, record):
                home.keep()
                kept = home.root
    except RescueError as error:
        if home is None:
            record.broke_off(error)
        else:
            notes.append(f"{error.problem} {error.hint}".strip())
    report = reported(drill, record, started=started, seconds=time.monotonic() - begun, past=past, kept=kept)
    notes += expired(report.findings, drill.ignore, started.date())
    with _noting(notes):
        setting.history.append(report.as_past())
    return dataclasses.replace(report, notes=tuple(notes))


def _is_to_be_kept(keep: Keep, record: Record) -> bool:
    return keep is Keep.ALWAYS or (keep is Keep.ON_FAILURE and _outcome(record) is not DrillOutcome.PASSED)


def _outcome(record: Record) -> DrillOutcome:
    return DrillOutcome.worst([assertion.outcome for assertion in record.assertions()])


@contextlib.contextmanager
def _noting(notes: list[str]) -> Iterator[None]:
    """Keep a problem that changes no outcome."""
    try:
        yield
    except RescueError as error:
        notes.append(f"{error.problem} {error.hint}".strip())


def _past(history: History, name: str) -> tuple[tuple[PastRun, ...], list[str]]:
    notes: list[str] = []
    past: tuple[PastRun, ...] = ()
    with _noting(notes):
        past = history.past(name)
        if history.unreadable:
            notes.append(f"lines of the history that cannot be read, and were passed over: {history.unreadable}")
    return past, notes


@dataclass(frozen=True)
class _Drill:
    """A drill at work."""

    drill: Drill
    setting: Setting
    home: Home
    record: Record
    past: tuple[PastRun, ...]
    started: datetime

    def run(self) -> None:
        """Go through the phases; RescueError ends the drill early, and is kept by the caller."""
        begun = time.monotonic()
        self._look_at_target()
        path, wal = self._snapshot()
        report = self._rescue(path, wal, begun)
        if report.verdict is Verdict.FAILED:
            failed = next(found for found in report.findings if found.code == "rescue_failed")
            raise RescueError(problem_of(report), hint=failed.remedy)
        state = Ledger.load(self.home.workspace.ledger).state
        engine = reopen(state.engine, state.major, self.home.workspace, state.workspace_id)
        with self.home.workspace.locked(), rescued(self.home.workspace, engine) as source:
            endpoint = dataclasses.replace(
                source.endpoint, parameters={**source.endpoint.parameters, "connect_timeout": _CONNECT_TIMEOUT_S}
            )
            databases = Databases(dataclasses.replace(source, endpoint=endpoint), report)
            with self.record.phase("ask", "Ask the recovered copy"):
                self._ask(databases)
            if self.drill.transfer is not None and self._only(AssertionKind.TRANSFER) not in self.record.answers:
                with self.record.timed("transfer"):
                    self._rehearse(databases)
            if self.drill.after is not None:
                with self.record.timed("after"):
                    self._after(databases)

    def _look_at_target(self) -> None:
        """Find out at once, not after hours, that the database cannot be moved into the target that was given."""
        asked = self.drill.transfer
        if asked is not None and asked.target_url_env is not None:
            try:
                given_target(asked.target_url_env, self.setting.env)
            except RescueError as error:
                self.record.answer(self._only(AssertionKind.TRANSFER), Answer.broken_off(error))

    def _snapshot(self) -> tuple[Path, Path | None]:
        """Find the snapshot, fetching it where it lies in a store; return it and its WAL."""
        choice, record = self.drill.snapshot, self.record
        wal = None if self.drill.wal is None else Path(self.drill.wal)
        with record.timed("find"):
            if choice.is_address:
                from pgrescue.drill.bucket import fetch_snapshot  # noqa: PLC0415 - with what only few drills need

                fetched = fetch_snapshot(
                    choice.text, takes_newest=choice.takes_newest, into=self.home.fetched, observer=record.observer
                )
                record.snapshot, record.chosen_because = choice.text, fetched.because
                return fetched.path, wal or fetched.wal
            chosen = choose_snapshot(choice.text, takes_newest=choice.takes_newest)
        record.snapshot, record.chosen_because = str(chosen.path), chosen.because
        if wal is not None and not wal.exists():
            raise NoSnapshotError(f"the WAL is not at {wal}", hint="Mend `wal` in the drill file.")
        return chosen.path, wal

    def _rescue(self, path: Path, wal: Path | None, begun: float) -> RescueReport:
        drill, record = self.drill, self.record
        plan = RescuePlan(
            EngineRequest(drill.engine, drill.image, drill.bindir),
            drill.strategy,
            wal=WalRequest(wal, drill.until),
            verify=drill.verify_level,
        )
        with record.timed("rescue"):
            try:
                report = self.setting.rescue(path, self.home.workspace.root, plan, record.observer)
            except RescueError as error:
                if is_broken(error):
                    self._blame_the_backup(error)
                raise
        record.rescue = dataclasses.replace(report, url=None, shown_url=None)
        record.blocks = damaged_blocks(self.home.workspace)
        findings, ignored = sift(report.findings, drill.ignore, self.started.date())
        record.findings += findings
        record.ignored += ignored
        if report.verdict is not Verdict.FAILED:
            record.recovery_seconds = round(time.monotonic() - begun, 3)
            record.size_bytes = size_of(self.home.workspace.pgdata)
        for question in record.questions:
            match question.kind:
                case AssertionKind.VERIFY:
                    record.answer(question, on_checks(report, findings))
                case AssertionKind.REQUIRE if drill.require is not None:
                    record.answer(question, on_verdict(report, findings, drill.require))
                case AssertionKind.RTO if drill.rto_budget is not None:
                    record.answer(question, on_recovery_time(record.recovery_seconds, drill.rto_budget))
                case _:
                    pass
        return report

    def _blame_the_backup(self, error: RescueError) -> None:
        """Answer the questions that are about the backup as a whole."""
        for question in self.record.questions:
            if question.kind in {AssertionKind.VERIFY, AssertionKind.REQUIRE}:
                answer = Answer.failed("the backup itself is at fault", without_rows(error.problem))
                self.record.answer(question, answer)

    def _ask(self, databases: Databases) -> None:
        """Ask everything that the file's checks ask, and how new the newest commit is."""
        circumstances = Circumstances(self.started, last_rows(self.past))
        newest: list[tuple[str, datetime]] = []
        for question in self.record.questions:
            if question.kind not in {
                AssertionKind.SQL,
                AssertionKind.ROWS,
                AssertionKind.FRESHNESS,
                AssertionKind.SCHEMA,
            }:
                continue
            check = self.drill.checks[question.number]
            begun = time.monotonic()
            try:
                answer = self._one(check, databases, circumstances, newest)
            except RescueError as error:
                answer = Answer.broken_off(error)
            self.record.answer(question, answer, time.monotonic() - begun)
        report = self.record.rescue
        assert report is not None  # noqa: S101 - a server runs
        self.record.newest_commit = newest_commit(report, self.started) or newest_of(newest, self.started)
        for question in self.record.questions:
            if question.kind is AssertionKind.RPO and self.drill.rpo_budget is not None:
                self.record.answer(question, on_age(self.record.newest_commit, self.drill.rpo_budget))

    def _one(
        self, check: Check, databases: Databases, circumstances: Circumstances, newest: list[tuple[str, datetime]]
    ) -> Answer:
        assert not isinstance(check, VerifyCheck)  # noqa: S101 - it is answered by the rescue
        if check.database is not None and not databases.has(check.database):
            return Answer.failed("no such database", f"The copy has: {', '.join(databases.names)}.")
        source = databases.get(check.database)
        if isinstance(check, SchemaCheck):
            answer = self._schema(check, source)
        else:
            found = ask(check, source.endpoint, circumstances)
            answer = found.answer
            if found.rows is not None:
                self.record.rows[found.rows[0]] = found.rows[1]
            if found.newest is not None:
                newest.append((check.title, found.newest))
        return dataclasses.replace(answer, database=source.database)

    def _schema(self, check: SchemaCheck, source: Source) -> Answer:
        objects = read_objects(source)
        if self.setting.writes_schema:
            write_reference(check.file, objects)
            return Answer.unknown(
                "the reference was written now, so that nothing was compared: look at it, and commit it",
                seen=f"{sum(texts.total() for texts in objects.values())} objects",
            )
        return compare_schema(objects, read_reference(check.file))

    def _rehearse(self, databases: Databases) -> None:
        asked, question = self.drill.transfer, self._only(AssertionKind.TRANSFER)
        assert asked is not None  # noqa: S101 - asked by the caller
        begun = time.monotonic()
        try:
            source = databases.get(asked.database)
            answer, found = rehearse_transfer(asked, source, self.home, self.setting.env, self.record.observer)
        except RescueError as error:
            answer, found = Answer.broken_off(error), ()
        findings, ignored = sift(found, self.drill.ignore, self.started.date())
        self.record.findings += findings
        self.record.ignored += ignored
        clean = dataclasses.replace(answer, detail=without_rows(answer.detail))
        self.record.answer(question, clean, time.monotonic() - begun)

    def _after(self, databases: Databases) -> None:
        asked, question = self.drill.after, self._only(AssertionKind.AFTER)
        assert asked is not None  # noqa: S101 - asked by the caller
        begun = time.monotonic()
        try:
            answer = run_after(asked, databases.get(asked.database), self.setting.file.parent, self.record.observer)
        except RescueError as error:
            answer = Answer.broken_off(error)
        self.record.answer(question, answer, time.monotonic() - begun)

    def _only(self, kind: AssertionKind) -> Question:
        (question,) = [question for question in self.record.questions if question.kind is kind]
        return question


def reported(
    drill: Drill,
    record: Record,
    *,
    started: datetime,
    seconds: float,
    past: tuple[PastRun, ...] = (),
    kept: Path | None = None,
) -> DrillReport:
    """Return the report of what was recorded."""
    report = DrillReport(
        name=drill.name,
        outcome=_outcome(record),
        started=started,
        seconds=round(seconds, 3),
        snapshot=record.snapshot,
        chosen_because=record.chosen_because,
        rescue=record.rescue,
        recovery_seconds=record.recovery_seconds,
        size_bytes=record.size_bytes,
        newest_commit=record.newest_commit,
        assertions=record.assertions(),
        findings=tuple(record.findings),
        ignored=tuple(record.ignored),
        phases=tuple(record.phases),
        blocks=record.blocks,
        rows=record.rows,
        past=past,
        problem=without_rows(record.problem),
        hint=without_rows(record.hint),
        kept=kept,
    )
    return dataclasses.replace(report, regressions=regressions(report.as_past(), past))
