"""Which strategies a snapshot and its WAL allow."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pgrescue.errors import UsageError
from pgrescue.model import Immediate, Latest, Lsn, StrategyName, Timeline, UntilLsn, UntilTime
from pgrescue.run import WalPlan
from pgrescue.snapshot.contents import WalFile
from pgrescue.snapshot.control import DatabaseState
from pgrescue.snapshot.wal_archive import WalArchive
from pgrescue.strategy.choose import Assessment, Option, assess
from tests.unit.builders import CONTROL, LABEL, RUNNING, control, data_directory, snapshot, wal_file

if TYPE_CHECKING:
    from pgrescue.model import Until
    from pgrescue.snapshot.contents import DataDirectory

CLEAN, ARCHIVE, REPLAY = StrategyName.CLEAN, StrategyName.ARCHIVE, StrategyName.REPLAY
CRASH, RESET = StrategyName.CRASH, StrategyName.RESET
STOPPED, ALIVE = control(CONTROL), control(RUNNING)
LABELLED = data_directory(ALIVE, texts={"backup_label": LABEL})
END = Lsn.parse("0/B00128")
GONE = ("00000001000000000000000A is missing",)


def an_archive(root: Path = Path("/no/wals"), *names: str) -> WalArchive:
    files: Any = dict.fromkeys(names)
    return WalArchive(root, files, {}, {}, {})


def judged(directory: DataDirectory, wal: WalPlan | None = None) -> dict[StrategyName, Option]:
    options = assess(snapshot(directory), wal or WalPlan()).options
    assert [option.strategy for option in options] == list(StrategyName)
    assert all(option.reason.endswith(".") for option in options)
    return {option.strategy: option for option in options}


def possible(directory: DataDirectory, wal: WalPlan | None = None) -> set[StrategyName]:
    return {name for name, option in judged(directory, wal).items() if option.possible}


def test_a_stopped_server_needs_no_wal_archive() -> None:
    assert possible(data_directory(STOPPED)) == {CLEAN, CRASH, RESET}
    assert assess(snapshot(data_directory(STOPPED)), WalPlan()).best is CLEAN


def test_a_running_server_with_its_wal_allows_crash_recovery() -> None:
    found = judged(data_directory(ALIVE))
    assert possible(data_directory(ALIVE)) == {CRASH, RESET}
    assert "in production" in found[CLEAN].reason
    assert str(ALIVE.redo) in found[CRASH].reason
    assert "no backup_label" in found[ARCHIVE].reason
    assert "no backup_label" in found[REPLAY].reason
    assert assess(snapshot(data_directory(ALIVE)), WalPlan()).best is CRASH


@pytest.mark.parametrize("state", [state for state in DatabaseState if state is not DatabaseState.SHUT_DOWN])
def test_only_a_shut_down_server_is_clean(state: DatabaseState) -> None:
    found = judged(data_directory(control(state=list(DatabaseState).index(state))))
    assert not found[CLEAN].possible
    assert repr(state.value) in found[CLEAN].reason
    assert found[CRASH].possible


@pytest.mark.parametrize("template", [CONTROL, RUNNING])
def test_with_a_backup_label_and_without_wal_only_a_reset_is_left(template: bytes) -> None:
    directory = data_directory(control(template), texts={"backup_label": LABEL})
    wal = WalPlan(missing=GONE)
    found = judged(directory, wal)
    assert possible(directory, wal) == {RESET}
    assert "backup_label" in found[CLEAN].reason
    assert "backup_label" in found[CRASH].reason
    assert "--wal" in found[ARCHIVE].reason
    assert GONE[0] in found[REPLAY].reason


def test_an_archive_that_reaches_the_backups_end_is_best() -> None:
    wal = WalPlan(an_archive(), backup_end=END, is_covered=True)
    found = judged(LABELLED, wal)
    assert possible(LABELLED, wal) == {ARCHIVE, RESET}
    assert "/no/wals" in found[ARCHIVE].reason
    assert str(END) in found[ARCHIVE].reason
    assert assess(snapshot(LABELLED), wal).best is ARCHIVE


def test_an_archive_with_an_unknown_end_says_so() -> None:
    wal = WalPlan(an_archive(), is_covered=True)
    assert "nobody can know" in judged(LABELLED, wal)[ARCHIVE].reason
    assert assess(snapshot(LABELLED), wal).missing_wal_is_open


def test_an_archive_with_a_gap_names_it() -> None:
    wal = WalPlan(an_archive(), backup_end=END, missing=GONE)
    assert possible(LABELLED, wal) == {RESET}
    assert GONE[0] in judged(LABELLED, wal)[ARCHIVE].reason
    assert assess(snapshot(LABELLED), wal).missing_wal == GONE


def test_wal_within_the_snapshot_is_replayed() -> None:
    wal = WalPlan(backup_end=END, is_inside=True)
    assert possible(LABELLED, wal) == {REPLAY, RESET}
    assert "pg_wal" in judged(LABELLED, wal)[REPLAY].reason


def test_a_tar_of_the_backups_wal_is_replayed_and_no_archive(tmp_path: Path) -> None:
    (tmp_path / "pg_wal.tar").touch()
    wal = WalPlan(an_archive(tmp_path / "pg_wal.tar"), backup_end=END, is_covered=True)
    found = judged(LABELLED, wal)
    assert possible(LABELLED, wal) == {REPLAY, RESET}
    assert "no archive" in found[ARCHIVE].reason
    assert "pg_wal.tar" in found[REPLAY].reason


def test_where_both_are_there_the_archive_goes_on_further() -> None:
    wal = WalPlan(an_archive(), backup_end=END, is_covered=True, is_inside=True)
    found = assess(snapshot(LABELLED), wal)
    assert (found.best, found.after(ARCHIVE), found.after(REPLAY)) == (ARCHIVE, REPLAY, RESET)


def test_the_mark_of_pgbackrest_leaves_only_a_reset() -> None:
    directory = data_directory(control(checkpoint=0xDEAD))
    assert possible(directory) == {RESET}
    assert all("pgBackRest" in judged(directory)[name].reason for name in (CLEAN, CRASH))


def test_a_label_that_the_archive_still_knows_is_as_good_as_one() -> None:
    directory = data_directory(control(checkpoint=0xDEAD))
    wal = WalPlan(an_archive(), backup_end=END, is_covered=True, label=LABEL)
    assert possible(directory, wal) == {ARCHIVE, RESET}
    assert "rebuilt" in judged(directory, wal)[ARCHIVE].reason


@pytest.mark.parametrize("until", [Immediate(), UntilLsn(END), UntilTime(datetime(2026, 11, 22, tzinfo=UTC))], ids=str)
@pytest.mark.parametrize("directory", [data_directory(STOPPED), data_directory(ALIVE), LABELLED], ids=range(3))
def test_only_a_backup_with_wal_ends_at_a_chosen_point(directory: DataDirectory, until: Until) -> None:
    found = judged(directory, WalPlan(until=until, missing=GONE))
    assert not any(option.possible for option in found.values())
    assert all(f"--until {until}" in found[name].reason for name in (CLEAN, CRASH, RESET))
    with pytest.raises(UsageError, match="--until") as caught:
        _ = assess(snapshot(directory), WalPlan(until=until, missing=GONE)).best
    assert GONE[0] in caught.value.hint


def test_until_does_not_fall_to_what_cannot_end_there() -> None:
    wal = WalPlan(an_archive(), Immediate(), backup_end=END, is_covered=True, is_inside=True)
    found = assess(snapshot(LABELLED), wal)
    assert (found.best, found.after(ARCHIVE), found.after(REPLAY)) == (ARCHIVE, REPLAY, None)


def test_latest_is_no_chosen_point() -> None:
    assert possible(data_directory(STOPPED), WalPlan(until=Latest())) == {CLEAN, CRASH, RESET}


def _wal(kind: str) -> tuple[WalFile, ...]:
    match kind:
        case "none":
            return ()
        case "short":
            return (wal_file(STOPPED, size_bytes=8192),)
        case "no header":
            file = wal_file(STOPPED)
            return (WalFile(file.name, file.size_bytes, None),)
        case "another system":
            return (wal_file(STOPPED, system_identifier=1),)
        case "recycled":
            return (wal_file(STOPPED, page_address=Lsn(0)),)
        case _:
            return (wal_file(STOPPED, timeline=Timeline(9)),)


@pytest.mark.parametrize("kind", ["none", "short", "no header", "another system", "recycled"])
def test_wal_that_is_missing_or_wrong_is_named(kind: str) -> None:
    directory = data_directory(STOPPED, wal=_wal(kind))
    found = judged(directory)
    assert possible(directory) == {RESET}
    name = wal_file(STOPPED).name
    assert name in found[CLEAN].reason
    assert name in found[CRASH].reason


def test_what_pg_wal_lacks_may_lie_beside_it() -> None:
    directory = data_directory(ALIVE, wal=())
    wal = WalPlan(an_archive(Path("/no/wals"), wal_file(ALIVE).name))
    assert possible(directory, wal) == {CRASH, RESET}
    assert "/no/wals" in judged(directory, wal)[CRASH].reason


def test_all_wal_from_redo_to_the_checkpoint_is_needed() -> None:
    size = STOPPED.wal_segment_size
    later = control(RUNNING, checkpoint=ALIVE.redo.position + 2 * size)
    only_first = data_directory(later, wal=(wal_file(later),))
    reason = judged(only_first)[CRASH].reason
    assert possible(only_first) == {RESET}
    assert reason.count("is missing") == 2


def test_many_missing_files_are_not_all_named() -> None:
    far = control(RUNNING, checkpoint=ALIVE.redo.position + 100 * STOPPED.wal_segment_size)
    reason = judged(data_directory(far, wal=()))[CRASH].reason
    assert reason.count("is missing") == 20
    assert "101 in all" in reason


def test_without_a_label_the_list_of_missing_wal_is_not_open() -> None:
    assert not assess(snapshot(data_directory(STOPPED, wal=())), WalPlan()).missing_wal_is_open


@pytest.mark.parametrize(
    ("allowed", "best", "following"),
    [
        ("clean archive replay crash reset", CLEAN, [ARCHIVE, REPLAY, CRASH, RESET, None]),
        ("archive reset", ARCHIVE, [ARCHIVE, RESET, RESET, RESET, None]),
        ("replay crash", REPLAY, [REPLAY, REPLAY, CRASH, None, None]),
        ("reset", RESET, [RESET, RESET, RESET, RESET, None]),
    ],
)
def test_a_strategy_that_failed_falls_to_the_next_possible_one(
    allowed: str, best: StrategyName, following: list[StrategyName | None]
) -> None:
    options = tuple(Option(name, "", name.value in allowed.split()) for name in StrategyName)
    found = Assessment(options, (), missing_wal_is_open=False)
    assert found.best is best
    assert [found.after(name) for name in StrategyName] == following
