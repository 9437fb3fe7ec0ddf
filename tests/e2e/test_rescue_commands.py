"""inspect and doctor, and the one JSON object that every command prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fixtures.backups.barman import read_backup_info
from pgrescue.model import Timeline
from pgrescue.snapshot.wal import SegmentName, segments_between
from tests.cli import pgrescue

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Rescuer
    from tests.snapshots import Shelf

SEGMENT_BYTES = 16 << 20


@pytest.mark.parametrize(
    ("name", "strategy", "possible"),
    [
        ("stopped-tar", "clean", {"clean", "crash", "reset"}),
        ("stopped-copy", "clean", {"clean", "crash", "reset"}),
        ("nested-tar", "clean", {"clean", "crash", "reset"}),
        ("running-wal-last", "crash", {"crash", "reset"}),
        ("running-wal-first", "crash", {"crash", "reset"}),
        ("running-no-wal", "reset", {"reset"}),
        ("barman", "reset", {"reset"}),
        ("basebackup-none", "reset", {"reset"}),
        ("basebackup-stream", "replay", {"replay", "reset"}),
    ],
)
def test_inspect_tells_what_local_would_do(
    shelf: Shelf, tmp_path: Path, name: str, strategy: str, possible: set[str]
) -> None:
    snapshot = shelf.get(name)
    document = pgrescue("inspect", snapshot.path, "--json", cwd=tmp_path).ok().document()
    assert document["strategy"] == strategy
    assert {option["name"] for option in document["strategies"] if option["possible"]} == possible
    assert all(option["reason"] for option in document["strategies"])
    assert document["major"] == snapshot.major
    assert document["system_identifier"] == snapshot.system_identifier
    assert (document["backup_label"] is None) is (name not in {"barman", "basebackup-none", "basebackup-stream"})


@pytest.mark.parametrize("name", ["barman", "stopped-copy", "two-candidates"])
def test_inspect_writes_nothing(shelf: Shelf, tmp_path: Path, name: str) -> None:
    snapshot = shelf.get(name)
    before = {path: path.lstat().st_mtime_ns for path in snapshot.directory.rglob("*")}
    home = tmp_path / "home"
    home.mkdir()
    done = pgrescue("inspect", snapshot.path, cwd=home, env={"HOME": str(home), "TMPDIR": str(home)}).ok()
    assert snapshot.system_identifier in done.stdout
    assert list(home.iterdir()) == []
    assert {path: path.lstat().st_mtime_ns for path in snapshot.directory.rglob("*")} == before


@pytest.mark.parametrize("name", ["barman", "barman-gzip"])
def test_inspect_names_exactly_the_wal_that_backup_info_asks_for(shelf: Shelf, tmp_path: Path, name: str) -> None:
    snapshot = shelf.get(name)
    info = read_backup_info(snapshot.path.parent / "backup.info")
    first, last = SegmentName.parse(str(info["begin_wal"])), SegmentName.parse(str(info["end_wal"]))
    assert first.timeline == Timeline(1)
    expected = [str(segment) for segment in segments_between(first, last, SEGMENT_BYTES)]
    document = pgrescue("inspect", snapshot.path, "--json", cwd=tmp_path).ok().document()
    assert document["missing_wal"] == expected
    assert document["missing_wal_is_open"] is False
    assert all(name in pgrescue("inspect", snapshot.path, cwd=tmp_path).ok().stdout for name in expected)


def test_inspect_names_the_first_wal_where_only_a_manifest_tells_the_last(shelf: Shelf, tmp_path: Path) -> None:
    snapshot = shelf.get("basebackup-none")
    alone = tmp_path / snapshot.path.name
    alone.symlink_to(snapshot.path)
    for path, is_open in ((snapshot.path, False), (alone, True)):
        document = pgrescue("inspect", path, "--json", cwd=tmp_path).ok().document()
        assert document["missing_wal"][0] == document["backup_label"]["start_segment"]
        assert document["missing_wal_is_open"] is is_open


def test_inspect_shows_every_candidate_and_its_choice(shelf: Shelf, tmp_path: Path) -> None:
    document = pgrescue("inspect", shelf.get("two-candidates").path, "--json", cwd=tmp_path).ok().document()
    assert document["data_directory"] == "pgdata"
    assert document["other_data_directories"] == ["pgdata_20260101T000000Z"]


def test_doctor_says_which_engines_work(engine_name: str, tmp_path: Path) -> None:
    document = pgrescue("doctor", "--json", cwd=tmp_path).ok().document()
    assert document["able"] is True
    checks = {check["name"]: check["ok"] for check in document["checks"]}
    assert checks[f"{engine_name} 17"] is True
    assert {"disk", "port", "fuse"} <= checks.keys()
    assert f"{engine_name} 17" in pgrescue("doctor", cwd=tmp_path).ok().stdout
    assert list(tmp_path.iterdir()) == []


def test_every_command_prints_one_object_and_nothing_else(shelf: Shelf, rescue: Rescuer, engine_name: str) -> None:
    rescued = rescue(shelf.get("stopped-tar"), "--engine", engine_name)
    assert rescued.done.ok().document()["schema"] == 1
    for command in (("status",), ("logs",), ("stop",), ("status",), ("logs",), ("rm", "--yes")):
        document = rescued.run(*command, "--json").ok().document()
        assert document.keys() & {"schema", "error"} == {"schema"}


@pytest.mark.parametrize("command", ["status", "logs", "stop", "rm"])
def test_errors_are_one_object_too(tmp_path: Path, command: str) -> None:
    done = pgrescue(command, "--json", cwd=tmp_path)
    assert done.status == 2
    error = done.document()["error"]
    assert error["exit_status"] == 2
    assert "no workspace" in error["problem"]
    assert error["hint"]
    assert error["problem"] in done.stderr
