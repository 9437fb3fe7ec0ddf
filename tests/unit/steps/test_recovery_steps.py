"""The steps of a recovery, on an engine that runs nothing."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from pgrescue.command import Completed
from pgrescue.errors import CopyRefusedError, TargetNotReachedError
from pgrescue.model import Immediate, Latest, Lsn, Severity, Timeline, UntilLsn, UntilTime, parse_until
from pgrescue.pipeline import Silent, Unit
from pgrescue.snapshot.wal_archive import read_archive
from pgrescue.steps.rebuild_backup_label import RebuildBackupLabel
from pgrescue.steps.recover_from_backup import RecoverFromBackup, recovery_settings
from pgrescue.steps.stage_wal import StageWal
from pgrescue.steps.unreplayed import unreplayed
from pgrescue.steps.wal_service import Served
from tests.unit.builders import CONTROL, LABEL, RUNNING, FakeEngine, control, data_directory, make_run, snapshot
from tests.unit.snapshot.conftest import encode
from tests.unit.snapshot.segments import MIB, SYSTEM, segment
from tests.unit.steps.test_replay_log import START, WHOLE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pgrescue.model import Until
    from pgrescue.run import Run


def name(number: int, timeline: int = 1) -> str:
    return f"{timeline:08X}{0:08X}{number:08X}"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    directory = tmp_path / "archive"
    directory.mkdir()
    for number in (5, 6, 7):
        (directory / name(number)).write_bytes(segment(name(number)))
    (directory / "00000002.history").write_text("1\t0/B00028\tno recovery target specified\n")
    return directory


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a run whose copy has a label, and a pg_control that is in production."""
    made = make_run(tmp_path, of=snapshot(data_directory(control(RUNNING, system_identifier=SYSTEM))))
    made.workspace.server.mkdir(exist_ok=True)
    made.workspace.logs.mkdir(exist_ok=True)
    for folder in ("pg_wal", "global"):
        (made.workspace.pgdata / folder).mkdir()
    (made.workspace.pgdata / "global/pg_control").write_bytes(RUNNING)
    (made.workspace.pgdata / "backup_label").write_text(LABEL)
    return made


def with_plan(run: Run, **fields: Any) -> Run:
    return dataclasses.replace(run, wal=dataclasses.replace(run.wal, **fields))


def fake(run: Run) -> FakeEngine:
    assert isinstance(run.engine, FakeEngine)
    return run.engine


class Watcher(Silent):
    """An observer that remembers how far it was."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int | None, Unit]] = []

    def advanced(self, done: int, total: int | None, unit: Unit, detail: str = "") -> None:  # noqa: ARG002
        """Remember it."""
        self.told.append((done, total, unit))


# rebuild-backup-label


def test_a_label_of_its_own_is_not_rebuilt(run: Run) -> None:
    assert RebuildBackupLabel().holds(run)
    assert RebuildBackupLabel().findings(run) == ()


def test_a_lost_label_is_written_once_and_told(run: Run) -> None:
    label = run.workspace.pgdata / "backup_label"
    label.unlink()
    run = with_plan(run, label=LABEL)
    assert not RebuildBackupLabel().holds(run)
    RebuildBackupLabel().apply(run, Silent())
    assert RebuildBackupLabel().holds(run)
    assert label.read_text() == LABEL
    label.rename(label.with_name("backup_label.old"))  # as the server does when it has read it
    assert RebuildBackupLabel().holds(run)
    (finding,) = RebuildBackupLabel().findings(run)
    assert (finding.code, finding.severity) == ("backup_label_rebuilt", Severity.INFO)


# stage-wal


def staged(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run.workspace.pgdata / "pg_wal").iterdir()}


def test_without_wal_beside_it_nothing_is_staged(run: Run) -> None:
    assert StageWal().holds(run)
    assert StageWal().findings(run) == ()


def in_tar(archive: Path, mode: Any) -> Path:
    path = archive.with_name("pg_wal.tar" + (".gz" if mode.endswith("gz") else ""))
    with tarfile.open(path, mode) as tar:
        for file in sorted(archive.iterdir()):
            member = tarfile.TarInfo(file.name)
            member.size = file.stat().st_size
            tar.addfile(member, io.BytesIO(file.read_bytes()))
    return path


@pytest.mark.parametrize("form", ["w", "w:gz", "directory"])
def test_wal_from_the_first_file_on_is_staged(run: Run, archive: Path, form: str) -> None:
    root = archive if form == "directory" else in_tar(archive, form)
    run = with_plan(run, archive=read_archive(root), first_segment=name(6))
    watcher = Watcher()
    assert not StageWal().holds(run)
    StageWal().apply(run, watcher)
    assert StageWal().holds(run)
    assert staged(run) == {
        "00000002.history": (archive / "00000002.history").read_bytes(),
        name(6): segment(name(6)),
        name(7): segment(name(7)),
    }
    assert StageWal().findings(run) == ()
    assert watcher.told[-1] == (3, 3, Unit.ITEMS)
    assert not run.workspace.wal.exists()


def test_what_the_copy_has_is_kept(run: Run, archive: Path) -> None:
    (run.workspace.pgdata / "pg_wal" / name(6)).write_bytes(b"the snapshot's own")
    run = with_plan(run, archive=read_archive(archive))
    StageWal().apply(run, Silent())
    assert staged(run)[name(6)] == b"the snapshot's own"
    assert set(json.loads(run.workspace.staged.read_text())["staged"]) == {"00000002.history", name(5), name(7)}


def test_what_cannot_be_read_is_named_and_the_rest_is_staged(run: Run, archive: Path) -> None:
    (archive / name(6)).write_bytes(b"damaged")
    run = with_plan(run, archive=read_archive(archive))
    StageWal().apply(run, Silent())
    assert set(staged(run)) == {"00000002.history", name(5), name(7)}
    (finding,) = StageWal().findings(run)
    assert (finding.code, finding.object, finding.severity) == ("wal_not_replayed", name(6), Severity.WARNING)


# recover


BASE = {"hot_standby": "off", "recovery_target_action": "promote", "log_startup_progress_interval": "500ms"}


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        (Latest(), {}),
        (Immediate(), {"recovery_target": "immediate"}),
        (UntilLsn(Lsn.parse("16/B374D848")), {"recovery_target_lsn": "16/B374D848"}),
        (
            parse_until("2026-11-22 08:15:00.25+01:00"),
            {"recovery_target_time": "2026-11-22 08:15:00.250000+01:00"},
        ),
        (parse_until("2026-11-22T08:15Z"), {"recovery_target_time": "2026-11-22 08:15:00+00:00"}),
    ],
)
def test_the_settings_for_each_target(run: Run, until: Until, expected: dict[str, str]) -> None:
    found = recovery_settings(with_plan(run, until=until, timeline=Timeline(3)))
    restore = found.pop("restore_command")
    assert "%f" in restore
    assert "%p" in restore
    assert found == {**BASE, "recovery_target_timeline": "3", **expected}


def test_without_a_known_timeline_the_backups_own_is_followed(run: Run) -> None:
    assert recovery_settings(run)["recovery_target_timeline"] == "current"


def answering(run: Run, lines: Sequence[str], *, status: int = 0, then: Callable[[], object] | None = None) -> None:
    """Let the server say this, and change the copy as it would."""
    engine = fake(run)
    engine.answer = Completed(("postgres",), status, "", "\n".join(lines))
    runs = engine.run

    def ran(*args: Any, **options: Any) -> Completed:
        assert (run.workspace.pgdata / "recovery.signal").exists()
        if then is not None:
            then()
        return runs(*args, **options)

    engine.run = ran  # type: ignore[method-assign]


def promote(run: Run, state: int = 1, end: str = "0/25BBE50") -> None:
    """Leave the files as a server does that has recovered; state 1 is "shut down", 6 "in production"."""
    pgdata = run.workspace.pgdata
    for file in ("backup_label", "recovery.signal"):
        (pgdata / file).unlink(missing_ok=True)
    (pgdata / "global/pg_control").write_bytes(encode(CONTROL, state=state, timeline=2))
    (pgdata / "pg_wal/00000002.history").write_text(f"1\t{end}\tno recovery target specified\n")


def test_a_recovery_and_its_report(run: Run) -> None:
    answering(run, WHOLE, then=lambda: promote(run))
    watcher = Watcher()
    step = RecoverFromBackup()
    assert not step.holds(run)
    step.apply(run, watcher)
    assert step.holds(run)
    assert len(fake(run).asked) == 1
    assert "restore_command=" in " ".join(fake(run).asked[0])
    assert {unit for _, _, unit in watcher.told} == {Unit.LSN}
    (finding,) = step.findings(run)
    assert (finding.code, finding.severity) == ("wal_replayed", Severity.INFO)
    assert "from 0/2503EF8 to 0/25BBE08: the WAL ends there" in finding.detail
    assert (run.workspace.logs / "recover.log").read_text().splitlines() == WHOLE
    assert not run.workspace.wal.exists()


@pytest.mark.parametrize(
    ("until", "wanted"),
    [
        (Latest(), "0/3700000"),
        (UntilTime(datetime.fromisoformat("2026-11-22T08:15:00Z")), "0/3700000"),
        (UntilLsn(Lsn.parse("0/2600000")), "0/2600000"),
        (Immediate(), "0/25C0000"),
    ],
)
def test_progress_tells_the_position_that_is_wanted(run: Run, until: Until, wanted: str) -> None:
    run = with_plan(run, until=until, reaches=Lsn.parse("0/3700000"), backup_end=Lsn.parse("0/25C0000"))
    answering(run, WHOLE, then=lambda: promote(run))
    watcher = Watcher()
    RecoverFromBackup().apply(run, watcher)
    assert watcher.told[-1] == (Lsn.parse("0/25BBE08").position, Lsn.parse(wanted).position, Unit.LSN)


def test_killed_after_the_servers_end_nothing_is_replayed_again(run: Run) -> None:
    (run.workspace.logs / "recover.log").write_text("\n".join(WHOLE))
    promote(run)
    RecoverFromBackup().apply(run, Silent())
    assert fake(run).asked == []
    assert RecoverFromBackup().holds(run)


def test_killed_before_the_servers_shutdown_it_is_started_without_a_recovery_from_the_archive(run: Run) -> None:
    (run.workspace.logs / "recover.log").write_text("\n".join(WHOLE))
    promote(run, state=6)
    RecoverFromBackup().apply(run, Silent())
    ((*words,),) = fake(run).asked
    assert not any("recovery_target" in word or "restore_command" in word for word in words)
    assert not (run.workspace.pgdata / "recovery.signal").exists()
    assert json.loads(run.workspace.recovered.read_text())["redo_done"] == "0/25BBE08"


@pytest.mark.parametrize("log", [[], WHOLE[:8]])
def test_killed_during_the_replay_it_goes_on(run: Run, log: list[str]) -> None:
    """The server has renamed the label, and pg_control says "in archive recovery"."""
    (run.workspace.logs / "recover.log").write_text("\n".join(log) + "\n")
    (run.workspace.pgdata / "backup_label").rename(run.workspace.pgdata / "backup_label.old")
    (run.workspace.pgdata / "recovery.signal").touch()
    (run.workspace.pgdata / "global/pg_control").write_bytes(encode(CONTROL, state=5))
    answering(run, WHOLE, then=lambda: promote(run))
    RecoverFromBackup().apply(run, Silent())
    assert len(fake(run).asked) == 1


MISSED = "2026 UTC [151] FATAL:  recovery ended before configured recovery target was reached"
EARLY = "2026 UTC [151] FATAL:  requested recovery stop point is before consistent recovery point"


def test_a_target_that_was_not_reached(run: Run) -> None:
    run = with_plan(run, until=UntilLsn(Lsn.parse("9/0")))
    answering(run, [*WHOLE[:8], MISSED], status=1)
    with pytest.raises(TargetNotReachedError) as caught:
        RecoverFromBackup().apply(run, Silent())
    assert caught.value.problem.startswith("the target 9/0 was not reached: the WAL ends at 0/25BBE08, the last commit")
    assert "2026-11-22 11:37:52.681179" in caught.value.problem
    assert not RecoverFromBackup().holds(run)


def test_a_target_before_the_end_of_the_backup(run: Run) -> None:
    run = with_plan(run, until=UntilLsn(Lsn.parse("0/2504000")), backup_end=Lsn.parse("0/25BBE08"))
    answering(run, [*START, EARLY], status=1)
    with pytest.raises(TargetNotReachedError, match="before the end of the backup") as caught:
        RecoverFromBackup().apply(run, Silent())
    assert "0/25BBE08" in caught.value.problem


def test_an_earlier_attempts_target_is_not_blamed(run: Run) -> None:
    (run.workspace.logs / "recover.log").write_text("\n".join([*WHOLE[:8], MISSED]) + "\n")
    answering(run, [*START, "FATAL:  WAL ends before end of online backup"], status=1)
    with pytest.raises(CopyRefusedError, match="WAL ends before"):
        RecoverFromBackup().apply(run, Silent())


# what lies behind the end


def ended(run: Run, archive: Path, end: str, *, complaint: str = "", **fields: Any) -> dict[str, Any]:
    """Return what is told of an archive behind a replay that ended at `end`."""
    lines = [*WHOLE[:4], *([f"2026 UTC [1] LOG:  {complaint}"] if complaint else []), *WHOLE[6:]]
    (run.workspace.logs / "recover.log").write_text("\n".join(lines))
    promote(run, end=end)
    return unreplayed(with_plan(run, archive=read_archive(archive), timeline=Timeline(1), **fields), Served())


def test_at_the_end_of_the_archive_there_is_nothing(run: Run, archive: Path) -> None:
    found = ended(run, archive, "0/7FF128")
    assert (found["end"], found["behind"], found["why"]) == ("0/7FF128", [], "")


def test_a_gap_is_named_with_what_lies_behind_it(run: Run, archive: Path) -> None:
    (archive / name(6)).unlink()
    found = ended(run, archive, "0/5FF128")
    assert (found["behind"], found["why"]) == ([name(7)], f"{name(6)} is missing")
    found = ended(run, archive, "0/600000")
    assert (found["behind"], found["why"]) == ([name(7)], f"{name(6)} is missing")


def test_damage_is_told_though_no_file_follows(run: Run, archive: Path) -> None:
    said = "incorrect resource manager data checksum in record at 0/7A0128"
    found = ended(run, archive, "0/7A0128", complaint=said)
    assert found["behind"] == []
    assert said in found["why"]


def test_zeros_with_wal_behind_them_are_damage(run: Run, archive: Path) -> None:
    data = bytearray(segment(name(7)))
    data[0x10128:0x12000] = bytes(0x12000 - 0x10128)
    (archive / name(7)).write_bytes(data)
    assert "damaged at 0/710128" in ended(run, archive, "0/710128")["why"]


def test_zeros_to_the_end_are_the_end(run: Run, archive: Path) -> None:
    data = segment(name(7), pages=9)
    (archive / name(7)).write_bytes(data[:0x10128] + bytes(MIB - 0x10128))
    said = "invalid record length at 0/710128: expected at least 24, got 0"
    assert ended(run, archive, "0/710128", complaint=said)["why"] == ""


def test_a_file_whose_pages_end_early_is_named_where_others_follow(run: Run, archive: Path) -> None:
    (archive / name(6)).write_bytes(segment(name(6), pages=9))
    found = ended(run, archive, "0/611f00")
    assert (found["behind"], found["why"]) == ([name(7)], f"{name(6)} is valid only up to 0/612000")


def test_other_timelines_do_not_count(run: Run, archive: Path) -> None:
    (archive / name(9, 4)).write_bytes(segment(name(9, 4)))
    assert ended(run, archive, "0/7FF128")["behind"] == []


def test_on_a_timeline_that_was_followed_its_own_files_count(run: Run, archive: Path) -> None:
    (archive / "00000002.history").write_text("1\t0/680028\tno recovery target specified\n")
    (archive / name(8, 2)).write_bytes(segment(name(8, 2)))
    (run.workspace.logs / "recover.log").write_text("\n".join(WHOLE))
    promote(run, end="0/5FF128")
    found = unreplayed(with_plan(run, archive=read_archive(archive), timeline=Timeline(2)), Served())
    # 7 of the first timeline lies behind the place where that was left.
    assert found["behind"] == [name(6), name(8, 2)]


def test_with_a_target_what_lies_behind_it_is_meant_to(run: Run, archive: Path) -> None:
    assert ended(run, archive, "0/5FF128", until=Immediate())["behind"] == []


def test_the_finding_names_files_and_reason(run: Run, archive: Path) -> None:
    (archive / name(6)).unlink()
    run = with_plan(run, archive=read_archive(archive), timeline=Timeline(1))
    answering(run, WHOLE, then=lambda: promote(run, end="0/5FF128"))
    RecoverFromBackup().apply(run, Silent())
    _, finding = RecoverFromBackup().findings(run)
    assert (finding.code, finding.severity, finding.object) == ("wal_not_replayed", Severity.WARNING, str(archive))
    assert f"could not be used: {name(7)}. {name(6)} is missing." in finding.detail
