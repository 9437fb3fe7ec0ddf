"""A backup with a part of its WAL: what is replayed before the reset brings commits back."""

from __future__ import annotations

import dataclasses
import shutil
from typing import TYPE_CHECKING

import pytest

from fixtures import broken_promises, read_acks
from pgrescue.model import Lsn, StrategyName
from pgrescue.steps.replay_part import ReplayPart
from tests.contract import engines_native
from tests.recoverable import needed
from tests.recovering import Bench

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures import Snapshot
    from pgrescue.run import Run
    from tests.snapshots import Shelf

pytestmark = pytest.mark.native


@pytest.fixture(scope="module")
def backup(shelf: Shelf) -> Snapshot:
    engines_native.require(17)
    return shelf.get("archived-barman")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def part(backup: Snapshot, tmp_path: Path) -> Path:
    """Return an archive that lacks the last file that the backup needs."""
    archive = tmp_path / "part"
    shutil.copytree(backup.directory.parent / "wal", archive)
    (archive / needed(backup)[-1]).unlink()
    return archive


def reset_run(bench: Bench, backup: Snapshot, part: Path, *, may_fall: bool) -> Run:
    run = bench.prepared(backup.path, wal=part)
    assert run.strategy is StrategyName.RESET
    return dataclasses.replace(run, may_fall=may_fall)


def test_it_brings_commits_back(bench: Bench, backup: Snapshot, part: Path) -> None:
    bare = bench.take(reset_run(bench, backup, part, may_fall=False), "access")
    replayed = bench.take(reset_run(bench, backup, part, may_fall=True), "access")
    assert "wal_replayed_in_part" not in bare.codes
    told = replayed.finding("wal_replayed_in_part")
    assert f"{needed(backup)[-1]} is missing" in told.detail
    assert broken_promises(read_acks(backup.directory / "acks.jsonl"), replayed.orders) == ()
    assert len(replayed.orders) > len(bare.orders)


def test_it_ends_where_the_wal_does_and_the_reset_goes_past_every_page(
    bench: Bench, backup: Snapshot, part: Path
) -> None:
    run = reset_run(bench, backup, part, may_fall=True)
    recovered = bench.take(run, "replay-part")
    assert ReplayPart().holds(run)
    detail = recovered.finding("wal_replayed_in_part").detail
    assert run.wal.backup_end is not None
    assert Lsn.parse(detail.partition(" to ")[2].split()[0].rstrip(";(")) < run.wal.backup_end
    assert not (run.workspace.pgdata / "backup_label").exists()
    assert (run.workspace.removed / "backup_label").exists()


def test_wal_that_cannot_be_replayed_leaves_a_copy_that_can_be_reset(
    bench: Bench, backup: Snapshot, part: Path
) -> None:
    first = part / needed(backup)[0]
    content = bytearray(first.read_bytes())
    content[64:8192] = bytes(8192 - 64)  # the header stays; with what the backup began with, nothing can begin
    content[8192:] = bytes(len(content) - 8192)
    first.write_bytes(content)
    run = reset_run(bench, backup, part, may_fall=True)
    recovered = bench.take(run, "access")
    assert {"wal_replay_failed", "wal_reset"} <= set(recovered.codes)
    assert recovered.one("SELECT count(*) FROM users") != "0"
