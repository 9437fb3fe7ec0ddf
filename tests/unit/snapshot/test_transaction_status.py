from __future__ import annotations

import shutil
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pgrescue.errors import SnapshotError
from pgrescue.snapshot import transaction_status
from pgrescue.snapshot.control import parse_control
from pgrescue.snapshot.transaction_status import MultiXacts, TransactionStatus, XidStatus
from tests.unit.snapshot.conftest import encode
from tests.unit.snapshot.relations import MAJORS, healthy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MODES = {"keysh": 0, "sh": 1, "fornokeyupd": 2, "forupd": 3, "nokeyupd": 4, "upd": 5}


def xids(*numbers: int) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return np.array(numbers, dtype=np.uint32)


@pytest.mark.parametrize("major", MAJORS)
def test_every_transaction_is_as_the_server_says(major: int) -> None:
    sample = healthy(major)
    status, _ = sample.readers()
    found = status.of(xids(*sample.xids)).tolist()
    assert [XidStatus(number).name.lower() for number in found] == list(sample.xids.values())
    assert {"committed", "aborted"} <= set(sample.xids.values())


@pytest.mark.parametrize("major", MAJORS)
def test_every_multixact_is_as_the_server_says(major: int) -> None:
    sample = healthy(major)
    _, multixacts = sample.readers()
    assert len(sample.multixacts) > 300
    for number, members in sample.multixacts.items():
        assert multixacts.members(number) == tuple((xid, MODES[mode]) for xid, mode in members)
    expected = [next((x for x, mode in members if MODES[mode] > 3), 0) for members in sample.multixacts.values()]
    assert multixacts.updaters(xids(*sample.multixacts)).tolist() == expected
    assert 0 in expected
    assert any(expected)


def segment(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_special_and_missing_transactions(tmp_path: Path) -> None:
    segment(tmp_path, "pg_xact/0001", bytes([0b11100100]) * 8)
    status = TransactionStatus(tmp_path)
    first = 0x100000
    assert status.of(xids(first, first + 1, first + 2, first + 3)).tolist() == [0, 1, 2, 0]
    assert status.of(xids(0, 1, 2)).tolist() == [XidStatus.ABORTED, XidStatus.COMMITTED, XidStatus.COMMITTED]
    assert status.of(xids(3, first + 31, first + 32, 0xFFFFFFFF, first + 1)).tolist() == [0, 0, 0, 0, 1]
    assert status.of(xids()).tolist() == []


def test_more_files_than_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction_status, "_CACHED_FILES", 2)
    for number in range(5):
        segment(tmp_path, f"pg_xact/{number:04X}", bytes([0b0101 if number % 2 else 0b1010]) * 4)
    status = TransactionStatus(tmp_path)
    asked = xids(*(number * 0x100000 + 4 for number in [4, 0, 3, 1, 2, 0]))
    assert status.of(asked).tolist() == [2, 2, 1, 1, 2, 2]
    assert status.of(asked[::-1]).tolist() == [2, 2, 1, 1, 2, 2]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "pg_xact/0000").mkdir(parents=True)
    with pytest.raises(SnapshotError, match="pg_xact/0000 cannot be read"):
        TransactionStatus(tmp_path).of(xids(500))


@pytest.fixture
def made(tmp_path: Path, sample: Callable[[str], bytes]) -> Callable[..., MultiXacts]:
    """Write multixacts by hand: where each begins, and their members, all in the first files."""

    def make(offsets: list[int], members: list[tuple[int, int]], *, next_multi: int, next_offset: int) -> MultiXacts:
        segment(tmp_path, "pg_multixact/offsets/0000", struct.pack(f"<{len(offsets)}I", *offsets))
        groups = [members[start : start + 4] for start in range(0, len(members), 4)]
        data = b"".join(
            bytes(status for _, status in group).ljust(4, b"\0")
            + struct.pack("<4I", *(x for x, _ in group), *[0] * (4 - len(group)))
            for group in groups
        )
        segment(tmp_path, "pg_multixact/members/0000", data)
        control = encode(sample("pg_control_17.bin"), next_multi=next_multi, next_multi_offset=next_offset)
        return MultiXacts(tmp_path, parse_control(control))

    return make


MEMBERS = [(0, 0), (700, 0), (701, 4), (702, 0), (703, 5), (704, 1), (705, 1)]


def test_the_last_multixact_ends_where_pg_control_says(made: Callable[..., MultiXacts]) -> None:
    multixacts = made([0, 1, 3], MEMBERS, next_multi=3, next_offset=5)
    assert multixacts.members(1) == ((700, 0), (701, 4))
    assert multixacts.members(2) == ((702, 0), (703, 5))
    assert multixacts.updaters(xids(2, 1, 2)).tolist() == [703, 701, 703]


def test_after_a_reset_the_last_ones_end_is_not_known_and_its_updater_is(made: Callable[..., MultiXacts]) -> None:
    multixacts = made([0, 1, 3, 0], MEMBERS, next_multi=0x10000, next_offset=0xCC80)
    assert multixacts.members(2) == ()
    assert multixacts.updaters(xids(1, 2)).tolist() == [701, 703]


def test_what_the_files_lack_has_no_updater(made: Callable[..., MultiXacts], tmp_path: Path) -> None:
    multixacts = made([0, 1, 3, 5, 0x10000], MEMBERS, next_multi=5, next_offset=0x10002)
    assert multixacts.updaters(xids(3, 4, 9, 0x50000)).tolist() == [0, 0, 0, 0]
    assert multixacts.members(9) == ()
    shutil.rmtree(tmp_path / "pg_multixact")
    (tmp_path / "pg_multixact").mkdir()
    control = multixacts
    assert control.updaters(xids(0xFFFFFFFF)).tolist() == [0]
