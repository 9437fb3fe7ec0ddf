"""pgrescue without its start: a process that has imported everything, and forks for each command.

Imports are a second of a command's three or four. A command that is run so is a process of its own, with its own
arguments, environment, directory, streams and signals, as if it had been started anew. Tests of the start itself, of
signals and of accidents start the real program.
"""

from __future__ import annotations

import array
import atexit
import functools
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROOT = Path(__file__).parents[1]
_LONGEST = 1 << 20
_PRELOADED = (
    "docker",
    "jinja2",
    "numpy",
    "psycopg",
    "pydantic",
    "requests",
    "rich.progress",
    "tenacity",
    "yaml",
    "pgrescue.__main__",
    "pgrescue.drill.reading",
    "pgrescue.drill.several",
    "pgrescue.engine.docker",
    "pgrescue.report.drill_html",
    "pgrescue.transfer.transfer",
)


@functools.cache
def fork_server() -> ForkServer:
    """Return the one of this process of pytest, started when it is first needed."""
    return ForkServer()


class ForkServer:
    """The process that forks; it ends with the process that made it."""

    def __init__(self) -> None:
        self._mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._mine.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LONGEST)
        self._one_at_a_time = threading.Lock()
        code = f"from tests import forkserver; forkserver.serve({its.fileno()})"
        # Its directory is none that a test looks for processes in.
        self._process = subprocess.Popen([sys.executable, "-c", code], cwd=_ROOT, pass_fds=[its.fileno()])
        its.close()
        atexit.register(self._end)

    def _end(self) -> None:
        self._mine.close()
        self._process.wait()

    def run(
        self, arguments: list[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end; raises TimeoutExpired, as subprocess does, after killing it."""
        answers, its_answers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pipes = [os.pipe() for _ in range(2)]
        request = json.dumps({"arguments": arguments, "cwd": str(cwd), "env": dict(env)}).encode()
        handles = array.array("i", [pipes[0][1], pipes[1][1], its_answers.fileno()])
        with self._one_at_a_time:
            self._mine.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handles)])
        its_answers.close()
        said: dict[int, str] = {}
        readers = [threading.Thread(target=_read, args=(number, pipes[number], said)) for number in range(2)]
        for reader in readers:
            reader.start()
        with answers:
            pid = int(answers.recv(32))
            answers.settimeout(timeout_s)
            try:
                status = int(answers.recv(32))
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(arguments, timeout_s) from None
        for reader in readers:
            reader.join()
        return subprocess.CompletedProcess(arguments, status, said[0], said[1])


def _read(number: int, pipe: tuple[int, int], said: dict[int, str]) -> None:
    os.close(pipe[1])
    with os.fdopen(pipe[0], encoding="utf-8", newline=None) as file:
        said[number] = file.read()


def serve(descriptor: int) -> None:
    """Fork for each request that comes through a socket, until its other end is closed."""
    for name in _PRELOADED:
        importlib.import_module(name)
    # Who waits for a command is a process of its own, whom nobody waits for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(fileno=descriptor) as requests:
        while True:
            data, handles, _, _ = socket.recv_fds(requests, _LONGEST, 3)
            if not data:
                return
            if os.fork() == 0:
                requests.close()
                _wait_for_command(json.loads(data), handles)
            for handle in handles:
                os.close(handle)


def _wait_for_command(request: dict[str, Any], handles: list[int]) -> NoReturn:
    """Fork once more, and tell the command's number and, when it has ended, its status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    stdout, stderr, answers = handles
    pid = os.fork()
    if pid == 0:
        os.close(answers)
        _become(request, stdout, stderr)
    for handle in (stdout, stderr):
        os.close(handle)
    with socket.socket(fileno=answers) as asker:
        asker.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        asker.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(request: dict[str, Any], stdout: int, stderr: int) -> NoReturn:
    """Be `python -m pgrescue`, without a terminal."""
    status = 70
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, handle in enumerate((nothing, stdout, stderr)):
            os.dup2(handle, number)
        os.closerange(3, 256)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for the whole process
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115 - as above
        main = sys.modules["pgrescue.__main__"]
        sys.argv = [str(main.__file__), *request["arguments"]]
        try:
            main.main()
            status = 0
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:  # noqa: BLE001 - whatever ends a program ends this one
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                status = status or 120
        os._exit(status)
