"""What a snapshot holds: its data directories, and the one to rescue."""

from __future__ import annotations

import hashlib
import posixpath
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgrescue.errors import SnapshotError, UnreadableSnapshotError
from pgrescue.snapshot.backup_info import BackupInfo, parse_backup_info
from pgrescue.snapshot.backup_label import BackupLabel, parse_backup_label
from pgrescue.snapshot.control import ControlFile, parse_control
from pgrescue.snapshot.directory import DirectorySource
from pgrescue.snapshot.interface import Content, Entry, Kind, Source
from pgrescue.snapshot.tablespace_map import TablespaceLink, parse_tablespace_map
from pgrescue.snapshot.tar import TarSource
from pgrescue.snapshot.wal import WalPageHeader, parse_long_page_header

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

CONTROL = "global/pg_control"
_SMALL = 1 << 20
_WAL_NAME = re.compile(r"[0-9A-F]{24}")
_WAL_HEADER_BYTES = 40
_TOP_LEVEL_TEXTS = re.compile(r"PG_VERSION|backup_label|tablespace_map|postmaster\.pid|[^/]*\.conf|[^/]*\.signal")
_TAR_NAMES = ("data.tar", "data.tar.gz", "data.tar.bz2", "base.tar", "base.tar.gz")
_REPORT_EVERY_BYTES = 8 << 20


@dataclass(frozen=True)
class WalFile:
    """A segment in the snapshot's pg_wal: its name, its size in bytes, and its first page's header where it has one."""

    name: str
    size_bytes: int
    header: WalPageHeader | None


@dataclass(frozen=True)
class DataDirectory:
    """A directory with `PG_VERSION` and `global/pg_control`: a PGDATA (formats.md §0.1).

    `prefix` is where it lies in the snapshot, empty for the top. `texts` are its small top-level files by name.
    `links` are symbolic links by path (pg_wal, pg_tblspc/OID …), none of which is followed.
    """

    prefix: str
    major: int
    control: ControlFile
    size_bytes: int
    files: int
    texts: Mapping[str, str]
    links: Mapping[str, str]
    wal: tuple[WalFile, ...]
    tablespaces: tuple[str, ...]

    @property
    def backup_label(self) -> BackupLabel | None:
        """The label of the backup that this is a copy of, None for any other copy."""
        text = self.texts.get("backup_label")
        return None if text is None else parse_backup_label(text)

    @property
    def tablespace_map(self) -> tuple[TablespaceLink, ...]:
        """Where the tablespaces were, as the backup says."""
        return parse_tablespace_map(self.texts.get("tablespace_map", ""))


@dataclass(frozen=True)
class Unreadable:
    """Something in or beside the snapshot that a rescue can do without, and why it could not be understood."""

    name: str
    problem: str


@dataclass(frozen=True)
class Snapshot:
    """What the user has. `chosen` is the data directory to rescue, `others` the ones passed over."""

    source: Source
    fingerprint: str
    chosen: DataDirectory
    others: tuple[DataDirectory, ...]
    backup_info: BackupInfo | None
    unreadable: tuple[Unreadable, ...] = ()

    @property
    def path(self) -> Path:
        """The file or directory that was read."""
        return self.source.path


def open_source(path: Path) -> Source:
    """Return the reader for what lies at `path`; raise SnapshotError where nothing can be one.

    A backup's folder (barman-cloud's, pg_basebackup's) stands for the tar in it.
    """
    path = path.absolute()
    try:
        return _source(path)
    except OSError as error:
        raise UnreadableSnapshotError(
            f"{path} cannot be read: {error.strerror}", hint="Run pgrescue as a user who may read the whole snapshot."
        ) from error


def _source(path: Path) -> Source:
    if path.is_dir():
        tars = [path / name for name in _TAR_NAMES if (path / name).is_file()]
        if not tars:
            return DirectorySource(path)
        path = tars[0]
    if not path.exists():
        raise UnreadableSnapshotError(
            f"{path} does not exist", hint="Check the path; pgrescue reads a tar file or a directory."
        )
    if not path.is_file():
        raise UnreadableSnapshotError(
            f"{path} is neither a file nor a directory", hint="pgrescue reads a tar file or a directory."
        )
    further = sorted(path.parent.glob("data_0001.tar*")) if path.name.startswith("data.tar") else []
    if further:
        raise UnreadableSnapshotError(
            f"the backup is in parts ({path.name}, {further[0].name} …), which this version does not join",
            hint="Unpack all parts into one directory, in the order of their numbers, and name that directory.",
        )
    return TarSource(path)


def read_snapshot(path: Path, *, on_progress: Callable[[int, int | None], None] | None = None) -> Snapshot:
    """Find out what the snapshot at `path` holds, reading every header of it and writing nothing.

    `on_progress` hears of bytes passed and in total. Raises SnapshotError where it holds no data directory, or one
    that pgrescue does not read.
    """
    source = open_source(path)
    survey = _Survey()
    heard = 0
    for entry, content, passed in source.entries():
        survey.see(entry, content)
        if on_progress is not None and passed - heard >= _REPORT_EVERY_BYTES:
            on_progress(passed, source.total_bytes)
            heard = passed
    found, unreadable = survey.data_directories(source.path)
    chosen, *others = sorted(found, key=_newest_first)
    _refuse_incremental(source.path, chosen)
    try:
        info = _backup_info(source.path, chosen)
    except SnapshotError as error:
        info = None
        unreadable = (*unreadable, Unreadable("backup.info", error.problem))
    return Snapshot(source, _fingerprint(chosen), chosen, tuple(others), info, unreadable)


def _refuse_incremental(path: Path, directory: DataDirectory) -> None:
    """Refuse a backup that holds only what changed since another one (formats.md §3)."""
    label = directory.backup_label
    if label is not None and label.is_incremental:
        raise UnreadableSnapshotError(
            f"{path} is an incremental backup: it holds only what changed since another one",
            hint="Join it with the backups before it (pg_combinebackup FULL … THIS -o OUT), and give pgrescue OUT.",
        )


def _newest_first(directory: DataDirectory) -> tuple[float, int, str]:
    """Order candidates: the latest checkpoint first, then the furthest one, then the shortest path."""
    control = directory.control
    return (-control.checkpoint_time.timestamp(), -control.checkpoint.position, directory.prefix)


def _fingerprint(directory: DataDirectory) -> str:
    """Identify the content, wherever it lies: two snapshots of one server differ in pg_control or in their files."""
    digest = hashlib.sha256()
    for part in (
        repr(directory.control),
        directory.texts.get("backup_label", ""),
        directory.prefix,
        str(directory.size_bytes),
        str(directory.files),
    ):
        digest.update(part.encode(errors="surrogateescape") + b"\0")
    return digest.hexdigest()


def _backup_info(path: Path, directory: DataDirectory) -> BackupInfo | None:
    """Read barman's backup.info beside the snapshot; one of another system is none of ours.

    Raises SnapshotError for one that cannot be understood.
    """
    beside = (path if path.is_dir() else path.parent) / "backup.info"
    try:
        text = beside.read_text()
    except (OSError, UnicodeDecodeError):
        return None
    info = parse_backup_info(text)
    return info if info.system_identifier == directory.control.system_identifier else None


@dataclass
class _Tally:
    files: int = 0
    size_bytes: int = 0


@dataclass
class _Survey:
    """What was seen on the way through a snapshot, by directory."""

    controls: dict[str, bytes] = field(default_factory=dict)
    texts: dict[str, dict[str, str]] = field(default_factory=dict)
    tallies: dict[str, _Tally] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    wal: dict[str, list[WalFile]] = field(default_factory=dict)
    tablespace_directories: set[str] = field(default_factory=set)
    first_names: list[str] = field(default_factory=list)

    def see(self, entry: Entry, content: Content) -> None:
        """Take in one entry."""
        if len(self.first_names) < 5:  # noqa: PLR2004 - enough to show what kind of thing this is
            self.first_names.append(entry.path)
        directory, name = posixpath.split(entry.path)
        match entry.kind:
            case Kind.SYMLINK:
                self.links[entry.path] = entry.target
            case Kind.DIRECTORY:
                if posixpath.basename(directory) == "pg_tblspc":
                    self.tablespace_directories.add(entry.path)
            case Kind.FILE:
                tally = self.tallies.setdefault(directory, _Tally())
                tally.files += 1
                tally.size_bytes += entry.size
                self._see_file(entry, content, directory, name)
            case Kind.HARDLINK | Kind.OTHER:
                pass

    def _see_file(self, entry: Entry, content: Content, directory: str, name: str) -> None:
        if name == "pg_control" and posixpath.basename(directory) == "global":
            self.controls[posixpath.dirname(directory)] = content.read(_SMALL)
        elif _WAL_NAME.fullmatch(name) and posixpath.basename(directory) == "pg_wal":
            header = parse_long_page_header(content.read(_WAL_HEADER_BYTES))
            self.wal.setdefault(posixpath.dirname(directory), []).append(WalFile(name, entry.size, header))
        elif entry.size <= _SMALL and _TOP_LEVEL_TEXTS.fullmatch(name):
            self.texts.setdefault(directory, {})[name] = content.read(_SMALL).decode(errors="replace")

    def data_directories(self, path: Path) -> tuple[list[DataDirectory], tuple[Unreadable, ...]]:
        """Return every PGDATA that was seen, and those that cannot be understood; raise SnapshotError without any."""
        found: list[DataDirectory] = []
        errors: dict[str, SnapshotError] = {}
        for prefix in self.controls:
            if "PG_VERSION" in self.texts.get(prefix, {}):
                try:
                    found.append(self._data_directory(prefix, path))
                except SnapshotError as error:
                    errors[prefix] = error
        if not found:
            raise next(iter(errors.values()), None) or self._no_data_directory(path)
        return found, tuple(Unreadable(prefix or ".", error.problem) for prefix, error in errors.items())

    def _data_directory(self, prefix: str, path: Path) -> DataDirectory:
        def within(candidate: str) -> bool:
            return not prefix or candidate == prefix or candidate.startswith(f"{prefix}/")

        def relative(candidate: str) -> str:
            return candidate[len(prefix) + 1 :] if prefix else candidate

        texts = self.texts[prefix]
        control = parse_control(self.controls[prefix])
        version = texts["PG_VERSION"].strip()
        if version != str(control.major):
            raise SnapshotError(
                f"{path}: PG_VERSION says {version!r}, pg_control was written by PostgreSQL {control.major}",
                hint="Files of two servers were mixed. Find the snapshot as its backup tool wrote it.",
            )
        tallies = [tally for directory, tally in self.tallies.items() if within(directory)]
        links = {relative(link): target for link, target in self.links.items() if within(link)}
        tablespaces = {relative(name) for name in self.tablespace_directories if within(name)} | set(links)
        return DataDirectory(
            prefix=prefix,
            major=control.major,
            control=control,
            size_bytes=sum(tally.size_bytes for tally in tallies),
            files=sum(tally.files for tally in tallies),
            texts=texts,
            links=links,
            wal=tuple(sorted(self.wal.get(prefix, ()), key=lambda file: file.name)),
            tablespaces=tuple(
                sorted(posixpath.basename(name) for name in tablespaces if name.startswith("pg_tblspc/"))
            ),
        )

    def _no_data_directory(self, path: Path) -> SnapshotError:
        """Say what was found instead of a data directory, and what that is likely to be."""
        wanted = "a directory with PG_VERSION and global/pg_control"
        names = ", ".join(repr(name) for name in self.first_names if name) or "nothing"
        if any(name == "toc.dat" for name in self.first_names):
            return UnreadableSnapshotError(f"{path} is an archive of pg_dump", hint="Restore it with pg_restore.")
        if any("PG_VERSION" in texts for texts in self.texts.values()) or "backup_label" in str(self.texts):
            return SnapshotError(
                f"{path} has a part of a data directory, but no global/pg_control, which backup tools write last",
                hint="It is one part of several, or its end is missing: get all parts, or fetch it again.",
            )
        return SnapshotError(
            f"{path} holds no PostgreSQL data directory; expected {wanted}, found {names}",
            hint="Give pgrescue the tar or directory that holds the server's files (barman-cloud: data.tar).",
        )
