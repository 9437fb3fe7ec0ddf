"""A sound snapshot on a machine where something is in the way: each its own clear error, and no traceback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pgrescue.engine.native_find import find_native
from tests.cli import TIMEOUT_S, Done, environment, pgrescue
from tests.conftest import require_engine
from tests.e2e import inputs
from tests.e2e.refusals import as_plain_user, public_directory, refused, small_disk, there

NO_DOCKER = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
SAMPLE = inputs.SAMPLE
NEEDED_MIB = 33 + 256

# Another writer fills the disk between the look at the free space and the copy.
_FILLED_MEANWHILE = """
import os, sys
from pathlib import Path
import pgrescue.steps.unpack as unpack, pgrescue.__main__
filler = Path(sys.argv.pop())
look = unpack._require_room
def look_and_fill(run):
    look(run)
    disk = os.statvfs(run.workspace.root)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_bsize - (8 << 20))
unpack._require_room = look_and_fill
pgrescue.__main__.main()
"""


@pytest.fixture
def small_files(tmp_path: Path) -> Path:
    """Return a snapshot that is sound as far as anybody looks before it is copied."""
    return inputs.write_tar(tmp_path / "small.tar", inputs.few_files())


@pytest.fixture
def here(tmp_path: Path) -> Path:
    directory = tmp_path / "here"
    directory.mkdir()
    return directory


def test_a_file_in_the_way_is_left_alone(small_files: Path, here: Path) -> None:
    (here / "small.pgrescue").write_text("mine")
    refused(pgrescue("local", small_files, "--json", cwd=here), "in the way", "not a directory", "--workspace")
    assert (here / "small.pgrescue").read_text() == "mine"


def test_a_directory_with_other_files_is_left_alone(small_files: Path, here: Path) -> None:
    (here / "photos").mkdir()
    (here / "photos" / "one.jpg").write_text("mine")
    done = pgrescue("local", small_files, "-w", "photos", "--json", cwd=here)
    refused(done, "in the way", "no ledger.json", "Nothing was changed", "--workspace")
    assert there(here / "photos") == ["one.jpg"]


def test_a_link_in_the_way_is_not_followed(small_files: Path, here: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (here / "small.pgrescue").symlink_to(tmp_path / "elsewhere")
    refused(pgrescue("local", small_files, "--json", cwd=here), "in the way", "--workspace")
    assert there(tmp_path / "elsewhere") == []


def test_where_nothing_may_be_written_nothing_begins() -> None:
    with public_directory() as public:
        inputs.write_tar(public / "small.tar", inputs.few_files()).chmod(0o644)
        public.chmod(0o555)
        done = as_plain_user("local", "small.tar", "--engine", "native", "--json", cwd=public)
        public.chmod(0o755)
        refused(done, "cannot be made a workspace", "Permission denied", "--workspace")
        assert there(public) == ["small.tar"]


@pytest.mark.native
def test_too_small_a_disk_is_seen_before_anything_is_copied(tmp_path: Path) -> None:
    require_engine("native")
    with small_disk(tmp_path / "disk", megabytes=NEEDED_MIB - 20) as disk:
        done = pgrescue("local", SAMPLE, "--engine", "native", "--json", cwd=disk)
        assert done.status == 1
        assert done.document()["verdict"] == "failed"
        (found,) = done.document()["findings"]
        assert (found["code"], found["severity"]) == ("rescue_failed", "error")
        assert "MiB are free" in found["detail"]
        assert "--workspace" in found["remedy"]
        assert "Traceback" not in done.stderr
        assert not (disk / "data.pgrescue" / "unpacking").exists()


@pytest.mark.native
def test_a_disk_that_fills_up_meanwhile_is_told_and_room_helps(tmp_path: Path) -> None:
    require_engine("native")
    with small_disk(tmp_path / "disk", megabytes=NEEDED_MIB + 120) as disk:
        filler = disk / "filler"
        command = [sys.executable, "-c", _FILLED_MEANWHILE, "local", str(SAMPLE), "--engine", "native", "--json"]
        ended = subprocess.run(
            [*command, str(filler)],
            cwd=disk,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        done = Done(ended.returncode, ended.stdout, ended.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.status == 1
        assert "the disk became full" in done.stdout
        assert "run the same command again" in done.stdout
        assert not (disk / "data.pgrescue" / "pgdata").exists()
        filler.unlink()
        again = pgrescue("local", SAMPLE, "--engine", "native", "--json", cwd=disk).ok()
        assert again.document()["verdict"] == "best-effort"
        pgrescue("rm", "--yes", cwd=disk).ok()
        assert there(disk) == []


@pytest.mark.native
def test_a_taken_port_is_told_and_another_one_helps(here: Path) -> None:
    require_engine("native")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = pgrescue("local", SAMPLE, "--engine", "native", "--port", port, "--json", cwd=here)
    assert done.status == 1
    found = done.document()["findings"][-1]
    assert f"127.0.0.1:{port}" in found["detail"]
    assert "in use" in found["detail"]
    assert "--port" in found["remedy"]
    again = pgrescue("local", SAMPLE, "--json", cwd=here).ok().document()
    assert {step["outcome"] for step in again["steps"][:6]} == {"held"}
    pgrescue("rm", "--yes", cwd=here).ok()


@pytest.mark.native
def test_programs_of_another_major_are_refused_with_what_was_looked_at(small_files: Path, here: Path) -> None:
    require_engine("native", 18)
    bindir = find_native(18).source
    done = pgrescue("local", small_files, "--bindir", bindir, "--json", cwd=here)
    refused(done, "PostgreSQL 17 was not found", str(bindir), "--bindir", "PostgreSQL 18", status=1)
    assert there(here) == []


def test_a_bindir_without_programs_is_refused(small_files: Path, here: Path) -> None:
    done = pgrescue("local", small_files, "--bindir", here, "--json", cwd=here)
    refused(done, "PostgreSQL 17 was not found", f"{here} (--bindir): no postgres, pg_resetwal", status=1)
    assert there(here) == []


@pytest.mark.docker
def test_an_image_of_another_major_is_refused(small_files: Path, here: Path) -> None:
    require_engine("docker", 18)
    done = pgrescue("local", small_files, "--image", "postgres:18", "--json", cwd=here)
    refused(done, "the snapshot is of PostgreSQL 17", "postgres:18 has PostgreSQL 18", "--image", status=1)
    assert there(here) == []


@pytest.mark.docker
def test_an_image_that_cannot_be_had_is_refused(small_files: Path, here: Path) -> None:
    require_engine("docker")
    done = pgrescue("local", small_files, "--image", "127.0.0.1:1/none:17", "--json", cwd=here)
    refused(done, "127.0.0.1:1/none:17 is not here and cannot be pulled", "docker load", "--engine native", status=1)
    assert there(here) == []


def test_without_docker_docker_is_refused(small_files: Path, here: Path) -> None:
    done = pgrescue("local", small_files, "--engine", "docker", "--json", cwd=here, env=NO_DOCKER)
    refused(done, "Docker does not answer at /nonexistent/docker.sock", "--engine native", status=1)
    assert there(here) == []


@pytest.mark.native
def test_without_docker_auto_takes_this_machines_programs_and_says_why(here: Path) -> None:
    require_engine("native")
    done = pgrescue("local", SAMPLE, "--json", cwd=here, env=NO_DOCKER).ok()
    assert done.document()["engine"] == "native"
    assert "Engine: native, " in done.stderr
    assert "(Docker cannot be used: Docker does not answer at /nonexistent/docker.sock" in done.stderr
    pgrescue("rm", "--yes", cwd=here).ok()


def test_a_major_that_nobody_has_is_refused_with_both_reasons(tmp_path: Path, here: Path) -> None:
    snapshot = inputs.write_tar(tmp_path / "old.tar", inputs.of_major_14(inputs.few_files()))
    done = pgrescue("local", snapshot, "--json", cwd=here, env={**NO_DOCKER, "PATH": "/usr/bin:/bin"})
    if Path("/usr/lib/postgresql/14/bin/postgres").exists():
        pytest.skip("this machine has PostgreSQL 14")
    refused(done, "PostgreSQL 14", "Docker: ", "This machine: ", "looked at", "/usr/lib/postgresql/14/bin", status=1)
    assert there(here) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--engine", "podman"), ("'podman' is unknown", "docker, native")),
        (("--strategy", "rewind"), ("'rewind' is unknown", "clean, archive, replay, crash, reset")),
        (("--strategy", "replay"), ("replay is not possible", "is missing", "reset")),
        (("--require", "damaged"), ("'damaged' is unknown", "best-effort")),
        (("--image", "postgres:17", "--bindir", "/usr/bin"), ("two engines",)),
        (("--strategy", "clean"), ("clean is not possible", "backup_label", "reset")),
    ],
)
def test_wrong_options_are_refused(
    small_files: Path, here: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused(pgrescue("local", small_files, *options, "--json", cwd=here), *words)
    assert there(here) == []


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return inputs.write_directory(tmp_path / "tree", inputs.few_files())


def test_a_workspace_inside_of_the_snapshot_is_refused(tree: Path) -> None:
    before = sorted(os.walk(tree))
    refused(pgrescue("local", tree, "--json", cwd=tree), "--workspace")
    assert sorted(os.walk(tree)) == before
