"""Several drills at a time on one machine, each in a process, a directory, a port and containers of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import connection
from typing import TYPE_CHECKING

from pgrescue.drill.home import clear_remains
from pgrescue.drill.plan import questions_of
from pgrescue.drill.record import Record
from pgrescue.drill.runner import Setting, reported, run_drill
from pgrescue.errors import ExitStatus, RescueError
from pgrescue.pipeline import Silent
from pgrescue.signals import end_as_interrupted, shielded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from pgrescue.drill.scenario import Drill
    from pgrescue.drilled import DrillReport
    from pgrescue.pipeline import Observer

INTERRUPTED = RescueError("it was interrupted by a signal", hint="Nothing of it is left. Run it again.")


def _interrupted(signalled: KeyboardInterrupt) -> RescueError:
    """Say that a signal came, and what could not be cleared away then."""
    left = getattr(signalled, "__notes__", ())
    return RescueError(INTERRUPTED.problem, hint="; ".join(left)) if left else INTERRUPTED


def run_one_by_one(
    drills: Sequence[Drill], setting: Setting, observer: Observer, *, done: Callable[[DrillReport], None]
) -> None:
    """Run the drills in this process; `done` is told each report as it is there.

    A signal ends the drill under way, whose report then says so, and raises KeyboardInterrupt.
    """
    for number, drill in enumerate(drills):
        if len(drills) > 1:
            observer.noted(f"Drill {number + 1} of {len(drills)}: {drill.name}")
        try:
            report = run_drill(drill, setting, observer)
        except KeyboardInterrupt as signalled:
            for left in drills[number:]:
                done(_broken_off(left, _interrupted(signalled)))
            raise
        done(report)


def run_at_once(
    drills: Sequence[Drill],
    setting: Setting,
    observer_of: Callable[[str], Observer],
    *,
    jobs: int,
    done: Callable[[DrillReport], None],
) -> None:
    """Run up to `jobs` drills at a time; `done` is told each report as it is there.

    `observer_of` makes the observer of the drill with a name, in that drill's own process: it is a function that can be
    imported. A signal ends all of them, each after clearing away, and raises KeyboardInterrupt.
    """
    context = multiprocessing.get_context("spawn")
    waiting = list(drills)
    running: dict[Connection, _Running] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                receiving, sending = context.Pipe(duplex=False)
                drill = waiting.pop(0)
                process = context.Process(target=_in_process, args=(drill, setting, observer_of, sending))
                process.start()
                sending.close()
                running[receiving] = _Running(drill, process)
            for ready in connection.wait(list(running)):
                assert isinstance(ready, connection.Connection)  # noqa: S101 - nothing else was waited for
                done(_ended(ready, running.pop(ready), setting))
    except KeyboardInterrupt:
        with shielded():
            for one in running.values():
                one.process.terminate()
            for ready, one in running.items():
                one.process.join()
                done(_ended(ready, one, setting))
            for drill in waiting:
                done(_broken_off(drill, INTERRUPTED))
        raise


@dataclass(frozen=True)
class _Running:
    drill: Drill
    process: SpawnProcess


def _in_process(drill: Drill, setting: Setting, observer_of: Callable[[str], Observer], sending: Connection) -> None:
    """Run one drill in a process of its own."""
    end_as_interrupted()
    try:
        report = run_drill(drill, setting, observer_of(drill.name))
        with shielded():
            sending.send(report)
    except KeyboardInterrupt:
        sys.exit(ExitStatus.INTERRUPTED)


def _ended(receiving: Connection, one: _Running, setting: Setting) -> DrillReport:
    """Take a drill's report from its process, which has ended or is about to; a killed one's remains are removed."""
    report: DrillReport | None = None
    with contextlib.suppress(EOFError), receiving:
        report = receiving.recv()
    one.process.join()
    if report is not None:
        return report
    clear_remains(setting.work_dir, one.drill.slug)
    status = one.process.exitcode
    if status in {ExitStatus.INTERRUPTED, -signal.SIGTERM}:
        return _broken_off(one.drill, INTERRUPTED)
    how = f"signal {-status}" if status is not None and status < 0 else f"status {status}"
    return _broken_off(
        one.drill,
        RescueError(
            f"the drill's process ended with {how}", hint="Its last words are above; see the machine's memory."
        ),
    )


def _broken_off(drill: Drill, error: RescueError) -> DrillReport:
    """Return the report of a drill that was ended before it could make one."""
    record = Record(Silent(), questions_of(drill), snapshot=drill.snapshot.text)
    record.broke_off(error)
    return reported(drill, record, started=datetime.now(tz=UTC), seconds=0.0)
