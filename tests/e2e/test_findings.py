"""Each finding about a rescued server: a broken copy on which it fires, and a healthy one on which all are silent."""

from __future__ import annotations

import dataclasses
import shutil
from typing import TYPE_CHECKING

import pytest

from fixtures import Server, fill, stopped_copy
from pgrescue.engine.choose import reopen
from pgrescue.ledger import Ledger
from pgrescue.model import StrategyName
from pgrescue.pipeline import Silent
from pgrescue.run import Run
from pgrescue.snapshot.contents import read_snapshot
from pgrescue.steps.health_check import HealthCheck
from pgrescue.steps.start import Start
from pgrescue.workspace import Workspace
from tests.conftest import require_engine
from tests.e2e import damage

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures import Snapshot
    from pgrescue.engine.interface import Engine
    from tests.cli import Rescue
    from tests.conftest import Rescuer

pytestmark = pytest.mark.native
TABLESPACE = "[('fast', 77777, '/srv/fast')]"


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Return a copy of a server that was shut down, without checksums, so that pages can be changed."""
    require_engine("native")
    with Server(checksums=False) as server:
        fill(server, scale=0.1)
        return stopped_copy(server, tmp_path_factory.mktemp("healthy") / "copy")


@pytest.fixture
def broken(healthy: Snapshot, tmp_path: Path) -> Snapshot:
    """Return the same copy for a test to break."""
    directory = tmp_path / "broken"
    shutil.copytree(healthy.directory, directory, symlinks=True)
    return dataclasses.replace(
        healthy, directory=directory, path=directory / healthy.path.relative_to(healthy.directory)
    )


@pytest.fixture(scope="module")
def healthy_rescue(healthy: Snapshot, shared_rescue: Rescuer) -> Rescue:
    return shared_rescue(healthy, "--engine", "native", "--verify", "fast")


def database_directory(snapshot: Snapshot, rescued: Rescue, name: str) -> Path:
    """Return the directory of a database; OIDs are the same in every rescue of one server."""
    with rescued.connect() as connection:
        oid = connection.execute("SELECT oid FROM pg_database WHERE datname = %s", [name]).fetchall()[0][0]
    return snapshot.path / "base" / str(oid)


def test_a_healthy_copy_has_no_finding_of_damage(healthy_rescue: Rescue) -> None:
    assert healthy_rescue.report["verdict"] == "consistent"
    assert set(healthy_rescue.codes) <= {"config_blanked", "files_set_aside"}


def test_a_closed_database_is_told(tmp_path_factory: pytest.TempPathFactory, rescue: Rescuer) -> None:
    with Server(checksums=False) as server:
        with server.connect() as connection:
            connection.execute("CREATE DATABASE archive ALLOW_CONNECTIONS false")
        snapshot = stopped_copy(server, tmp_path_factory.mktemp("closed") / "copy")
    rescued = rescue(snapshot, "--engine", "native")
    assert rescued.finding("database_closed")["object"] == "archive"
    assert rescued.report["verdict"] == "consistent"


def test_a_database_without_its_catalogs_is_an_error(broken: Snapshot, healthy_rescue: Rescue, rescue: Rescuer) -> None:
    (database_directory(broken, healthy_rescue, "billing") / "pg_filenode.map").unlink()
    rescued = rescue(broken, "--engine", "native")
    assert rescued.finding("database_unreadable")["object"] == "billing"
    assert rescued.report["verdict"] == "damaged"
    assert {"name": "portal"}.items() <= next(d for d in rescued.report["databases"] if d["name"] == "portal").items()


def test_a_page_newer_than_the_wal_makes_checkpoints_fail(
    broken: Snapshot, healthy_rescue: Rescue, rescue: Rescuer
) -> None:
    pg_type = database_directory(broken, healthy_rescue, "billing") / "1247"
    damage.rewrite_first_page(pg_type, lsn=damage.FUTURE, without_hints=True)
    rescued = rescue(broken, "--engine", "native", "--strategy", "clean")
    assert rescued.finding("checkpoint_failed")["severity"] == "error"
    assert rescued.report["verdict"] == "damaged"


def test_a_reset_goes_past_the_newest_page(broken: Snapshot, healthy_rescue: Rescue, rescue: Rescuer) -> None:
    pg_type = database_directory(broken, healthy_rescue, "billing") / "1247"
    damage.rewrite_first_page(pg_type, lsn=damage.FUTURE, without_hints=True)
    rescued = rescue(broken, "--engine", "native", "--strategy", "reset")
    assert "checkpoint_failed" not in rescued.codes
    assert "page_lsn_implausible" not in rescued.codes
    assert rescued.report["verdict"] == "best-effort"


def test_a_page_with_an_impossible_lsn_is_named_and_left_out(
    broken: Snapshot, healthy_rescue: Rescue, rescue: Rescuer
) -> None:
    pg_type = database_directory(broken, healthy_rescue, "billing") / "1247"
    damage.rewrite_first_page(pg_type, lsn=damage.IMPLAUSIBLE)
    rescued = rescue(broken, "--engine", "native", "--strategy", "reset")
    assert rescued.finding("page_lsn_implausible")["object"].startswith(f"base/{pg_type.parent.name}/1247")
    with rescued.connect() as connection:
        position = connection.execute("SELECT pg_current_wal_lsn() < '1/0'::pg_lsn").fetchall()[0][0]
    assert position


def test_pgbackrests_mark_is_told_when_it_is_bypassed(broken: Snapshot, rescue: Rescuer) -> None:
    damage.mark_as_pgbackrest_does(broken.path)
    rescued = rescue(broken, "--engine", "native")
    assert rescued.report["strategy"] == "reset"
    assert rescued.finding("pgbackrest_mark_bypassed")["severity"] == "warning"


@pytest.mark.parametrize(("status", "fires"), [("DONE", False), ("FAILED", True)])
def test_a_backup_that_did_not_end_well_is_told(broken: Snapshot, rescue: Rescuer, *, status: str, fires: bool) -> None:
    write_backup_info(broken, status=status)
    rescued = rescue(broken, "--engine", "native")
    assert ("backup_unfinished" in rescued.codes) is fires
    assert (rescued.report["verdict"] == "damaged") is fires


@pytest.mark.parametrize("known_by", ["backup.info", "link"])
def test_a_tablespace_that_lay_elsewhere_is_missing(broken: Snapshot, rescue: Rescuer, known_by: str) -> None:
    if known_by == "link":
        (broken.path / "pg_tblspc" / "77777").symlink_to("/srv/fast")
    else:
        write_backup_info(broken, status="DONE", tablespaces=TABLESPACE)
    rescued = rescue(broken, "--engine", "native")
    found = rescued.finding("tablespace_missing")
    assert (found["object"], "/srv/fast" in found["detail"]) == ("pg_tblspc/77777", True)
    assert rescued.report["verdict"] == "damaged"


def write_backup_info(snapshot: Snapshot, *, status: str, tablespaces: str = "None") -> None:
    (snapshot.path / "backup.info").write_text(
        f"status={status}\nsystemid={snapshot.system_identifier}\ntablespaces={tablespaces}\nversion=170010\n"
    )


@pytest.fixture
def running(healthy: Snapshot, rescue: Rescuer) -> Run:
    """Return the run of a finished rescue, for steps to be asked again under other circumstances."""
    rescued = rescue(healthy, "--engine", "native")
    workspace = Workspace(rescued.workspace)
    state = Ledger.load(workspace.ledger).state
    engine: Engine = reopen(state.engine, state.major, workspace, state.workspace_id)
    return Run(read_snapshot(healthy.path), workspace, engine, StrategyName.CLEAN, rescued.port)


def codes(run: Run) -> set[str]:
    run.workspace.health.unlink()
    HealthCheck().apply(run, Silent())
    return {finding.code for finding in HealthCheck().findings(run)}


def test_a_server_of_another_system_is_told(running: Run) -> None:
    assert codes(running) == set()
    chosen = running.snapshot.chosen
    control = dataclasses.replace(chosen.control, system_identifier=chosen.control.system_identifier + 1)
    other = dataclasses.replace(running.snapshot, chosen=dataclasses.replace(chosen, control=control))
    assert codes(dataclasses.replace(running, snapshot=other)) == {"other_system"}


def test_a_server_in_recovery_is_told(running: Run) -> None:
    running.engine.stop()
    (running.workspace.pgdata / "standby.signal").touch()
    Start().apply(running, Silent())
    assert "in_recovery" in codes(running)


def test_what_a_rescue_can_do_without_is_told_and_passed_over(broken: Snapshot, rescue: Rescuer) -> None:
    (broken.path / "backup.info").write_text("systemid=yes\nbegin_wal=nowhere\n")
    older = broken.path.parent / "around"
    older.mkdir()
    broken.path.rename(older / "pgdata")
    shutil.copytree(older / "pgdata", older / "pgdata_20260101T000000Z", symlinks=True)
    (older / "pgdata_20260101T000000Z" / "global" / "pg_control").write_bytes(bytes(8192))
    (older / "pgdata" / "backup.info").rename(older / "backup.info")
    rescued = rescue(dataclasses.replace(broken, path=older), "--engine", "native")
    named = {found["object"] for found in rescued.report["findings"] if found["code"] == "part_not_understood"}
    assert named == {"backup.info", "pgdata_20260101T000000Z"}
    assert rescued.report["verdict"] == "consistent"


def test_a_finished_rescue_is_never_thrown_away(healthy: Snapshot, rescue: Rescuer) -> None:
    rescued = rescue(healthy, "--engine", "native")
    assert rescued.report["strategy"] == "clean"
    rescued.run("stop").ok()
    pgdata = rescued.workspace / "pgdata"
    (pgdata / "work_of_a_night").write_text("do not lose me")
    (pgdata / "global" / "pg_filenode.map").rename(pgdata / "global" / "hidden")
    failed = rescued.again()
    assert (failed.done.status, failed.report["verdict"]) == (1, "failed")
    assert "strategy_failed" not in failed.codes
    (pgdata / "global" / "hidden").rename(pgdata / "global" / "pg_filenode.map")
    assert rescued.again().report["verdict"] == "consistent"
    assert (pgdata / "work_of_a_night").read_text() == "do not lose me"


def test_a_finished_crash_recovery_is_not_called_failed_afterwards(
    broken: Snapshot, healthy_rescue: Rescue, rescue: Rescuer
) -> None:
    damage.rewrite_first_page(database_directory(broken, healthy_rescue, "billing") / "1247", lsn=damage.FUTURE)
    rescued = rescue(broken, "--engine", "native", "--strategy", "crash")
    assert (rescued.report["verdict"], "pages_past_wal" in rescued.codes) == ("damaged", True)
    again = rescued.again("--engine", "native")
    assert (again.report["strategy"], again.report["verdict"]) == ("crash", "damaged")
