"""Which WAL there is for a snapshot, and whether it is enough."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest

from pgrescue.errors import SnapshotError
from pgrescue.model import Immediate, Lsn, StrategyName, Timeline
from pgrescue.snapshot.backup_info import parse_backup_info
from pgrescue.snapshot.contents import Snapshot, WalFile
from pgrescue.snapshot.directory import DirectorySource
from pgrescue.snapshot.wal import SegmentName, parse_long_page_header
from pgrescue.strategy.choose import assess
from pgrescue.strategy.wal_plan import WalRequest, plan_wal
from tests.unit.builders import RUNNING, control, data_directory
from tests.unit.snapshot.archives import of_files
from tests.unit.snapshot.conftest import DATA
from tests.unit.snapshot.segments import MIB, SYSTEM, segment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pgrescue.run import WalPlan
    from pgrescue.snapshot.contents import DataDirectory

LABEL = """\
START WAL LOCATION: 0/900028 (file 000000010000000000000009)
CHECKPOINT LOCATION: 0/900080
BACKUP METHOD: streamed
BACKUP FROM: {source}
START TIME: 2026-11-22 08:18:51 UTC
LABEL: nightly
START TIMELINE: 1
"""
FROM_PRIMARY = LABEL.format(source="primary")
STOP = "STOP WAL LOCATION: 0/B00120 (file 00000001000000000000000B)\n"
HISTORY = FROM_PRIMARY.replace("CHECKPOINT", STOP + "CHECKPOINT", 1) + "STOP TIME: 2026-11-22 08:19:51 UTC\n"
HISTORY_NAME = "000000010000000000000009.00000028.backup"
END = Lsn.parse("0/B00120")
INFO = (DATA / "backup_17.info").read_text()


def name(number: int, timeline: int = 1) -> str:
    return f"{timeline:08X}{0:08X}{number:08X}"


def archived(directory: Path, *numbers: int, timeline: int = 1, texts: Mapping[str, str] | None = None) -> Path:
    """Write segments, and other files."""
    directory.mkdir(exist_ok=True)
    for number in numbers:
        (directory / name(number, timeline)).write_bytes(segment(name(number, timeline)))
    for file, text in (texts or {}).items():
        (directory / file).write_text(text)
    return directory


def held(number: int, timeline: int = 1) -> WalFile:
    data = segment(name(number, timeline))
    return WalFile(name(number, timeline), len(data), parse_long_page_header(data[:40]))


def directory(*inside: int, label: str | None = FROM_PRIMARY, **changes: int) -> DataDirectory:
    """Return a copy of a running server of 1 MiB segments, whose backup began in segment 9."""
    found = control(RUNNING, **{"system_identifier": SYSTEM, "redo": 0x900028, "checkpoint": 0x900080, **changes})
    texts = {"PG_VERSION": "17\n"} | ({} if label is None else {"backup_label": label})
    return data_directory(found, texts=texts, wal=tuple(map(held, inside)))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return the folder with the snapshot."""
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "data.tar").touch()
    return tmp_path / "backup"


def plan(place: Path, chosen: DataDirectory, wal: Path | None = None, **fields: Any) -> WalPlan:
    read = Snapshot(DirectorySource(place / "data.tar"), "fingerprint", chosen, (), fields.pop("info", None))
    found = plan_wal(read, WalRequest(wal, **fields))
    assess(read, found)
    return found


def info(end_wal: str, end_lsn: str) -> Any:
    text = INFO.replace("xlog_segment_size=16777216", f"xlog_segment_size={MIB}")
    text = text.replace("end_wal=000000010000000000000002", f"end_wal={end_wal}")
    return parse_backup_info(text.replace("end_xlog=0/2050510", f"end_xlog={end_lsn}"))


def test_without_wal_all_that_is_known_to_be_needed_is_missing(place: Path) -> None:
    found = plan(place, directory(), info=info(name(11), str(END)))
    assert found.archive is None
    assert found.missing == tuple(f"{name(number)} is missing" for number in (9, 10, 11))
    assert (found.backup_end, found.is_covered, found.is_inside) == (END, False, False)


def test_without_the_end_only_the_first_file_is_known_to_be_needed(place: Path) -> None:
    found = plan(place, directory())
    assert (found.missing, found.backup_end) == ((f"{name(9)} is missing",), None)


@pytest.mark.parametrize("folder", ["wals", "wal", "archive"])
def test_an_archive_beside_the_snapshot_is_found(place: Path, folder: str) -> None:
    archived(place / folder, 9, 10, 11, 12, texts={HISTORY_NAME: HISTORY})
    found = plan(place, directory())
    assert found.archive is not None
    assert found.archive.root == place / folder
    assert (found.is_covered, found.missing, found.backup_end) == (True, (), END)
    assert found.reaches == Lsn.parse("0/D00000")
    assert found.timeline == 1


def test_the_archive_that_was_named_counts(place: Path, tmp_path: Path) -> None:
    archived(place / "wal", 9, 10, 11)
    named = archived(tmp_path / "elsewhere", 9, 10, texts={HISTORY_NAME: HISTORY})
    found = plan(place, directory(), named)
    assert found.archive is not None
    assert found.archive.root == named
    assert found.missing == (f"{name(11)} is missing",)
    assert found.reaches == Lsn.parse("0/B00000")


def test_a_named_path_without_wal_is_an_error(place: Path, tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="holds no WAL"):
        plan(place, directory(), archived(tmp_path / "empty"))


def test_a_tar_of_the_backups_own_wal(place: Path) -> None:
    members = {name(number): segment(name(number)) for number in (9, 10, 11)}
    (place / "pg_wal.tar").write_bytes(of_files(members))
    found = plan(place, directory(), info=info(name(11), str(END)))
    assert found.archive is not None
    assert found.archive.root == place / "pg_wal.tar"
    assert found.is_covered


def test_of_an_archive_and_a_tar_the_one_with_all_that_is_needed_is_taken(place: Path) -> None:
    archived(place / "wal", 10, 11, 12)
    members = {name(number): segment(name(number)) for number in (9, 10, 11)}
    (place / "pg_wal.tar").write_bytes(of_files(members))
    found = plan(place, directory(), info=info(name(11), str(END)))
    assert found.archive is not None
    assert found.archive.root == place / "pg_wal.tar"


def test_wal_inside_the_snapshot(place: Path) -> None:
    found = plan(place, directory(9, 10, 11), info=info(name(11), str(END)))
    assert (found.is_inside, found.missing, found.reaches) == (True, (), Lsn.parse("0/C00000"))
    short = plan(place, directory(9, 11), info=info(name(11), str(END)))
    assert (short.is_inside, short.missing) == (False, (f"{name(10)} is missing",))


def test_an_archive_and_pg_wal_complete_each_other(place: Path) -> None:
    archived(place / "wal", 9, texts={HISTORY_NAME: HISTORY})
    found = plan(place, directory(10, 11))
    assert (found.is_covered, found.is_inside, found.missing) == (True, False, ())


def test_the_last_byte_counts_not_the_one_behind_it(place: Path) -> None:
    found = plan(place, directory(9, 10), info=info(name(10), "0/B00000"))
    assert found.is_inside


def test_a_strangers_archive_is_named_as_such_and_not_used(place: Path) -> None:
    archived(place / "wal", 9, 10, 11)
    chosen = directory(system_identifier=SYSTEM + 1)
    found = plan(place, chosen, info=info(name(11), str(END)))
    assert not found.is_covered
    assert [text.split()[0] for text in found.missing] == [name(9), name(10), name(11)]
    assert all("another cluster" in text for text in found.missing)


def test_a_strangers_archive_does_not_spoil_wal_that_is_inside(place: Path) -> None:
    archived(place / "wal", 12, texts={"00000002.history": "1\t0/C00028\tno recovery target specified\n"})
    ours = directory(9, 10, 11)
    strange = dataclasses.replace(
        ours,
        control=dataclasses.replace(ours.control, system_identifier=SYSTEM + 1),
        wal=tuple(
            dataclasses.replace(file, header=dataclasses.replace(file.header, system_identifier=SYSTEM + 1))
            for file in ours.wal
            if file.header is not None
        ),
    )
    found = plan(place, strange, info=info(name(11), str(END)))
    assert (found.is_inside, found.archive, found.timeline) == (True, None, 1)


def test_wal_that_merely_lies_near_is_not_the_copys_where_no_label_says_so(place: Path) -> None:
    archived(place / "wal", 9, 10)
    assert plan(place, directory(label=None)).archive is None
    named = plan(place, directory(label=None), place / "wal")
    assert named.archive is not None
    assert (named.first_segment, named.reaches) == (name(9), Lsn.parse("0/B00000"))


def test_what_cannot_be_understood_beside_the_snapshot_is_none(place: Path) -> None:
    archived(place / "wal", 9, texts={"00000002.history": "nonsense\n"})
    assert plan(place, directory()).archive is None
    with pytest.raises(SnapshotError, match=r"00000002\.history"):
        plan(place, directory(), place / "wal")


def test_every_segment_is_heard_of_before_it_is_read(place: Path) -> None:
    archived(place / "wal", 9, 10, 11, 12, texts={HISTORY_NAME: HISTORY})
    heard: list[SegmentName] = []
    read = Snapshot(DirectorySource(place / "data.tar"), "fingerprint", directory(), (), None)
    plan_wal(read, WalRequest(), on_segment=heard.append)
    assert [str(segment) for segment in heard] == [name(9), name(10), name(11)]


def test_where_the_end_comes_from(place: Path) -> None:
    """barman knows it, then the standby's pg_control, then the archive, then pg_basebackup's manifest."""
    standby = directory(label=LABEL.format(source="standby"), min_recovery_point=0xA00500)
    assert plan(place, standby).backup_end == Lsn.parse("0/A00500")
    ranges = [{"Timeline": 1, "Start-LSN": "0/900028", "End-LSN": "0/900500"}]
    manifest = place / "backup_manifest"
    manifest.write_text(json.dumps({"WAL-Ranges": ranges}))
    assert plan(place, directory()).backup_end == Lsn.parse("0/900500")
    archived(place / "wal", 9, 10, 11, texts={HISTORY_NAME: HISTORY})
    assert plan(place, directory()).backup_end == END
    assert plan(place, directory(), info=info(name(10), "0/A00120")).backup_end == Lsn.parse("0/A00120")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"WAL-Ranges": []}',
        '{"WAL-Ranges": [{"Start-LSN": "0/100028", "End-LSN": "0/900500"}]}',
        '{"WAL-Ranges": [{"Start-LSN": 5, "End-LSN": "0/900500"}]}',
    ],
)
def test_another_backups_manifest_says_nothing(place: Path, text: str) -> None:
    (place / "backup_manifest").write_text(text)
    assert plan(place, directory()).backup_end is None


def test_a_newer_timeline_is_followed_and_a_branch_before_the_backup_is_not(place: Path) -> None:
    wal = archived(place / "wal", 9, 10, 11, texts={HISTORY_NAME: HISTORY})
    archived(wal, 13, timeline=2, texts={"00000002.history": "1\t0/D00028\tno recovery target specified\n"})
    (wal / "00000005.history").write_text("1\t0/800028\tno recovery target specified\n")
    assert plan(place, directory()).timeline == 2
    (wal / "00000002.history").unlink()
    assert plan(place, directory()).timeline == 1


def test_a_lost_label_is_rebuilt_from_the_archive(place: Path) -> None:
    archived(place / "wal", 9, 10, 11, texts={HISTORY_NAME: HISTORY})
    found = plan(place, directory(label=None, checkpoint=0xDEAD))
    assert found.label == FROM_PRIMARY
    assert (found.backup_end, found.is_covered) == (END, True)
    assert found.first_segment == name(9)


def test_the_label_of_another_backup_is_not_taken(place: Path) -> None:
    archived(place / "wal", 9, 10, 11, texts={HISTORY_NAME: HISTORY})
    found = plan(place, directory(label=None, checkpoint=0xDEAD, redo=0xC00028))
    assert (found.label, found.is_covered) == (None, False)


def test_a_present_label_is_not_rebuilt(place: Path) -> None:
    archived(place / "wal", 9, 10, 11, texts={HISTORY_NAME: HISTORY})
    found = plan(place, directory(checkpoint=0xDEAD))
    assert (found.label, found.is_covered) == (None, True)


def test_the_target_is_passed_on(place: Path) -> None:
    archived(place / "wal", 9, 10, 11, texts={HISTORY_NAME: HISTORY})
    assert plan(place, directory(), until=Immediate()).until == Immediate()


def test_the_best_strategy_follows(place: Path) -> None:
    archived(place / "wal", 9, 10, 11, texts={HISTORY_NAME: HISTORY})
    read = Snapshot(DirectorySource(place / "data.tar"), "fingerprint", directory(), (), None)
    assert assess(read, plan_wal(read, WalRequest())).best is StrategyName.ARCHIVE
    assert plan_wal(read, WalRequest()).timeline == Timeline(1)
