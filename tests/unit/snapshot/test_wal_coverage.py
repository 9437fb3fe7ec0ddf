from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import pytest

from pgrescue.errors import SnapshotError
from pgrescue.model import Lsn, Timeline
from pgrescue.snapshot.backup_label import parse_backup_label
from pgrescue.snapshot.wal import SegmentName
from pgrescue.snapshot.wal_archive import WalArchive, read_archive
from pgrescue.snapshot.wal_beside import find_wal_beside, find_wal_tar_beside
from pgrescue.snapshot.wal_coverage import Coverage, backup_end, covers, label_from_history

from .conftest import DATA
from .segments import BLOCK, FACTS, MIB, segment, switched

if TYPE_CHECKING:
    from pathlib import Path

HISTORY = (DATA / "history_17.backup").read_text()
HISTORY_NAME = "00000001000000000000000E.00000028.backup"


def name(number: int, timeline: int = 1) -> str:
    return str(SegmentName(Timeline(timeline), 0, number))


def archive(directory: Path, *files: tuple[str, bytes]) -> WalArchive:
    for file, data in files:
        (directory / file).write_bytes(data)
    return read_archive(directory)


def whole(*numbers: int, timeline: int = 1) -> tuple[tuple[str, bytes], ...]:
    return tuple((name(number, timeline), segment(name(number, timeline))) for number in numbers)


def cover(found: WalArchive, start: str, end: str | None, **changes: Any) -> Coverage:
    options: dict[str, Any] = {"start_timeline": Timeline(1), "target_timeline": Timeline(1), **FACTS, **changes}
    return covers(found, start_lsn=Lsn.parse(start), end_lsn=None if end is None else Lsn.parse(end), **options)


def gaps(coverage: Coverage) -> list[str]:
    return [str(gap) for gap in coverage.gaps]


def test_all_is_there(tmp_path: Path) -> None:
    found = cover(archive(tmp_path, *whole(2, 3, 4, 5)), "0/200028", "0/400128")
    assert found.is_complete
    assert not found.is_open
    assert found.segments == (name(2), name(3), name(4))
    assert found.valid_until == Lsn.parse("0/500000")


def test_only_what_is_needed_is_read(tmp_path: Path) -> None:
    files = (*whole(3), (name(2), b"damaged"), (name(4), b"damaged"))
    heard: list[str] = []
    found = cover(
        archive(tmp_path, *files), "0/300028", "0/400000", on_segment=lambda segment: heard.append(str(segment))
    )
    assert found.is_complete
    assert heard == [name(3)]


def test_a_missing_segment(tmp_path: Path) -> None:
    found = cover(archive(tmp_path, *whole(2, 4)), "0/200028", "0/400128")
    assert gaps(found) == [f"{name(3)} is missing"]
    assert not found.is_complete
    assert found.segments == (name(2), name(4))
    assert found.valid_until == Lsn.parse("0/300000")


def test_a_partial_segment_is_mentioned(tmp_path: Path) -> None:
    files = (*whole(2), (f"{name(3)}.partial", segment(name(3))))
    found = cover(archive(tmp_path, *files), "0/200028", "0/300128")
    assert gaps(found) == [f"{name(3)} is missing; {name(3)}.partial is there, which a server does not ask for"]


def test_each_kind_of_damage(tmp_path: Path) -> None:
    files = (
        (name(2), segment(name(2))[:100]),
        (name(3), segment(name(1))),
        (name(4), b"\x1f\x8bno gzip at all"),
        (name(5), b""),
        (name(6), segment(name(6), pages=4)),
        (name(7), bytes(MIB)),
    )
    found = cover(archive(tmp_path, *files), "0/200028", "0/700128")
    assert [gap.name for gap in found.gaps] == [name(number) for number in range(2, 8)]
    texts = gaps(found)
    assert "has 100 bytes instead of 1048576" in texts[0]
    assert "was recycled" in texts[1]
    assert f"{name(4)} cannot be read: {tmp_path / name(4)} is damaged" in texts[2]
    assert "has 0 bytes" in texts[3]
    assert texts[4] == f"{name(6)} is valid only up to 0/608000"
    assert "has no WAL page header" in texts[5]
    assert found.segments == ()
    assert found.valid_until == Lsn.parse("0/200028")


def test_another_clusters_wal(tmp_path: Path) -> None:
    found = cover(archive(tmp_path, *whole(2)), "0/200028", "0/200128", system_identifier=5)
    assert gaps(found) == [f"{name(2)} belongs to another cluster"]


def test_a_segment_that_a_switch_ended_is_whole(tmp_path: Path) -> None:
    files = ((name(2), switched(name(2), pages=3, at=400)), *whole(3))
    assert cover(archive(tmp_path, *files), "0/200028", "0/300128").is_complete


def test_the_last_segment_need_only_reach_the_end(tmp_path: Path) -> None:
    found = archive(tmp_path, *whole(2), (name(3), segment(name(3), pages=3)))
    assert cover(found, "0/200028", "0/306000").is_complete
    short = cover(found, "0/200028", "0/306001")
    assert gaps(short) == [f"{name(3)} is valid only up to 0/306000"]
    assert short.valid_until == Lsn.parse("0/306000")
    assert short.segments == (name(2),)


def test_compressed_segments(tmp_path: Path) -> None:
    found = archive(tmp_path, *((f"{file}.gz", gzip.compress(data)) for file, data in whole(2, 3)))
    assert cover(found, "0/200028", "0/300128").is_complete


def test_an_unknown_end_is_open(tmp_path: Path) -> None:
    found = cover(archive(tmp_path, *whole(2, 3, 5)), "0/200028", None)
    assert found.is_open
    assert not found.is_complete
    assert found.segments == (name(2), name(3))
    assert found.valid_until == Lsn.parse("0/400000")
    assert gaps(found) == [f"{name(4)} is missing"]


def test_an_open_run_goes_as_far_as_its_last_segment_is_valid(tmp_path: Path) -> None:
    files = (*whole(2), (name(3), segment(name(3))[: 3 * BLOCK] + segment(name(1))[3 * BLOCK :]), *whole(4))
    found = cover(archive(tmp_path, *files), "0/200028", None)
    assert found.segments == (name(2), name(3))
    assert found.valid_until == Lsn.parse("0/306000")
    assert gaps(found) == [f"{name(3)} is valid only up to 0/306000"]


def test_an_open_run_that_does_not_begin(tmp_path: Path) -> None:
    found = cover(archive(tmp_path, *whole(3)), "0/200028", None)
    assert found.segments == ()
    assert found.valid_until == Lsn.parse("0/200028")
    assert gaps(found) == [f"{name(2)} is missing"]


def test_an_open_run_whose_first_segment_ends_before_the_start(tmp_path: Path) -> None:
    found = cover(archive(tmp_path, (name(2), segment(name(2), pages=2))), "0/280000", None)
    assert found.segments == ()
    assert found.valid_until == Lsn.parse("0/280000")


def test_across_a_timeline_switch(tmp_path: Path) -> None:
    on_two = segment(name(3, 2), timeline_of=lambda number: 1 if number < 64 else 2)
    history = ("00000002.history", b"1\t0/380000\tno recovery target specified\n")
    found = archive(tmp_path, *whole(2, 3), (name(3, 2), on_two), *whole(4, timeline=2), history)
    along = cover(found, "0/200028", None, target_timeline=Timeline(2))
    assert along.segments == (name(2), name(3, 2), name(4, 2))
    assert along.timeline == 2
    backup = cover(found, "0/200028", "0/300128", target_timeline=Timeline(2))
    assert backup.segments == (name(2), name(3, 2))
    (tmp_path / name(3, 2)).unlink()
    backup = cover(read_archive(tmp_path), "0/200028", "0/300128", target_timeline=Timeline(2))
    assert backup.segments == (name(2), name(3))


def test_a_target_without_its_history(tmp_path: Path) -> None:
    found = cover(archive(tmp_path, *whole(2)), "0/200028", "0/200128", target_timeline=Timeline(2))
    assert gaps(found) == ["00000002.history is missing"]
    assert not found.is_complete


def test_a_start_timeline_without_its_history_is_its_own_ancestor(tmp_path: Path) -> None:
    found = archive(tmp_path, *whole(2, timeline=3))
    both = Timeline(3)
    assert cover(found, "0/200028", "0/200128", start_timeline=both, target_timeline=both).is_complete


def test_a_target_that_left_before_the_start(tmp_path: Path) -> None:
    found = archive(tmp_path, *whole(2), ("00000002.history", b"1\t0/180000\tx\n"))
    with pytest.raises(SnapshotError, match="timeline 2 does not descend from position 0/200028 of timeline 1"):
        cover(found, "0/200028", "0/200128", target_timeline=Timeline(2))


def test_an_end_before_the_start(tmp_path: Path) -> None:
    found = archive(tmp_path, *whole(2))
    with pytest.raises(SnapshotError, match="ends at 0/200028"):
        cover(found, "0/200028", "0/200028")


def test_the_end_that_the_archive_knows(tmp_path: Path) -> None:
    label = parse_backup_label(HISTORY.replace("STOP WAL LOCATION: ", "X: "))
    found = archive(tmp_path, (HISTORY_NAME, HISTORY.encode()), *whole(1))
    assert backup_end(found, label) == Lsn.parse("0/E00120")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        (HISTORY_NAME, "CHECKPOINT LOCATION: 0/E00080", "CHECKPOINT LOCATION: 0/E00090"),
        ("00000001000000000000000F.00000028.backup", "", ""),
        ("00000001000000000000000E.00000030.backup", "", ""),
    ],
)
def test_another_backups_end_is_none_of_ours(file: str, old: str, new: str, tmp_path: Path) -> None:
    label = parse_backup_label(HISTORY)
    assert backup_end(archive(tmp_path, (file, HISTORY.replace(old, new).encode())), label) is None


def test_no_backup_history_at_all(tmp_path: Path) -> None:
    assert backup_end(archive(tmp_path, *whole(1)), parse_backup_label(HISTORY)) is None


def test_a_backup_history_that_makes_no_sense(tmp_path: Path) -> None:
    found = archive(tmp_path, (HISTORY_NAME, b"nothing"))
    with pytest.raises(SnapshotError, match=f"{HISTORY_NAME} in the WAL archive"):
        backup_end(found, parse_backup_label(HISTORY))


@pytest.mark.parametrize("text", [HISTORY, HISTORY.replace("\n", "\r\n"), HISTORY.rstrip("\n"), HISTORY + "\n\n"])
def test_the_label_from_the_history(text: str) -> None:
    assert label_from_history(text) == (
        "START WAL LOCATION: 0/E00028 (file 00000001000000000000000E)\n"
        "CHECKPOINT LOCATION: 0/E00080\n"
        "BACKUP METHOD: streamed\n"
        "BACKUP FROM: primary\n"
        "START TIME: 2026-11-22 08:22:22 UTC\n"
        "LABEL: hist\n"
        "START TIMELINE: 1\n"
    )


def test_no_label_from_a_label() -> None:
    with pytest.raises(SnapshotError, match="STOP WAL LOCATION"):
        label_from_history((DATA / "backup_label_17.txt").read_text())
    with pytest.raises(SnapshotError, match="START WAL LOCATION"):
        label_from_history("")


@pytest.mark.parametrize(
    ("snapshot", "wal"),
    [
        ("main/base/20260101T000000/data.tar", "main/wals/0000000100000000"),
        ("main/base/20260101T000000", "main/wals/0000000100000000"),
        ("main/base/20260101T000000/data", "main/wals/0000000100000000"),
        ("repo/backup/main/20260101-000000F", "repo/archive/main/17-1/0000000100000000"),
        ("bucket/basebackups_005/base_x/part.tar", "bucket/wal_005"),
        ("backup/base.tar", "backup/wal"),
        ("backup/base.tar", "backup/wal_archive"),
        ("backup/base.tar", "archive"),
        ("backup", "backup/wals"),
        ("backup", "wal_005"),
    ],
)
def test_wal_beside_a_snapshot(snapshot: str, wal: str, tmp_path: Path) -> None:
    path, place = tmp_path / "x" / snapshot, tmp_path / "x" / wal
    (path.parent if path.suffix else path).mkdir(parents=True)
    if path.suffix:
        path.write_bytes(b"")
    assert find_wal_beside(path) is None
    place.mkdir(parents=True, exist_ok=True)
    assert find_wal_beside(path) is None
    (place / "README").write_text("")
    assert find_wal_beside(path) is None
    (place / f"{name(1)}.gz").write_text("")
    found = find_wal_beside(path)
    assert found is not None
    assert place.is_relative_to(found)
    assert (tmp_path / "x").is_relative_to(found) is False


def test_a_wal_tar_beside_a_snapshot(tmp_path: Path) -> None:
    base = tmp_path / "base.tar"
    base.write_bytes(b"")
    assert find_wal_tar_beside(base) is None
    (tmp_path / "pg_wal.tar.gz").write_bytes(b"")
    assert find_wal_tar_beside(base) == tmp_path / "pg_wal.tar.gz"
    (tmp_path / "pg_wal.tar").write_bytes(b"")
    assert find_wal_tar_beside(tmp_path) == tmp_path / "pg_wal.tar"
