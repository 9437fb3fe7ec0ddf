"""Running many small checks in a few sessions at once."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import psycopg

from pgrescue.errors import ServerError
from pgrescue.model import BlockMap, Finding, Severity
from pgrescue.pipeline import Observer, Unit
from pgrescue.retry import until_returns
from pgrescue.steps.connection import SessionError
from pgrescue.verify.not_run import not_run
from pgrescue.verify.target import Progress, words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pgrescue.verify.target import Connection, Fact, Opener

Told: TypeAlias = list[Finding | BlockMap]

_WORKERS = 3
_LEAST_BYTES = 8192
_TIMEOUT_S = 600
_SLOWEST_BYTES_PER_S = 1 << 20
_RESTART_TIMEOUT_S = 120


@dataclass(frozen=True)
class Task:
    """One check of one object: its name for a person, where it runs, and how much it has to read."""

    name: str
    database: str
    run: Callable[[Connection], Iterator[Fact]]
    size_bytes: int = 0

    @property
    def weight(self) -> int:
        """How much it counts in the progress, in bytes."""
        return max(self.size_bytes, _LEAST_BYTES)

    @property
    def timeout_s(self) -> int:
        """How long one statement of it may take: a check must not wait for ever."""
        return _TIMEOUT_S + self.size_bytes // _SLOWEST_BYTES_PER_S


class _LostError(Exception):
    """The session ended in the middle of a check."""


class Runner:
    """Runs tasks, and tells an observer how far it is.

    A server process that meets damage may crash, and all sessions end with it. So the checks whose session ended run
    again, each alone, once the others are done: one that ends its session again has crashed the server.
    """

    def __init__(self, opener: Opener, observer: Observer, *, workers: int = _WORKERS) -> None:
        self._opener = opener
        self._observer = observer
        self._workers = workers
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._done_bytes = 0
        self._total_bytes = 0

    def run(self, tasks: Sequence[Task]) -> Told:
        """Run all tasks, and return what they found in the order of the tasks.

        Raises ServerError where the server has gone and does not come back.
        """
        self._done_bytes, self._total_bytes = 0, sum(task.weight for task in tasks)
        results: list[Told | None] = [None] * len(tasks)
        # By database, so that a session serves many; the large ones first, so that none is left for the end.
        order = sorted(range(len(tasks)), key=lambda number: (tasks[number].database, -tasks[number].weight))
        self._run_at_once(tasks, order, results)
        for number in order:
            if results[number] is None:
                results[number] = self._run_alone(tasks[number])
        return [fact for told in results for fact in told or ()]

    def _run_at_once(self, tasks: Sequence[Task], order: Sequence[int], results: list[Told | None]) -> None:
        queue = iter(order)
        open_sessions: set[Connection] = set()
        with concurrent.futures.ThreadPoolExecutor(self._workers) as pool:
            try:
                working = [
                    pool.submit(self._work, tasks, queue, results, open_sessions)
                    for _ in range(min(self._workers, len(tasks)))
                ]
                for future in concurrent.futures.as_completed(working):
                    future.result()
            except BaseException:
                self._stop.set()
                with self._lock:
                    for connection in open_sessions:
                        with contextlib.suppress(psycopg.Error):
                            connection.cancel()
                raise

    def _work(
        self, tasks: Sequence[Task], queue: Iterator[int], results: list[Told | None], open_sessions: set[Connection]
    ) -> None:
        """Take tasks from the queue until it is empty; a session is kept as long as the database is the same."""
        number = self._next(queue)
        while number is not None:
            database = tasks[number].database
            with contextlib.suppress(_LostError), self._session(database) as connection:
                with self._lock:
                    open_sessions.add(connection)
                limit_s = None
                try:
                    while number is not None and tasks[number].database == database:
                        task, current = tasks[number], number
                        number = self._next(queue)
                        results[current] = self._run(task, connection, limit_s)
                        limit_s = task.timeout_s
                finally:
                    with self._lock:
                        open_sessions.discard(connection)

    def _next(self, queue: Iterator[int]) -> int | None:
        with self._lock:
            return None if self._stop.is_set() else next(queue, None)

    @contextlib.contextmanager
    def _session(self, database: str) -> Iterator[Connection]:
        """Open a session, waiting for a server that restarts after a crash."""
        with contextlib.ExitStack() as stack:
            try:
                connection = until_returns(
                    lambda: stack.enter_context(self._opener(database)), on=SessionError, timeout_s=_RESTART_TIMEOUT_S
                )
            except SessionError as error:
                raise ServerError(
                    f"the server let no session into {database} in the middle of the checks: {error}",
                    hint="Look at its log (pgrescue logs), and run the same command again.",
                ) from error
            yield connection

    def _run(self, task: Task, connection: Connection, limit_s: int | None = None) -> Told:
        """Run one task; raise _LostError when the session ended with it.

        `limit_s` is the session's time limit for a statement, None where it has none of the checks' yet.
        """
        told: Told = []
        left = task.weight
        try:
            if task.timeout_s != limit_s:
                connection.execute(f"set statement_timeout = {task.timeout_s * 1000}".encode())
            for fact in task.run(connection):
                if isinstance(fact, Progress):
                    step = min(fact.size_bytes, left)
                    left -= step
                    self._advance(step)
                else:
                    told.append(fact)
        except psycopg.Error as error:
            if connection.closed:
                raise _LostError(words(error)) from error
            told.append(
                not_run(
                    task.name, f"{words(error)}.", "Look at the other findings of this object and at the server's log."
                )
            )
        self._advance(left)
        return told

    def _run_alone(self, task: Task) -> Told:
        if self._stop.is_set():
            return []
        try:
            with self._session(task.database) as connection:
                return self._run(task, connection)
        except _LostError as error:
            return [
                Finding(
                    "check_crashed_server",
                    Severity.ERROR,
                    task.name,
                    f"The server process ended when it read this, twice: {error}.",
                    "What is there is damaged so that it must not be read as a whole. Leave it out of a dump.",
                )
            ]

    def _advance(self, size_bytes: int) -> None:
        with self._lock:
            self._done_bytes = min(self._done_bytes + size_bytes, self._total_bytes)
            self._observer.advanced(self._done_bytes, self._total_bytes, Unit.BYTES)
