"""pgrescue as a process of its own that can be killed, forked from one that has it loaded: starting takes no second."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.cli import Done, environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

# Reads what to run, line by line; a line says which process it became, another one how that ended.
_MOTHER = """
import importlib, json, os, sys
for name in sys.argv.pop().split():
    importlib.import_module(name)
import pgrescue.__main__

def arrange(plan):
    module, _, name = plan["at"].partition(":")
    owner = importlib.import_module(module)
    *parents, name = name.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    function = getattr(owner, name)
    left = [plan["call"]]

    def with_accident(*args, **options):
        if not any(plan["only"] in str(one) for one in (*args, "")):
            return function(*args, **options)
        left[0] -= 1
        if left[0]:
            return function(*args, **options)
        result = function(*args, **options) if plan["after"] else None
        os.kill(os.getpid(), plan["by"])
        return result if plan["after"] else function(*args, **options)

    setattr(owner, name, with_accident)

while line := sys.stdin.readline():
    wanted = json.loads(line)
    child = os.fork()
    if not child:
        break
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
for number, path in enumerate((os.devnull, wanted["stdout"], wanted["stderr"])):
    os.dup2(os.open(path, os.O_RDWR), number)
os.chdir(wanted["cwd"])
os.environ.clear()
os.environ.update(wanted["env"])
sys.argv = ["pgrescue", *wanted["args"]]
if wanted["plan"]:
    arrange(wanted["plan"])
pgrescue.__main__.main()
"""
_LOADED = (
    "pgrescue.cli.app pgrescue.transfer.transfer pgrescue.transfer.source asyncpg asyncpg.protocol tenacity docker "
    "pgrescue.engine.docker pgrescue.engine.native"
)


@dataclass(frozen=True)
class Accident:
    """A signal to the process itself before or after the n-th call of a function, which reads `module:name`.

    Only calls count that have an argument whose text has `only` in it. The function is replaced in that module alone.
    """

    at: str
    call: int = 1
    only: str = ""
    after: bool = False
    by: signal.Signals = signal.SIGKILL


class Forks:
    """Runs one pgrescue after the other, inside a `with` block."""

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory()
        self._mother = subprocess.Popen(
            [sys.executable, "-c", _MOTHER, _LOADED],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._mother:
            assert self._mother.stdin is not None
            self._mother.stdin.close()
        self._directory.cleanup()

    def start(
        self, *args: str | Path, cwd: Path, env: Mapping[str, str] | None = None, accident: Accident | None = None
    ) -> Running:
        """Start a command; the one before must have ended."""
        outputs = [Path(self._directory.name) / name for name in ("stdout", "stderr")]
        for output in outputs:
            output.write_text("")
        wanted = {
            "args": [str(one) for one in args],
            "cwd": str(cwd),
            "env": environment(env),
            "stdout": str(outputs[0]),
            "stderr": str(outputs[1]),
            "plan": asdict(accident) if accident else None,
        }
        assert self._mother.stdin is not None
        self._mother.stdin.write(json.dumps(wanted) + "\n")
        self._mother.stdin.flush()
        return Running(self._mother, self._answer(), *outputs)

    def _answer(self) -> int:
        assert self._mother.stdout is not None
        return int(self._mother.stdout.readline())


@dataclass(frozen=True)
class Running:
    """A command under way."""

    mother: subprocess.Popen[str]
    pid: int
    stdout: Path
    stderr: Path

    @property
    def is_alive(self) -> bool:
        """Tell whether it has not ended."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
        except OSError:
            return False

    def send(self, number: signal.Signals) -> None:
        """Send a signal, which has no effect where it has ended."""
        if self.is_alive:
            os.kill(self.pid, number)

    def ended(self) -> Done:
        """Wait for the end."""
        assert self.mother.stdout is not None
        status = int(self.mother.stdout.readline())
        return Done(status, self.stdout.read_text(), self.stderr.read_text())

    def killed(self) -> None:
        """Wait for the end, which must be that of a SIGKILL."""
        done = self.ended()
        assert done.status == -signal.SIGKILL, f"the accident did not happen\n{done.stderr}"
