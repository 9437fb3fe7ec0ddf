"""Keeping signals from breaking off what must be done to its end."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_as_interrupted() -> None:
    """Let a termination end this program as Ctrl-C does, so that containers and files are left in order.

    So does a lost terminal, unless nohup said that it does not matter.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
    raise KeyboardInterrupt


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Put off the signals that end a program until the block has ended; the first of them has its effect then.

    Where one is ending the program already, further ones have none: CI sends a second one soon after the first.
    GitHub's runner sends SIGINT, SIGTERM 7.5 s later, SIGKILL 2.5 s after that. In another thread than the main one,
    where no signal ever interrupts, nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    is_ending = isinstance(sys.exception(), KeyboardInterrupt)
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came and not is_ending:
            signal.raise_signal(came[0])
