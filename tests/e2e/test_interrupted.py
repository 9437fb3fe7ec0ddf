"""Stopped anywhere, run again: the same end, nothing done twice without need, nothing left behind."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import time
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from fixtures import Snapshot
    from tests.cli import Rescue
    from tests.conftest import Rescuer

RECORD = "pgrescue.ledger:Ledger.record"


@pytest.fixture(scope="module")
def sample() -> Snapshot:
    return read_snapshot(inputs.SAMPLE.parent)


@pytest.fixture(scope="module")
def snapshots(
    sample: Snapshot, shared_rescue: Rescuer, tmp_path_factory: pytest.TempPathFactory
) -> dict[StrategyName, Snapshot]:
    """Return a snapshot for each strategy: a backup, the files of a server that was killed, of one that was stopped."""
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
    return {
        StrategyName.RESET: sample,
        StrategyName.CRASH: dataclasses.replace(sample, path=directory / "killed"),
        StrategyName.CLEAN: dataclasses.replace(sample, path=directory / "stopped"),
    }


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


@pytest.fixture(scope="module")
def whole(shared_rescue: Rescuer, snapshots: dict[StrategyName, Snapshot]) -> Callable[[str, StrategyName], Rescue]:
    """Return the rescue of a strategy's snapshot in one go."""
    known: dict[tuple[str, StrategyName], Rescue] = {}

    def get(engine: str, strategy: StrategyName) -> Rescue:
        if (engine, strategy) not in known:
            known[engine, strategy] = shared_rescue(snapshots[strategy], "--engine", engine, "--strategy", strategy)
        return known[engine, strategy]

    return get


# In Docker without `clean`, whose steps are all among those of `crash`: a container takes a second.
CHAINS = [
    *(pytest.param("native", strategy, marks=pytest.mark.native) for strategy in StrategyName),
    *(pytest.param("docker", name, marks=pytest.mark.docker) for name in (StrategyName.RESET, StrategyName.CRASH)),
]


@pytest.mark.parametrize(("engine", "strategy"), CHAINS)
def test_killed_after_every_single_step(
    engine: str,
    strategy: StrategyName,
    whole: Callable[[str, StrategyName], Rescue],
    workspace: Path,
    rescue: Rescuer,
) -> None:
    """Each run reaches one more goal and is killed when it is recorded; what was reached before is not done again."""
    require_engine(engine)
    one_go = whole(engine, strategy)
    options = ("--engine", engine, "--strategy", strategy)
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
        "recover": ["recovered.json", "logs/recover.log"],
        "configure": ["server/postgresql.conf"],
        "access": ["pgpass", "logs/access.log"],
        "health-check": ["health.json"],
        "hand-over": ["compose.yaml", "pg_service.conf"],
    }
    return [workspace / name for name in names.get(step, []) if (workspace / name).exists()]


# Where it is killed, and which steps were over by then.
PLACES = {
    "ledger, before its name": ("os:fsync", 1, False, 0),
    "the first file": ("pgrescue.steps.unpack:_write", 1, True, 0),
    "many files": ("pgrescue.steps.unpack:_write", 700, False, 0),
    "before pg_control": ("pgrescue.steps.unpack:_Copy._publish_control", 1, False, 0),
    "before the copy's name": ("pgrescue.steps.unpack:write_atomically", 1, True, 0),
    "after the copy's name": ("pgrescue.steps.unpack:sync_directory", 1, False, 1),
    "label moved": ("pgrescue.steps.remove_backup_label:sync_directory", 1, False, 3),
    "config moved": ("pgrescue.steps.blank_config:_write", 1, False, 3),
    "control kept": ("pgrescue.steps.reset_wal:_keep", 1, True, 4),
    "reset planned": ("pgrescue.steps.reset_wal:write_atomically", 2, True, 4),
    "reset done": ("pgrescue.steps.reset_wal:write_atomically", 3, False, 5),
    "role made": ("pgrescue.steps.access:write_atomically", 1, False, 6),
    "server started": ("pgrescue.steps.start:until_returns", 1, False, 7),
    "report, before its name": ("pgrescue.cli.local:write_atomically", 1, False, 10),
}
ENGINES_OWN = ("reset done", "role made", "server started")


@pytest.mark.parametrize(
    "accident",
    [
        *(pytest.param(("native", place), marks=pytest.mark.native, id=place) for place in PLACES),
        *(pytest.param(("docker", place), marks=pytest.mark.docker, id=f"docker-{place}") for place in ENGINES_OWN),
    ],
)
def test_killed_within_a_step(
    accident: tuple[str, str],
    whole: Callable[[str, StrategyName], Rescue],
    workspace: Path,
    rescue: Rescuer,
    sample: Snapshot,
) -> None:
    engine, place = accident
    require_engine(engine)
    at, call, after, over = PLACES[place]
    killed(local_with_accident(sample, workspace, "--engine", engine, at=at, call=call, after=after))
    rescued = rescue(sample, *(("--engine", engine) if over == 0 else ()), workspace=workspace)
    outcomes = [step["outcome"] for step in rescued.report["steps"]]
    assert outcomes[:over] == ["held"] * over
    check_end(rescued, whole(engine, StrategyName.RESET))
    removed = workspace / "removed"
    assert (removed / "backup_label").read_bytes() == inputs.few_files()["backup_label"]
    assert (removed / "global" / "pg_control").read_bytes() == inputs.few_files()[inputs.CONTROL]
    assert (removed / "custom.conf").stat().st_size > 0


# While this program runs, which the engine has just begun to wait for.
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
        at=WAITING[engine],
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
def test_another_snapshot_is_refused(workspace: Path, snapshots: dict[StrategyName, Snapshot], rescue: Rescuer) -> None:
    require_engine("native")
    first = rescue(snapshots[StrategyName.CLEAN], "--engine", "native", workspace=workspace)
    before = {path: identity(path) for path in workspace.iterdir()}
    other = snapshots[StrategyName.RESET].path
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
