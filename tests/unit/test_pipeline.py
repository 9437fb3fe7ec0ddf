"""The runner of goals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from pgrescue.errors import DiskSpaceError, StepError
from pgrescue.model import Finding, Outcome, StepReport
from pgrescue.pipeline import Observer, Silent, Unit, run_steps, watched
from tests.unit.builders import finding

if TYPE_CHECKING:
    from collections.abc import Sequence

World = set[str]


@dataclass
class Goal:
    """A step that adds its name to the world."""

    name: str
    error: BaseException | None = None
    reaches: bool = True
    title: str = "Reach it"

    def holds(self, run: World) -> bool:
        return self.name in run

    def apply(self, run: World, observer: Observer) -> None:
        observer.advanced(1, None, Unit.ITEMS)
        if self.error is not None:
            raise self.error
        if self.reaches:
            run.add(self.name)

    def findings(self, run: World) -> Sequence[Finding]:
        assert self.name in run
        return (finding(code=self.name),)


@dataclass
class Witness(Silent):
    """A journal and an observer that keep one list of what they were told, in its order."""

    told: list[tuple[str, str]] = field(default_factory=list)

    def record(self, record: StepReport) -> None:
        assert record.seconds >= 0
        self.told.append((f"recorded {record.outcome}", record.name))

    def started(self, name: str, title: str) -> None:
        assert title
        self.told.append(("started", name))

    def ended(self, record: StepReport) -> None:
        self.told.append((f"ended {record.outcome}", record.name))


def run(world: World, *goals: Goal) -> tuple[list[tuple[str, str]], tuple[Finding, ...] | BaseException]:
    witness = Witness()
    try:
        found: tuple[Finding, ...] | BaseException = run_steps(goals, world, journal=witness, observer=witness)
    except BaseException as error:  # noqa: BLE001 - the test looks at it
        found = error
    return witness.told, found


def test_a_goal_is_reached_and_recorded_before_the_observer_hears() -> None:
    world: World = set()
    told, found = run(world, Goal("a"))
    assert told == [("started", "a"), (f"recorded {Outcome.DONE}", "a"), (f"ended {Outcome.DONE}", "a")]
    assert found == (finding(code="a"),)
    assert world == {"a"}


def test_a_goal_that_holds_is_not_reached_again_and_its_findings_are_told() -> None:
    told, found = run({"a"}, Goal("a", error=AssertionError("applied")))
    assert told == [("started", "a"), (f"recorded {Outcome.HELD}", "a"), (f"ended {Outcome.HELD}", "a")]
    assert found == (finding(code="a"),)


def test_steps_come_in_order_with_all_findings() -> None:
    told, found = run({"b"}, Goal("a"), Goal("b"), Goal("c"))
    assert [name for what, name in told if what.startswith("ended")] == ["a", "b", "c"]
    assert isinstance(found, tuple)
    assert [item.code for item in found] == ["a", "b", "c"]


def test_a_second_run_finds_everything_held() -> None:
    world: World = set()
    first, second = run(world, Goal("a"), Goal("b")), run(world, Goal("a"), Goal("b"))
    assert first[1] == second[1]
    assert {what for what, _ in second[0]} == {"started", f"recorded {Outcome.HELD}", f"ended {Outcome.HELD}"}


def test_an_unmet_goal_is_an_error() -> None:
    told, error = run(set(), Goal("a", reaches=False), Goal("b"))
    assert isinstance(error, StepError)
    assert "'a'" in error.problem
    assert error.hint
    assert told == [("started", "a"), (f"recorded {Outcome.FAILED}", "a"), (f"ended {Outcome.FAILED}", "a")]


def test_an_error_ends_the_run_and_is_recorded() -> None:
    full = DiskSpaceError("full")
    told, error = run(set(), Goal("a"), Goal("b", error=full), Goal("c"))
    assert error is full
    assert told[-2:] == [(f"recorded {Outcome.FAILED}", "b"), (f"ended {Outcome.FAILED}", "b")]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("a bug"), SystemExit(1)])
def test_other_exceptions_pass_without_a_record_and_end_the_drawing(error: BaseException) -> None:
    told, found = run(set(), Goal("a", error=error))
    assert found is error
    assert told == [("started", "a"), (f"ended {Outcome.FAILED}", "a")]


def test_no_steps_find_nothing() -> None:
    assert run(set()) == ([], ())


def test_a_silent_observer_takes_everything() -> None:
    assert run_steps([Goal("a")], set(), journal=Witness(), observer=Silent()) == (finding(code="a"),)


def test_a_watched_block_is_timed_and_told_however_it_ends() -> None:
    heard: list[tuple[str, Outcome]] = []

    class Hearing(Silent):
        def ended(self, record: StepReport) -> None:
            heard.append((record.name, record.outcome))

    kept: list[StepReport] = []
    with watched(Hearing(), "one", "One", keep=kept.append):
        assert heard == []
    with pytest.raises(KeyError), watched(Hearing(), "two", "Two", keep=kept.append):
        raise KeyError
    assert heard == [("one", Outcome.DONE), ("two", Outcome.FAILED)]
    assert [(record.name, record.outcome) for record in kept] == heard
