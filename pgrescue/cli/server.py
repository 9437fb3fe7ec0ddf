"""`pgrescue status`, `stop`, `logs` and `psql`: a workspace's server."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgrescue.cli.common import JsonOption, WorkspaceOption, chosen_workspace, engine_of, fail, output, print_json
from pgrescue.command import replace_process
from pgrescue.engine.interface import ServerState
from pgrescue.errors import RescueError, ServerError, ToolError
from pgrescue.model import EngineName
from pgrescue.steps.access import ROLE, read_password

if TYPE_CHECKING:
    from pgrescue.engine.interface import Engine
    from pgrescue.workspace import Workspace


def status(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Show whether the workspace's server runs, where, and what its rescue came to."""
    try:
        space = chosen_workspace(workspace)
        ledger, engine = engine_of(space)
        server = engine.status()
    except RescueError as error:
        raise fail(error, as_json=as_json) from error
    report = _report(space)
    document = {
        "schema": 1,
        "workspace": str(space.root),
        "snapshot": ledger.state.snapshot,
        "state": server.state.value,
        "port": server.port,
        "where": server.where,
        "engine": ledger.state.engine.name.value,
        "strategy": ledger.state.strategy,
        "verdict": report.get("verdict"),
        "url": report.get("url") if server.state is ServerState.RUNNING else None,
        "steps": [
            {"name": step.name, "outcome": step.outcome.value, "seconds": step.seconds}
            for step in ledger.state.steps.values()
        ],
    }
    if as_json:
        print_json(document)
        return
    console = output()
    for name in ("workspace", "snapshot", "state", "where", "port", "engine", "strategy", "verdict", "url"):
        console.print(f"{name + ':':<11}{document[name] or '-'}", markup=False, highlight=False, soft_wrap=True)


def _report(workspace: Workspace) -> dict[str, Any]:
    """Return the last report; nothing where there is none yet, or none that can be understood."""
    try:
        report = json.loads(workspace.report.read_text())
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def stop(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Shut the workspace's server down. `pgrescue local` with the same snapshot starts it again."""
    try:
        space = chosen_workspace(workspace)
        _, engine = engine_of(space)
        with space.locked():
            was = engine.status().state
            engine.stop()
    except RescueError as error:
        raise fail(error, as_json=as_json) from error
    if as_json:
        print_json({"schema": 1, "workspace": str(space.root), "was": was.value, "state": ServerState.STOPPED.value})
    else:
        output().print(f"stopped: {space.root}", markup=False, highlight=False, soft_wrap=True)


def logs(
    workspace: WorkspaceOption = None,
    tail: Annotated[int | None, typer.Option("--tail", "-n", help="Only the last lines.", min=0)] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the server writes.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the log of the workspace's server."""
    try:
        _, engine = engine_of(chosen_workspace(workspace))
        if as_json:
            print_json({"schema": 1, "lines": list(engine.logs(tail=tail))})
            return
        for line in engine.logs(tail=tail, follow=follow):
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
    except RescueError as error:
        raise fail(error, as_json=as_json) from error


def psql(
    context: typer.Context,
    workspace: WorkspaceOption = None,
    database: Annotated[str | None, typer.Option("--dbname", "-d", help="The database. Default: postgres.")] = None,
) -> None:
    """Open psql on the workspace's server. What follows `--` goes to psql: pgrescue psql -- -c 'select 1'."""
    try:
        space = chosen_workspace(workspace)
        ledger, engine = engine_of(space)
        if not ledger.state.is_finished:
            raise ServerError(
                f"the rescue in {space.root} is not finished: its server is not open yet",
                hint="Wait for it, or carry on with it: run pgrescue local again with the same snapshot.",
            )
        arguments = [*(["-d", database] if database else []), *context.args]
        _become_psql(space, engine, arguments)
    except RescueError as error:
        raise fail(error, as_json=False) from error


def _become_psql(workspace: Workspace, engine: Engine, arguments: list[str]) -> None:
    """Replace this process by psql: this machine's, or else the one in the server's container."""
    server = engine.status()
    if server.state is not ServerState.RUNNING or server.port is None:
        raise ServerError("the server does not run", hint="Start it: pgrescue local with the same snapshot.")
    bindir = engine.installation.record.bindir
    client = f"{bindir}/psql" if bindir else shutil.which("psql")
    if client is not None:
        environment = {"PGSERVICEFILE": str(workspace.service_file), "PGSERVICE": "pgrescue"}
        replace_process([client, *arguments], env=environment)
    docker = shutil.which("docker")
    if engine.installation.name is not EngineName.DOCKER or docker is None:
        raise ToolError("there is no psql on this machine", hint="Install one, or use the connection string.")
    terminal = ["--interactive", *(["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else [])]
    # Variables without a value are taken over from this process, so that no password stands on a command line.
    settings = {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGUSER": ROLE,
        "PGDATABASE": "postgres",
        "PGPASSWORD": read_password(workspace),
    }
    passed = [word for name in settings for word in ("--env", name)]
    replace_process([docker, "exec", *terminal, *passed, server.where, "psql", *arguments], env=settings)
