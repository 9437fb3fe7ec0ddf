"""A whole rescue: open the workspace, try the strategies in their order, report."""

from __future__ import annotations

import dataclasses
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from pgrescue.engine.choose import Choice, EngineRequest, bind, choose_engine, reopen
from pgrescue.engine.interface import ServerState
from pgrescue.errors import CopyRefusedError, PortInUseError, RescueError, ServerError, UsageError, WorkspaceError
from pgrescue.ledger import Ledger, boot_id
from pgrescue.model import (
    Finding,
    RecoveredTo,
    RescueReport,
    Severity,
    StepReport,
    StrategyName,
    Verdict,
)
from pgrescue.pipeline import run_steps
from pgrescue.run import Run
from pgrescue.steps.access import read_password
from pgrescue.steps.health_check import Health
from pgrescue.steps.recover import recovered_to
from pgrescue.steps.unpack import discard_copy
from pgrescue.steps.url import server_url, shown_url
from pgrescue.strategy.choose import Assessment, assess
from pgrescue.strategy.recipes import STEPS
from pgrescue.strategy.verdict import judge

if TYPE_CHECKING:
    from pgrescue.engine.interface import Engine
    from pgrescue.pipeline import Observer
    from pgrescue.snapshot.contents import Snapshot
    from pgrescue.workspace import Workspace


@dataclass(frozen=True)
class RescuePlan:
    """What the user asked for; None stands for "choose the best"."""

    engine: EngineRequest = field(default_factory=EngineRequest)
    strategy: StrategyName | None = None
    computes_reset: bool = True
    port: int | None = None


def rescue(snapshot: Snapshot, workspace: Workspace, plan: RescuePlan, observer: Observer) -> RescueReport:
    """Bring the snapshot up in `workspace`, or carry on where an earlier run was interrupted.

    The workspace must be locked by the caller. Returns the report, also of a rescue that failed: then its verdict is
    `failed`, and the workspace stays as it is. Raises RescueError where it could not even begin.
    """
    begun = time.monotonic()
    assessment = assess(snapshot)
    _require_possible(plan.strategy, assessment)
    ledger = _known_ledger(workspace, snapshot)
    choice = _engine(plan, ledger, snapshot, workspace, observer)
    observer.noted(f"Engine: {choice.found.installation.described} ({choice.why})")
    workspace.create(shared=choice.found.installation.owner is not None)
    if ledger is None:
        record = choice.found.installation.record
        ledger = Ledger.begin(
            workspace.ledger,
            snapshot=snapshot.path,
            fingerprint=snapshot.fingerprint,
            major=snapshot.chosen.major,
            engine=record,
        )
    engine = bind(choice.found, workspace, ledger.state.workspace_id)
    strategy = _strategy(plan, ledger, assessment)
    _distrust_unsynced(workspace, ledger, engine)
    run = Run(snapshot, workspace, engine, strategy, _port(plan, ledger, engine), computes_reset=plan.computes_reset)
    ledger.change(strategy=strategy, port=run.port, engine=choice.found.installation.record)
    # A copy on which a server came up once is never thrown away: somebody may have worked on it.
    may_fall = plan.strategy is None and not ledger.state.is_finished
    return _attempt(run, ledger, assessment, observer, may_fall=may_fall, begun=begun)


def _attempt(
    run: Run, ledger: Ledger, assessment: Assessment, observer: Observer, *, may_fall: bool, begun: float
) -> RescueReport:
    """Take the steps of the run's strategy; fall to the next one where that is allowed and this one fails."""
    try:
        observer.noted(f"Strategy: {run.strategy}")
        findings = run_steps(STEPS[run.strategy], run, journal=ledger, observer=observer)
        _refuse_silent_loss(run, findings, may_fall=may_fall)
    except RescueError as error:
        following = assessment.after(run.strategy) if may_fall else None
        if following is None or not _blames_the_copy(error):
            return _failed(run, ledger, error, begun)
        observer.noted(
            f"The strategy {run.strategy} failed; going on with {following} on a fresh copy.\n{error.problem}"
        )
        run.engine.remove()
        discard_copy(run.workspace)
        ledger.start_over(failed=run.strategy, to=following, reason=error.problem)
        run = dataclasses.replace(run, strategy=following)
        return _attempt(run, ledger, assessment, observer, may_fall=may_fall, begun=begun)
    ledger.change(is_finished=True)
    return _succeeded(run, ledger, findings, begun)


# What PostgreSQL says when the machine is at fault: every strategy would fail on it alike.
_MACHINE = ("No space left on device", "Cannot allocate memory", "could not map anonymous shared memory")


def _blames_the_copy(error: RescueError) -> bool:
    """Tell whether PostgreSQL met the copy and would not run on it, so that another strategy may help."""
    if isinstance(error, PortInUseError) or any(words in error.problem for words in _MACHINE):
        return False
    return isinstance(error, CopyRefusedError | ServerError)


def _refuse_silent_loss(run: Run, findings: tuple[Finding, ...], *, may_fall: bool) -> None:
    """Raise where crash recovery ended without an error on a copy that was not atomic: its rows are not to be had."""
    if may_fall and run.strategy is StrategyName.CRASH:
        for finding in findings:
            if finding.code == "pages_past_wal":
                raise CopyRefusedError(finding.detail, hint=finding.remedy)


def _require_possible(strategy: StrategyName | None, assessment: Assessment) -> None:
    for option in assessment.options:
        if option.strategy is strategy and not option.possible:
            raise UsageError(
                f"the strategy {strategy} is not possible with this snapshot: {option.reason}",
                hint=f"Leave --strategy out; the best possible one is {assessment.best}.",
            )


def _known_ledger(workspace: Workspace, snapshot: Snapshot) -> Ledger | None:
    """Return the ledger of a workspace that exists; refuse one that another snapshot was rescued in."""
    if not workspace.ledger.exists():
        return None
    ledger = Ledger.load(workspace.ledger)
    if ledger.state.fingerprint != snapshot.fingerprint:
        raise WorkspaceError(
            f"{workspace.root} belongs to another snapshot: {ledger.state.snapshot}",
            hint="Take another workspace with --workspace, or remove this one first: pgrescue rm.",
        )
    return ledger


def _engine(
    plan: RescuePlan, ledger: Ledger | None, snapshot: Snapshot, workspace: Workspace, observer: Observer
) -> Choice:
    """Find the engine: the workspace's own, unless the user names one."""
    request = plan.engine
    why = ""
    if ledger is not None:
        record = ledger.state.engine
        wanted = request.decided()
        if wanted is not None and wanted is not record.name and _is_running(ledger, workspace):
            raise UsageError(
                f"the server of {workspace.root} runs with the engine {record.name}",
                hint=f"Stop it first: pgrescue stop -w {workspace.root}",
            )
        if wanted is None or (wanted is record.name and request.image is None and request.bindir is None):
            bindir = Path(record.bindir) if record.bindir else None
            request = EngineRequest(record.name, record.image, bindir)
            why = "as before in this workspace"
    choice = choose_engine(request, snapshot.chosen.major, observer=observer, pgdata=workspace.pgdata)
    return dataclasses.replace(choice, why=why or choice.why)


def _is_running(ledger: Ledger, workspace: Workspace) -> bool:
    engine = reopen(ledger.state.engine, ledger.state.major, workspace, ledger.state.workspace_id)
    return engine.status().state is ServerState.RUNNING


def _strategy(plan: RescuePlan, ledger: Ledger, assessment: Assessment) -> StrategyName:
    """Return the strategy to go on with: the workspace's, which may be one that a better one fell to."""
    recorded = ledger.state.strategy
    if recorded is not None and plan.strategy is not None and plan.strategy is not recorded:
        raise UsageError(
            f"this workspace was begun with the strategy {recorded}, not {plan.strategy}",
            hint="Take another workspace with --workspace, or remove this one first: pgrescue rm.",
        )
    return recorded or plan.strategy or assessment.best


def _distrust_unsynced(workspace: Workspace, ledger: Ledger, engine: Engine) -> None:
    """Begin anew where the machine went down before the rescue was finished: nothing was forced to disk until then.

    A finished rescue is never thrown away: somebody may have worked on it.
    """
    if ledger.state.boot != boot_id() and not ledger.state.is_finished:
        engine.remove()
        discard_copy(workspace)
        ledger.change(steps={}, boot=boot_id())


def _port(plan: RescuePlan, ledger: Ledger, engine: Engine) -> int:
    """Return where the server listens or will listen: the wanted port, the earlier one where it is free, a free one."""
    running = engine.status().port
    if running is not None:
        if plan.port not in {None, running}:
            raise UsageError(
                f"the server runs already, on port {running}", hint="Stop it first (pgrescue stop) to move it."
            )
        return running
    if plan.port is not None:
        return plan.port
    for candidate in (ledger.state.port, 0):
        if candidate is not None and (port := _free_port(candidate)) is not None:
            return port
    raise RescueError("no port is free on 127.0.0.1", hint="Name one with --port.")


def _free_port(port: int) -> int | None:
    """Return `port`, or any port for 0, where it can be listened on now, else None."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return None
        return int(probe.getsockname()[1])


def _succeeded(run: Run, ledger: Ledger, findings: tuple[Finding, ...], begun: float) -> RescueReport:
    health = Health.load(run.workspace)
    findings = (*_falls(ledger), *findings)
    port = run.engine.status().port
    url = None if port is None else server_url(port, read_password(run.workspace), health.databases)
    shown = None if port is None else shown_url(port, run.workspace.pgpass, health.databases)
    return RescueReport(
        verdict=judge(run.strategy, findings),
        strategy=run.strategy,
        engine=run.engine.installation.name,
        version=health.version,
        system_identifier=run.snapshot.chosen.control.system_identifier,
        workspace=run.workspace.root,
        url=url,
        shown_url=shown,
        databases=health.databases,
        recovered_to=_recovered_to(run),
        steps=_steps(ledger),
        findings=findings,
        seconds=round(time.monotonic() - begun, 3),
    )


def _failed(run: Run, ledger: Ledger, error: RescueError, begun: float) -> RescueReport:
    missed = Finding("rescue_failed", Severity.ERROR, str(run.workspace.root), error.problem, error.hint)
    return RescueReport(
        verdict=Verdict.FAILED,
        strategy=run.strategy,
        engine=run.engine.installation.name,
        version=run.engine.installation.version,
        system_identifier=run.snapshot.chosen.control.system_identifier,
        workspace=run.workspace.root,
        url=None,
        shown_url=None,
        databases=(),
        recovered_to=RecoveredTo(),
        steps=_steps(ledger),
        findings=(*_falls(ledger), missed),
        seconds=round(time.monotonic() - begun, 3),
    )


def _steps(ledger: Ledger) -> tuple[StepReport, ...]:
    return tuple(ledger.state.steps.values())


def _falls(ledger: Ledger) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            "strategy_failed",
            Severity.WARNING,
            fall.strategy,
            f"The strategy {fall.strategy} did not work, and {fall.to} was taken on a fresh copy. {fall.reason}",
            "Nothing to do, unless the reason shows that something can be mended: then run again.",
        )
        for fall in ledger.state.falls
    )


def _recovered_to(run: Run) -> RecoveredTo:
    control = run.snapshot.chosen.control
    match run.strategy:
        case StrategyName.CLEAN:
            return RecoveredTo(control.checkpoint, control.checkpoint_time)
        case StrategyName.CRASH:
            return recovered_to(run.workspace)
        case StrategyName.RESET:
            return RecoveredTo()
        case _:
            assert_never(run.strategy)
