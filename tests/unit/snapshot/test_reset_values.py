from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrescue.errors import SnapshotError
from pgrescue.model import Lsn
from pgrescue.snapshot.control import parse_control
from pgrescue.snapshot.reset_values import ResetPlan, compute_reset_values
from pgrescue.snapshot.wal import SegmentName

from .conftest import DATA, encode

if TYPE_CHECKING:
    from pgrescue.snapshot.control import ControlFile

TEMPLATE = (DATA / "pg_control_18_running.bin").read_bytes()
MIB = 1 << 20


def _control(**changes: int) -> ControlFile:
    defaults = {"next_xid": 0x2EE, "next_multi": 3, "next_multi_offset": 6, "redo": 0x312B5B8, "checkpoint": 0x312B600}
    return parse_control(encode(TEMPLATE, **(defaults | changes)))


def _plan(control: ControlFile, **known: Any) -> ResetPlan:
    nothing: dict[str, Any] = {"max_page_lsn": None, "end_wal": None, "wal_names": []}
    files = {"xact": ["0000"], "offsets": ["0000"], "members": ["0000"]}
    return compute_reset_values(control, **(nothing | files | known))


def _values(plan: ResetPlan) -> dict[str, str]:
    return {value.option: value.value for value in plan.values}


def test_a_small_cluster() -> None:
    # These arguments were given to pg_resetwal 18.6, and the server started and made multixacts.
    plan = _plan(_control())
    assert plan.arguments() == (
        "-x", "0x100000", "-m", "0x10000,0x1", "-O", "0xcc80", "-l", "000000010000000000000014",
    )  # fmt: skip
    assert plan.warnings == ()
    assert plan.values[0].derivation == (
        "Next transaction id: pg_control says 0x2ee, in file 0000 of pg_xact; "
        "the first free file from there is 0001: 0x1 * 0x100000 = 0x100000."
    )
    assert "pg_control's redo point 0/312B5B8" in plan.values[-1].derivation
    assert all(value.derivation.endswith(".") for value in plan.values)


def test_files_that_the_snapshot_has_beyond_pg_control() -> None:
    plan = _plan(
        _control(next_multi=0x20001, next_multi_offset=0xCC80 * 5),
        xact=["0000", "0001", "0002"],
        offsets=["0002", "0003"],
        members=["0004", "0005", "0006"],
    )
    assert plan.arguments()[:6] == ("-x", "0x300000", "-m", "0x40000,0x1", "-O", hex(7 * 0xCC80))


def test_the_numbers_wrap_round() -> None:
    # Verified on 17.10 and 18.6: the largest file alone would give 0x100000000, which no server takes.
    control = _control(
        next_xid=0xFFFFFFE4, next_multi=0xFFFFFFF2, next_multi_offset=0xFFFFFF05, oldest_multi=0xFD000000
    )
    plan = _plan(control, xact=["0FFF", "0000"], offsets=["FFFF", "0000"], members=["14078", "0000"])
    assert _values(plan) | {"-l": ""} == {
        "-x": "0x100000", "-e": "1", "-m": "0x10000,0xfd000000", "-O": "0xcc80", "-l": "",
    }  # fmt: skip
    assert "past the wrap" in plan.values[0].derivation


def test_the_number_0_is_not_handed_out() -> None:
    # Verified on 17.10 and 18.6: the server makes the second page when it gets there and needs no first.
    control = _control(next_xid=7 << 32 | 0xFFFFFFE4, next_multi=0xFFFFFFF2, next_multi_offset=0xFFFFFF05)
    plan = _plan(control, xact=["0FFF"], offsets=["FFFF"], members=["14078"])
    values = _values(plan)
    assert (values["-x"], values["-e"], values["-m"], values["-O"]) == ("0x8000", "8", "0x800,0x1", "0x0")


def test_after_the_wrap_no_epoch_is_needed() -> None:
    plan = _plan(_control(next_xid=1 << 32 | 0x1234), xact=["0FFE", "0FFF", "0000", "0001"])
    assert _values(plan)["-x"] == "0x200000"
    assert "-e" not in _values(plan)


def test_the_own_file_is_missing() -> None:
    plan = _plan(_control(next_xid=0x100005), xact=["0000"])
    assert _values(plan)["-x"] == "0x200000"
    assert len(plan.warnings) == 1
    assert "pg_xact/0001" in plan.warnings[0]
    assert "missing" in plan.values[0].derivation


def test_the_own_file_is_missing_at_the_very_end() -> None:
    plan = _plan(_control(next_xid=0xFFFFFFE4), xact=["0FFE"])
    assert (_values(plan)["-x"], _values(plan)["-e"]) == ("0x8000", "1")
    assert len(plan.warnings) == 1


def test_a_file_that_was_not_begun_is_not_missing() -> None:
    plan = _plan(_control(next_xid=0x100000), xact=["0000"])
    assert _values(plan)["-x"] == "0x100000"
    assert plan.warnings == ()


def test_a_gap_is_told() -> None:
    plan = _plan(_control(), xact=["0000", "0002", "0003", "0900"])
    assert _values(plan)["-x"] == "0x100000"
    (warning,) = plan.warnings
    assert warning.startswith("pg_xact has a gap: 0001 is missing, but 0002, 0003 exists. ")


def test_members_may_fill_more_than_half_of_the_circle() -> None:
    old = [f"{number:04X}" for number in range(0x8000, 0x14079)]
    assert _plan(_control(), members=["0000", *old]).warnings == ()


@pytest.mark.parametrize(
    ("known", "segment", "words"),
    [
        ({"max_page_lsn": Lsn.parse("5/0")}, "000000010000000500000011", "largest LSN of a page 5/0"),
        ({"end_wal": Lsn.parse("0/9FFFFFF")}, "00000001000000000000001A", "the backup's end 0/9FFFFFF"),
        ({"wal_names": ["00000001000000000000000A"]}, "00000001000000000000001B", "file 00000001000000000000000A"),
        ({"wal_names": ["00000009000000000000000B.partial"]}, "00000001000000000000001C", "00000009"),
        ({"wal_names": ["000000010000000000000FFF", "00000002.history"]}, "000000010000000000000014", "redo"),
        ({"margin_segments": 0}, "000000010000000000000004", "0 more"),
    ],
)
def test_the_wal_goes_on_past_everything(known: dict[str, Any], segment: str, words: str) -> None:
    last = _plan(_control(), **known).values[-1]
    assert last.option == "-l"
    assert last.value == segment
    assert words in last.derivation


def test_the_wal_stays_on_pg_controls_timeline() -> None:
    assert _values(_plan(_control(timeline=7)))["-l"].startswith("00000007")


def test_the_mark_of_pgbackrest_is_no_high_position() -> None:
    assert _values(_plan(_control(checkpoint=0xDEAD)))["-l"] == "000000010000000000000014"


@pytest.mark.parametrize("changes", [{"redo": (1 << 64) - 1}, {"next_xid": 0xFFFFFFFE_FFFFFFF0}])
def test_there_is_an_end_to_everything(changes: dict[str, int]) -> None:
    with pytest.raises(SnapshotError):
        _plan(_control(**changes), xact=["0FFF"])


FILES = st.sets(st.integers(0, 0xFFE)).map(lambda numbers: [f"{number:04X}" for number in numbers])
CONTROLS = st.fixed_dictionaries(
    {
        "next_xid": st.integers(3, (1 << 63) - 1),
        "next_multi": st.integers(1, (1 << 32) - 1),
        "next_multi_offset": st.integers(0, (1 << 32) - 1),
        "redo": st.integers(0, 1 << 62),
    }
)


@given(CONTROLS, st.fixed_dictionaries({"xact": FILES, "offsets": FILES, "members": FILES}), st.integers(0, 1 << 62))
def test_values_are_legal_and_never_below_pg_controls(
    changes: dict[str, int], files: dict[str, list[str]], page_position: int
) -> None:
    control = _control(**changes)
    values = _values(_plan(control, max_page_lsn=Lsn(page_position), **files))
    xid = int(values["-x"], 16)
    epoch = int(values.get("-e", control.next_xid >> 32))
    assert 3 <= xid < 1 << 32
    assert xid % 0x8000 == 0
    assert epoch << 32 | xid >= control.next_xid
    assert f"{xid // 0x100000:04X}" not in files["xact"]
    multi, oldest = (int(text, 16) for text in values["-m"].split(","))
    assert 1 <= multi < 1 << 32
    assert oldest >= 1
    assert multi % 0x800 == 0
    assert int(values["-O"], 16) % 1636 == 0
    start = SegmentName.parse(values["-l"]).start_lsn(16 * MIB)
    assert start > max(control.redo, control.checkpoint, Lsn(page_position))
