"""Where a command that reads a database finds it: a snapshot, a workspace, or a live server."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgrescue.cli.common import chosen_workspace, engine_of, named
from pgrescue.cli.local import rescue_snapshot
from pgrescue.engine.choose import EngineRequest
from pgrescue.engine.interface import ServerState
from pgrescue.errors import RescueError, UsageError
from pgrescue.ledger import Ledger
from pgrescue.model import EngineName, Verdict
from pgrescue.strategy.rescue import RescuePlan
from pgrescue.workspace import Workspace, default_root

SourceArgument = Annotated[
    Path | None,
    typer.Argument(
        help="A workspace, or a snapshot (it is rescued first). Default: the only workspace here.", readable=False
    ),
]
SourceUrlOption = Annotated[
    str | None,
    typer.Option(
        help="A live server in place of SOURCE.", envvar="PGRESCUE_SOURCE_URL", show_envvar=True, metavar="URL"
    ),
]
DatabaseOption = Annotated[
    str | None,
    typer.Option(help="The app database. Default: the only one that is no template, maintenance or empty one."),
]
EngineOption = Annotated[str, typer.Option(help="auto, docker or native.", metavar="ENGINE")]
ImageOption = Annotated[str | None, typer.Option(help="The Docker image with PostgreSQL's programs.")]
BindirOption = Annotated[
    Path | None, typer.Option(help="Where PostgreSQL's programs are, for the native engine.", readable=False)
]
AUTO = "auto"

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgrescue.pipeline import Observer
    from pgrescue.transfer.source import Source


def engine_request(engine: str, image: str | None, bindir: Path | None) -> EngineRequest:
    """Return what the options of an engine ask for; raise UsageError for an engine that does not exist."""
    return EngineRequest(None if engine == AUTO else named(EngineName, engine, "--engine"), image, bindir)


@contextlib.contextmanager
def open_source(
    source: Path | None,
    *,
    workspace: Path | None,
    source_url: str | None,
    database: str | None,
    observer: Observer,
    engine: EngineRequest | None = None,
    before_rescue: Callable[[], None] | None = None,
) -> Iterator[Source]:
    """Give the app database that a command is to read.

    `source` is a snapshot, which is rescued first, or a workspace, whose server is started where it is down; without
    it, the workspace is the one that was named, or the only one here. `before_rescue` is called before a rescue begins
    to write, and may refuse. Raises UsageError where the options contradict each other.
    """
    from pgrescue.transfer.endpoint import Endpoint  # noqa: PLC0415 - with psycopg, which most commands never need
    from pgrescue.transfer.source import choose_database, live, rescued  # noqa: PLC0415 - as above

    request = engine or EngineRequest()
    if source_url is not None:
        if source is not None or workspace is not None:
            raise UsageError(
                "two sources are named", hint="Name a snapshot or a workspace, or a live server with --source-url."
            )
        with live(Endpoint.parse(source_url, "--source-url"), request, observer) as found:
            yield choose_database(found, database)
        return
    space = _served(source, workspace, request, observer, before_rescue)
    _, bound = engine_of(space)
    # Nobody stops or removes the server in the middle.
    with space.locked(), rescued(space, bound) as found:
        yield choose_database(found, database)


def _served(
    source: Path | None,
    workspace: Path | None,
    engine: EngineRequest,
    observer: Observer,
    before_rescue: Callable[[], None] | None,
) -> Workspace:
    """Return the workspace, rescued to the end, with its server running."""
    snapshot = source
    if source is None or Workspace(source).ledger.exists():
        if source is not None and workspace is not None:
            raise UsageError("two workspaces are named", hint="Name one of them.")
        space = chosen_workspace(source or workspace)
        ledger = Ledger.load(space.ledger)
        if ledger.state.is_finished and engine_of(space)[1].status().state is ServerState.RUNNING:
            return space
        snapshot, root = Path(ledger.state.snapshot), space.root
        if not snapshot.exists():
            raise RescueError(
                f"the server of {space.root} does not run, and its snapshot is not at {snapshot} any more",
                hint="Put it back there; or start the copy by hand: docker compose up -d in the workspace.",
            )
    else:
        root = workspace or default_root(source, Path.cwd())
    assert snapshot is not None  # noqa: S101 - for mypy
    before = None if _is_finished(Workspace(root)) else before_rescue
    report = rescue_snapshot(snapshot, root, RescuePlan(engine), observer, before=before)
    if report.verdict is Verdict.FAILED:
        problem = next((found.detail for found in report.findings if found.code == "rescue_failed"), "")
        raise RescueError(f"the rescue failed, and there is nothing to move: {problem}", hint="See pgrescue logs.")
    observer.noted(f"Rescued: {report.verdict}, strategy {report.strategy}")
    return Workspace(report.workspace)


def _is_finished(workspace: Workspace) -> bool:
    return workspace.ledger.exists() and Ledger.load(workspace.ledger).state.is_finished
