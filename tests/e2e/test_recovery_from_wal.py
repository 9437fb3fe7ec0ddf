"""Whole rescues of backups with their WAL: what is found, chosen, refused, and carried on after a kill."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli import check_report, pgrescue
from tests.conftest import ENGINES, require_engine
from tests.e2e.accidents import check_tidy, killed, local_with_accident
from tests.e2e.refusals import refused
from tests.producers import facts
from tests.recoverable import MARKS_BEFORE, SETTINGS, last_word, needed, read_marks

if TYPE_CHECKING:
    from fixtures import Snapshot
    from tests.cli import Rescue
    from tests.conftest import Rescuer
    from tests.snapshots import Shelf

UNCHECKED = ("--verify", "none")
ANSWER = "pgrescue.steps.wal_service:WalService._answer"
RECORD = "pgrescue.steps.recover_from_backup:write_atomically"


@pytest.fixture(scope="module")
def backup(shelf: Shelf) -> Snapshot:
    """Return a barman backup with its archive beside it, in barman's layout."""
    return shelf.get("archived-barman")


@pytest.fixture(scope="module")
def batch(backup: Snapshot) -> Path:
    return backup.directory.parent


@pytest.fixture
def archive(batch: Path, tmp_path: Path) -> Path:
    """Return the archive for the test to break."""
    return Path(shutil.copytree(batch / "wal", tmp_path / "broken"))


def marks(rescued: Rescue) -> list[int]:
    found = rescued.one("SELECT array_agg(number ORDER BY number) FROM marks", "portal")
    return list(found or [])


def check_whole(rescued: Rescue) -> None:
    """Assert that all that was ever acknowledged is there, once and in its last version, and nothing else."""
    rescued.done.ok()
    check_report(rescued.report)
    assert rescued.report["verdict"] == "consistent"
    assert facts.versions(rescued) == {ref: [version] for ref, version in last_word(rescued.snapshot).items()}
    assert facts.missed(rescued, rescued.snapshot.expected) == []
    assert marks(rescued) == list(MARKS_BEFORE)


@pytest.fixture(scope="module")
def whole(backup: Snapshot, shared_rescue: Rescuer) -> Rescue:
    require_engine("native")
    return shared_rescue(backup, "--engine", "native", "--require", "consistent", "--verify", "fast")


@pytest.mark.native
def test_the_archive_beside_the_backup_brings_every_commit_back(whole: Rescue, backup: Snapshot) -> None:
    check_whole(whole)
    assert whole.report["strategy"] == "archive"
    told = whole.finding("wal_replayed")
    assert str(backup.begin_lsn) in told["detail"]
    assert told["severity"] == "info"
    assert whole.report["recovered_to"]["lsn"] is not None
    assert whole.report["recovered_to"]["time"] is not None
    assert {finding["code"] for finding in whole.report["findings"] if finding["severity"] != "info"} == {
        "prepared_transaction"
    }


@pytest.mark.native
def test_places_that_recovery_insists_on_are_those_of_the_server(whole: Rescue) -> None:
    for name in ("max_connections", "max_prepared_transactions", "max_locks_per_transaction", "max_worker_processes"):
        assert int(whole.one(f"SHOW {name}")) >= int(SETTINGS[name])


@pytest.mark.native
def test_a_prepared_transaction_is_told_and_can_be_ended(whole: Rescue) -> None:
    found = whole.finding("prepared_transaction")
    assert "pledge-1" in found["object"]
    assert "pledge-1" in found["remedy"]
    assert whole.one("SELECT gid FROM pg_prepared_xacts") == "pledge-1"
    assert whole.one("SELECT count(*) FROM pledges", "portal") == 0


@pytest.mark.docker
def test_in_a_container_to_a_chosen_time(shelf: Shelf, batch: Path, rescue: Rescuer) -> None:
    """The archive is outside of what the container sees, and its user owns nothing of it."""
    require_engine("docker")
    at = read_marks(batch)[2].time.isoformat()
    options = ("--wal", str(batch / "wal"), "--until", at, "--strategy", "archive", *UNCHECKED)
    rescued = rescue(shelf.get("plain-directory"), "--engine", "docker", *options)
    rescued.done.ok()
    assert marks(rescued) == [1, 2]
    assert "recovery stopping before commit" in rescued.finding("wal_replayed")["detail"]
    check_tidy(rescued.workspace, engine="docker")


@pytest.mark.docker
def test_in_a_container_from_the_wal_that_the_backup_brings(shelf: Shelf, rescue: Rescuer) -> None:
    require_engine("docker")
    rescued = rescue(shelf.get("streamed-gzip"), "--engine", "docker", *UNCHECKED)
    rescued.done.ok()
    assert (rescued.report["strategy"], rescued.report["verdict"]) == ("replay", "consistent")
    assert facts.missed(rescued, rescued.snapshot.expected) == []
    assert facts.kept_promises(rescued) == []


@pytest.mark.parametrize("gone", [0, -1])
def test_a_file_that_it_needs_and_that_is_missing_is_named(backup: Snapshot, archive: Path, gone: int) -> None:
    name = needed(backup)[gone]
    (archive / name).unlink()
    done = pgrescue("inspect", backup.path, "--wal", archive, "--json", cwd=archive).ok()
    document = done.document()
    assert (document["strategy"], document["missing_wal"]) == ("reset", [name])
    assert document["missing_wal_is_open"] is False
    assert document["backup_end"] == backup.end_lsn


@pytest.mark.native
def test_wal_that_breaks_in_the_middle_falls_to_a_reset_that_says_why(
    backup: Snapshot, archive: Path, rescue: Rescuer
) -> None:
    require_engine("native")
    broken = archive / needed(backup)[1]
    data = bytearray(broken.read_bytes())
    data[500_000:500_064] = b"\x55" * 64
    broken.write_bytes(data)
    rescued = rescue(backup, "--engine", "native", "--wal", str(archive), "--no-repair", *UNCHECKED)
    rescued.done.ok()
    assert rescued.report["strategy"] == "reset"
    fall = rescued.finding("strategy_failed")
    assert fall["object"] == "archive"
    assert "WAL ends before end of online backup" in fall["detail"]
    assert (rescued.workspace / "logs" / "recover-archive.log").exists()
    again = rescued.again("--wal", str(archive), "--no-repair", *UNCHECKED)
    assert {step["outcome"] for step in again.report["steps"]} == {"held"}
    assert again.report["findings"] == rescued.report["findings"]


@pytest.mark.native
def test_a_target_that_is_not_reached_ends_the_rescue_and_another_one_may_follow(
    backup: Snapshot, rescue: Rescuer
) -> None:
    require_engine("native")
    rescued = rescue(backup, "--engine", "native", "--until", "2099-01-01 00:00Z", *UNCHECKED)
    assert rescued.done.status == 1
    assert (rescued.report["verdict"], rescued.report["url"]) == ("failed", None)
    missed = rescued.finding("rescue_failed")
    assert "2099-01-01 00:00:00+00:00 was not reached: the WAL ends at 0/" in missed["detail"]
    assert "strategy_failed" not in rescued.codes
    again = rescued.again(*UNCHECKED)
    check_whole(again)
    other = again.run("status", "--json").ok()
    assert other.document()
    done = pgrescue(
        "local", backup.path, "-w", again.workspace, "--json", "--until", "immediate", cwd=again.workspace.parent
    )
    refused(done, "was recovered until latest, not until immediate", "--workspace")


@pytest.mark.native
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--until", "2026-11-22 08:00:00"), ("has no zone", "--until")),
        (("--until", "yesterday"), ("yesterday", "--until")),
        (("--until", "immediate"), ("--until", "is missing")),
        (("--strategy", "archive"), ("not possible", "No WAL archive was found")),
        (("--wal", "."), ("holds no WAL", "barman's wals")),
    ],
    ids=["no zone", "no time", "no wal", "no archive", "no wal in it"],
)
def test_what_cannot_be_meant_is_refused_and_leaves_nothing(
    backup: Snapshot, tmp_path: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    require_engine("native")
    alone = tmp_path / "alone" / "data.tar"
    alone.parent.mkdir()
    alone.symlink_to(backup.path)
    done = pgrescue("local", alone, "-w", tmp_path / "w", "--engine", "native", "--json", *options, cwd=alone.parent)
    refused(done, *words)
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("engine", ENGINES)
def test_killed_during_the_replay_and_after_it(
    engine: str, backup: Snapshot, batch: Path, tmp_path: Path, rescue: Rescuer
) -> None:
    """The server waits for a file, learns that nobody answers, and ends; the next run replays from there on."""
    require_engine(engine)
    workspace = tmp_path / "it.pgrescue"
    options = ("--engine", engine, *UNCHECKED, "--wal", str(batch / "wal"))
    killed(local_with_accident(backup, workspace, *options, at=ANSWER, call=20))
    assert (workspace / "pgdata" / "recovery.signal").exists()
    if engine == "native":
        killed(local_with_accident(backup, workspace, *options, at=RECORD))
        assert not (workspace / "recovered.json").exists()
        assert not (workspace / "pgdata" / "recovery.signal").exists()
    rescued = rescue(backup, *options, workspace=workspace)
    check_whole(rescued)
    outcomes = {step["name"]: step["outcome"] for step in rescued.report["steps"]}
    assert (outcomes["unpack"], outcomes["recover"]) == ("held", "done")
    assert "wal_not_replayed" not in rescued.codes
    check_tidy(workspace, engine=engine)


@pytest.mark.native
def test_killed_and_run_again_without_the_wal_it_is_not_given_up(
    batch: Path, tmp_path: Path, shelf: Shelf, rescue: Rescuer
) -> None:
    require_engine("native")
    snapshot, workspace = shelf.get("from-standby"), tmp_path / "it.pgrescue"
    wal = ("--wal", str(batch / "wal-2"))
    options = ("--engine", "native", *UNCHECKED)
    killed(local_with_accident(snapshot, workspace, *options, *wal, at=ANSWER, call=3))
    done = pgrescue("local", snapshot.path, "-w", workspace, "--json", *options, cwd=tmp_path)
    refused(done, "begun with the strategy archive", "Name the same WAL again with --wal")
    assert (workspace / "pgdata" / "recovery.signal").exists()
    rescued = rescue(snapshot, *options, *wal, workspace=workspace)
    rescued.done.ok()
    assert rescued.report["verdict"] == "consistent"
    assert marks(rescued) == [1, 2, 3, 4, 5]
