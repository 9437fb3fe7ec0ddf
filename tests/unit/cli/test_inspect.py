"""`pgrescue inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.builders import LABEL
from tests.unit.cli.conftest import WAL, pgrescue
from tests.unit.snapshot.conftest import DATA

if TYPE_CHECKING:
    from pathlib import Path


def test_it_says_what_would_happen_and_what_is_missing(here: Path, backup: Path) -> None:
    done = pgrescue("inspect", backup)
    assert done.status == 0
    assert f"Snapshot:    {backup} (tar)" in done.stdout
    assert "PostgreSQL 17" in done.stdout
    assert "-> reset   possible" in done.stdout
    assert "   clean   no" in done.stdout
    assert f"   {WAL}" in done.stdout
    assert list(here.iterdir()) == []


def test_as_json_it_is_one_object(here: Path, backup: Path) -> None:
    document = pgrescue("inspect", backup, "--json").document()
    assert (document["schema"], document["format"], document["major"]) == (1, "tar", 17)
    assert document["strategy"] == "reset"
    assert [option["name"] for option in document["strategies"] if option["possible"]] == ["reset"]
    assert (document["missing_wal"], document["missing_wal_is_open"]) == ([WAL], True)
    assert (document["wal_archive"], document["backup_end"]) == (None, None)
    assert document["backup_label"]["start_segment"] == WAL
    assert isinstance(document["system_identifier"], str)
    assert list(here.iterdir()) == []


def test_a_stopped_directory_is_inspected_without_a_change(tmp_path: Path) -> None:
    (tmp_path / "pgdata/global").mkdir(parents=True)
    (tmp_path / "pgdata/PG_VERSION").write_text("17\n")
    (tmp_path / "pgdata/global/pg_control").write_bytes((DATA / "pg_control_17.bin").read_bytes())
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    document = pgrescue("inspect", tmp_path / "pgdata", "--json").document()
    assert (document["format"], document["state"], document["backup_label"]) == ("directory", "shut down", None)
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before


def test_the_fixture_is_what_the_tests_think() -> None:
    assert WAL in LABEL
