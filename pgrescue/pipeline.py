"""Steps as goals, and the runner that reaches them in order; knows no PostgreSQL."""

from __future__ import annotations

import contextlib
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeVar

from pgrescue.errors import RescueError, StepError
from pgrescue.model import Finding, Outcome, StepReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

RunT_contra = TypeVar("RunT_contra", contravariant=True)
RunT = TypeVar("RunT")


class Unit(StrEnum):
    """What an amount of progress counts."""

    BYTES = "bytes"
    ITEMS = "items"
    LSN = "lsn"
    """Positions in the WAL, in bytes from its beginning: `done` is the one reached, `total` the one wanted."""


class Observer(Protocol):
    """Somebody who watches a run: a console, a log, nobody. No method raises or blocks for long."""

    def started(self, name: str, title: str) -> None:
        """Learn that a step (or another long piece of work) begins."""

    def advanced(self, done: int, total: int | None, unit: Unit, detail: str = "") -> None:
        """Learn how far the current work is; `total` is None where nobody can know it. Any thread may call.

        `detail` says the same in another unit, such as `3 of 40 tables`.
        """

    def noted(self, text: str) -> None:
        """Learn a fact that the user should see now, in one line or a few."""

    def ended(self, record: StepReport) -> None:
        """Learn how the current work ended."""


class Silent:
    """An observer that does nothing."""

    def started(self, name: str, title: str) -> None:
        """Ignore it."""

    def advanced(self, done: int, total: int | None, unit: Unit, detail: str = "") -> None:
        """Ignore it."""

    def noted(self, text: str) -> None:
        """Ignore it."""

    def ended(self, record: StepReport) -> None:
        """Ignore it."""


@contextlib.contextmanager
def watched(
    observer: Observer, name: str, title: str, *, keep: Callable[[StepReport], object] | None = None
) -> Iterator[None]:
    """Let an observer watch the block, and time it; `keep` is handed how it ended, before the observer hears of it."""
    begun = time.monotonic()
    outcome = Outcome.FAILED
    observer.started(name, title)
    try:
        yield
        outcome = Outcome.DONE
    finally:
        record = StepReport(name, outcome, round(time.monotonic() - begun, 3))
        if keep is not None:
            keep(record)
        observer.ended(record)


class Step(Protocol[RunT_contra]):
    """One idempotent goal. It keeps no state: everything that it knows, it reads from the run's world."""

    @property
    def name(self) -> str:
        """The short name in ledger and report, such as `unpack`."""

    @property
    def title(self) -> str:
        """The same for a person, as an action: `Unpack the snapshot`."""

    def holds(self, run: RunT_contra) -> bool:
        """Tell, by looking at the world and changing nothing, whether the goal is met."""

    def apply(self, run: RunT_contra, observer: Observer) -> None:
        """Reach the goal from any state that an earlier, interrupted attempt may have left.

        Raises RescueError with the remedy when it cannot be reached.
        """

    def findings(self, run: RunT_contra) -> Sequence[Finding]:
        """Return the facts worth telling about the reached goal, read from the world, so that they outlive a kill."""


class Journal(Protocol):
    """Where the runner records how steps end."""

    def record(self, record: StepReport) -> None:
        """Keep the record durably."""


def run_steps(steps: Iterable[Step[RunT]], run: RunT, *, journal: Journal, observer: Observer) -> tuple[Finding, ...]:
    """Reach the goals of `steps` in order; return the findings of all of them.

    For each step the runner asks whether the goal holds, acts when it does not, and asks again. A step whose goal
    is unmet afterwards raises StepError. Every ending is recorded in `journal` before `observer` hears of it.
    """
    findings: list[Finding] = []
    for step in steps:
        _run_step(step, run, journal=journal, observer=observer)
        findings.extend(step.findings(run))
    return tuple(findings)


def _run_step(step: Step[RunT], run: RunT, *, journal: Journal, observer: Observer) -> None:
    begun = time.monotonic()

    def report(outcome: Outcome) -> StepReport:
        return StepReport(step.name, outcome, round(time.monotonic() - begun, 3))

    observer.started(step.name, step.title)
    try:
        record = report(_reach(step, run, observer))
    except RescueError:
        record = report(Outcome.FAILED)
        journal.record(record)
        observer.ended(record)
        raise
    except BaseException:
        # Interrupted, or a bug: nothing is known of the goal, but whoever watches must stop drawing.
        observer.ended(report(Outcome.FAILED))
        raise
    journal.record(record)
    observer.ended(record)


def _reach(step: Step[RunT], run: RunT, observer: Observer) -> Outcome:
    """Ask, act, ask again."""
    if step.holds(run):
        return Outcome.HELD
    step.apply(run, observer)
    if not step.holds(run):
        raise StepError(
            f"the step {step.name!r} ended without an error, yet its goal is not met",
            hint="Run the same command again. If it stays, report it with ledger.json and logs/ of the workspace.",
        )
    return Outcome.DONE
