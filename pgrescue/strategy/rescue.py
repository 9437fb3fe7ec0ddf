"""A whole rescue: open the workspace, try the strategies in their order, report."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from pgrescue.engine.choose import Choice, EngineRequest, bind, choose_engine, reopen
from pgrescue.engine.interface import ServerState
from pgrescue.engine.port import free_port
from pgrescue.errors import (
    CopyRefusedError,
    PortInUseError,
    RescueError,
    ServerError,
    SnapshotError,
    TornCopyError,
    UnreadableSnapshotError,
    UsageError,
    WorkspaceError,
)
from pgrescue.ledger import Ledger, boot_id
from pgrescue.model import (
    Finding,
    Latest,
    Outcome,
    OwnConfig,
    RecoveredTo,
    RescueReport,
    Severity,
    StepReport,
    StrategyName,
    Verdict,
    VerifyLevel,
)
from pgrescue.pipeline import Unit, run_steps
from pgrescue.run import Run
from pgrescue.steps.access import read_password
from pgrescue.steps.health_check import Health
from pgrescue.steps.own_config import TakenConfig
from pgrescue.steps.replay_log import RECOVERY_LOG, logged_replay
from pgrescue.steps.unpack import discard_copy
from pgrescue.steps.url import server_url, shown_url
from pgrescue.strategy.choose import Assessment, assess
from pgrescue.strategy.recipes import STEPS
from pgrescue.strategy.verdict import judge
from pgrescue.strategy.wal_plan import WalRequest, plan_wal

if TYPE_CHECKING:
    from pgrescue.engine.interface import Engine
    from pgrescue.pipeline import Observer
    from pgrescue.run import WalPlan
    from pgrescue.snapshot.contents import Snapshot
    from pgrescue.snapshot.wal import SegmentName
    from pgrescue.steps.own_config import ConfigRequest
    from pgrescue.workspace import Workspace


_FIND_WAL = "find-wal"


@dataclass(frozen=True)
class RescuePlan:
    """What the user asked for; None stands for "choose the best", and for `config` for "as before, at first blank"."""

    engine: EngineRequest = field(default_factory=EngineRequest)
    strategy: StrategyName | None = None
    wal: WalRequest = field(default_factory=WalRequest)
    computes_reset: bool = True
    repairs: bool = True
    verify: VerifyLevel = VerifyLevel.FAST
    port: int | None = None
    config: ConfigRequest | None = None


def rescue(snapshot: Snapshot, workspace: Workspace, plan: RescuePlan, observer: Observer) -> RescueReport:
    """Bring the snapshot up in `workspace`, or carry on where an earlier run was interrupted.

    The workspace must be locked by the caller. Returns the report, also of a rescue that failed: then its verdict is
    `failed`, and the workspace stays as it is. Raises RescueError where it could not even begin.
    """
    begun = time.monotonic()
    ledger = _known_ledger(workspace, snapshot)
    wal, assessment = _assess(snapshot, plan, observer)
    _require_possible(plan.strategy or (assessment.best if ledger is None else None), assessment)
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
    strategy = _strategy(plan, ledger, assessment, wal, workspace)
    _distrust_unsynced(workspace, ledger, engine)
    run = Run(
        snapshot,
        workspace,
        engine,
        strategy,
        _port(plan, ledger, engine),
        wal=wal,
        computes_reset=plan.computes_reset,
        repairs=plan.repairs,
        verify=plan.verify,
        # A copy on which a server came up once is never thrown away: somebody may have worked on it.
        may_fall=plan.strategy is None and not ledger.state.is_finished,
        config=_config(plan, ledger, workspace),
    )
    ledger.change(strategy=strategy, port=run.port, engine=choice.found.installation.record, config=run.config)
    return _attempt(run, ledger, assessment, observer, begun=begun)


def _assess(snapshot: Snapshot, plan: RescuePlan, observer: Observer) -> tuple[WalPlan, Assessment]:
    """Find out which WAL there is, and which strategies it allows."""
    begun = time.monotonic()
    read = 0

    def count(segment: SegmentName) -> None:  # noqa: ARG001 - how many, not which
        nonlocal read
        if not read:
            observer.started(_FIND_WAL, "Read the WAL that the backup needs")
        read += 1
        observer.advanced(read, None, Unit.ITEMS)

    wal = plan_wal(snapshot, plan.wal, on_segment=count)
    if read:
        observer.ended(StepReport(_FIND_WAL, Outcome.DONE, round(time.monotonic() - begun, 3)))
    return wal, assess(snapshot, wal)


def _attempt(run: Run, ledger: Ledger, assessment: Assessment, observer: Observer, *, begun: float) -> RescueReport:
    """Take the steps of the run's strategy; fall to the next one where that is allowed and this one fails."""
    try:
        observer.noted(f"Strategy: {run.strategy}")
        findings = run_steps(STEPS[run.strategy], run, journal=ledger, observer=observer)
    except RescueError as error:
        following = assessment.after(run.strategy) if run.may_fall else None
        if following is None or not _blames_the_copy(error):
            return _failed(run, ledger, error, begun)
        run.engine.remove()
        if isinstance(error, TornCopyError):
            on = "with the WAL replayed, which brings back what was not in the files yet"
        else:
            on = "on a fresh copy"
            _keep_log(run)
            discard_copy(run.workspace)
        observer.noted(f"The strategy {run.strategy} failed; going on with {following} {on}.\n{error.problem}")
        ledger.start_over(failed=run.strategy, to=following, reason=f"It went on {on}. {error.problem}")
        return _attempt(dataclasses.replace(run, strategy=following), ledger, assessment, observer, begun=begun)
    ledger.change(is_finished=True)
    return _succeeded(run, ledger, findings, begun)


def _keep_log(run: Run) -> None:
    """Keep what the server said about a recovery that failed, under the strategy's name."""
    log = run.workspace.logs / RECOVERY_LOG
    if log.exists():
        log.replace(log.with_name(f"recover-{run.strategy}.log"))


# What PostgreSQL says when the machine is at fault: every strategy would fail on it alike.
_MACHINE = ("No space left on device", "Cannot allocate memory", "could not map anonymous shared memory")


def _blames_the_copy(error: RescueError) -> bool:
    """Tell whether PostgreSQL met the copy and would not run on it, so that another strategy may help."""
    if isinstance(error, PortInUseError) or any(words in error.problem for words in _MACHINE):
        return False
    return isinstance(error, CopyRefusedError | ServerError)


def is_broken(error: RescueError) -> bool:
    """Tell whether an error is about the snapshot's own content: it is damaged, or cut short."""
    return isinstance(error, SnapshotError) and not isinstance(error, UnreadableSnapshotError)


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


def _strategy(
    plan: RescuePlan, ledger: Ledger, assessment: Assessment, wal: WalPlan, workspace: Workspace
) -> StrategyName:
    """Return the strategy to go on with: the workspace's, which may be one that a better one fell to."""
    recorded = ledger.state.strategy
    is_named = plan.strategy is None and plan.wal.path is not None
    if recorded is StrategyName.RESET and is_named and _comes_too_late(wal, ledger, assessment, workspace):
        raise UsageError(
            "this workspace was begun without this WAL, by a reset",
            hint="To recover with WAL take another workspace with --workspace, or remove this one first: pgrescue rm.",
        )
    if recorded is not None and plan.strategy is not None and plan.strategy is not recorded:
        raise UsageError(
            f"this workspace was begun with the strategy {recorded}, not {plan.strategy}",
            hint="Take another workspace with --workspace, or remove this one first: pgrescue rm.",
        )
    if recorded in {StrategyName.ARCHIVE, StrategyName.REPLAY} and not workspace.recovered.exists():
        _require_wal(recorded, assessment)
    if recorded is not None and not isinstance(plan.wal.until, Latest):
        _require_same_end(recorded, plan, workspace)
    return recorded or plan.strategy or assessment.best


def _comes_too_late(wal: WalPlan, ledger: Ledger, assessment: Assessment, workspace: Workspace) -> bool:
    """Tell whether a reset that was begun would have gone otherwise with this WAL: then it was begun without."""
    if ledger.state.falls:
        return False
    if assessment.best is not StrategyName.RESET:
        return True
    return bool(wal.run_from_start) and workspace.reset_plan.exists() and not workspace.replayed_part.exists()


def _require_wal(recorded: StrategyName, assessment: Assessment) -> None:
    """Raise where the WAL that a recovery was begun with cannot be seen now: without it, the copy would be given up."""
    for option in assessment.options:
        if option.strategy is recorded and not option.possible:
            raise UsageError(
                f"this workspace was begun with the strategy {recorded}, which is not possible now: {option.reason}",
                hint="Name the same WAL again with --wal, or remove this workspace first: pgrescue rm.",
            )


def _require_same_end(recorded: StrategyName, plan: RescuePlan, workspace: Workspace) -> None:
    """Raise where a workspace was recovered to another point, or is not one that ends at a chosen point at all."""
    until = str(plan.wal.until)
    match recorded:
        case StrategyName.ARCHIVE | StrategyName.REPLAY:
            ended = json.loads(workspace.recovered.read_text())["until"] if workspace.recovered.exists() else until
            if ended == until:
                return
            problem = f"this workspace was recovered until {ended}, not until {until}"
        case StrategyName.CLEAN | StrategyName.CRASH | StrategyName.RESET:
            problem = f"this workspace was begun with the strategy {recorded}, which cannot end at a chosen point"
        case _:
            assert_never(recorded)
    raise UsageError(problem, hint="Take another workspace with --workspace, or remove this one first: pgrescue rm.")


def _config(plan: RescuePlan, ledger: Ledger, workspace: Workspace) -> OwnConfig:
    """Return what becomes of the copy's own settings, as asked for or else as before; keep what is to be taken."""
    if isinstance(plan.config, TakenConfig):
        plan.config.save(workspace.taken_config)
        return OwnConfig.TAKEN
    return ledger.state.config if plan.config is None else plan.config


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
        if candidate is not None and (port := free_port(candidate)) is not None:
            return port
    raise RescueError("no port is free on 127.0.0.1", hint="Name one with --port.")


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
        is_refused=_blames_the_copy(error) or is_broken(error),
    )


def _steps(ledger: Ledger) -> tuple[StepReport, ...]:
    return tuple(ledger.state.steps.values())


def _falls(ledger: Ledger) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            "strategy_failed",
            Severity.WARNING,
            fall.strategy,
            f"The strategy {fall.strategy} did not work, and {fall.to} was taken. {fall.reason}",
            "Nothing to do, unless the reason shows that something can be mended: then run again.",
        )
        for fall in ledger.state.falls
    )


def _recovered_to(run: Run) -> RecoveredTo:
    control = run.snapshot.chosen.control
    match run.strategy:
        case StrategyName.CLEAN:
            return RecoveredTo(control.checkpoint, control.checkpoint_time)
        case StrategyName.ARCHIVE | StrategyName.REPLAY | StrategyName.CRASH:
            return logged_replay(run.workspace).recovered_to
        case StrategyName.RESET:
            return RecoveredTo()
        case _:
            assert_never(run.strategy)
