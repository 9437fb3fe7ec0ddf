"""pgrescue with an accident at a chosen place, and what an accident may leave behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cli import TIMEOUT_S, Done, environment

if TYPE_CHECKING:
    from fixtures import Snapshot

# At the n-th call of a function, before or after it, a signal to pgrescue itself. With "hold" a one-shot
# program cannot end by itself: it is stopped, or, in a container, sleeps before it begins.
_ACCIDENT = """
import importlib, os, signal, subprocess, sys
plan = __import__("json").loads(sys.argv.pop())
module, _, path = plan["at"].partition(":")
owner = importlib.import_module(module)
*parents, name = path.split(".")
for parent in parents:
    owner = getattr(owner, parent)
function = getattr(owner, name)
left = plan["call"]

def fits(args):
    match plan["only"]:
        case None:
            return True
        case ["record", step]:
            return args[1].name == step
        case ["started", step]:
            return args[1] == step
        case ["program", program]:
            return any(str(word).endswith(program) for word in args[0].args)

def hold(args):
    if isinstance(args[0], subprocess.Popen):
        os.kill(args[0].pid, signal.SIGSTOP)

def slow(create):
    def created(client, config, *others):
        if left == 1:
            command = [*config["Entrypoint"], *config["Cmd"]]
            config |= {"Entrypoint": ["sh"], "Cmd": ["-c", 'sleep 60; exec "$@"', "sh", *command]}
        return create(client, config, *others)
    return created

def with_accident(*args, **options):
    global left
    if not fits(args):
        return function(*args, **options)
    left -= 1
    if left:
        return function(*args, **options)
    result = function(*args, **options) if plan["after"] else None
    if plan["hold"]:
        hold(args)
    os.kill(os.getpid(), plan["signal"])
    return result if plan["after"] else function(*args, **options)

setattr(owner, name, with_accident)
if plan["hold"] and module == "docker":
    owner.create_container_from_config = slow(owner.create_container_from_config)
import pgrescue.__main__
pgrescue.__main__.main()
"""


def local_with_accident(
    snapshot: Snapshot,
    workspace: Path,
    *options: str,
    at: str,
    call: int = 1,
    after: bool = False,
    only: tuple[str, str] | None = None,
    hold: bool = False,
    by: signal.Signals = signal.SIGKILL,
) -> subprocess.Popen[str]:
    """Start `pgrescue local` with the accident `by`, a signal, at the n-th call of the function `at`.

    `at` reads `module:name`. `only` counts certain calls: ("record", step) of Ledger.record, ("program", name) of
    Popen.communicate, ("started", step) of an observer. `hold` keeps the program that the call is about from ending.
    """
    command = ["local", str(snapshot.path), "-w", str(workspace), "--json", *options]
    return with_accident(command, cwd=workspace.parent, at=at, call=call, after=after, only=only, hold=hold, by=by)


def with_accident(
    command: list[str],
    *,
    cwd: Path,
    at: str,
    call: int = 1,
    after: bool = False,
    only: tuple[str, str] | None = None,
    hold: bool = False,
    by: signal.Signals = signal.SIGKILL,
) -> subprocess.Popen[str]:
    """Start any command of pgrescue with an accident, as `local_with_accident` does."""
    plan = {
        "at": at,
        "call": call,
        "after": after,
        "only": only,
        "hold": hold,
        "signal": int(by),
    }
    return subprocess.Popen(
        [sys.executable, "-c", _ACCIDENT, *command, json.dumps(plan)],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> Done:
    """Wait for the end; what does not end is killed, and fails the test."""
    with process:
        try:
            stdout, stderr = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return Done(process.returncode, stdout, stderr)


def killed(process: subprocess.Popen[str]) -> None:
    """Wait for the end, which must be the accident's."""
    done = ended(process)
    assert done.status == -signal.SIGKILL, f"the accident did not happen\n{done.stdout}\n{done.stderr}"


def processes_in(workspace: Path) -> list[str]:
    """Return the processes that work in a workspace, or that one of its one-shots started."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            cwd, variables = (process / "cwd").readlink(), (process / "environ").read_bytes()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        marked = b"PGRESCUE_ONE_SHOT=" in variables and f":{workspace}\0".encode() in variables
        if state != "Z" and (marked or cwd.is_relative_to(workspace)):
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            found.append(" ".join([process.name, *(os.fsdecode(word) for word in arguments)]))
    return found


def containers_of(workspace: Path, *, role: str | None = None) -> list[str]:
    """Return the containers of a workspace, in any state."""
    filters = ["-f", f"label=io.pgrescue.workspace={workspace}"]
    if role is not None:
        filters += ["-f", f"label=io.pgrescue.role={role}"]
    done = subprocess.run(["docker", "ps", "-aq", *filters], capture_output=True, text=True, check=False)
    return done.stdout.split()


def leftovers(workspace: Path) -> list[str]:
    """Return the files of a workspace that only something unfinished leaves: parts, scripts, temporary names."""
    return [
        str(path.relative_to(workspace))
        for path in workspace.rglob("*")
        if path.name == "unpacking" or path.suffix == ".sql" or path.name.startswith(".") or ".unpacking" in path.name
    ]


def ledger(workspace: Path) -> dict[str, Any]:
    """Return what the ledger holds."""
    document = json.loads((workspace / "ledger.json").read_text())
    assert isinstance(document, dict)
    return document


def identity(path: Path) -> tuple[int, int]:
    """Return what changes when a file is written anew."""
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def kill_server(where: str) -> None:
    """End a server as a power failure would; `where` is what `status` says."""
    kind, _, name = where.partition(" ")
    if kind == "process":
        os.kill(int(name), signal.SIGKILL)
    else:
        subprocess.run(["docker", "kill", "--signal", "KILL", name], check=True, capture_output=True)


def check_tidy(workspace: Path, *, engine: str) -> None:
    """Assert that there is one server, no program beside it, and no file of something unfinished."""
    assert leftovers(workspace) == []
    if engine == "docker":
        assert len(containers_of(workspace, role="server")) == 1
        assert containers_of(workspace, role="tool") == []
    else:
        # Its children have titles of their own, such as "postgres: checkpointer".
        postmasters = [one for one in processes_in(workspace) if "bin/postgres -D " in one]
        assert len(postmasters) == 1, postmasters


def check_gone(workspace: Path) -> None:
    """Assert that nothing is left of a workspace."""
    assert not workspace.exists()
    assert processes_in(workspace) == []
    if shutil.which("docker"):
        assert containers_of(workspace) == []
