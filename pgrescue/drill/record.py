"""What a drill has done and seen so far."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgrescue.drill.redact import without_rows
from pgrescue.drilled import Assertion, AssertionKind, DrillOutcome
from pgrescue.pipeline import Silent, watched

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.drilled import IgnoredFinding, NewestCommit
    from pgrescue.errors import RescueError
    from pgrescue.model import BlockMap, Finding, RescueReport, StepReport
    from pgrescue.pipeline import Observer


@dataclass(frozen=True)
class Question:
    """An assertion before its answer: what it is about, how it is called, what is expected.

    `number` is its place in the drill: the same may be asked twice.
    """

    kind: AssertionKind
    name: str
    expected: str
    database: str = ""
    number: int = 0


@dataclass(frozen=True)
class Answer:
    """What was seen, and what follows from it; `detail` says more where it is no pass."""

    outcome: DrillOutcome
    seen: str
    detail: str = ""
    database: str = ""

    @classmethod
    def passed(cls, seen: str, *, database: str = "", detail: str = "") -> Answer:
        """Return that what was expected holds."""
        return cls(DrillOutcome.PASSED, seen, detail, database)

    @classmethod
    def failed(cls, seen: str, detail: str = "", *, database: str = "") -> Answer:
        """Return that it does not hold."""
        return cls(DrillOutcome.FAILED, seen, detail, database)

    @classmethod
    def broken_off(cls, error: RescueError, *, database: str = "") -> Answer:
        """Return that nobody can tell, for an error that says why, and what to do."""
        return cls.unknown(without_rows(f"{error.problem}\n{error.hint}".strip()), database=database)

    @classmethod
    def unknown(cls, detail: str, *, seen: str = "nothing", database: str = "") -> Answer:
        """Return that nobody can tell, and why."""
        return cls(DrillOutcome.UNVERIFIED, seen, detail, database)


@dataclass
class Record:
    """The parts of the report as they come. Every question has an answer at the end: those not reached, too."""

    observer: Observer
    questions: tuple[Question, ...] = ()
    answers: dict[Question, tuple[Answer, float]] = field(default_factory=dict)
    phases: list[StepReport] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    ignored: list[IgnoredFinding] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    snapshot: str = ""
    chosen_because: str = ""
    rescue: RescueReport | None = None
    recovery_seconds: float | None = None
    size_bytes: int | None = None
    newest_commit: NewestCommit | None = None
    blocks: tuple[BlockMap, ...] = ()
    problem: str = ""
    hint: str = ""

    @contextlib.contextmanager
    def phase(self, name: str, title: str) -> Iterator[None]:
        """Time a part of the drill, and let the observer watch."""
        with watched(self.observer, name, title, keep=self.phases.append):
            yield

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time a part of the drill whose own steps the observer watches."""
        with watched(Silent(), name, name, keep=self.phases.append):
            yield

    def answer(self, question: Question, answer: Answer, seconds: float = 0.0) -> None:
        """Keep the answer, and let the observer see it."""
        self.answers[question] = (answer, round(seconds, 3))
        self.observer.noted(f"{answer.outcome.value}: {question.name}: {answer.seen}")

    def broke_off(self, error: RescueError) -> None:
        """Keep why the drill goes no further; the first reason counts."""
        if not self.problem:
            self.problem, self.hint = error.problem, error.hint

    def assertions(self) -> tuple[Assertion, ...]:
        """Return every question with its answer, in the order of the questions."""
        reason = f"not reached: {self.problem}" if self.problem else "not reached"
        return tuple(
            self._assertion(question, *self.answers.get(question, (Answer.unknown(reason), 0.0)))
            for question in self.questions
        )

    @staticmethod
    def _assertion(question: Question, answer: Answer, seconds: float) -> Assertion:
        return Assertion(
            kind=question.kind,
            name=question.name,
            outcome=answer.outcome,
            expected=question.expected,
            seen=answer.seen,
            detail=answer.detail,
            database=answer.database or question.database,
            seconds=seconds,
        )
