"""Signals while something must be done to its end: in programs of their own, which really get them."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from pgrescue.signals import shielded

ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
PROLOGUE = """
import os, signal, sys, time
from pgrescue.signals import shielded
def interrupt(number, frame):
    raise KeyboardInterrupt
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, interrupt)
def come(number):
    os.kill(os.getpid(), number)
    time.sleep(0.05)
    print("went on")
"""


def run(script: str) -> tuple[list[str], int]:
    """Run a script with the program's handlers; return its lines, and its status."""
    done = subprocess.run(
        [sys.executable, "-c", PROLOGUE + script], capture_output=True, text=True, timeout=30, check=False
    )
    return done.stdout.splitlines(), done.returncode


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_has_its_effect_when_the_block_has_ended(number: signal.Signals) -> None:
    script = f"""
try:
    with shielded():
        come({int(number)})
        print("ended")
    print("never")
except KeyboardInterrupt:
    print("interrupted")
"""
    assert run(script) == (["went on", "ended", "interrupted"], 0)


def test_a_second_signal_does_not_break_off_what_the_first_one_asked_for() -> None:
    script = f"""
try:
    try:
        os.kill(os.getpid(), {int(signal.SIGINT)})
        time.sleep(5)
    finally:
        with shielded():
            come({int(signal.SIGTERM)})
            come({int(signal.SIGINT)})
        print("cleared away")
except KeyboardInterrupt:
    print("interrupted")
"""
    assert run(script) == (["went on", "went on", "cleared away", "interrupted"], 0)


def test_blocks_within_blocks_wait_for_the_outer_one() -> None:
    script = f"""
try:
    with shielded():
        with shielded():
            come({int(signal.SIGTERM)})
        print("between")
    print("never")
except KeyboardInterrupt:
    print("interrupted")
"""
    assert run(script) == (["went on", "between", "interrupted"], 0)


def test_a_signal_is_not_lost_where_the_block_fails() -> None:
    script = f"""
try:
    with shielded():
        come({int(signal.SIGTERM)})
        raise ValueError
except ValueError:
    print("never")
except KeyboardInterrupt as error:
    print(type(error.__context__).__name__)
"""
    assert run(script) == (["went on", "ValueError"], 0)


def test_what_was_ignored_stays_so_and_what_killed_kills() -> None:
    """As nohup has it, and as a program without handlers has it."""
    script = f"""
signal.signal(signal.SIGHUP, signal.{{}})
with shielded():
    come({int(signal.SIGHUP)})
print("alive", flush=True)
"""
    assert run(script.format("SIG_IGN")) == (["went on", "alive"], 0)
    lines, status = run(script.format("SIG_DFL").replace('print("went on")', ""))
    assert ("alive" in lines, status) == (False, -signal.SIGHUP)


def test_another_thread_has_nothing_to_put_off() -> None:
    before = [signal.getsignal(number) for number in ENDING]
    seen: list[object] = []

    def work() -> None:
        with shielded():
            seen.extend(signal.getsignal(number) for number in ENDING)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == before
    with shielded():
        assert [signal.getsignal(number) for number in ENDING] != before
    assert [signal.getsignal(number) for number in ENDING] == before
