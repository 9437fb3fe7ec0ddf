"""`pgrescue drill`: an unattended rescue, assertions about it, a report."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from pgrescue.cli.common import JsonOption, fail, messages, output, print_json, program_name
from pgrescue.cli.drill_init import init, schema
from pgrescue.cli.local import rescue_snapshot
from pgrescue.drilled import DrillRun
from pgrescue.errors import ExitStatus, RescueError, UsageError
from pgrescue.files import write_atomically
from pgrescue.report.console import Plain, observer_for
from pgrescue.report.drill_document import drill_document, exit_status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgrescue.drill.runner import Setting
    from pgrescue.drill.scenario import Drill, Scenario
    from pgrescue.drilled import DrillReport
    from pgrescue.pipeline import Observer

_MOST_JOBS = 64
_RUN = "run"
_SUMMARY = "GITHUB_STEP_SUMMARY"
_MOST_SUMMARY_BYTES, _LEAST_SUMMARY_BYTES = 1_000_000, 10_000


class _RunByDefault(TyperGroup):
    """Takes `pgrescue drill FILE` for `pgrescue drill run FILE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - of typer's own copy of click
        """Put the word in where no command is named."""
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = [_RUN, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunByDefault,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Rescue a snapshot unattended, ask what a drill file says, report, and clear away. `pgrescue drill FILE` is "
    "short for `pgrescue drill run FILE`.",
)


def run(
    file: Annotated[Path, typer.Argument(help="The drill file (YAML); `drill init` writes one.", readable=False)],
    reports: Annotated[
        Path | None,
        typer.Option(
            help="Write drill.json, junit.xml, drill.md, drill.html and drill.prom into this directory.", metavar="DIR"
        ),
    ] = None,
    prometheus: Annotated[
        Path | None, typer.Option(help="Write the metrics there: for node_exporter's textfile collector.")
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(help="Where runs are remembered. Default: NAME.history.jsonl beside the drill file NAME.yaml."),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Drills at a time.", min=1, max=_MOST_JOBS)] = 1,
    only: Annotated[
        list[str] | None, typer.Option(help="Run only the drill of this name; may be given again.", metavar="NAME")
    ] = None,
    work_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where the copies are made, which go at the end: a disk with room. Default: here.", metavar="DIR"
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave copy and server at the end.")] = False,
    keep_on_failure: Annotated[
        bool, typer.Option("--keep-on-failure", help="Leave them unless the drill passed.")
    ] = False,
    write_schema: Annotated[
        bool, typer.Option("--write-schema", help="Write the references of `schema` checks instead of comparing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the drills of FILE: rescue, ask, measure, report, clear away.

    Exit status: 0 passed, 1 failed, 2 the drill file or an option is wrong, 4 could not verify, 130 interrupted.
    """
    from pgrescue.drill.history import History  # noqa: PLC0415 - what a drill needs takes long to import
    from pgrescue.drill.home import Keep  # noqa: PLC0415 - as above
    from pgrescue.drill.reading import read_scenario  # noqa: PLC0415 - as above
    from pgrescue.drill.runner import Setting  # noqa: PLC0415 - as above

    try:
        if keep and keep_on_failure:
            raise UsageError("--keep and --keep-on-failure exclude each other", hint="--keep leaves everything.")
        scenario = read_scenario(file)
        drills = _chosen(scenario, only or [])
        for place in (reports, None if prometheus is None else prometheus.parent):
            _require_directory(place)
        setting = Setting(
            file=file.absolute(),
            work_dir=(work_dir or Path.cwd()).absolute(),
            history=History(history or file.with_name(f"{file.stem}.history.jsonl")),
            rescue=rescue_snapshot,
            env=dict(os.environ),
            keep=Keep.ALWAYS if keep else Keep.ON_FAILURE if keep_on_failure else Keep.NEVER,
            writes_schema=write_schema,
        )
    except RescueError as error:
        raise fail(error, as_json=as_json) from error
    done, is_interrupted = _run(file, drills, setting, jobs)
    if not is_interrupted:
        done = _told(done, scenario)
    _report(done, reports=reports, prometheus=prometheus, as_json=as_json)
    status = ExitStatus.INTERRUPTED if is_interrupted else exit_status(done.outcome)
    if status is not ExitStatus.OK:
        raise typer.Exit(int(status))


def _chosen(scenario: Scenario, names: Sequence[str]) -> tuple[Drill, ...]:
    known = {drill.name: drill for drill in scenario.drills}
    for name in names:
        if name not in known:
            raise UsageError(f"--only {name!r}: there is no such drill", hint=f"There are: {', '.join(known)}.")
    return tuple(drill for drill in scenario.drills if not names or drill.name in names)


def _require_directory(path: Path | None) -> None:
    """Make a directory for reports before the drill: afterwards it would be too late to find out."""
    if path is None:
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"reports cannot be written to {path}: {error.strerror}", hint="Name a directory that you can write to."
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise UsageError(f"reports cannot be written to {path}", hint="Name a directory that you can write to.")


def observer_of(name: str) -> Observer:
    """Return the observer of one of several drills that run at once, for that drill's own process."""
    return Plain(Console(stderr=True, emoji=False), prefix=f"[{name}] ")


def _run(file: Path, drills: Sequence[Drill], setting: Setting, jobs: int) -> tuple[DrillRun, bool]:
    """Run the drills; return what they came to, and whether a signal ended them early."""
    from pgrescue.drill.several import run_at_once, run_one_by_one  # noqa: PLC0415 - what a drill needs

    started, begun = datetime.now(tz=UTC), time.monotonic()
    found: list[DrillReport] = []
    is_interrupted = False
    try:
        if jobs > 1 and len(drills) > 1:
            run_at_once(drills, setting, observer_of, jobs=jobs, done=found.append)
        else:
            run_one_by_one(drills, setting, observer_for(messages()), done=found.append)
    except KeyboardInterrupt:
        is_interrupted = True
    order = {drill.name: number for number, drill in enumerate(drills)}
    found.sort(key=lambda report: order[report.name])
    return (
        DrillRun(
            id=uuid.uuid4().hex,
            file=str(file),
            started=started,
            seconds=round(time.monotonic() - begun, 3),
            drills=tuple(found),
            notes=tuple(f"{report.name}: {note}" for report in found for note in report.notes),
        ),
        is_interrupted,
    )


def _told(done: DrillRun, scenario: Scenario) -> DrillRun:
    """Tell the webhooks, and note those that could not be told."""
    import dataclasses  # noqa: PLC0415 - only here

    from pgrescue.drill.notify import Hook, notify, summary  # noqa: PLC0415 - with requests

    hooks = [Hook(hook.url_env, frozenset(hook.on)) for hook in scenario.notify]
    notes = notify(summary(done), done.outcome, hooks, env=os.environ) if hooks else ()
    return dataclasses.replace(done, notes=(*done.notes, *notes))


def _report(done: DrillRun, *, reports: Path | None, prometheus: Path | None, as_json: bool) -> None:
    """Write every report that was asked for; one that cannot be written is told, and changes no outcome."""
    from pgrescue.report.document import encoded  # noqa: PLC0415 - reports are made once, at the end
    from pgrescue.report.drill_console import print_drill  # noqa: PLC0415 - as above
    from pgrescue.report.drill_html import drill_page  # noqa: PLC0415 - as above
    from pgrescue.report.junit import junit_xml  # noqa: PLC0415 - as above
    from pgrescue.report.markdown import drill_markdown  # noqa: PLC0415 - as above
    from pgrescue.report.metrics import metrics_text  # noqa: PLC0415 - as above

    document = drill_document(done)
    if reports is not None:
        _write(reports / "drill.json", encoded(document) + "\n")
        _write(reports / "junit.xml", junit_xml(done))
        _write(reports / "drill.md", drill_markdown(done))
        _write(reports / "drill.html", drill_page(done, program=program_name()))
        _write(reports / "drill.prom", metrics_text(done))
    if prometheus is not None:
        _write(prometheus, metrics_text(done))
    if summary := os.environ.get(_SUMMARY):
        _append(Path(summary), drill_markdown(done, most_bytes=_room_in(Path(summary))))
    if as_json:
        print_json(document)
    else:
        print_drill(output(), done, program=program_name())


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, text, mode=0o644)
    except (OSError, RescueError) as error:
        messages().print(f"error: {path} cannot be written: {error}", style="bold red", markup=False, highlight=False)


def _room_in(path: Path) -> int:
    """Return how much more a job's summary may hold: GitHub shows none of more than 1 MiB."""
    with contextlib.suppress(OSError):
        return max(_MOST_SUMMARY_BYTES - path.stat().st_size, _LEAST_SUMMARY_BYTES)
    return _MOST_SUMMARY_BYTES


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        messages().print(f"error: {path} cannot be written: {error}", style="bold red", markup=False, highlight=False)


app.command(_RUN)(run)
app.command("init")(init)
app.command("schema")(schema)
