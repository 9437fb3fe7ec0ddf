"""`pgrescue local`: a running, checked server on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgrescue.cli.common import JsonOption, WalOption, fail, messages, named, output, print_json, program_name, read
from pgrescue.engine.choose import EngineRequest
from pgrescue.errors import ExitStatus, RescueError, UsageError
from pgrescue.files import write_atomically
from pgrescue.model import EngineName, OwnConfig, RescueReport, StrategyName, Verdict, VerifyLevel, parse_until
from pgrescue.report.console import observer_for, print_report
from pgrescue.report.document import encoded, report_document
from pgrescue.report.html import report_page
from pgrescue.steps.own_config import TakenConfig
from pgrescue.strategy.rescue import RescuePlan, rescue
from pgrescue.strategy.wal_plan import WalRequest
from pgrescue.verify.blocks import damaged_blocks
from pgrescue.workspace import Workspace, default_root

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgrescue.model import Until
    from pgrescue.pipeline import Observer
    from pgrescue.steps.own_config import ConfigRequest

_AUTO = "auto"
_REQUIRABLE = (Verdict.CONSISTENT, Verdict.BEST_EFFORT)


def local(
    snapshot: Annotated[
        Path,
        typer.Argument(
            help="A tar (plain, gzip, bzip2 or xz), a data directory, or a backup's folder.", readable=False
        ),
    ],
    workspace: Annotated[
        Path | None,
        typer.Option(
            "--workspace",
            "-w",
            help="Where the rescue happens. Default: NAME.pgrescue here.",
            metavar="DIR",
            readable=False,
        ),
    ] = None,
    engine: Annotated[str, typer.Option(help="auto, docker or native.", metavar="ENGINE")] = _AUTO,
    image: Annotated[
        str | None, typer.Option(help="The Docker image. Default: postgres:MAJOR of the snapshot.")
    ] = None,
    bindir: Annotated[
        Path | None, typer.Option(help="Where PostgreSQL's programs are, for the native engine.", readable=False)
    ] = None,
    strategy: Annotated[
        str, typer.Option(help="auto, clean, archive, replay, crash or reset (see inspect).", metavar="STRATEGY")
    ] = _AUTO,
    wal: WalOption = None,
    until: Annotated[
        str,
        typer.Option(help="Recover to a time with zone, an LSN, immediate or latest; needs WAL.", metavar="POINT"),
    ] = "latest",
    plain_reset: Annotated[
        bool, typer.Option("--plain-reset", help="Leave the values of a reset to pg_resetwal, as by hand.")
    ] = False,
    verify: Annotated[
        str, typer.Option(help="How much to check before the server is opened: none, fast or full.", metavar="LEVEL")
    ] = VerifyLevel.FAST.value,
    no_repair: Annotated[
        bool, typer.Option("--no-repair", help="After a reset leave indexes and duplicate rows as they are.")
    ] = False,
    port: Annotated[
        int | None, typer.Option(help="The port on 127.0.0.1. Default: a free one.", min=1, max=65535)
    ] = None,
    config_from: Annotated[
        str | None,
        typer.Option(
            help="What becomes of the copy's own override.conf and custom.conf (CloudNativePG), for starting the copy "
            "on a cluster; the server here never reads them. blank: empty files. keep: as in the snapshot. DIR: those "
            "of that directory, a clean database's. Default: as before in this workspace, at first blank.",
            metavar="DIR|keep|blank",
        ),
    ] = None,
    require: Annotated[
        str | None, typer.Option(help="Exit with 3 unless the verdict is at least this: consistent or best-effort.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Turn SNAPSHOT into a running, checked server on this machine. The snapshot itself is only read.

    Run it again to carry on after an interruption, or to start the server of a finished rescue again. Exit status: 0
    the server is up, 1 it is not, 2 the request or the snapshot cannot be meant, 3 the verdict is less than --require.
    """
    try:
        required = named(Verdict, require, "--require", allowed=_REQUIRABLE) if require else None
        plan = RescuePlan(
            EngineRequest(None if engine == _AUTO else named(EngineName, engine, "--engine"), image, bindir),
            None if strategy == _AUTO else named(StrategyName, strategy, "--strategy"),
            wal=WalRequest(wal, _until(until)),
            computes_reset=not plain_reset,
            repairs=not no_repair,
            verify=named(VerifyLevel, verify, "--verify"),
            port=port,
            config=None if config_from is None else _config_from(config_from),
        )
        report = rescue_snapshot(snapshot, workspace, plan, observer_for(messages()))
    except RescueError as error:
        raise fail(error, as_json=as_json) from error
    if as_json:
        print_json(report_document(report, with_password=True))
    else:
        print_report(output(), report, program=program_name())
    if report.verdict is Verdict.FAILED:
        raise typer.Exit(int(ExitStatus.FAILED))
    if required is not None and not report.verdict.is_at_least(required):
        messages().print(f"The verdict is {report.verdict}, {required} is required.", highlight=False)
        raise typer.Exit(int(ExitStatus.LESSER_VERDICT))


def _until(text: str) -> Until:
    try:
        return parse_until(text)
    except ValueError as error:
        raise UsageError(
            f"--until: {error}", hint="Such as --until '2026-11-22 08:15:00+01:00', 16/B374D848, immediate or latest."
        ) from error


def _config_from(text: str) -> ConfigRequest:
    match text:
        case OwnConfig.BLANK.value:
            return OwnConfig.BLANK
        case OwnConfig.KEEP.value:
            return OwnConfig.KEEP
        case _:
            return TakenConfig.read(Path(text))


def rescue_snapshot(
    path: Path, root: Path | None, plan: RescuePlan, observer: Observer, *, before: Callable[[], None] | None = None
) -> RescueReport:
    """Read the snapshot, take the workspace, rescue, and keep the report.

    `before` is called once the snapshot is known to be one, before anything is written, and may refuse.
    """
    _refuse_workspace(path)
    snapshot = read(path, observer)
    workspace = Workspace((root or default_root(snapshot.path, Path.cwd())).absolute())
    if workspace.root.resolve().is_relative_to(snapshot.path.resolve()):
        raise UsageError(
            f"the workspace {workspace.root} would lie within the snapshot, which is never written to",
            hint="Name a directory elsewhere with --workspace.",
        )
    if before is not None:
        before()
    workspace.create(shared=False)
    try:
        with workspace.locked():
            report = rescue(snapshot, workspace, plan, observer)
            write_atomically(workspace.report, encoded(report_document(report, with_password=False)) + "\n")
            write_atomically(
                workspace.report_page,
                report_page(report, blocks=damaged_blocks(workspace), program=program_name()),
            )
    finally:
        workspace.discard_if_unused()
    return report


def _refuse_workspace(path: Path) -> None:
    """Refuse a workspace in the place of a snapshot: to start its server again, the snapshot is named."""
    if Workspace(path).ledger.exists():
        raise UsageError(
            f"{path} is a workspace of pgrescue, not a snapshot",
            hint="To carry on, or to start its server again, name its snapshot (see pgrescue status).",
        )
