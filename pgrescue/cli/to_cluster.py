"""`pgrescue to-cluster`: the app database into an empty target."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgrescue.cli.common import JsonOption, WorkspaceOption, fail, messages, named, output, print_json
from pgrescue.cli.sources import (
    AUTO,
    BindirOption,
    DatabaseOption,
    EngineOption,
    ImageOption,
    SourceArgument,
    SourceUrlOption,
    engine_request,
    open_source,
)
from pgrescue.command import attend
from pgrescue.errors import ExitStatus, RescueError, UsageError
from pgrescue.files import write_atomically
from pgrescue.model import TransferOutcome
from pgrescue.report.console import observer_for, print_transfer
from pgrescue.report.document import encoded, transfer_document
from pgrescue.workspace import Workspace

if TYPE_CHECKING:
    from pgrescue.model import TransferReport
    from pgrescue.pipeline import Observer
    from pgrescue.transfer.endpoint import Endpoint
    from pgrescue.transfer.site import TransferPlan
    from pgrescue.transfer.source import Source

_STATUSES = {
    TransferOutcome.MOVED: ExitStatus.OK,
    TransferOutcome.ALREADY_THERE: ExitStatus.OK,
    TransferOutcome.READY: ExitStatus.OK,
    TransferOutcome.REFUSED: ExitStatus.USAGE,
    TransferOutcome.FAILED: ExitStatus.FAILED,
}
_MOST_JOBS = 64


def to_cluster(
    source: SourceArgument = None,
    target_url: Annotated[
        str | None,
        typer.Option(
            help="The new, empty database: a URL or connection string of libpq. The password may come from it, from "
            "PGPASSWORD or from ~/.pgpass.",
            envvar="PGRESCUE_TARGET_URL",
            show_envvar=True,
            metavar="URL",
        ),
    ] = None,
    source_url: SourceUrlOption = None,
    database: DatabaseOption = None,
    workspace: WorkspaceOption = None,
    jobs: Annotated[
        int | None,
        typer.Option(help="Tables and indexes at a time. Default: by this machine's cores.", min=1, max=_MOST_JOBS),
    ] = None,
    compare: Annotated[
        str, typer.Option(help="What is compared at the end: hash (every row), count, or none.", metavar="LEVEL")
    ] = "hash",
    role: Annotated[
        str | None, typer.Option(help="The role of the target that is to own everything; privileges are not moved.")
    ] = None,
    roles: Annotated[
        bool, typer.Option("--roles", help="Create roles that the target lacks, without passwords.")
    ] = False,
    salvage: Annotated[
        bool,
        typer.Option("--salvage", help="Of a damaged source move what can be read, and list everything else."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Look at both sides, say what would stop the move, and write nothing.")
    ] = False,
    after: Annotated[
        str | None,
        typer.Option(
            help="A shell command to run when all is well, with the target in DATABASE_URL: the app's own migrations.",
            metavar="COMMAND",
        ),
    ] = None,
    after_env: Annotated[
        str, typer.Option(help="The variable that --after finds the target in.", metavar="NAME")
    ] = "DATABASE_URL",
    engine: EngineOption = AUTO,
    image: ImageOption = None,
    bindir: BindirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move the app database of SOURCE into an empty database elsewhere, and compare both.

    Looks at both sides first and tells all that stands in the way at once. Run it again after an interruption: it
    carries on. Exit status: 0 moved and equal, 1 not, 2 refused before anything was written.
    """
    from pgrescue.transfer.compare import CompareLevel  # noqa: PLC0415 - with psycopg, which most commands never need
    from pgrescue.transfer.endpoint import Endpoint  # noqa: PLC0415 - as above
    from pgrescue.transfer.site import TransferPlan  # noqa: PLC0415 - as above
    from pgrescue.transfer.transfer import look_early  # noqa: PLC0415 - as above

    observer = observer_for(messages())
    try:
        if target_url is None:
            raise UsageError(
                "no target is named", hint="Name the new, empty database: --target-url postgresql://user@host/database"
            )
        endpoint = Endpoint.parse(target_url, "--target-url")
        plan = TransferPlan(
            jobs=jobs or min(max(os.cpu_count() or 2, 2), 8),
            compare=named(CompareLevel, compare, "--compare"),
            role=role,
            makes_roles=roles,
            salvages=salvage,
            is_dry=dry_run,
        )
        if role is not None and roles:
            raise UsageError("--role and --roles exclude each other", hint="--role gives everything to one role.")
        with open_source(
            source,
            workspace=workspace,
            source_url=source_url,
            database=database,
            observer=observer,
            engine=engine_request(engine, image, bindir),
            before_rescue=lambda: look_early(endpoint),
        ) as found:
            report = _transfer(found, endpoint, plan, observer)
        document = transfer_document(report)
        status = _STATUSES[report.outcome]
        if after is not None and report.outcome in {TransferOutcome.MOVED, TransferOutcome.ALREADY_THERE}:
            document["after"] = _run_after(after, after_env, endpoint, observer)
    except RescueError as error:
        raise fail(error, as_json=as_json) from error
    if as_json:
        print_json(document)
    else:
        print_transfer(output(), report)
    if document.get("after"):
        messages().print(
            f"error: the command of --after ended with status {document['after']}; the data is in the target.",
            style="bold red",
            highlight=False,
        )
        status = ExitStatus.FAILED
    if status is not ExitStatus.OK:
        raise typer.Exit(int(status))


def _transfer(source: Source, endpoint: Endpoint, plan: TransferPlan, observer: Observer) -> TransferReport:
    """Run the transfer, and keep its report in the workspace, where there is one."""
    from pgrescue.transfer.transfer import transfer  # noqa: PLC0415 - with psycopg

    home = source.scratch if source.is_rescued else Path.cwd()
    manifest = Workspace(home).salvage if source.is_rescued else home / f"{source.database}.salvage.json"
    report = transfer(source, endpoint, dataclasses.replace(plan, manifest=manifest), observer)
    if source.is_rescued:
        write_atomically(Workspace(home).transfer, encoded(transfer_document(report)) + "\n")
    return report


def _run_after(command: str, variable: str, endpoint: Endpoint, observer: Observer) -> int | None:
    """Run the user's command with the target's URL in its environment; return its exit status."""
    with endpoint.connect(purpose="after") as connection:
        url = endpoint.of_database(connection.info.dbname).url(connection)
    observer.noted(f"Running: {command}")
    return attend(["sh", "-c", command], env={"DATABASE_URL": url, variable: url})
