"""Archives to read: written by Python's tarfile, by GNU tar, or block by block."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgrescue.snapshot.interface import Entry, Kind
from pgrescue.snapshot.tar import TarSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pgrescue.snapshot.interface import Content, Source

BLOCK = 512
_TYPES = {
    Kind.FILE: tarfile.REGTYPE,
    Kind.DIRECTORY: tarfile.DIRTYPE,
    Kind.SYMLINK: tarfile.SYMTYPE,
    Kind.HARDLINK: tarfile.LNKTYPE,
    Kind.OTHER: tarfile.FIFOTYPE,
}


@dataclass(frozen=True)
class Item:
    """One member to write."""

    name: str
    kind: Kind = Kind.FILE
    data: bytes = b""
    target: str = ""
    mtime: int = 0

    @property
    def entry(self) -> Entry:
        """What a reader should say of it."""
        return Entry(self.name, self.kind, len(self.data), self.mtime * 1_000_000_000, self.target)


def tarred(items: Sequence[Item], form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return an archive written by Python's tarfile."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for item in items:
            info = tarfile.TarInfo(item.name)
            info.type, info.linkname, info.size, info.mtime = (
                _TYPES[item.kind],
                item.target,
                len(item.data),
                item.mtime,
            )
            archive.addfile(info, io.BytesIO(item.data))
    return buffer.getvalue()


def of_files(files: Mapping[str, bytes], prefix: str = "") -> bytes:
    """Return an archive of files, in their order."""
    return tarred([Item(f"{prefix}{name}", data=data) for name, data in files.items()])


def header(name: str, *, kind: bytes = b"0", size: int = 0, linkname: str = "") -> bytes:
    """Return one ustar header block, whatever the name is."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, linkname
    return info.tobuf(tarfile.GNU_FORMAT)


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    """Return an extended header with these raw records."""
    return header("pax", kind=kind, size=len(records)) + records + bytes(-len(records) % BLOCK)


def record(key: str, value: str) -> bytes:
    """Return one PAX record: its own length counts."""
    text = f" {key}={value}\n".encode()
    length = len(text)
    while len(f"{length}") + len(text) != length:
        length = len(f"{length}") + len(text)
    return f"{length}".encode() + text


def gnu_tar(directory: Path, *options: str, names: Sequence[str] = (".",)) -> bytes:
    """Return what GNU tar makes of a directory."""
    return subprocess.run(
        ["tar", "-c", "-f", "-", "-C", str(directory), "--sort=name", *options, *names], check=True, capture_output=True
    ).stdout


@contextlib.contextmanager
def on_disk(data: bytes, name: str = "snapshot.tar") -> Iterator[Path]:
    """Give an archive a place for as long as the block runs."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, name)
        path.write_bytes(data)
        yield path


def written(content: Content) -> bytes:
    """Return a content as `write_to` writes it."""
    with tempfile.TemporaryFile() as file:
        content.write_to(file.fileno())
        file.seek(0)
        return file.read()


def contents(source: Source) -> list[tuple[Entry, bytes]]:
    """Return every entry with the bytes of its file."""
    return [(entry, written(content) if entry.kind is Kind.FILE else b"") for entry, content, _ in source.entries()]


def read(data: bytes) -> list[tuple[Entry, bytes]]:
    """Return every entry of an archive with the bytes of its file."""
    with on_disk(data) as path:
        return contents(TarSource(path))
