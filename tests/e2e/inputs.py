"""Snapshots to feed pgrescue with: small ones that are refused at the first look, and the sample with changes."""

from __future__ import annotations

import io
import shutil
import struct
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgrescue.snapshot.control import crc32c

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SAMPLE = Path(__file__).parents[2] / "fixtures" / "sample" / "data.tar.gz"
SAMPLE_SYSTEM_DIRECTORIES = ("base", "global", "pg_xact", "pg_multixact")
CONTROL = "global/pg_control"
_CRC_AT = 288  # of PostgreSQL 12 to 17
_MAJOR_14 = (1300, 202107181)


def few_files() -> dict[str, bytes]:
    """Return the sample's small files that make a data directory recognisable, and one table."""
    names = ("PG_VERSION", "backup_label", "postgresql.conf", CONTROL, "global/1262")
    with tarfile.open(SAMPLE) as sample:
        found = {member.name.removeprefix("./"): member for member in sample}
        return {name: _content(sample, found[name]) for name in names}


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None
    return file.read()


def with_control(files: Mapping[str, bytes], *, crc: bool = True, **changes: int) -> dict[str, bytes]:
    """Change `version` or `catalog` of pg_control; without `crc` leave its checksum as it was."""
    control = bytearray(files[CONTROL])
    for at, name in ((8, "version"), (12, "catalog")):
        if name in changes:
            struct.pack_into("<I", control, at, changes[name])
    if crc:
        struct.pack_into("<I", control, _CRC_AT, crc32c(bytes(control[:_CRC_AT])))
    else:
        control[100] ^= 0xFF
    return {**files, CONTROL: bytes(control)}


def of_major_14(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Turn the files into those of a PostgreSQL that nobody has here."""
    version, catalog = _MAJOR_14
    return {**with_control(files, version=version, catalog=catalog), "PG_VERSION": b"14\n"}


def write_tar(path: Path, files: Mapping[str, bytes], *, mode: Any = "w", end: bool = True) -> Path:
    """Write a tar of these files; without `end` its end-of-archive marker is missing."""
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            add(tar, name, content)
        size = tar.offset
    if not end:
        with path.open("r+b") as file:
            file.truncate(size)
    return path


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **fields: Any) -> None:
    """Add one member, a file unless `type` says otherwise."""
    member = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(member, field, value)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write_directory(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write the same as a directory."""
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def truncated(source: Path, target: Path, size: int) -> Path:
    """Write the first bytes of a file, or, for a negative size, all but the last ones."""
    target.write_bytes(source.read_bytes()[:size])
    return target


def unpack_sample(target: Path) -> Path:
    """Unpack the sample as a data directory."""
    with tarfile.open(SAMPLE) as sample:
        sample.extractall(target, filter="fully_trusted", members=_ours(sample))
    return target


def _ours(sample: Iterable[tarfile.TarInfo]) -> Iterable[tarfile.TarInfo]:
    """Yield the members as whoever runs the tests may write them."""
    for member in sample:
        yield member.replace(uid=0, gid=0, uname="", gname="", deep=False)


def copied(tree: Path, target: Path) -> Path:
    """Copy a data directory for a test to break."""
    shutil.copytree(tree, target)
    return target


def hostile_tar(path: Path, *, outside: Path) -> Path:
    """Write the sample with absolute names, and with members that would leave the workspace if links were followed.

    `outside` is a directory that must stay as it is.
    """
    with tarfile.open(SAMPLE) as sample, tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for member in sample:
            name = member.name.removeprefix("./").removeprefix(".")
            content = _content(sample, member) if member.isfile() else b""
            if member.isfile() or (member.isdir() and name and not name.startswith("pg_wal")):
                add(tar, f"/{name}", content, type=member.type)
        link = tarfile.SYMTYPE
        add(tar, "/pg_wal", type=link, linkname=str(outside))
        add(tar, "/pg_tblspc/77777", type=link, linkname="/")
        add(tar, "/way_out", type=link, linkname=str(outside))
        add(tar, "/way_out/passwd", b"written through a link")
        add(tar, "/base/disk", type=tarfile.BLKTYPE, devmajor=7, devminor=0)
        add(tar, "/base/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)
        add(tar, "/base/pipe", type=tarfile.FIFOTYPE)
        add(tar, "/base/first", b"as it was")
        add(tar, "/base/first_again", type=tarfile.LNKTYPE, linkname="/base/first")
        add(tar, "/base/twice", b"the older one")
        add(tar, "/base/twice", b"the newer one")
        tar.format = tarfile.PAX_FORMAT
    return path
