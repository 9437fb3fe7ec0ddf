"""What a recovering server says; the lines are PostgreSQL 15's and 17's."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from pgrescue.model import Lsn, RecoveredTo
from pgrescue.steps.replay_log import (
    RECOVERY_LOG,
    Replay,
    current_lsn,
    is_damage,
    logged_replay,
    parse_replay,
    progress_settings,
)
from tests.unit.builders import data_directory, make_run, snapshot

if TYPE_CHECKING:
    from pathlib import Path

WHOLE = """\
2026-11-22 11:39:56.010 UTC [151] LOG:  database system was interrupted; last known up at 2026-11-22 11:37:52 UTC
2026-11-22 11:39:56.439 UTC [151] LOG:  starting backup recovery with redo LSN 0/2503EF8, checkpoint LSN 0/2515A90
2026-11-22 11:39:56.489 UTC [151] LOG:  starting archive recovery
2026-11-22 11:39:56.498 UTC [151] LOG:  redo starts at 0/2503EF8
2026-11-22 11:39:56.510 UTC [151] LOG:  redo in progress, elapsed time: 0.50 s, current LSN: 0/25A0000
2026-11-22 11:39:56.521 UTC [151] LOG:  consistent recovery state reached at 0/25BBE08
2026-11-22 11:39:56.542 UTC [151] LOG:  redo done at 0/25BBE08 system usage: CPU: user: 0.00 s, elapsed: 0.04 s
2026-11-22 11:39:56.542 UTC [151] LOG:  last completed transaction was at log time 2026-11-22 11:37:52.681179+00
2026-11-22 11:39:56.605 UTC [151] LOG:  selected new timeline ID: 2
2026-11-22 11:39:56.631 UTC [151] LOG:  archive recovery complete
""".splitlines()
START = WHOLE[:4]
LAST = datetime(2026, 11, 22, 11, 37, 52, 681179, tzinfo=UTC)


def test_a_recovery_to_the_end() -> None:
    assert parse_replay(WHOLE) == Replay(
        redo_start=Lsn.parse("0/2503EF8"),
        consistent_at=Lsn.parse("0/25BBE08"),
        redo_done=Lsn.parse("0/25BBE08"),
        last_commit=LAST,
        is_complete=True,
    )
    assert parse_replay(WHOLE).recovered_to == RecoveredTo(Lsn.parse("0/25BBE08"), LAST)


def test_nothing_was_said() -> None:
    assert parse_replay([]) == Replay()
    assert parse_replay([]).recovered_to == RecoveredTo()


def test_the_position_while_it_runs() -> None:
    told = [lsn for line in WHOLE if (lsn := current_lsn(line)) is not None]
    assert [str(lsn) for lsn in told] == ["0/2503EF8", "0/25A0000", "0/25BBE08", "0/25BBE08"]


@pytest.mark.parametrize(
    "sentence",
    [
        "recovery stopping before commit of transaction 801, time 2026-11-22 11:37:57.978888+00",
        'recovery stopping after WAL location (LSN) "0/3400138"',
        "recovery stopping after reaching consistency",
    ],
)
def test_a_target_that_was_reached(sentence: str) -> None:
    assert parse_replay([*START, f"2026-11-22 11:39:57 UTC [151] LOG:  {sentence}"]).stopped == sentence


def test_a_target_that_was_not_reached() -> None:
    missed = "2026-11-22 11:39:57 UTC [151] FATAL:  recovery ended before configured recovery target was reached"
    assert parse_replay([*START, missed]).is_missed
    early = "2026-11-22 11:39:57 UTC [151] FATAL:  requested recovery stop point is before consistent recovery point"
    assert parse_replay([*START, early]).is_too_early


@pytest.mark.parametrize(
    "state", ["interrupted", "interrupted while in recovery at log time 2026", "shut down at 2026"]
)
def test_how_an_earlier_attempt_ended_does_not_matter(state: str) -> None:
    ends = [
        "LOG:  recovery stopping after reaching consistency",
        "FATAL:  recovery ended before configured recovery target was reached",
        "FATAL:  requested recovery stop point is before consistent recovery point",
        "LOG:  invalid resource manager ID 85 at 0/2F6AB30",
    ]
    found = parse_replay([*WHOLE[:6], *ends, f"2026 UTC [9] LOG:  database system was {state}"])
    assert (found.stopped, found.is_missed, found.is_too_early, found.complaint) == (None, False, False, None)
    assert found.consistent_at == Lsn.parse("0/25BBE08")


@pytest.mark.parametrize(
    ("sentence", "damaged"),
    [
        ("invalid record length at 0/2F00138: expected at least 24, got 0", False),
        ("invalid record length at 0/2F00138: wanted 24, got 0", False),
        ("invalid record length at 0/2F00138: expected at least 24, got 17", True),
        ("unexpected pageaddr 0/1400000 in WAL segment 000000010000000000000030, LSN 0/3000000, offset 0", False),
        ("invalid magic number 0000 in WAL segment 000000010000000000000030, LSN 0/3002000, offset 8192", False),
        ("invalid magic number D0D0 in WAL segment 000000010000000000000030, LSN 0/3002000, offset 8192", True),
        ("incorrect resource manager data checksum in record at 0/2F00138", True),
        ("record with incorrect prev-link 5/5 at 0/2F00138", True),
        ("invalid resource manager ID 85 at 0/2F6AB30", True),
        ("invalid contrecord length 5 (expected 6) at 0/2F6AB30", True),
        ("there is no contrecord flag at 0/2F6AB30", True),
    ],
)
def test_what_it_says_of_bytes_that_are_no_wal(sentence: str, damaged: bool) -> None:  # noqa: FBT001 - a parameter
    found = parse_replay([*START, f"2026-11-22 11:39:57 UTC [151] LOG:  {sentence}"])
    assert found.complaint == sentence
    assert is_damage(found.complaint) is damaged


def test_where_it_says_nothing_there_is_no_damage() -> None:
    assert not is_damage(None)
    assert parse_replay(WHOLE).complaint is None


def test_progress_is_asked_for_where_the_server_can_tell(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert progress_settings(run) == {"log_startup_progress_interval": "500ms"}
    old = dataclasses.replace(run, snapshot=snapshot(dataclasses.replace(data_directory(), major=14)))
    assert progress_settings(old) == {}


def test_the_log_of_a_workspace(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert logged_replay(run.workspace) == Replay()
    run.workspace.logs.mkdir(exist_ok=True)
    (run.workspace.logs / RECOVERY_LOG).write_bytes("\n".join(WHOLE).encode() + b"\n\xff\n")
    assert logged_replay(run.workspace) == parse_replay(WHOLE)
