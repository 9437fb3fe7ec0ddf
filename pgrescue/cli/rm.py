"""`pgrescue rm`: end a rescue and remove everything of it."""

from __future__ import annotations

import shutil
import sys
from typing import Annotated

import typer

from pgrescue.cli.common import JsonOption, WorkspaceOption, chosen_workspace, engine_of, fail, output, print_json
from pgrescue.errors import RescueError, UsageError

_PATIENCE_S = 10


def rm(
    workspace: WorkspaceOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Stop the workspace's server, and remove it with the workspace and all data in it. The snapshot stays."""
    try:
        space = chosen_workspace(workspace)
        if not yes:
            _confirm(str(space.root))
        _, engine = engine_of(space)
        with space.locked():
            # A server that crashes as often as it starts does not end well, and its files go away with it.
            engine.stop(timeout_s=_PATIENCE_S)
            engine.remove()
            try:
                shutil.rmtree(space.root)
            except OSError as error:
                raise RescueError(
                    f"{error.filename} cannot be removed: {error.strerror}",
                    hint="The server is gone. Remove the directory as a user who may.",
                ) from error
    except RescueError as error:
        raise fail(error, as_json=as_json) from error
    if as_json:
        print_json({"schema": 1, "workspace": str(space.root), "removed": True})
    else:
        output().print(f"removed: {space.root}", markup=False, highlight=False, soft_wrap=True)


def _confirm(what: str) -> None:
    """Ask on a terminal; raise UsageError without one, and Exit where the answer is no."""
    if not sys.stdin.isatty():
        raise UsageError(f"{what} would be removed with its data", hint="Say --yes where nobody can be asked.")
    if not typer.confirm(f"Remove {what}, its server and all data in it?", err=True):
        raise typer.Exit(1)
