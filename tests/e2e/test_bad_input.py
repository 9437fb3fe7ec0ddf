"""What is no snapshot, or a broken one: each its own clear error, and nothing left behind."""

from __future__ import annotations

import dataclasses
import gzip
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fixtures import read_snapshot
from pgrescue.engine.native_find import find_native
from tests.cli import environment, pgrescue
from tests.conftest import require_engine
from tests.e2e import inputs
from tests.e2e.refusals import as_plain_user, public_directory, refused, there

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli import Rescue
    from tests.conftest import Rescuer


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return inputs.few_files()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the sample as a data directory; for reading only."""
    return inputs.unpack_sample(tmp_path_factory.mktemp("sample") / "data")


@pytest.fixture
def public() -> Iterator[Path]:
    """Return a directory that everybody can reach, which pytest's own is not."""
    with public_directory() as directory:
        yield directory


@pytest.fixture
def rescued(rescue: Rescuer) -> Callable[..., Rescue]:
    """Rescue what lies at a path, on this machine's PostgreSQL."""
    require_engine("native")
    sample = read_snapshot(inputs.SAMPLE.parent)

    def at(path: Path, *options: str, status: int = 0) -> Rescue:
        found = rescue(dataclasses.replace(sample, path=path), "--engine", "native", *options)
        assert found.done.status == status, found.done.stderr
        return found

    return at


def _written(directory: Path, name: str, content: bytes) -> Path:
    path = directory / name
    path.write_bytes(content)
    return path


def _tar(directory: Path, files: dict[str, bytes]) -> Path:
    return inputs.write_tar(directory / "whole.tar", files)


def _gzip(directory: Path, files: dict[str, bytes]) -> Path:
    return inputs.write_tar(directory / "whole.tar.gz", files, mode="w:gz")


def _without(files: dict[str, bytes], name: str) -> dict[str, bytes]:
    return {path: content for path, content in files.items() if path != name}


BAD: dict[str, tuple[Callable[[Path, dict[str, bytes]], Path], tuple[str, ...]]] = {
    "absent": (lambda d, _: d / "absent.tar", ("does not exist", "Check the path")),
    "empty": (lambda d, _: _written(d, "data.tar", b""), ("is empty", "Fetch it again")),
    "empty directory": (lambda d, _: inputs.write_directory(d / "void", {"a/b": b""}), ("holds no PostgreSQL data",)),
    "text": (lambda d, _: _written(d, "data.tar", b"Not found\n" * 99), ("not a tar archive", "b'Not foun")),
    "web page, gzipped": (
        lambda d, _: _written(d, "data.tar.gz", gzip.compress(b"<html>" * 500)),
        ("not a tar archive", "b'<html>"),
    ),
    "zip": (lambda d, _: _written(d, "data.zip", b"PK\x03\x04" + bytes(600)), ("zip archive", "unzip")),
    "gpg": (lambda d, _: _written(d, "data.tar", b"\x85\x02\x0c" + bytes(600)), ("encrypted", "gpg -d")),
    "other tar": (lambda d, _: inputs.write_tar(d / "a.tar", {"etc/hosts": b"1"}), ("holds no", "'etc/hosts'")),
    "part without control": (
        lambda d, f: inputs.write_tar(d / "data.tar", _without(f, inputs.CONTROL)),
        ("no global/pg_control", "one part of several"),
    ),
    "cut in the first header": (lambda d, f: inputs.truncated(_tar(d, f), d / "a.tar", 100), ("not a tar archive",)),
    "cut in a later header": (lambda d, f: inputs.truncated(_tar(d, f), d / "a.tar", 1024 + 99), ("is truncated",)),
    "cut in a file": (lambda d, f: inputs.truncated(_tar(d, f), d / "a.tar", 4096), ("is truncated", "Fetch it again")),
    "cut before the end mark": (lambda d, f: inputs.write_tar(d / "a.tar", f, end=False), ("is truncated", "marker")),
    "gzip cut in its head": (lambda d, f: inputs.truncated(_gzip(d, f), d / "a.tar.gz", 5), ("is truncated",)),
    "gzip cut in the middle": (lambda d, f: inputs.truncated(_gzip(d, f), d / "a.tar.gz", 2000), ("is truncated",)),
    "gzip cut in its checksum": (lambda d, f: inputs.truncated(_gzip(d, f), d / "a.tar.gz", -6), ("is truncated",)),
    "damaged control": (
        lambda d, f: inputs.write_tar(d / "a.tar", inputs.with_control(f, crc=False)),
        ("pg_control is damaged", "checksum", "another copy"),
    ),
    "unknown control": (
        lambda d, f: inputs.write_tar(d / "a.tar", inputs.with_control(f, version=1902)),
        ("1902", "PostgreSQL"),
    ),
    "two servers": (
        lambda d, f: inputs.write_tar(d / "a.tar", {**f, "PG_VERSION": b"16\n"}),
        ("PG_VERSION says '16'", "PostgreSQL 17", "mixed"),
    ),
    "way out": (
        lambda d, f: inputs.write_tar(d / "a.tar", {**f, "../../etc/cron.d/x": b"* * * * * root x\n"}),
        ("would leave the workspace", "../../etc/cron.d/x"),
    ),
    "way out in the middle": (
        lambda d, f: inputs.write_tar(d / "a.tar", {**f, "base/../../x": b"x"}),
        ("would leave the workspace",),
    ),
    "device": (lambda _, __: Path("/dev/zero"), ("neither a file nor a directory",)),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_snapshot_is_refused(name: str, files: dict[str, bytes], tmp_path: Path) -> None:
    make, words = BAD[name]
    (tmp_path / "there").mkdir()
    snapshot = make(tmp_path / "there", files)
    here = tmp_path / "here"
    here.mkdir()
    refused(pgrescue("local", snapshot, "--json", cwd=here), *words)
    assert there(here) == []


@pytest.mark.parametrize("name", ["absent", "cut in a file", "damaged control"])
def test_inspect_refuses_it_in_the_same_words(name: str, files: dict[str, bytes], tmp_path: Path) -> None:
    make, words = BAD[name]
    refused(pgrescue("inspect", make(tmp_path, files), "--json", cwd=tmp_path), *words)


def test_without_json_stdout_stays_empty(tmp_path: Path) -> None:
    done = pgrescue("local", "absent.tar", cwd=tmp_path)
    assert (done.status, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-2].startswith("error: ")
    assert done.stderr.splitlines()[-1].startswith("hint:  ")


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory, shared_rescue: Rescuer) -> Path:
    """Return a directory with dumps in all formats of pg_dump, made by itself."""
    require_engine("native")
    server = shared_rescue(read_snapshot(inputs.SAMPLE.parent), "--engine", "native")
    directory = tmp_path_factory.mktemp("dumps")
    program = find_native(17).bindir / "pg_dump"
    for form in ("custom", "directory", "tar", "plain"):
        subprocess.run([program, "-F", form, "-f", directory / form, "-d", server.url], check=True, env=environment())
    return directory


@pytest.mark.native
@pytest.mark.parametrize(
    ("form", "remedy"),
    [("custom", "pg_restore"), ("directory", "pg_restore"), ("tar", "pg_restore"), ("plain", "psql")],
)
def test_a_logical_dump_is_told_from_a_snapshot(dumps: Path, form: str, remedy: str, tmp_path: Path) -> None:
    refused(pgrescue("local", dumps / form, "--json", cwd=tmp_path), "dump", remedy)
    assert there(tmp_path) == []


def test_a_snapshot_that_may_not_be_read_is_refused(public: Path, files: dict[str, bytes]) -> None:
    snapshot = inputs.write_tar(public / "data.tar", files)
    snapshot.chmod(0)
    refused(as_plain_user("local", snapshot, "--json", cwd=public), "cannot be read", "Permission denied")


def test_a_directory_that_may_not_be_read_is_refused(public: Path, files: dict[str, bytes]) -> None:
    snapshot = inputs.write_directory(public / "data", files)
    (snapshot / "global").chmod(0)
    done = as_plain_user("local", snapshot, "--json", cwd=public)
    (snapshot / "global").chmod(0o700)
    refused(done, "cannot be read", "Permission denied", "as a user who may read")


@pytest.mark.native
def test_nothing_outside_of_the_workspace_is_written(tmp_path: Path, rescued: Callable[..., Rescue]) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "passwd").write_text("root")
    snapshot = inputs.hostile_tar(tmp_path / "data.tar", outside=outside)
    before = (there(outside), there(Path("/")), os.lstat("/pg_wal").st_ino if Path("/pg_wal").exists() else None)
    found = rescued(snapshot)
    assert (there(outside), there(Path("/")), None) == before
    assert (outside / "passwd").read_text() == "root"

    pgdata = found.workspace / "pgdata"
    assert (pgdata / "way_out" / "passwd").read_bytes() == b"written through a link"
    assert [path for path in pgdata.rglob("*") if path.is_symlink()] == []
    assert (pgdata / "base" / "first_again").read_bytes() == b"as it was"
    assert (pgdata / "base" / "first_again").stat().st_nlink == 1
    assert (pgdata / "base" / "twice").read_bytes() == b"the newer one"
    told = {(finding["code"], finding["object"]) for finding in found.report["findings"]}
    assert told >= {
        ("link_not_followed", "pg_wal"),
        ("link_not_followed", "way_out"),
        ("tablespace_missing", "pg_tblspc/77777"),
        *(("special_file_skipped", f"base/{name}") for name in ("disk", "null", "pipe")),
    }
    assert found.report["verdict"] == "damaged"  # for the tablespace


@pytest.mark.native
@pytest.mark.parametrize(
    ("missing", "words"),
    [("global/pg_filenode.map", ("pg_filenode.map",)), ("base/1", ("base/1",)), ("pg_xact", ("pg_xact",))],
)
def test_a_copy_that_cannot_start_fails_with_the_servers_words(
    tree: Path, tmp_path: Path, rescued: Callable[..., Rescue], missing: str, words: tuple[str, ...]
) -> None:
    snapshot = inputs.copied(tree, tmp_path / "data")
    subprocess.run(["rm", "-r", snapshot / missing], check=True)
    failed = rescued(snapshot, "--strategy", "reset", status=1)
    assert failed.report["verdict"] == "failed"
    assert failed.report["url"] is None
    said = failed.finding("rescue_failed")
    for word in words:
        assert word in said["detail"]
    assert said["remedy"]
    assert '"failed"' in (failed.workspace / "report.json").read_text()
    failed.run("logs").ok()
    assert failed.run("status").ok().stdout.count("failed") == 1


@pytest.mark.native
def test_a_lost_transaction_status_file_is_told(tree: Path, tmp_path: Path, rescued: Callable[..., Rescue]) -> None:
    snapshot = inputs.copied(tree, tmp_path / "data")
    status = snapshot / "pg_xact" / "0000"
    # As if the server had written more transactions than one file holds, and the first file were gone.
    status.rename(status.with_name("0001"))
    found = rescued(snapshot)
    lost = found.finding("transaction_status_missing")
    assert lost["severity"] == "error"
    assert "0000" in lost["detail"]
