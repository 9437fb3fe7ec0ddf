"""`pgrescue drill init` and `pgrescue drill schema`."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from pgrescue.drill.reading import read_scenario
from pgrescue.drill.schema import scenario_schema
from pgrescue.model import Verdict
from tests.unit.cli.conftest import WAL, pgrescue

SCHEMA = Path("drill.schema.json")


def state(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Return when everything below a directory was changed last, and what it holds."""
    return {
        str(path): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in directory.rglob("*")
    }


def test_it_writes_a_file_that_is_read_and_the_schema(here: Path, backup: Path) -> None:
    before = (backup.stat().st_mtime_ns, backup.read_bytes())
    done = pgrescue("drill", "init", backup)
    assert done.status == 0
    assert done.stdout.startswith("Written: drill.yaml, and drill.schema.json")
    assert "drill drill.yaml" in done.stdout
    (drill,) = read_scenario(here / "drill.yaml").drills
    assert Path(drill.snapshot.text).resolve() == backup
    assert (drill.require, drill.wal) == (Verdict.BEST_EFFORT, None)
    assert json.loads((here / SCHEMA).read_text()) == scenario_schema()
    assert sorted(path.name for path in here.iterdir()) == ["drill.schema.json", "drill.yaml"]
    assert (backup.stat().st_mtime_ns, backup.read_bytes()) == before


def test_the_file_names_its_schema(here: Path, backup: Path) -> None:
    pgrescue("drill", "init", backup)
    first = (here / "drill.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=./drill.schema.json"


def test_as_json_it_is_one_object(here: Path, backup: Path) -> None:
    (here / "ci").mkdir()
    done = pgrescue("drill", "init", backup, "--out", "ci/nightly.yaml", "--name", "portal", "--json")
    assert done.document() == {"schema": 1, "file": "ci/nightly.yaml", "schema_file": "ci/drill.schema.json"}
    (drill,) = read_scenario(here / "ci/nightly.yaml").drills
    assert drill.name == "portal"
    assert Path(drill.snapshot.text).resolve() == backup


def test_wal_beside_the_snapshot_is_named(here: Path, backup: Path) -> None:
    wals = backup.parent / "archive"
    wals.mkdir()
    (wals / WAL).write_bytes(bytes(16 << 20))
    done = pgrescue("drill", "init", backup, "--wal", wals)
    assert done.status == 0, done.stderr
    (drill,) = read_scenario(here / "drill.yaml").drills
    assert drill.wal is not None
    assert Path(drill.wal).resolve() == wals


def test_a_file_that_is_there_is_not_replaced_without_force(here: Path, backup: Path) -> None:
    (here / "drill.yaml").write_text("mine")
    done = pgrescue("drill", "init", backup, "--json")
    assert (done.status, done.document()["error"]["problem"]) == (2, "drill.yaml is there already")
    assert "--force" in done.document()["error"]["hint"]
    assert (here / "drill.yaml").read_text() == "mine"
    assert not (here / SCHEMA).exists()
    assert pgrescue("drill", "init", backup, "--force").status == 0
    assert read_scenario(here / "drill.yaml").drills[0].name


def test_a_link_that_leads_nowhere_is_there_too(here: Path, backup: Path) -> None:
    (here / "drill.yaml").symlink_to("nowhere")
    assert pgrescue("drill", "init", backup).status == 2
    assert not (here / "nowhere").exists()


def test_only_a_schema_of_drill_files_is_replaced(here: Path, backup: Path) -> None:
    (here / SCHEMA).write_text('{"title": "another"}')
    assert pgrescue("drill", "init", backup).status == 2
    assert (here / SCHEMA).read_text() == '{"title": "another"}'
    (here / SCHEMA).write_text('{"title": "pgrescue drill file", "of": "an older version"}')
    assert pgrescue("drill", "init", backup).status == 0
    assert json.loads((here / SCHEMA).read_text()) == scenario_schema()


def test_both_can_be_read_by_others(here: Path, backup: Path) -> None:
    pgrescue("drill", "init", backup)
    modes = {stat.S_IMODE((here / name).stat().st_mode) & 0o444 for name in ("drill.yaml", SCHEMA)}
    assert modes == {0o444}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out", "missing/drill.yaml"], "there is no directory missing"),
        (["--out", "."], "is a directory"),
        (["--out", "drill.schema.json"], "is where the schema goes"),
        (["--name", "a\nb"], "cannot hold"),
        (["--name", "x" * 101], "at most 100 characters"),
        (["--name", " "], "something in it"),
        (["--wal", "missing"], "missing"),
    ],
)
def test_what_cannot_be_meant_writes_nothing(here: Path, backup: Path, options: list[str], words: str) -> None:
    done = pgrescue("drill", "init", backup, *options)
    assert done.status == 2
    assert words in done.stderr
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("snapshot", ["missing.tar", "s3://bucket/data.tar", "."])
def test_what_is_no_snapshot_here_is_an_error(here: Path, snapshot: str) -> None:
    done = pgrescue("drill", "init", snapshot, "--out", "/tmp/never-written.yaml", "--json")
    assert done.status == 2
    assert done.document()["error"]["hint"]
    assert list(here.iterdir()) == []
    assert not Path("/tmp/never-written.yaml").exists()


def test_nothing_is_written_into_a_snapshot(here: Path, backup: Path) -> None:
    folder = here / "backup"
    folder.mkdir()
    (folder / "data.tar").write_bytes(backup.read_bytes())
    before = state(here)
    done = pgrescue("drill", "init", folder, "--out", folder / "drill.yaml")
    assert done.status == 2
    assert "within the snapshot" in done.stderr
    assert state(here) == before


def test_the_schema_is_printed() -> None:
    done = pgrescue("drill", "schema")
    assert (done.status, done.document()) == (0, scenario_schema())
