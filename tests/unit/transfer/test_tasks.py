"""The scheduler: what needs what, what excludes what, and how everything ends when one thing does."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from pgrescue.transfer.tasks import StuckError, Task, _Board, run_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PATIENCE_S = 20


class Sessions:
    """A worker's resource: work on it lasts until it is cancelled."""

    def __init__(self) -> None:
        self.is_open = True
        self.cancels = 0
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancels += 1
        self._cancelled.set()

    def work(self) -> None:
        """Wait for the cancel, and fail as a statement does then; like one, it knows nothing of earlier ones."""
        self._cancelled.clear()
        assert self._cancelled.wait(PATIENCE_S), "nobody cancelled it"
        raise TimeoutError("cancelled")


class Opener:
    """Opens resources, and knows all of them."""

    def __init__(self) -> None:
        self.opened: list[Sessions] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Sessions]:
        session = Sessions()
        with self._lock:
            self.opened.append(session)
        try:
            yield session
        finally:
            session.is_open = False


@pytest.fixture
def opener() -> Iterator[Opener]:
    given = Opener()
    before = threading.active_count()
    yield given
    assert not any(session.is_open for session in given.opened)
    deadline = time.monotonic() + PATIENCE_S
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.001)  # one whose work is done may not have ended yet
    assert threading.active_count() == before


class Diary:
    """What tasks did, in the order in which they did it."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self._lock = threading.Lock()

    def task(self, key: str, *needs: str, alone: Sequence[str] = (), shared: Sequence[str] = ()) -> Task[Sessions]:
        def run(session: Sessions) -> None:
            assert session.is_open
            with self._lock:
                self.ended.append(key)

        return Task(key, run, frozenset(needs), frozenset(alone), frozenset(shared))


def failing(error: BaseException) -> Callable[[Sessions], None]:
    def run(_: Sessions) -> None:
        raise error

    return run


def working(session: Sessions) -> None:
    session.work()


def test_one_worker_keeps_the_order(opener: Opener) -> None:
    diary = Diary()
    keys = [f"task {number}" for number in range(20)]
    run_tasks([diary.task(key) for key in keys], opener, workers=1)
    assert diary.ended == keys
    assert len(opener.opened) == 1


def test_what_is_needed_comes_first(opener: Opener) -> None:
    diary = Diary()
    tasks = [diary.task("c", "a", "b"), diary.task("b", "a"), diary.task("d"), diary.task("a")]
    run_tasks(tasks, opener, workers=1)
    assert diary.ended == ["d", "a", "b", "c"]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_task_is_done_once_after_all_that_it_needs(opener: Opener, workers: int) -> None:
    diary = Diary()
    choose = random.Random(workers)
    keys = [f"task {number}" for number in range(300)]
    needs = {key: choose.sample(keys[:place], min(place, choose.randrange(4))) for place, key in enumerate(keys)}
    tasks = [diary.task(key, *needs[key]) for key in keys]
    choose.shuffle(tasks)
    run_tasks(tasks, opener, workers=workers)
    assert sorted(diary.ended) == sorted(keys)
    place_of = {key: place for place, key in enumerate(diary.ended)}
    assert all(place_of[need] < place_of[key] for key in keys for need in needs[key])


def test_done_tasks_are_skipped_and_count_as_done(opener: Opener) -> None:
    diary = Diary()
    tasks = [diary.task("a"), diary.task("b", "a", "of an earlier run"), diary.task("c", "b")]
    run_tasks(tasks, opener, workers=2, done=frozenset({"a", "of an earlier run"}))
    assert diary.ended == ["b", "c"]


def test_nothing_is_opened_for_nothing(opener: Opener) -> None:
    diary = Diary()
    run_tasks([], opener, workers=4)
    run_tasks([diary.task("a")], opener, workers=4, done=frozenset({"a"}))
    assert opener.opened == []
    run_tasks([diary.task("a"), diary.task("b")], opener, workers=4, done=frozenset({"a"}))
    assert len(opener.opened) == 1


def test_all_workers_work_at_the_same_time(opener: Opener) -> None:
    """Each of them waits for all others."""
    meeting = threading.Barrier(4, timeout=PATIENCE_S)

    def meet(_: Sessions) -> None:
        meeting.wait()

    run_tasks([Task(f"{number}", meet) for number in range(8)], opener, workers=4)
    assert len(opener.opened) == 4


def test_what_is_alone_is_alone_and_what_is_shared_is_shared(opener: Opener) -> None:
    inside: dict[str, list[str]] = {name: [] for name in "pqr"}
    lock, most = threading.Lock(), dict.fromkeys(["shared", "different"], 0)
    broken: list[str] = []
    choose = random.Random(7)

    def task(number: int) -> Task[Sessions]:
        things = choose.sample("pqr", choose.randrange(1, 3))
        ways = {thing: choose.choice(["alone", "shared", "shared"]) for thing in things}

        def run(_: Sessions) -> None:
            with lock:
                for thing, way in ways.items():
                    if inside[thing] and (way == "alone" or "alone" in inside[thing]):
                        broken.append(f"{number}: {way} {thing} beside {inside[thing]}")
                    inside[thing].append(way)
                most["shared"] = max(most["shared"], *map(len, inside.values()))
                most["different"] = max(most["different"], sum(1 for ways in inside.values() if ways))
            time.sleep(0.001)
            with lock:
                for thing, way in ways.items():
                    inside[thing].remove(way)

        return Task(
            f"{number}",
            run,
            alone=frozenset(thing for thing in ways if ways[thing] == "alone"),
            shared=frozenset(thing for thing in ways if ways[thing] == "shared"),
        )

    run_tasks([task(number) for number in range(400)], opener, workers=6)
    assert broken == []
    assert most["shared"] > 1, "nothing was ever shared"
    assert most["different"] > 1, "nothing else was done beside what is alone"


def test_who_waits_for_a_thing_keeps_nobody_else_waiting(opener: Opener) -> None:
    """The task in front cannot begin, since its table is in use: the one behind it does, and lets it go on."""
    order: list[str] = []
    is_behind_over = threading.Event()

    def first(_: Sessions) -> None:
        assert is_behind_over.wait(PATIENCE_S)
        order.append("first")

    def behind(_: Sessions) -> None:
        order.append("behind")
        is_behind_over.set()

    tasks = [
        Task("first", first, shared=frozenset({"t"})),
        Task("waits", lambda _: order.append("waits"), alone=frozenset({"t"})),
        Task("behind", behind),
    ]
    run_tasks(tasks, opener, workers=2)
    assert order == ["behind", "first", "waits"]


def test_the_first_error_cancels_the_others_and_is_raised(opener: Opener) -> None:
    diary = Diary()
    begun = threading.Barrier(3, timeout=PATIENCE_S)

    def work(session: Sessions) -> None:
        begun.wait()
        session.work()

    def fail(_: Sessions) -> None:
        begun.wait()
        raise LookupError("the first")

    tasks = [Task("a", work), Task("b", work), Task("fails", fail), diary.task("never")]
    with pytest.raises(LookupError, match="the first"):
        run_tasks(tasks, opener, workers=3)
    assert diary.ended == []
    assert sorted(session.cancels > 0 for session in opener.opened) == [False, True, True]


def test_it_cancels_again_what_was_between_two_statements(opener: Opener) -> None:
    """The cancel that comes first finds nothing to cancel: the next statement begins only then."""
    begun = threading.Event()

    def work(session: Sessions) -> None:
        begun.set()
        while not session.cancels:
            time.sleep(0.001)
        session.work()

    def fail(_: Sessions) -> None:
        assert begun.wait(PATIENCE_S)
        raise LookupError

    with pytest.raises(LookupError):
        run_tasks([Task("works", work), Task("fails", fail)], opener, workers=2)
    assert max(session.cancels for session in opener.opened) > 1


def test_nothing_new_begins_after_an_error(opener: Opener) -> None:
    diary = Diary()
    is_over = threading.Event()

    def work(_: Sessions) -> None:
        assert is_over.wait(PATIENCE_S)
        time.sleep(0.05)

    def fail(_: Sessions) -> None:
        is_over.set()
        raise LookupError

    tasks = [Task("works", work), Task("fails", fail), diary.task("later"), diary.task("after", "works")]
    with pytest.raises(LookupError):
        run_tasks(tasks, opener, workers=2)
    assert diary.ended == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_an_interrupted_caller_cancels_all(opener: Opener, number: signal.Signals) -> None:
    """As Ctrl-C, twice; SIGUSR1 stands for a termination, which `pgrescue` turns into the same."""
    left = [2]

    def interrupt(*_: object) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise KeyboardInterrupt

    begun = threading.Barrier(2, timeout=PATIENCE_S)

    def work(session: Sessions) -> None:
        begun.wait()
        os.kill(os.getpid(), number)
        try:
            session.work()
        finally:
            os.kill(os.getpid(), number)

    interrupted = 0
    earlier = signal.signal(number, interrupt)
    try:
        # The second one may come when the first has ended the call already.
        try:
            try:
                run_tasks([Task("a", work), Task("b", work)], opener, workers=2)
            except KeyboardInterrupt:
                interrupted += 1
        except KeyboardInterrupt:
            interrupted += 1
    finally:
        signal.signal(number, earlier)
    assert interrupted
    assert all(session.cancels for session in opener.opened)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_circle_is_an_error_and_what_can_be_done_is_done(opener: Opener, workers: int) -> None:
    diary = Diary()
    tasks = [diary.task("a", "b"), diary.task("b", "a"), diary.task("c"), diary.task("d", "nobody")]
    with pytest.raises(StuckError, match="nothing can go on: a, b, d"):
        run_tasks(tasks, opener, workers=workers)
    assert diary.ended == ["c"]


def test_an_opener_that_fails_ends_all(opener: Opener) -> None:
    begun = threading.Event()
    lock = threading.Lock()

    def work(session: Sessions) -> None:
        begun.set()
        session.work()

    @contextlib.contextmanager
    def no_more_than_one() -> Iterator[Sessions]:
        is_first = lock.acquire(blocking=False)
        if not is_first:
            assert begun.wait(PATIENCE_S)
            raise ConnectionError("there is no room for another one")
        with opener() as session:
            yield session

    with pytest.raises(ConnectionError, match="no room"):
        run_tasks([Task("a", work), Task("b", working)], no_more_than_one, workers=2)


def test_the_error_is_the_first_one_not_what_came_of_it() -> None:
    """Those that end because of it end with errors too, and may do so before the caller has woken up."""
    board = _Board[Sessions]([Task("a", working)], frozenset())
    for error in (LookupError("the cause"), RuntimeError("a consequence")):
        board.end(error)
    with pytest.raises(LookupError, match="the cause"):
        board.raise_error()
    assert board.take() is None


def test_thousands_of_tasks_with_many_needs_are_quickly_sorted_out(opener: Opener) -> None:
    """Foreign keys of a large schema wait in front of everything for all that is behind them."""
    diary = Diary()
    keys = [f"row {number}" for number in range(3000)]
    tasks = [diary.task(f"key {number}", "all") for number in range(3000)]
    tasks += [diary.task("all", *keys), *(diary.task(key) for key in keys)]
    run_tasks(tasks, opener, workers=2)
    assert len(diary.ended) == 6001
    assert diary.ended[3000] == "all"


def test_exceptions_of_single_tasks_are_whole(opener: Opener) -> None:
    with pytest.raises(ValueError, match="bad") as caught:
        run_tasks([Task("a", failing(ValueError("bad")))], opener, workers=1)
    assert caught.traceback[-1].name == "run"
