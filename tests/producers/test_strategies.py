"""Every kind of snapshot, made by real tools, on both engines: what is done, what is claimed, what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pgrescue.model import Lsn
from tests.cli import check_report
from tests.conftest import require_engine
from tests.producers import facts

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures import Snapshot
    from tests.cli import Rescue
    from tests.conftest import Rescuer
    from tests.snapshots import Shelf

STOPPED = ("stopped-tar", "stopped-copy", "nested-tar", "two-candidates")
IN_DOCKER = {"stopped-tar", "stopped-copy", "barman", "basebackup-none"}
"""The others differ from one of these in how they are unpacked, which is the same for every engine."""

BACKED_UP = ("barman", "basebackup-none", "barman-gzip")
OF_A_RESET = {"wal_reset", "reset_values"}


def state_of(snapshot: Snapshot) -> dict[Path, tuple[int, int, int]]:
    """Return what would change if anybody wrote to the snapshot."""
    found = ((path, path.lstat()) for path in sorted(snapshot.directory.rglob("*")))
    return {path: (stat.st_mtime_ns, stat.st_size, stat.st_mode) for path, stat in found}


def check(rescued: Rescue, engine: str, strategy: str, verdict: str) -> None:
    """Assert what holds for every successful rescue."""
    rescued.done.ok()
    report, snapshot = rescued.report, rescued.snapshot
    check_report(report)
    assert (report["engine"], report["strategy"], report["verdict"]) == (engine, strategy, verdict)
    assert report["version"].startswith(f"{snapshot.major}.")
    assert report["workspace"] == str(rescued.workspace)
    assert report["system_identifier"] == snapshot.system_identifier
    assert rescued.one("SELECT system_identifier::text FROM pg_control_system()") == snapshot.system_identifier
    names = [database["name"] for database in report["databases"]]
    assert names == ["billing", "portal", "postgres", "template1"]
    assert rescued.one("SELECT pg_is_in_recovery()") is False


def check_writable(rescued: Rescue) -> None:
    """Assert that new rows find their place, and that the server can keep them."""
    with rescued.connect("portal") as connection:
        connection.execute("CHECKPOINT")
        for n in range(200):
            connection.execute("INSERT INTO order_audit (order_id, op) VALUES (%s, 'test')", (n,))
        connection.execute("CREATE TABLE after_the_rescue AS SELECT generate_series(1, 10000) AS n")
        connection.execute("CHECKPOINT")


def on_both_engines(names: tuple[str, ...]) -> pytest.MarkDecorator:
    """Return the cases of a test: each snapshot natively, and in Docker where that may make a difference."""
    cases = [pytest.param("native", name, marks=pytest.mark.native) for name in names]
    cases += [pytest.param("docker", name, marks=pytest.mark.docker) for name in names if name in IN_DOCKER]
    return pytest.mark.parametrize(("engine", "name"), cases)


def severities(rescued: Rescue) -> set[str]:
    return {finding["severity"] for finding in rescued.report["findings"]}


@on_both_engines(STOPPED)
def test_a_copy_of_a_stopped_server_is_clean_and_complete(
    shelf: Shelf, rescue: Rescuer, engine: str, name: str
) -> None:
    require_engine(engine)
    snapshot = shelf.get(name)
    before = state_of(snapshot)
    rescued = rescue(snapshot, "--engine", engine)
    check(rescued, engine, "clean", "consistent")
    assert rescued.report["recovered_to"]["lsn"] == snapshot.end_lsn
    assert facts.missed(rescued, snapshot.expected) == []
    check_writable(rescued)
    assert ("data_directory_passed_over" in rescued.codes) is (name == "two-candidates")
    assert state_of(snapshot) == before


@on_both_engines(BACKED_UP)
def test_a_hot_backup_without_its_wal_is_reset_and_never_called_consistent(
    shelf: Shelf, rescue: Rescuer, engine: str, name: str
) -> None:
    require_engine(engine)
    snapshot = shelf.get(name)
    before = state_of(snapshot)
    rescued = rescue(snapshot, "--engine", engine)
    check(rescued, engine, "reset", "best-effort")
    assert OF_A_RESET | {"backup_label_removed", "config_blanked"} <= set(rescued.codes)
    assert severities(rescued) == {"info", "warning"}
    assert snapshot.begin_lsn is not None
    assert snapshot.begin_lsn in rescued.finding("backup_label_removed")["detail"]
    assert rescued.report["recovered_to"] == {"lsn": None, "time": None}
    for sequential in (True, False):
        assert facts.missed(rescued, facts.untouched(snapshot), sequential=sequential) == []
    settled = facts.settled(snapshot)
    assert len(settled) > 20
    assert facts.wrongly_recovered(settled, facts.versions(rescued)) == []
    check_writable(rescued)
    assert state_of(snapshot) == before


def test_a_hot_backup_with_its_wal_is_replayed_and_complete(shelf: Shelf, rescue: Rescuer, engine_name: str) -> None:
    snapshot = shelf.get("basebackup-stream")
    before = state_of(snapshot)
    rescued = rescue(snapshot, "--engine", engine_name)
    check(rescued, engine_name, "replay", "consistent")
    assert set(rescued.codes) & OF_A_RESET == set()
    told = rescued.report["recovered_to"]
    assert Lsn.parse(told["lsn"]) >= Lsn.parse(str(snapshot.end_lsn))
    assert facts.missed(rescued, snapshot.expected) == []
    settled = facts.settled(snapshot)
    assert len(settled) > 20
    assert facts.wrongly_recovered(settled, facts.versions(rescued)) == []
    assert facts.kept_promises(rescued) == []
    check_writable(rescued)
    assert state_of(snapshot) == before


def test_a_tar_of_a_running_server_with_its_wal_read_last_recovers_what_was_acknowledged_before(
    shelf: Shelf, rescue: Rescuer, engine_name: str
) -> None:
    snapshot = shelf.get("running-wal-last")
    rescued = rescue(snapshot, "--engine", engine_name)
    check(rescued, engine_name, "crash", "best-effort")
    assert "atomicity_unproven" in rescued.codes
    assert rescued.report["recovered_to"]["lsn"] is not None
    assert facts.missed(rescued, snapshot.expected) == []
    assert facts.kept_promises(rescued) == []
    check_writable(rescued)


def test_a_tar_of_a_running_server_without_wal_is_reset_and_keeps_what_nobody_wrote_to(
    shelf: Shelf, rescue: Rescuer, engine_name: str
) -> None:
    snapshot = shelf.get("running-no-wal")
    rescued = rescue(snapshot, "--engine", engine_name)
    check(rescued, engine_name, "reset", "best-effort")
    assert set(rescued.codes) >= OF_A_RESET
    assert "backup_label_removed" not in rescued.codes
    assert facts.missed(rescued, facts.untouched(snapshot)) == []
    check_writable(rescued)


def test_a_tar_whose_pages_are_newer_than_its_wal_falls_to_a_reset_and_says_why(
    shelf: Shelf, rescue: Rescuer, engine_name: str
) -> None:
    snapshot = shelf.get("running-wal-first")
    rescued = rescue(snapshot, "--engine", engine_name)
    check(rescued, engine_name, "reset", "best-effort")
    assert set(rescued.codes) >= OF_A_RESET
    fall = rescued.finding("strategy_failed")
    assert (fall["object"], fall["severity"]) == ("crash", "warning")
    assert facts.missed(rescued, facts.untouched(snapshot)) == []
    check_writable(rescued)


@pytest.mark.native
def test_crash_recovery_of_such_a_tar_is_never_called_more_than_damaged(shelf: Shelf, rescue: Rescuer) -> None:
    require_engine("native")
    rescued = rescue(shelf.get("running-wal-first"), "--engine", "native", "--strategy", "crash")
    check_report(rescued.report)
    assert rescued.report["verdict"] in {"damaged", "failed"}
    assert {"pages_past_wal", "rescue_failed"} & set(rescued.codes)
    assert rescued.done.status == (0 if rescued.report["verdict"] == "damaged" else 1)
