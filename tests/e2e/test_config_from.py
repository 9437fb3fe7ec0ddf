"""What becomes of the copy's own override.conf and custom.conf, run after run on one workspace."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.conftest import require_engine

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli import Rescue
    from tests.conftest import Rescuer
    from tests.snapshots import Shelf

FILES = ("override.conf", "custom.conf")
CLEAN = {"override.conf": b"", "custom.conf": b"cluster_name = 'clean-\xe9'\nssl_cert_file = '/elsewhere/server.crt'\n"}
SETTLE = "blank-config"


def clean_database(parent: Path) -> Path:
    """Make a directory with its two files."""
    directory = parent / "clean"
    directory.mkdir()
    for name, content in CLEAN.items():
        (directory / name).write_bytes(content)
    return directory


def of_snapshot(path: Path) -> dict[str, bytes]:
    found = {}
    with tarfile.open(path) as archive:
        for name in FILES:
            member = archive.extractfile(f"./{name}")
            assert member is not None
            found[name] = member.read()
    return found


def of_copy(rescued: Rescue) -> dict[str, bytes]:
    """Return the files, which belong to whoever the other files of the copy belong to."""
    pgdata = rescued.workspace / "pgdata"
    assert {((pgdata / name).stat().st_uid, (pgdata / name).stat().st_gid) for name in (*FILES, "PG_VERSION")} == {
        ((pgdata / "global").stat().st_uid, (pgdata / "global").stat().st_gid)
    }
    return {name: (pgdata / name).read_bytes() for name in FILES}


def outcomes(rescued: Rescue) -> dict[str, set[str]]:
    """Return the steps by how they ended."""
    rescued.done.ok()
    steps = [(step["name"], step["outcome"]) for step in rescued.report["steps"]]
    return {outcome: {name for name, found in steps if found == outcome} for _, outcome in steps}


def test_each_run_has_what_it_asks_for_and_one_that_asks_for_nothing_what_there_was(
    shelf: Shelf, rescue: Rescuer, engine_name: str, tmp_path: Path
) -> None:
    snapshot = shelf.get("stopped-tar")
    original, digest = of_snapshot(snapshot.path), hashlib.sha256(snapshot.path.read_bytes()).hexdigest()
    assert b"/controller/" in original["custom.conf"]
    clean = clean_database(tmp_path)

    kept = rescue(snapshot, "--engine", engine_name, "--config-from", "keep")
    kept.done.ok()
    assert of_copy(kept) == original
    assert kept.finding("config_kept")["object"] == "custom.conf"
    assert kept.report["verdict"] == "consistent"
    assert kept.one("SELECT current_setting('cluster_name')") == "pgrescue"
    started = kept.one("SELECT pg_postmaster_start_time()")
    same = kept.again()
    assert set(outcomes(same)) == {"held"}
    assert (of_copy(same), same.codes) == (original, kept.codes)

    taken = kept.again("--config-from", str(clean))
    assert outcomes(taken)["done"] == {SETTLE}
    assert of_copy(taken) == CLEAN
    assert str(clean) in taken.finding("config_taken")["detail"]
    shutil.rmtree(clean)
    without = kept.again()
    assert set(outcomes(without)) == {"held"}
    assert (of_copy(without), without.codes) == (CLEAN, taken.codes)

    blanked = kept.again("--config-from", "blank")
    assert outcomes(blanked)["done"] == {SETTLE}
    assert of_copy(blanked) == dict.fromkeys(FILES, b"")
    assert (blanked.workspace / "removed" / "custom.conf").read_bytes() == original["custom.conf"]
    assert blanked.finding("config_blanked")["object"] == "custom.conf"

    back = kept.again("--config-from", "keep")
    assert of_copy(back) == original
    assert back.codes == kept.codes
    assert back.one("SELECT pg_postmaster_start_time()") == started
    assert hashlib.sha256(snapshot.path.read_bytes()).hexdigest() == digest


@pytest.mark.native
def test_a_copy_that_is_made_anew_has_them_too_when_the_directory_is_gone(
    shelf: Shelf, rescue: Rescuer, tmp_path: Path
) -> None:
    require_engine("native")
    clean = clean_database(tmp_path)
    first = rescue(shelf.get("stopped-tar"), "--engine", "native", "--config-from", str(clean))
    first.done.ok()
    first.run("stop").ok()
    shutil.rmtree(clean)
    # As after a strategy that failed, or after a power failure: the file that makes the copy valid is gone.
    (first.workspace / "pgdata" / "global" / "pg_control").unlink()
    second = first.again()
    assert {"unpack", SETTLE} <= outcomes(second)["done"]
    assert of_copy(second) == CLEAN
    assert (second.workspace / "removed" / "custom.conf").read_bytes() == of_snapshot(first.snapshot.path)[
        "custom.conf"
    ]
