"""What a drill has seen so far: every question has an answer at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from pgrescue.drill.record import Answer, Question, Record
from pgrescue.drilled import AssertionKind, DrillOutcome
from pgrescue.errors import RescueError
from pgrescue.model import Outcome
from pgrescue.pipeline import Silent

if TYPE_CHECKING:
    from pgrescue.model import StepReport

ONE = Question(AssertionKind.VERIFY, "the recovered copy is sound", "no error")
TWO = Question(AssertionKind.SQL, "select 1 == 1", "== 1", "portal", 0)
AGAIN = Question(AssertionKind.SQL, "select 1 == 1", "== 1", "portal", 1)


@dataclass
class Watching(Silent):
    """Keeps what it is told."""

    told: list[str] = field(default_factory=list)

    def started(self, name: str, title: str) -> None:
        """Keep it."""
        self.told.append(f"{name} begins: {title}")

    def ended(self, record: StepReport) -> None:
        """Keep it."""
        self.told.append(f"{record.name} ends: {record.outcome}")

    def noted(self, text: str) -> None:
        """Keep it."""
        self.told.append(text)


def test_every_question_is_answered_in_its_order() -> None:
    watching = Watching()
    record = Record(watching, (ONE, TWO, AGAIN))
    record.answer(AGAIN, Answer.failed("2", "One more."), 0.12345)
    record.answer(ONE, Answer.passed("no finding", database="found"))
    found = record.assertions()
    assert [(one.name, one.outcome.value, one.seen, one.detail, one.database, one.seconds) for one in found] == [
        ("the recovered copy is sound", "passed", "no finding", "", "found", 0.0),
        ("select 1 == 1", "could-not-verify", "nothing", "not reached", "portal", 0.0),
        ("select 1 == 1", "failed", "2", "One more.", "portal", 0.123),
    ]
    assert [one.expected for one in found] == ["no error", "== 1", "== 1"]
    assert watching.told == ["failed: select 1 == 1: 2", "passed: the recovered copy is sound: no finding"]
    assert DrillOutcome.worst([one.outcome for one in found]) is DrillOutcome.FAILED


def test_what_was_not_reached_says_why_and_is_no_pass() -> None:
    record = Record(Silent(), (ONE, TWO))
    record.answer(ONE, Answer.passed("no finding"))
    record.broke_off(RescueError("the disk is full", hint="Free some."))
    record.broke_off(RescueError("and the room is dark", hint="Light."))
    assert (record.problem, record.hint) == ("the disk is full", "Free some.")
    first, second = record.assertions()
    assert first.outcome is DrillOutcome.PASSED
    assert (second.outcome, second.detail) == (DrillOutcome.UNVERIFIED, "not reached: the disk is full")
    assert DrillOutcome.worst([first.outcome, second.outcome]) is DrillOutcome.UNVERIFIED


def test_a_later_answer_takes_the_place_of_an_earlier_one() -> None:
    record = Record(Silent(), (ONE,))
    record.answer(ONE, Answer.passed("no finding"))
    record.answer(ONE, Answer.unknown("it cannot be told", seen="1 warning"))
    (found,) = record.assertions()
    assert (found.outcome, found.seen, found.detail) == (DrillOutcome.UNVERIFIED, "1 warning", "it cannot be told")


def test_nothing_is_asked_nothing_is_told() -> None:
    assert Record(Silent()).assertions() == ()
    assert DrillOutcome.worst([]) is DrillOutcome.UNVERIFIED


def test_phases_are_timed_also_where_they_fail() -> None:
    watching = Watching()
    record = Record(watching)
    with record.phase("ask", "Ask the copy"):
        pass
    with pytest.raises(RescueError), record.phase("ask more", "Ask more"):
        raise RescueError("no")
    with record.timed("rescue"):
        pass
    with pytest.raises(KeyboardInterrupt), record.timed("after"):
        raise KeyboardInterrupt
    assert [(one.name, one.outcome) for one in record.phases] == [
        ("ask", Outcome.DONE),
        ("ask more", Outcome.FAILED),
        ("rescue", Outcome.DONE),
        ("after", Outcome.FAILED),
    ]
    assert all(0 <= one.seconds < 1 for one in record.phases)
    assert watching.told == [
        "ask begins: Ask the copy",
        "ask ends: done",
        "ask more begins: Ask more",
        "ask more ends: failed",
    ]
