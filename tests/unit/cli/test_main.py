"""The program as a process: exit statuses of interruptions and bugs."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

FAILING = """
import importlib, os, signal, sys, time
from pgrescue.__main__ import main
command = importlib.import_module("pgrescue.cli.inspect")
def read(*_):
    {act}
command.read = read
sys.argv = ["pgrescue", "inspect", "snapshot.tar"]
main()
"""


def run_with(act: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", FAILING.format(act=act)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    "act",
    [
        "raise KeyboardInterrupt",
        f"os.kill(os.getpid(), {int(signal.SIGINT)}); time.sleep(9)",
        f"os.kill(os.getpid(), {int(signal.SIGTERM)}); time.sleep(9)",
    ],
)
def test_an_interruption_ends_with_130_and_says_how_to_carry_on(act: str) -> None:
    done = run_with(act)
    assert (done.returncode, done.stdout) == (130, "")
    assert "run the same command again" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bug_ends_with_70_and_shows_where() -> None:
    done = run_with("raise ZeroDivisionError('a bug')")
    assert (done.returncode, done.stdout) == (70, "")
    assert "ZeroDivisionError: a bug" in done.stderr
    assert "This is a bug in pgrescue" in done.stderr


def test_the_installed_program_prints_nothing_but_json_on_stdout(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pgrescue", "inspect", tmp_path / "absent.tar", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout.startswith("{")
    assert done.stdout.endswith("}\n")
    assert "\x1b" not in done.stdout + done.stderr
