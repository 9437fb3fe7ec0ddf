"""What every command shares: options, consoles, the workspace and its engine, errors."""

from __future__ import annotations

import shutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console

from pgrescue.engine.choose import reopen
from pgrescue.errors import RescueError, UsageError
from pgrescue.ledger import Ledger
from pgrescue.pipeline import Unit, watched
from pgrescue.report.document import encoded, error_document
from pgrescue.snapshot.contents import read_snapshot
from pgrescue.workspace import Workspace, existing, find

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgrescue.engine.interface import Engine
    from pgrescue.pipeline import Observer
    from pgrescue.snapshot.contents import Snapshot

READ = "read"
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        "-w",
        help="The workspace. Default: the only one in this directory.",
        metavar="DIR",
        readable=False,  # an error of ours says more, in JSON too
    ),
]
WalOption = Annotated[
    Path | None,
    typer.Option(
        "--wal",
        help="Where WAL lies: an archive's directory (barman, WAL-G, pgBackRest, plain; compressed or not), or "
        "pg_wal.tar. Default: what lies beside the snapshot.",
        metavar="PATH",
        readable=False,
    ),
]


def messages() -> Console:
    """Return the console for progress and prose: stderr."""
    return Console(stderr=True, emoji=False)


def output() -> Console:
    """Return the console for results: stdout."""
    return Console(emoji=False)


def program_name() -> str:
    """Return how the user's shell finds this program: by its name, or by the path that it was called by."""
    called = Path(sys.argv[0])
    found = shutil.which("pgrescue")
    return "pgrescue" if found or called.name != "pgrescue" else str(called)


def print_json(document: dict[str, Any]) -> None:
    """Write one JSON object to stdout."""
    sys.stdout.write(encoded(document) + "\n")
    sys.stdout.flush()


def fail(error: RescueError, *, as_json: bool) -> typer.Exit:
    """Tell of an error, and return the exit with its status."""
    if as_json:
        print_json(error_document(error))
    console = messages()
    console.print(f"error: {error.problem}", style="bold red", markup=False, highlight=False, soft_wrap=True)
    if error.hint:
        console.print(f"hint:  {error.hint}", markup=False, highlight=False, soft_wrap=True)
    return typer.Exit(int(error.status))


def read(path: Path, observer: Observer) -> Snapshot:
    """Find out what the snapshot at `path` holds, and let `observer` watch."""
    with watched(observer, READ, "Read the snapshot"):
        return read_snapshot(path, on_progress=lambda done, total: observer.advanced(done, total, Unit.BYTES))


def chosen_workspace(asked: Path | None) -> Workspace:
    """Return the workspace that was named, or the only one here."""
    return find(Path.cwd()) if asked is None else existing(asked)


def engine_of(workspace: Workspace) -> tuple[Ledger, Engine]:
    """Return a workspace's ledger and engine; raise RescueError where either cannot be had."""
    ledger = Ledger.load(workspace.ledger)
    return ledger, reopen(ledger.state.engine, ledger.state.major, workspace, ledger.state.workspace_id)


NameT = TypeVar("NameT", bound=StrEnum)


def named(kind: type[NameT], text: str, option: str, *, allowed: Sequence[NameT] = ()) -> NameT:
    """Return the member of an enum that an option names; raise UsageError with what is possible."""
    members = tuple(allowed) or tuple(kind)
    for member in members:
        if member.value == text:
            return member
    raise UsageError(f"{option} {text!r} is unknown", hint=f"Possible are: {', '.join(members)}.")
