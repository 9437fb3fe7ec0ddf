"""Stopped anywhere, run again: the same end, nothing done twice without need, nothing left behind."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pytest

from fixtures import read_snapshot
from pgrescue.model import StrategyName
from pgrescue.strategy.recipes import STEPS
from tests.cli import pgrescue
from tests.conftest import ENGINES, require_engine
from tests.e2e import inputs
from tests.e2e.accidents import (
    check_gone,
    check_tidy,
    containers_of,
    ended,
    identity,
    kill_server,
    killed,
    ledger,
    local_with_accident,
    processes_in,
)
from tests.e2e.refusals import refused
from tests.producers import facts
from tests.recoverable import needed

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from fixtures import Snapshot
    from tests.cli import Rescue
    from tests.conftest import Rescuer
    from tests.snapshots import Shelf

RECORD = "pgrescue.ledger:Ledger.record"


@pytest.fixture(scope="module")
def sample() -> Snapshot:
    return read_snapshot(inputs.SAMPLE.parent)


@pytest.fixture(scope="module")
def stopped_and_killed(
    sample: Snapshot, shared_rescue: Rescuer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Snapshot, Snapshot]:
    """Return the files of a server that was stopped, and of one that was killed."""
    require_engine("native")
    directory = tmp_path_factory.mktemp("snapshots")
    server = shared_rescue(sample, "--engine", "native")
    with server.connect("portal") as connection:
        connection.execute("create table written_last as select 42 as answer")
    kill_server(json.loads(server.run("status", "--json").stdout)["where"])
    shutil.copytree(server.workspace / "pgdata", directory / "killed")
    server.again().done.ok()
    server.run("stop").ok()
    shutil.copytree(server.workspace / "pgdata", directory / "stopped")
    stopped, killed = (dataclasses.replace(sample, path=directory / name) for name in ("stopped", "killed"))
    return stopped, killed


@pytest.fixture(scope="module")
def snapshot_for(sample: Snapshot, shelf: Shelf, request: pytest.FixtureRequest) -> Callable[[StrategyName], Snapshot]:
    """Return a snapshot for each strategy."""

    def get(strategy: StrategyName) -> Snapshot:
        match strategy:
            case StrategyName.RESET:
                return sample
            case StrategyName.CLEAN | StrategyName.CRASH:
                both: tuple[Snapshot, Snapshot] = request.getfixturevalue("stopped_and_killed")
                return both[strategy is StrategyName.CRASH]
            case StrategyName.ARCHIVE:
                return shelf.get("archived-barman")
            case StrategyName.REPLAY:
                return shelf.get("plain-directory")

    return get


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "it.pgrescue"


def codes_of(rescue: Rescue) -> list[str]:
    return sorted(rescue.codes)


def check_end(rescued: Rescue, whole: Rescue) -> None:
    """Assert that an interrupted rescue came to the same end as one in one go."""
    rescued.done.ok()
    assert rescued.report["verdict"] == whole.report["verdict"]
    assert rescued.report["system_identifier"] == whole.report["system_identifier"]
    assert codes_of(rescued) == codes_of(whole)
    assert databases(rescued) == databases(whole)
    assert rescued.one("select count(*) from orders", "portal") == whole.one("select count(*) from orders", "portal")
    check_tidy(rescued.workspace, engine=str(rescued.report["engine"]))


def databases(rescued: Rescue) -> set[str]:
    return {database["name"] for database in rescued.report["databases"]}


CHECKED, UNCHECKED = ("--verify", "fast"), ("--verify", "none")


class Wholes(Protocol):
    """Gives the rescue of a strategy's snapshot in one go."""

    def __call__(self, engine: str, strategy: StrategyName, *options: str) -> Rescue: ...


@pytest.fixture(scope="module")
def whole(shared_rescue: Rescuer, snapshot_for: Callable[[StrategyName], Snapshot]) -> Wholes:
    known: dict[tuple[str, ...], Rescue] = {}

    def get(engine: str, strategy: StrategyName, *options: str) -> Rescue:
        wanted = ("--engine", engine, "--strategy", strategy, *options)
        if wanted not in known:
            known[wanted] = shared_rescue(snapshot_for(strategy), *wanted)
        return known[wanted]

    return get


# In Docker only the one with the most programs before the server; a container takes a second. What a reset leaves there
# is in ENGINES_OWN. The chain of the reset shows the checks, too.
CHAINS = [
    *(pytest.param("native", strategy, marks=pytest.mark.native) for strategy in StrategyName),
    pytest.param("docker", StrategyName.ARCHIVE, marks=pytest.mark.docker),
]


@pytest.mark.parametrize(("engine", "strategy"), CHAINS)
def test_killed_after_every_single_step(
    engine: str,
    strategy: StrategyName,
    whole: Wholes,
    workspace: Path,
    rescue: Rescuer,
) -> None:
    """Each run reaches one more goal and is killed when it is recorded; what was reached before is not done again."""
    require_engine(engine)
    checks = CHECKED if strategy is StrategyName.RESET else UNCHECKED
    one_go = whole(engine, strategy, *checks)
    options = ("--engine", engine, "--strategy", strategy, *checks)
    kept: dict[Path, tuple[int, int]] = {}
    names = [step.name for step in STEPS[strategy]]
    for number, name in enumerate(names):
        killed(local_with_accident(one_go.snapshot, workspace, *options, at=RECORD, after=True, only=("record", name)))
        outcomes = {step["name"]: step["outcome"] for step in ledger(workspace)["steps"].values()}
        assert outcomes == {**dict.fromkeys(names[:number], "held"), name: outcomes[name]}
        assert {path: identity(path) for path in kept} == kept
        kept |= {path: identity(path) for path in lasting(workspace, name)}
    rescued = rescue(one_go.snapshot, *options, workspace=workspace)
    assert {path: identity(path) for path in kept} == kept
    assert {step["outcome"] for step in rescued.report["steps"]} == {"held"}
    check_end(rescued, one_go)


def lasting(workspace: Path, step: str) -> list[Path]:
    """Return the files by which one sees that a step was done again."""
    names = {
        "unpack": ["unpacked.json", "pgdata/PG_VERSION"],
        "remove-backup-label": ["removed/backup_label"],
        "blank-config": ["removed/custom.conf", "pgdata/custom.conf"],
        "reset-wal": ["reset.json", "logs/pg_resetwal.log", "removed/global/pg_control"],
        "complete-xact": ["removed/commits-completed.json"],
        "forget-maps": ["removed/maps-forgotten"],
        "stage-wal": ["staged.json"],
        "recover": ["recovered.json", "logs/recover.log"],
        "repair": ["repaired.json", "manifest.json"],
        "check-files": ["files.json"],
        "verify": ["verified.json"],
        "open": ["server/opened.conf"],
        "configure": ["server/postgresql.conf"],
        "access": ["pgpass", "logs/access.log"],
        "health-check": ["health.json"],
        "hand-over": ["compose.yaml", "pg_service.conf"],
    }
    return [workspace / name for name in names.get(step, []) if (workspace / name).exists()]


@dataclass(frozen=True)
class Place:
    """Where a reset is killed: before or after the n-th call of a function.

    All steps before the step `within` were over by then, and all of them where it is None.
    """

    at: str
    within: str | None
    call: int = 1
    after: bool = False

    @property
    def over(self) -> int:
        names = [step.name for step in STEPS[StrategyName.RESET]]
        return len(names) if self.within is None else names.index(self.within)


# One after the other in the same workspace: each run carries on from the accident before, up to its own.
PLACES = {
    "the copy": {
        "ledger, before its name": Place("os:fsync", "unpack"),
        "many files": Place("pgrescue.steps.unpack:_write", "unpack", call=700),
        "before pg_control": Place("pgrescue.steps.unpack:_Copy._publish_control", "unpack"),
        "before the copy's name": Place("pgrescue.steps.unpack:write_atomically", "unpack", after=True),
        "after the copy's name": Place("pgrescue.steps.unpack:sync_directory", "recreate-directories"),
        "config moved": Place("pgrescue.steps.blank_config:_write", "blank-config"),
        "label moved": Place("pgrescue.steps.remove_backup_label:sync_directory", "reset-wal"),
    },
    "the reset": {
        "control kept": Place("pgrescue.steps.reset_wal:_keep", "reset-wal", after=True),
        "reset planned": Place("pgrescue.steps.reset_wal:write_atomically", "reset-wal", after=True),
        "reset done": Place("pgrescue.steps.reset_wal:write_atomically", "complete-xact", call=2),
        "commits recorded": Place("pgrescue.repair.complete_xact:write_atomically", "complete-xact"),
        "maps of a directory forgotten": Place("pgrescue.repair.forget_maps:sync_directory", "forget-maps", call=2),
        "role made": Place("pgrescue.steps.access:write_atomically", "access"),
    },
    "the repair": {
        "catalogs repaired": Place("pgrescue.repair.work:_survey", "repair", call=2),
        "some tables mended": Place("pgrescue.repair.work:mend_table", "repair", call=5, after=True),
        "repaired": Place("pgrescue.repair.step:write_atomically", "repair", call=2),
    },
    "the checks": {
        "files read": Place("pgrescue.verify.check_files:checksum_arguments", "check-files"),
        "server started": Place("pgrescue.steps.start:until_returns", "start"),
        "most was checked": Place("pgrescue.verify.checks:writing_tasks", "verify"),
        "opened, not in force": Place("pgrescue.verify.open_door:write_atomically", "open", after=True),
        "report, before its name": Place("pgrescue.cli.local:write_atomically", None),
    },
}
ENGINES_OWN = {
    "reset done": Place("pgrescue.steps.reset_wal:write_atomically", "complete-xact", call=3),
    "some tables mended": PLACES["the repair"]["some tables mended"],
    "server started": Place("pgrescue.steps.start:until_returns", "start", call=2),
}


def accidents(snapshot: Snapshot, workspace: Path, places: dict[str, Place], *options: str) -> int:
    """Let a rescue be killed at each place in turn, what was over before stays so; return how many steps are over."""
    over = 0
    for name, place in places.items():
        killed(local_with_accident(snapshot, workspace, *options, at=place.at, call=place.call, after=place.after))
        outcomes = [step["outcome"] for step in ledger(workspace)["steps"].values()] if over else []
        assert outcomes[:over] == ["held"] * over, name
        over = place.over
    return over


@pytest.mark.parametrize(
    ("engine", "within"),
    [
        *(pytest.param("native", within, marks=pytest.mark.native) for within in PLACES),
        pytest.param("docker", "the engine", marks=pytest.mark.docker),
    ],
)
def test_killed_within_a_step(engine: str, within: str, whole: Wholes, workspace: Path, rescue: Rescuer) -> None:
    require_engine(engine)
    sample = read_snapshot(inputs.SAMPLE.parent)
    checks = CHECKED if within == "the checks" else UNCHECKED
    over = accidents(sample, workspace, PLACES.get(within, ENGINES_OWN), "--engine", engine, *checks)
    # Without --engine: it is the one of the interrupted rescue.
    rescued = rescue(sample, *checks, workspace=workspace)
    assert [step["outcome"] for step in rescued.report["steps"]][:over] == ["held"] * over
    check_end(rescued, whole(engine, StrategyName.RESET, *checks))
    removed = workspace / "removed"
    assert (removed / "backup_label").read_bytes() == inputs.few_files()["backup_label"]
    assert (removed / "global" / "pg_control").read_bytes() == inputs.few_files()[inputs.CONTROL]
    assert (removed / "custom.conf").stat().st_size > 0


BEFORE_A_RESET = {
    "WAL there in part": Place("pgrescue.steps.replay_part:_stage", "replay-part", call=2),
    "control turned back": Place("pgrescue.steps.replay_part:single_user", "replay-part"),
    "replayed": Place("pgrescue.steps.replay_part:write_atomically", "replay-part", call=2),
    "reset planned": Place("pgrescue.steps.reset_wal:write_atomically", "reset-wal", after=True),
}


@pytest.mark.native
def test_killed_where_wal_is_replayed_before_a_reset(
    shelf: Shelf, tmp_path: Path, workspace: Path, rescue: Rescuer, shared_rescue: Rescuer
) -> None:
    """The last file that the backup needs is missing: what the others hold is in the copy, and the WAL was reset."""
    require_engine("native")
    snapshot = shelf.get("archived-barman")
    archive = tmp_path / "archive"
    shutil.copytree(snapshot.directory.parent / "wal", archive)
    (archive / needed(snapshot)[-1]).unlink()
    options = ("--engine", "native", "--wal", str(archive), "--no-repair", *UNCHECKED)
    one_go = shared_rescue(snapshot, *options)
    assert "wal_replayed_in_part" in one_go.codes
    over = accidents(snapshot, workspace, BEFORE_A_RESET, *options)
    rescued = rescue(snapshot, *options, workspace=workspace)
    rescued.done.ok()
    assert [step["outcome"] for step in rescued.report["steps"]][:over] == ["held"] * over
    check_end(rescued, one_go)
    assert facts.versions(rescued) == facts.versions(one_go)
    assert "pg_resetwal" in (workspace / "logs" / "pg_resetwal.log").read_text()


# While this program runs, which the engine has just begun to wait for.
LISTENING = "pgrescue.command:_listen"  # to what a server says in single-user mode
WAITING = {"native": "pgrescue.command:subprocess.Popen.communicate", "docker": "docker:APIClient.start"}
ONE_SHOTS = [
    pytest.param((engine, program), id=f"{engine}-{program}", marks=getattr(pytest.mark, engine))
    for engine in WAITING
    for program in ("pg_resetwal", "--single")
]


def in_one_shot(
    sample: Snapshot, workspace: Path, one_shot: tuple[str, str], by: signal.Signals = signal.SIGKILL
) -> subprocess.Popen[str]:
    """Start a rescue with an accident while a program runs, which is stopped first: it cannot end by itself."""
    engine, program = one_shot
    native = engine == "native"
    return local_with_accident(
        sample,
        workspace,
        "--engine",
        engine,
        at=LISTENING if (engine, program) == ("native", "--single") else WAITING[engine],
        call=1 if native else ["pg_resetwal", "--single"].index(program) + 1,
        after=not native,
        only=("program", program) if native else None,
        hold=True,
        by=by,
    )


@pytest.mark.parametrize("one_shot", ONE_SHOTS)
@pytest.mark.parametrize("then", ["again", "rm"])
def test_killed_while_a_program_runs(
    one_shot: tuple[str, str], then: str, workspace: Path, rescue: Rescuer, sample: Snapshot
) -> None:
    """The program is stopped where it is, as one on a dead disk would hang, and pgrescue is killed."""
    engine, _ = one_shot
    require_engine(engine)
    killed(in_one_shot(sample, workspace, one_shot))
    left = containers_of(workspace, role="tool") if engine == "docker" else processes_in(workspace)
    assert len(left) == 1, "the program had ended already"
    if then == "again":
        rescued = rescue(sample, workspace=workspace)
        rescued.done.ok()
        assert rescued.report["verdict"] == "best-effort"
        assert [step["outcome"] for step in rescued.report["steps"]][:3] == ["held"] * 3
        check_tidy(workspace, engine=engine)
    pgrescue("rm", "--yes", "-w", workspace, cwd=workspace.parent).ok()
    check_gone(workspace)


SIGNALS = [signal.SIGINT, signal.SIGTERM]


def check_asked_to_end(process: subprocess.Popen[str], workspace: Path) -> None:
    """Assert that no program runs on, and that the last words say how to carry on."""
    done = ended(process)
    assert done.status == 130, done.stderr
    assert "run the same command again" in done.stderr
    assert "Traceback" not in done.stderr
    assert processes_in(workspace) == []
    if shutil.which("docker"):
        assert containers_of(workspace) == []


@pytest.mark.parametrize("one_shot", ONE_SHOTS)
@pytest.mark.parametrize("by", SIGNALS)
def test_asked_to_end_while_a_program_runs(
    one_shot: tuple[str, str], by: signal.Signals, workspace: Path, rescue: Rescuer, sample: Snapshot
) -> None:
    engine, program = one_shot
    require_engine(engine)
    check_asked_to_end(in_one_shot(sample, workspace, one_shot, by), workspace)
    if by is signal.SIGINT and program == "pg_resetwal":
        rescue(sample, workspace=workspace).done.ok()
        check_tidy(workspace, engine=engine)


@pytest.mark.native
@pytest.mark.parametrize("by", SIGNALS)
def test_asked_to_end_while_unpacking(by: signal.Signals, workspace: Path, rescue: Rescuer, sample: Snapshot) -> None:
    require_engine("native")
    at = "pgrescue.steps.unpack:_write"
    process = local_with_accident(sample, workspace, "--engine", "native", at=at, call=700, by=by)
    check_asked_to_end(process, workspace)
    rescue(sample, workspace=workspace).done.ok()
    check_tidy(workspace, engine="native")


@pytest.mark.native
def test_killed_at_any_moment_of_unpacking(workspace: Path, rescue: Rescuer, sample: Snapshot) -> None:
    """From outside, whenever it comes: what was copied until then is thrown away."""
    require_engine("native")
    for pause_s in (0.02, 0.1):
        process = local_with_accident(sample, workspace, "--engine", "native", at="pgrescue.cli.local:fail")
        deadline = time.monotonic() + 60
        while not (workspace / "unpacking" / "base").exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(pause_s)
        process.kill()
        ended(process)
    assert not (workspace / "report.json").exists()
    rescue(sample, workspace=workspace).done.ok()
    check_tidy(workspace, engine="native")


@pytest.mark.native
def test_only_one_works_in_a_workspace(workspace: Path, sample: Snapshot, rescue: Rescuer) -> None:
    require_engine("native")
    process = local_with_accident(
        sample, workspace, "--engine", "native", at="pgrescue.steps.access:scram_verifier", by=signal.SIGSTOP
    )
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    for command in (("local", sample.path), ("stop",), ("rm", "--yes")):
        done = pgrescue(*command, "-w", workspace, "--json", cwd=workspace.parent)
        refused(done, "another pgrescue is at work", str(workspace), "Wait for it", status=1)
    process.send_signal(signal.SIGCONT)
    assert ended(process).ok().document()["verdict"] == "best-effort"
    rescue(sample, workspace=workspace)


@pytest.mark.native
def test_another_snapshot_is_refused(
    workspace: Path, snapshot_for: Callable[[StrategyName], Snapshot], rescue: Rescuer
) -> None:
    require_engine("native")
    first = rescue(snapshot_for(StrategyName.CLEAN), "--engine", "native", workspace=workspace)
    before = {path: identity(path) for path in workspace.iterdir()}
    other = snapshot_for(StrategyName.RESET).path
    done = pgrescue("local", other, "-w", workspace, "--json", cwd=workspace.parent)
    refused(done, "belongs to another snapshot", str(first.snapshot.path), "pgrescue rm")
    assert {path: identity(path) for path in workspace.iterdir()} == before
    assert first.one("select 1") == 1


def as_after_another_boot(workspace: Path) -> None:
    """Change what the ledger says of the boot."""
    path = workspace / "ledger.json"
    path.write_text(path.read_text().replace(ledger(workspace)["boot"], "of another life"))


@pytest.mark.native
def test_after_a_power_failure_an_unfinished_copy_is_made_anew(
    workspace: Path, sample: Snapshot, rescue: Rescuer
) -> None:
    require_engine("native")
    killed(
        local_with_accident(sample, workspace, "--engine", "native", at=RECORD, after=True, only=("record", "access"))
    )
    copy = (workspace / "pgdata").stat().st_ino, (workspace / "pgpass").read_text()
    as_after_another_boot(workspace)
    rescued = rescue(sample, workspace=workspace)
    rescued.done.ok()
    assert rescued.report["steps"][0]["outcome"] == "done"
    assert ((workspace / "pgdata").stat().st_ino, (workspace / "pgpass").read_text()) != copy
    assert (workspace / "pgpass").read_text() != copy[1]
    check_tidy(workspace, engine="native")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_server_that_was_killed_comes_back_with_what_was_committed(
    engine: str, workspace: Path, sample: Snapshot, rescue: Rescuer
) -> None:
    """A finished rescue is never made anew: not after a kill, not after a power failure."""
    require_engine(engine)
    rescued = rescue(sample, "--engine", engine, workspace=workspace)
    with rescued.connect() as connection:
        connection.execute("create table work as select 42 as answer")
    kill_server(json.loads(rescued.run("status", "--json").stdout)["where"])
    as_after_another_boot(workspace)
    back = rescued.again()
    back.done.ok()
    assert back.one("select answer from work") == 42
    assert back.password == rescued.password
    assert (back.report["verdict"], codes_of(back)) == (rescued.report["verdict"], codes_of(rescued))
    check_tidy(workspace, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_workspace_that_was_moved_works_at_its_new_place(
    engine: str, workspace: Path, sample: Snapshot, rescue: Rescuer
) -> None:
    require_engine(engine)
    rescued = rescue(sample, "--engine", engine, workspace=workspace)
    rescued.run("stop").ok()
    moved = workspace.rename(workspace.with_name("moved.pgrescue"))
    back = rescue(sample, workspace=moved)
    back.done.ok()
    assert back.report["workspace"] == str(moved)
    assert back.one("select 1") == 1
    assert str(workspace) not in (moved / "pg_service.conf").read_text()
    check_tidy(moved, engine=engine)
    back.run("rm", "--yes").ok()
    check_gone(moved)
