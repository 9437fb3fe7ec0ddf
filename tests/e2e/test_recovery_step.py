"""Recovery of real backups with real WAL, whole and broken, to every kind of target: what is in the copy afterwards."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import cramjam
import pytest

from fixtures import read_acks
from pgrescue.errors import CopyRefusedError, TargetNotReachedError, ToolError, UsageError
from pgrescue.model import Immediate, Lsn, Severity, StrategyName, UntilLsn, UntilTime, parse_until
from pgrescue.snapshot.contents import CONTROL, read_snapshot
from pgrescue.snapshot.control import DatabaseState
from pgrescue.steps.control import read_control
from pgrescue.strategy.choose import assess
from pgrescue.strategy.wal_plan import WalRequest, plan_wal
from tests.contract import engines_native
from tests.e2e.damage import mark_as_pgbackrest_does
from tests.recoverable import MARKS_AFTER, MARKS_BEFORE, Mark, last_word, needed, read_marks, segment
from tests.recovering import Bench, Recovered

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures import Snapshot
    from tests.snapshots import Shelf

pytestmark = pytest.mark.native
MIB = 1 << 20
ALL_BEFORE, ALL = list(MARKS_BEFORE), [*MARKS_BEFORE, *MARKS_AFTER]


@pytest.fixture(scope="module")
def backup(shelf: Shelf) -> Snapshot:
    engines_native.require(17)
    return shelf.get("archived-barman")


@pytest.fixture(scope="module")
def batch(backup: Snapshot) -> Path:
    return backup.directory.parent


@pytest.fixture(scope="module")
def marks(batch: Path) -> dict[int, Mark]:
    return read_marks(batch)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def archive(batch: Path, tmp_path: Path) -> Path:
    """Return an archive of the first timeline for the test to break."""
    return Path(shutil.copytree(batch / "wal", tmp_path / "broken"))


def check_whole(recovered: Recovered, snapshot: Snapshot) -> None:
    """Assert that every acknowledged commit is there, that nothing else is, and that the invariants hold exactly."""
    assert recovered.orders == last_word(snapshot)
    assert recovered.missed(snapshot.expected) == []
    check_quiet(recovered)


def check_quiet(recovered: Recovered) -> None:
    """Assert that nothing is worth a warning."""
    assert [finding for finding in recovered.findings if finding.severity is not Severity.INFO] == []


def test_an_archive_in_barmans_layout_is_found_and_brings_every_commit_back(backup: Snapshot, bench: Bench) -> None:
    run = bench.prepared(backup.path)
    assert run.strategy is StrategyName.ARCHIVE
    assert run.wal.archive is not None
    assert run.wal.archive.root == backup.directory / "portal" / "wals"
    recovered = bench.recover(run)
    check_whole(recovered, backup)
    assert recovered.marks == ALL_BEFORE
    assert recovered.one("SELECT gid FROM pg_prepared_xacts") == "pledge-1"
    assert recovered.one("SELECT count(*) FROM pledges") == "0"
    assert str(backup.begin_lsn) in recovered.finding("wal_replayed").detail


def test_a_flat_archive_of_zstd_files(backup: Snapshot, bench: Bench, batch: Path, tmp_path: Path) -> None:
    for file in (batch / "wal").iterdir():
        (tmp_path / f"{file.name}.zst").write_bytes(bytes(cramjam.zstd.compress(file.read_bytes())))
    recovered = bench.recover(bench.prepared(backup.path, wal=tmp_path))
    check_whole(recovered, backup)
    assert recovered.marks == ALL_BEFORE


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("time", [1]),
        ("lsn", [1, 2]),
        ("immediate", []),
    ],
)
def test_it_ends_where_until_says(
    backup: Snapshot, bench: Bench, marks: dict[int, Mark], target: str, expected: list[int]
) -> None:
    until = {
        # In a zone that is not the server's.
        "time": parse_until(marks[1].time.isoformat(sep=" ").replace("+00:00", "Z")),
        "lsn": UntilLsn(Lsn.parse(marks[2].lsn)),
        "immediate": Immediate(),
    }[target]
    recovered = bench.recover(bench.prepared(backup.path, until=until))
    if expected:
        assert recovered.marks == expected
        assert recovered.orders == last_word(backup)
    else:
        assert recovered.one("SELECT coalesce(string_agg(number::text, ','), 'none') FROM marks") == "none"
        before = {ack.ref: ack for ack in read_acks(backup.acks) if ack.before_backup}
        assert len(recovered.orders) > len([ack for ack in before.values() if ack.op == "insert"]) / 2
    assert "recovery stopping" in recovered.finding("wal_replayed").detail
    check_quiet(recovered)


def test_a_target_behind_the_wal_is_an_error_that_names_the_last_point(
    backup: Snapshot, bench: Bench, marks: dict[int, Mark]
) -> None:
    late = marks[5].time.replace(year=2099)
    run = bench.prepared(backup.path, until=UntilTime(late))
    with pytest.raises(TargetNotReachedError) as caught:
        bench.recover(run)
    assert "2099" in caught.value.problem
    assert f"{marks[3].time:%Y-%m-%d %H:%M}" in caught.value.problem
    assert not run.workspace.recovered.exists()


def test_a_target_before_the_backups_end_is_an_error_that_names_the_end(backup: Snapshot, bench: Bench) -> None:
    assert backup.begin_lsn is not None
    run = bench.prepared(backup.path, until=UntilLsn(Lsn(Lsn.parse(backup.begin_lsn).position + 5000)))
    with pytest.raises(TargetNotReachedError, match="before the end of the backup") as caught:
        bench.recover(run)
    assert str(backup.end_lsn) in caught.value.problem


def test_without_wal_no_strategy_ends_at_a_chosen_point(backup: Snapshot, tmp_path: Path) -> None:
    alone = Path(shutil.copy(backup.path, tmp_path))
    read = read_snapshot(alone)
    found = assess(read, plan_wal(read, WalRequest(until=Immediate())))
    with pytest.raises(UsageError, match="--until"):
        _ = found.best


def test_files_that_the_backup_needs_are_named_exactly(backup: Snapshot, archive: Path) -> None:
    gone = [needed(backup)[0], needed(backup)[-1]]
    assert gone[0] != gone[1]
    for name in gone:
        (archive / name).unlink()
    read = read_snapshot(backup.path)
    found = assess(read, plan_wal(read, WalRequest(archive)))
    assert found.missing_wal == tuple(f"{name} is missing" for name in gone)
    assert found.best is StrategyName.RESET


BREAKERS: dict[str, Callable[[bytes], bytes]] = {
    "another cluster's": lambda data: data[:24] + bytes([data[24] ^ 1]) + data[25:],
    "half": lambda data: data[: MIB // 2],
    "no wal": lambda data: b"\0" * len(data),
}


@pytest.mark.parametrize("kind", BREAKERS)
def test_a_broken_file_that_the_backup_needs_is_named(backup: Snapshot, archive: Path, kind: str) -> None:
    name = needed(backup)[1]
    (archive / name).write_bytes(BREAKERS[kind]((archive / name).read_bytes()))
    read = read_snapshot(backup.path)
    found = assess(read, plan_wal(read, WalRequest(archive)))
    (missing,) = found.missing_wal
    assert missing.startswith(name)
    assert not missing.endswith("is missing")


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes(byte ^ 0x55 for byte in data[at : at + 64]) + data[at + 64 :]


def test_a_flipped_byte_in_a_file_that_the_backup_needs_is_the_servers_refusal(
    backup: Snapshot, bench: Bench, archive: Path
) -> None:
    name = needed(backup)[1]
    (archive / name).write_bytes(flipped((archive / name).read_bytes(), MIB // 2 + 4000))
    with pytest.raises(CopyRefusedError, match="WAL ends before end of online backup"):
        bench.recover(bench.prepared(backup.path, wal=archive))


def check_short(recovered: Recovered, backup: Snapshot, *words: str, marks: list[int] | None = None) -> None:
    """Assert that the copy is whole as far as the WAL went, and that the report says what lies behind."""
    assert recovered.marks == (marks or [1])
    assert recovered.orders == last_word(backup)
    finding = recovered.finding("wal_not_replayed")
    assert finding.severity is Severity.WARNING
    for word in words:
        assert word in finding.detail
    assert recovered.codes.count("wal_replayed") == 1


def test_a_gap_behind_the_backups_end_is_told_with_what_lies_behind_it(
    backup: Snapshot, bench: Bench, archive: Path, marks: dict[int, Mark]
) -> None:
    gone, behind = segment(marks[2].lsn), segment(marks[3].lsn)
    (archive / gone).unlink()
    recovered = bench.recover(bench.prepared(backup.path, wal=archive))
    check_short(recovered, backup, f"{gone} is missing", behind)


AFTERWARDS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "another cluster's": (BREAKERS["another cluster's"], "another cluster"),
    "half": (BREAKERS["half"], f"has {MIB // 2} of {MIB} bytes"),
    "flipped": (lambda data: flipped(data, 400_000), "damaged at"),
    "a hole": (lambda data: data[:8192] + bytes(16384) + data[24576:], "is valid only up to"),
}


@pytest.mark.parametrize("kind", AFTERWARDS)
def test_a_broken_file_behind_the_backups_end_is_told(
    backup: Snapshot, bench: Bench, archive: Path, marks: dict[int, Mark], kind: str
) -> None:
    """It holds the second mark at its beginning: how much of it can be used depends on the damage."""
    breaks, words = AFTERWARDS[kind]
    broken, behind = segment(marks[2].lsn), segment(marks[3].lsn)
    (archive / broken).write_bytes(breaks((archive / broken).read_bytes()))
    recovered = bench.recover(bench.prepared(backup.path, wal=archive))
    check_short(recovered, backup, words, behind, marks=recovered.marks)
    assert recovered.marks in ([1], [1, 2])


def test_damage_in_the_last_file_of_the_archive_is_told_though_nothing_follows(
    backup: Snapshot, bench: Bench, archive: Path, marks: dict[int, Mark]
) -> None:
    last = segment(marks[3].lsn)
    for file in archive.iterdir():
        if file.name[:24] > last:
            file.unlink()
    (archive / last).write_bytes(flipped((archive / last).read_bytes(), 400_000))
    recovered = bench.recover(bench.prepared(backup.path, wal=archive))
    assert "damaged at" in recovered.finding("wal_not_replayed").detail


def test_a_partial_file_is_the_archives_last_one(
    backup: Snapshot, bench: Bench, archive: Path, marks: dict[int, Mark]
) -> None:
    last = segment(marks[3].lsn)
    for file in archive.iterdir():
        if file.name[:24] > last:
            file.unlink()
    (archive / last).rename(archive / f"{last}.partial")
    recovered = bench.recover(bench.prepared(backup.path, wal=archive))
    assert recovered.marks == ALL_BEFORE
    assert recovered.finding("wal_partial_used").object == last
    check_quiet(recovered)


def test_the_archive_is_followed_onto_the_next_timeline(backup: Snapshot, bench: Bench, batch: Path) -> None:
    recovered = bench.recover(bench.prepared(backup.path, wal=batch / "wal-2"))
    assert recovered.run.wal.timeline == 2
    assert recovered.marks == ALL
    check_whole(recovered, backup)


def test_a_branch_that_left_before_the_backup_is_not_followed(backup: Snapshot, bench: Bench, archive: Path) -> None:
    (archive / "00000007.history").write_text("1\t0/1000028\tno recovery target specified\n")
    recovered = bench.recover(bench.prepared(backup.path, wal=archive))
    assert recovered.run.wal.timeline == 1
    assert recovered.marks == ALL_BEFORE
    check_quiet(recovered)


def test_a_backup_from_a_standby(shelf: Shelf, bench: Bench, batch: Path) -> None:
    snapshot = shelf.get("from-standby")
    run = bench.prepared(snapshot.path, wal=batch / "wal-2")
    label, control = run.snapshot.chosen.backup_label, run.snapshot.chosen.control
    assert label is not None
    assert label.from_standby
    assert run.strategy is StrategyName.ARCHIVE
    assert run.wal.backup_end == control.min_recovery_point
    recovered = bench.recover(run)
    assert recovered.marks == ALL
    check_whole(recovered, snapshot)


@pytest.mark.parametrize("name", ["streamed-tar", "plain-directory"])
def test_a_backup_that_brings_its_wal_is_replayed(shelf: Shelf, bench: Bench, name: str) -> None:
    snapshot = shelf.get(name)
    run = bench.prepared(snapshot.path)
    assert run.strategy is StrategyName.REPLAY
    assert run.wal.backup_end == Lsn.parse(str(snapshot.end_lsn))
    recovered = bench.recover(run)
    check_quiet(recovered)
    assert recovered.missed(snapshot.expected) == []
    acks = [ack for ack in read_acks(snapshot.acks) if ack.before_backup]
    newest = {ack.ref: ack.version for ack in sorted(acks, key=lambda ack: ack.version)}
    deleted = {ack.ref for ack in read_acks(snapshot.acks) if ack.op == "delete"}
    found = recovered.orders
    assert {ref for ref, version in newest.items() if found.get(ref, 0) < version} <= deleted


def test_a_backup_with_its_wal_goes_on_with_an_archive(shelf: Shelf, bench: Bench, batch: Path) -> None:
    snapshot = shelf.get("plain-directory")
    recovered = bench.recover(bench.prepared(snapshot.path, wal=batch / "wal"))
    assert recovered.marks == ALL_BEFORE
    assert recovered.orders == last_word(snapshot)


def test_wal_half_in_the_snapshot_and_half_in_an_archive(
    shelf: Shelf, bench: Bench, archive: Path, tmp_path: Path
) -> None:
    """As a volume snapshot with its backup_label: what was not archived yet is in pg_wal only."""
    snapshot = shelf.get("archived-barman")
    wanted = needed(snapshot)
    assert len(wanted) > 1
    pgdata = tmp_path / "pgdata"
    shutil.copytree(bench.prepared(snapshot.path).workspace.pgdata, pgdata)
    for name in wanted[1:]:
        shutil.copyfile(archive / name, pgdata / "pg_wal" / name)
    for file in archive.iterdir():
        if file.name[:24] > wanted[0]:
            file.unlink()
    run = bench.prepared(pgdata, wal=archive)
    assert run.wal.missing == ()
    assert run.strategy is StrategyName.ARCHIVE
    check_quiet(bench.recover(run))


def test_pg_wal_that_is_a_link_is_named_with_wal(shelf: Shelf, bench: Bench, tmp_path: Path) -> None:
    snapshot = shelf.get("plain-directory")
    pgdata = Path(shutil.copytree(snapshot.path, tmp_path / "pgdata"))
    (pgdata / "pg_wal").rename(tmp_path / "volume")
    (pgdata / "pg_wal").symlink_to(tmp_path / "volume")
    run = bench.prepared(pgdata, wal=tmp_path / "volume")
    assert run.strategy is StrategyName.ARCHIVE
    recovered = bench.recover(run)
    assert not (run.workspace.pgdata / "pg_wal").is_symlink()
    assert recovered.missed(snapshot.expected) == []


@pytest.mark.parametrize("has_label", [True, False])
def test_a_pgbackrest_restore_that_was_never_started(
    backup: Snapshot, bench: Bench, batch: Path, tmp_path: Path, *, has_label: bool
) -> None:
    pgdata = tmp_path / "pgdata"
    shutil.copytree(bench.prepared(backup.path).workspace.pgdata, pgdata)
    mark_as_pgbackrest_does(pgdata)
    if not has_label:
        (pgdata / "backup_label").unlink()
    run = bench.prepared(pgdata, wal=batch / "wal")
    assert run.strategy is StrategyName.ARCHIVE
    recovered = bench.recover(run)
    check_whole(recovered, backup)
    assert ("backup_label_rebuilt" in recovered.codes) is not has_label


def test_killed_between_the_end_of_the_recovery_and_its_record(backup: Snapshot, bench: Bench) -> None:
    recovered = bench.recover(bench.prepared(backup.path))
    run = recovered.run
    run.workspace.recovered.unlink()
    log = (run.workspace.logs / "recover.log").read_text()
    again = bench.recover(run)
    assert (run.workspace.logs / "recover.log").read_text() == log
    assert told_end(again) == told_end(recovered)
    assert again.marks == ALL_BEFORE


def told_end(recovered: Recovered) -> str:
    """Return how far the replay came, as the report has it."""
    match = re.search(r"from \S+ to [^\s:]+", recovered.finding("wal_replayed").detail)
    assert match is not None
    return match[0]


def test_killed_between_the_promotion_and_the_shutdown(backup: Snapshot, bench: Bench) -> None:
    """As pg_control is on the new timeline then, recovery must not begin again on the old one."""
    recovered = bench.recover(bench.prepared(backup.path))
    run = recovered.run
    run.workspace.recovered.unlink()
    with pytest.raises(ToolError):
        recovered.one("INSERT INTO marks VALUES (99, 'x');\nCOPY marks TO PROGRAM 'kill -9 $PPID'")
    assert read_control(run.workspace.pgdata / CONTROL).state is DatabaseState.IN_PRODUCTION
    again = bench.recover(run)
    assert again.marks == [*ALL_BEFORE, 99]
    assert told_end(again) == told_end(recovered)
