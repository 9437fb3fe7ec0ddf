"""Pieces of work that need one another and tables for themselves, run by a few workers."""

from __future__ import annotations

import bisect
import contextlib
import threading
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager


_CANCELS_EVERY_S = 0.5


class Cancellable(Protocol):
    """What a worker works with, such as its sessions."""

    def cancel(self) -> None:
        """Make the work under way fail soon; any thread may call, at any time."""


ResourceT = TypeVar("ResourceT", bound=Cancellable)


@dataclass(frozen=True)
class Task(Generic[ResourceT]):
    """One piece of work: it begins once all tasks that it `needs` have ended.

    While it runs, no other task has one of its `alone` things, nor as `shared`; things are tables, by any name.
    """

    key: str
    run: Callable[[ResourceT], None] = field(compare=False, repr=False)
    needs: frozenset[str] = frozenset()
    alone: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()


class StuckError(Exception):
    """No task can begin, and none is under way: they need each other in a circle, or one that does not exist."""


class _Board(Generic[ResourceT]):
    """Which tasks wait, run and have ended; every method may be called by any thread."""

    def __init__(self, tasks: Sequence[Task[ResourceT]], done: frozenset[str]) -> None:
        self._changed = threading.Condition()
        self._waiting = {place: task for place, task in enumerate(tasks) if task.key not in done}
        # By their places: what each still needs, who waits for whom, and those that need nothing, in order.
        self._missing = {place: set(task.needs - done) for place, task in self._waiting.items()}
        self._followers: dict[str, list[int]] = {}
        for place, needs in self._missing.items():
            for need in needs:
                self._followers.setdefault(need, []).append(place)
        self._ready = [place for place, needs in self._missing.items() if not needs]
        self._running: dict[str, Task[ResourceT]] = {}
        self._is_over = False
        self._error: BaseException | None = None

    def take(self) -> Task[ResourceT] | None:
        """Wait for a task that can begin; return None where nothing is left to do."""
        with self._changed:
            while not self._is_over and self._waiting:
                for index, place in enumerate(self._ready):
                    task = self._waiting[place]
                    if self._has_its_things(task):
                        del self._ready[index], self._waiting[place]
                        self._running[task.key] = task
                        return task
                if not self._running:
                    left = ", ".join(task.key for task in list(self._waiting.values())[:5])
                    raise StuckError(f"nothing can go on: {left}")
                self._changed.wait()
            return None

    def _has_its_things(self, task: Task[ResourceT]) -> bool:
        return not any(
            task.alone & (other.alone | other.shared) or task.shared & other.alone for other in self._running.values()
        )

    def ended(self, task: Task[ResourceT]) -> None:
        """Let those begin that needed it."""
        with self._changed:
            del self._running[task.key]
            for place in self._followers.pop(task.key, ()):
                self._missing[place].discard(task.key)
                if not self._missing[place]:
                    bisect.insort(self._ready, place)
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """Let nothing begin any more."""
        with self._changed:
            self._is_over = True
            self._error = self._error or error
            self._changed.notify_all()

    def raise_error(self) -> None:
        """Raise the first error that a worker ended with, if one did."""
        with self._changed:
            if self._error is not None:
                raise self._error

    @property
    def left(self) -> int:
        """How many tasks have not begun."""
        with self._changed:
            return len(self._waiting)


def run_tasks(
    tasks: Sequence[Task[ResourceT]],
    opener: Callable[[], AbstractContextManager[ResourceT]],
    *,
    workers: int,
    done: frozenset[str] = frozenset(),
) -> None:
    """Run all tasks but those in `done`, each as early as it can be, in their order where there is a choice.

    Every worker opens a resource of its own. The first error ends all: the work of the others is cancelled, and it is
    raised; so is whatever interrupts the caller. No worker outlives the call.
    """
    board = _Board(tasks, done)
    count = min(workers, board.left)
    if not count:
        return
    resources = _Resources[ResourceT]()
    working: list[Future[None]] = []
    with ThreadPoolExecutor(count) as pool:
        try:
            for _ in range(count):
                working.append(pool.submit(_work, board, opener, resources))  # noqa: PERF401 - Ctrl-C may come here too
            wait(working, return_when=FIRST_EXCEPTION)
            board.raise_error()
        except BaseException:
            board.end()
            _cancel(working, resources)
            raise


def _cancel(working: Sequence[Future[None]], resources: _Resources[ResourceT]) -> None:
    """Wait until all workers have ended, and cancel what they do, again and again: between statements nothing is."""
    is_waiting = True
    while is_waiting:
        # Who presses Ctrl-C once more gets no other end than this one.
        with contextlib.suppress(KeyboardInterrupt):
            resources.cancel()
            is_waiting = bool(wait(working, timeout=_CANCELS_EVERY_S).not_done)


def _work(
    board: _Board[ResourceT],
    opener: Callable[[], AbstractContextManager[ResourceT]],
    resources: _Resources[ResourceT],
) -> None:
    try:
        with opener() as resource, resources.using(resource):
            while (task := board.take()) is not None:
                task.run(resource)
                board.ended(task)
    except BaseException as error:
        board.end(error)
        raise


class _Resources(Generic[ResourceT]):
    """The resources in use; every method may be called by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._resources: list[ResourceT] = []

    @contextlib.contextmanager
    def using(self, resource: ResourceT) -> Iterator[None]:
        """Count the resource while the block runs."""
        with self._lock:
            self._resources.append(resource)
        try:
            yield
        finally:
            with self._lock:
                self._resources.remove(resource)

    def cancel(self) -> None:
        """Cancel what all of them do, at the same time: one may have to wait for a network that is gone."""
        with self._lock:
            resources = list(self._resources)
        if resources:
            with ThreadPoolExecutor(len(resources)) as pool:
                for cancelling in [pool.submit(resource.cancel) for resource in resources]:
                    cancelling.result()
