"""What a snapshot holds, and which of its data directories is taken."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pgrescue.errors import SnapshotError
from pgrescue.snapshot.contents import open_source, read_snapshot
from pgrescue.snapshot.directory import DirectorySource
from pgrescue.snapshot.tar import TarSource
from tests.unit.snapshot.archives import Item, gnu_tar, of_files, tarred
from tests.unit.snapshot.conftest import DATA, encode
from tests.unit.snapshot.identity import unprivileged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgrescue.snapshot.contents import Snapshot

CONTROL = (DATA / "pg_control_17.bin").read_bytes()
WAL_NAME = "000000010000000000000009"
LABEL = (DATA / "backup_label_17.txt").read_bytes()
INFO = (DATA / "backup_17.info").read_text()


def pgdata(control: bytes = CONTROL, **texts: bytes) -> dict[str, bytes]:
    """Return the files of a small data directory; `backup_label=` and the like add to them."""
    return {
        "PG_VERSION": b"17\n",
        "postgresql.conf": b"port = 5432\n",
        **texts,
        "base/1/PG_VERSION": b"17\n",
        "base/1/1259": bytes(8192),
        f"pg_wal/{WAL_NAME}": (DATA / f"wal_17_{WAL_NAME}.bin").read_bytes() + bytes(1000),
        "global/pg_control": control,
    }


def later(seconds: int) -> bytes:
    """Return the same server's pg_control with a checkpoint that much later."""
    moment = int.from_bytes(CONTROL[104:112], "little") + seconds
    return encode(CONTROL[:104] + moment.to_bytes(8, "little") + CONTROL[112:])


def tree(root: Path, files: Mapping[str, bytes], prefix: str = "") -> Path:
    for name, data in files.items():
        path = root / prefix / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def snapshot_of(tmp_path: Path, archive: bytes, name: str = "snapshot.tar") -> Snapshot:
    (tmp_path / name).write_bytes(archive)
    return read_snapshot(tmp_path / name)


@pytest.mark.parametrize("prefix", ["", "pgdata/", "./", "var/lib/postgresql/data/pgdata/", "/abs/pgdata/"])
def test_a_data_directory_is_found_wherever_it_lies(tmp_path: Path, prefix: str) -> None:
    files = pgdata(backup_label=LABEL)
    chosen = snapshot_of(tmp_path, of_files(files, prefix)).chosen
    assert chosen.prefix == prefix.strip("./")
    assert chosen.major == 17
    assert chosen.files == len(files)
    assert chosen.size_bytes == sum(map(len, files.values()))
    assert set(chosen.texts) == {"PG_VERSION", "postgresql.conf", "backup_label"}
    assert chosen.backup_label is not None
    assert chosen.backup_label.start_segment == WAL_NAME
    [wal] = chosen.wal
    assert (wal.name, wal.size_bytes) == (WAL_NAME, 1040)
    assert wal.header is not None
    assert wal.header.system_identifier == chosen.control.system_identifier


def test_what_lies_beside_the_data_directory_is_not_counted(tmp_path: Path) -> None:
    files = pgdata()
    archive = of_files({f"pgdata/{name}": data for name, data in files.items()} | {"pgdata2/x": b"1", "y": b"2"})
    assert snapshot_of(tmp_path, archive).chosen.files == len(files)


def test_links_and_tablespaces_are_told_relative_to_the_data_directory(tmp_path: Path) -> None:
    root = tree(tmp_path / "tree", pgdata(), "pgdata")
    (root / "pgdata/pg_tblspc").mkdir()
    (root / "pgdata/pg_tblspc/16400").symlink_to("/mnt/fast")
    (root / "pgdata/pg_tblspc/16401").mkdir()
    (root / "pgdata/log").symlink_to("/var/log/postgresql")
    (root / "outside").symlink_to("/")
    for chosen in (read_snapshot(root).chosen, snapshot_of(tmp_path, gnu_tar(root)).chosen):
        assert chosen.links == {"pg_tblspc/16400": "/mnt/fast", "log": "/var/log/postgresql"}
        assert chosen.tablespaces == ("16400", "16401")


@pytest.mark.parametrize("order", [("new", "old"), ("old", "new")])
def test_the_latest_checkpoint_is_chosen(tmp_path: Path, order: tuple[str, str]) -> None:
    files = {"new": pgdata(later(60)), "old": pgdata(CONTROL)}
    archive = of_files({f"{name}/{path}": data for name in order for path, data in files[name].items()})
    found = snapshot_of(tmp_path, archive)
    assert found.chosen.prefix == "new"
    assert [other.prefix for other in found.others] == ["old"]


def test_of_equal_checkpoints_the_furthest_is_chosen(tmp_path: Path) -> None:
    further = encode(CONTROL, checkpoint=int.from_bytes(CONTROL[32:40], "little") + 8)
    archive = of_files(
        {f"a/{path}": data for path, data in pgdata().items()}
        | {f"b/{path}": data for path, data in pgdata(further).items()}
    )
    assert snapshot_of(tmp_path, archive).chosen.prefix == "b"


def test_a_single_data_directory_has_no_rival(tmp_path: Path) -> None:
    assert snapshot_of(tmp_path, of_files(pgdata())).others == ()


def _without(name: str) -> dict[str, bytes]:
    return {path: data for path, data in pgdata(backup_label=LABEL).items() if path != name}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (_without("global/pg_control"), "part of a data directory, but no global/pg_control"),
        ({"backup_label": LABEL, "base/1/1259": b""}, "part of a data directory, but no global/pg_control"),
        (_without("PG_VERSION"), "part of a data directory"),
        ({"toc.dat": b"PGDMP", "3001.dat": b""}, "archive of pg_dump"),
        ({"notes.txt": b"", "photo.jpg": b""}, "no PostgreSQL data directory.*'notes.txt', 'photo.jpg'"),
        ({}, "found nothing"),
        ({**pgdata(), "PG_VERSION": b"16\n"}, "PG_VERSION says '16'.*written by PostgreSQL 17"),
        ({**pgdata(), "PG_VERSION": b""}, "PG_VERSION says ''"),
        (pgdata(b"short"), "has 5 bytes, not 8192"),
        (
            pgdata(backup_label=LABEL + b"INCREMENTAL FROM LSN: 0/2000028\nINCREMENTAL FROM TLI: 1\n"),
            "incremental backup",
        ),
    ],
)
def test_what_is_no_whole_data_directory_is_refused(tmp_path: Path, files: dict[str, bytes], words: str) -> None:
    for path in (tree(tmp_path / "tree", files), tmp_path / "snapshot.tar"):
        (tmp_path / "tree").mkdir(exist_ok=True)
        (tmp_path / "snapshot.tar").write_bytes(of_files(files))
        with pytest.raises(SnapshotError, match=words) as caught:
            read_snapshot(path)
        assert caught.value.hint


def test_the_tar_in_a_backups_folder_is_the_snapshot(tmp_path: Path) -> None:
    (tmp_path / "data.tar").write_bytes(of_files(pgdata()))
    found = read_snapshot(tmp_path)
    assert found.path == tmp_path / "data.tar"
    assert isinstance(found.source, TarSource)


@pytest.mark.parametrize("name", ["data.tar.gz", "base.tar", "base.tar.gz"])
def test_other_names_of_backup_tools(tmp_path: Path, name: str) -> None:
    archive = of_files(pgdata())
    (tmp_path / name).write_bytes(gzip.compress(archive) if name.endswith("gz") else archive)
    assert open_source(tmp_path).path == tmp_path / name


def test_a_folder_without_a_tar_is_read_itself(tmp_path: Path) -> None:
    assert isinstance(open_source(tree(tmp_path, pgdata())), DirectorySource)


def test_a_backup_in_parts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.tar").write_bytes(of_files(pgdata()))
    assert open_source(tmp_path / "data.tar").format == "tar"
    (tmp_path / "data_0001.tar").touch()
    for path in (tmp_path, tmp_path / "data.tar"):
        with pytest.raises(SnapshotError, match=r"in parts \(data.tar, data_0001.tar"):
            open_source(path)


def test_what_is_not_there_or_no_file_is_refused(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "absent.tar", "does not exist"), (Path("/dev/null"), "neither a file nor")):
        with pytest.raises(SnapshotError, match=words):
            open_source(path)


def test_a_place_that_may_not_be_looked_into_is_told() -> None:
    with tempfile.TemporaryDirectory() as directory:
        closed = Path(directory, "closed")
        closed.mkdir()
        (closed / "snapshot.tar").write_bytes(of_files(pgdata()))
        assert open_source(closed / "snapshot.tar").format == "tar"
        Path(directory).chmod(0o755)
        closed.chmod(0)
        with unprivileged(), pytest.raises(SnapshotError, match="cannot be read: Permission denied"):
            open_source(closed / "snapshot.tar")
        closed.chmod(0o700)


def test_a_name_that_no_file_can_have_is_told(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="cannot be read: File name too long"):
        open_source(tmp_path / ("x" * 300))


def test_backup_info_is_read_only_where_it_is_of_this_system(tmp_path: Path) -> None:
    control = encode(CONTROL, system_identifier=7710906428667462182)
    (tmp_path / "backup.info").write_text(INFO)
    found = snapshot_of(tmp_path, of_files(pgdata(control)))
    assert found.backup_info is not None
    assert found.backup_info.end_wal is not None
    assert snapshot_of(tmp_path, of_files(pgdata(CONTROL))).backup_info is None
    (tmp_path / "backup.info").unlink()
    assert snapshot_of(tmp_path, of_files(pgdata(control))).backup_info is None


def test_backup_info_lies_beside_a_tar_and_in_a_directory(tmp_path: Path) -> None:
    control = encode(CONTROL, system_identifier=7710906428667462182)
    root = tree(tmp_path / "pgdata", pgdata(control))
    assert read_snapshot(root).backup_info is None
    (root / "backup.info").write_text(INFO)
    assert read_snapshot(root).backup_info is not None


def _fingerprints(tmp_path: Path, files: Mapping[str, bytes]) -> set[str]:
    """Return the fingerprints of the same files as directory, tar and gzip."""
    archive = tarred([Item(name, data=data) for name, data in files.items()])
    found = [snapshot_of(tmp_path, archive), snapshot_of(tmp_path, gzip.compress(archive), "other.tar.gz")]
    with tempfile.TemporaryDirectory() as directory:
        found.append(read_snapshot(tree(Path(directory), files)))
    return {snapshot.fingerprint for snapshot in found}


def test_the_fingerprint_is_of_the_content_and_not_of_the_wrapping(tmp_path: Path) -> None:
    assert len(_fingerprints(tmp_path, pgdata())) == 1


@pytest.mark.parametrize(
    "other",
    [
        pgdata(later(60)),
        pgdata(encode(CONTROL, system_identifier=1)),
        pgdata(backup_label=LABEL),
        {**pgdata(), "base/1/1260": b""},
        {**pgdata(), "base/1/1259": b"longer" * 8192},
    ],
)
def test_the_fingerprint_of_another_backup_is_another(tmp_path: Path, other: dict[str, bytes]) -> None:
    assert _fingerprints(tmp_path, pgdata()).isdisjoint(_fingerprints(tmp_path, other))


def test_progress_is_told_of_a_large_snapshot_only(tmp_path: Path) -> None:
    heard: list[tuple[int, int | None]] = []
    (tmp_path / "small.tar").write_bytes(of_files(pgdata()))
    read_snapshot(tmp_path / "small.tar", on_progress=lambda done, total: heard.append((done, total)))
    assert heard == []
    (tmp_path / "large.tar").write_bytes(of_files({"base/1/1": bytes(20 << 20), **pgdata()}))
    read_snapshot(tmp_path / "large.tar", on_progress=lambda done, total: heard.append((done, total)))
    assert heard
    assert all(total == (tmp_path / "large.tar").stat().st_size for _, total in heard)


def test_reading_writes_nothing(tmp_path: Path) -> None:
    root = tree(tmp_path, pgdata())
    before = {path: path.stat() for path in root.rglob("*")}
    read_snapshot(root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == {
        path: status.st_mtime_ns for path, status in before.items()
    }
