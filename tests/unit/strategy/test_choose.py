"""Which strategies a snapshot allows, and which WAL files it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pgrescue.model import Lsn, StrategyName, Timeline
from pgrescue.snapshot.backup_info import parse_backup_info
from pgrescue.snapshot.contents import WalFile
from pgrescue.snapshot.control import DatabaseState
from pgrescue.strategy.choose import Assessment, Option, assess
from tests.unit.builders import CONTROL, LABEL, RUNNING, control, data_directory, snapshot, wal_file
from tests.unit.snapshot.conftest import DATA

if TYPE_CHECKING:
    from pgrescue.snapshot.backup_info import BackupInfo
    from pgrescue.snapshot.contents import DataDirectory

CLEAN, CRASH, RESET = StrategyName.CLEAN, StrategyName.CRASH, StrategyName.RESET
STOPPED, ALIVE = control(CONTROL), control(RUNNING)


def judged(directory: DataDirectory) -> dict[StrategyName, Option]:
    options = assess(snapshot(directory)).options
    assert [option.strategy for option in options] == [CLEAN, CRASH, RESET]
    assert all(option.reason.endswith(".") for option in options)
    return {option.strategy: option for option in options}


def possible(directory: DataDirectory) -> set[StrategyName]:
    return {name for name, option in judged(directory).items() if option.possible}


def test_a_stopped_server_allows_everything() -> None:
    assert possible(data_directory(STOPPED)) == {CLEAN, CRASH, RESET}
    assert assess(snapshot(data_directory(STOPPED))).best is CLEAN


def test_a_running_server_with_its_wal_allows_crash_recovery() -> None:
    found = judged(data_directory(ALIVE))
    assert possible(data_directory(ALIVE)) == {CRASH, RESET}
    assert "in production" in found[CLEAN].reason
    assert str(ALIVE.redo) in found[CRASH].reason
    assert assess(snapshot(data_directory(ALIVE))).best is CRASH


@pytest.mark.parametrize("state", [state for state in DatabaseState if state is not DatabaseState.SHUT_DOWN])
def test_only_a_shut_down_server_is_clean(state: DatabaseState) -> None:
    found = judged(data_directory(control(state=list(DatabaseState).index(state))))
    assert not found[CLEAN].possible
    assert repr(state.value) in found[CLEAN].reason
    assert found[CRASH].possible


@pytest.mark.parametrize("template", [CONTROL, RUNNING])
def test_with_a_backup_label_only_a_reset_is_left(template: bytes) -> None:
    directory = data_directory(control(template), texts={"backup_label": LABEL})
    found = judged(directory)
    assert possible(directory) == {RESET}
    assert "backup_label" in found[CLEAN].reason
    assert "backup_label" in found[CRASH].reason


def test_the_mark_of_pgbackrest_leaves_only_a_reset() -> None:
    marked = control(checkpoint=0xDEAD)
    directory = data_directory(marked)
    assert possible(directory) == {RESET}
    assert all("pgBackRest" in judged(directory)[name].reason for name in (CLEAN, CRASH))


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


def test_all_wal_from_redo_to_the_checkpoint_is_needed() -> None:
    size = STOPPED.wal_segment_size
    later = control(RUNNING, checkpoint=ALIVE.redo.position + 2 * size)
    only_first = data_directory(later, wal=(wal_file(later),))
    reason = judged(only_first)[CRASH].reason
    assert possible(only_first) == {RESET}
    assert reason.count("is missing") == 2


def test_many_missing_files_are_not_all_named() -> None:
    far = control(RUNNING, checkpoint=ALIVE.redo.position + 100 * STOPPED.wal_segment_size)
    assert judged(data_directory(far, wal=()))[CRASH].reason.count("is missing") == 20


INFO = (DATA / "backup_17.info").read_text()


def info(end: str | None) -> BackupInfo:
    changed = INFO.replace("xlog_segment_size=16777216", "xlog_segment_size=1048576")
    return parse_backup_info(changed.replace("end_wal=000000010000000000000002", f"end_wal={end}"))


def with_label(*held: str, **fields: Any) -> Assessment:
    wal = tuple(WalFile(name, 1 << 20, None) for name in held)
    return assess(snapshot(data_directory(STOPPED, texts={"backup_label": LABEL}, wal=wal), **fields))


def segment(number: int) -> str:
    return f"{1:08X}{0:08X}{number:08X}"


def test_without_a_label_no_wal_is_missing() -> None:
    found = assess(snapshot(data_directory(STOPPED, wal=()), info=info(segment(12))))
    assert (found.missing_wal, found.missing_wal_is_open) == ((), False)


def test_backup_info_tells_every_file_that_is_missing() -> None:
    found = with_label(segment(10), info=info(segment(12)))
    assert (found.missing_wal, found.missing_wal_is_open) == ((segment(9), segment(11), segment(12)), False)
    whole = with_label(*map(segment, range(9, 13)), info=info(segment(12)))
    assert (whole.missing_wal, whole.missing_wal_is_open) == ((), False)


@pytest.mark.parametrize("fields", [{}, {"info": info(None)}])
def test_without_the_backups_end_nobody_knows_the_last_file(fields: dict[str, Any]) -> None:
    found = with_label(**fields)
    assert (found.missing_wal, found.missing_wal_is_open) == ((segment(9),), True)
    held = with_label(segment(9), **fields)
    assert (held.missing_wal, held.missing_wal_is_open) == ((), True)


@pytest.mark.parametrize(
    ("allowed", "best", "following"),
    [
        ((True, True, True), CLEAN, {CLEAN: CRASH, CRASH: RESET, RESET: None}),
        ((False, True, True), CRASH, {CLEAN: CRASH, CRASH: RESET, RESET: None}),
        ((True, False, True), CLEAN, {CLEAN: RESET, CRASH: RESET, RESET: None}),
        ((False, False, True), RESET, {CLEAN: RESET, CRASH: RESET, RESET: None}),
        ((True, True, False), CLEAN, {CLEAN: CRASH, CRASH: None, RESET: None}),
    ],
)
def test_a_strategy_that_failed_falls_to_the_next_possible_one(
    allowed: tuple[bool, ...], best: StrategyName, following: dict[StrategyName, StrategyName | None]
) -> None:
    options = tuple(Option(name, "", possible) for name, possible in zip(StrategyName, allowed, strict=True))
    found = Assessment(options, (), missing_wal_is_open=False)
    assert found.best is best
    assert {name: found.after(name) for name in StrategyName} == following
