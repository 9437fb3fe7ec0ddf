"""Which snapshot a drill restores: the one that was named, or the newest of those that a pattern or directory holds."""

from __future__ import annotations

import glob
import posixpath
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pgrescue.errors import RescueError, SnapshotError
from pgrescue.snapshot.backup_info import BackupInfo, parse_backup_info

if TYPE_CHECKING:
    from collections.abc import Sequence

BACKUP_TAR: Final = re.compile(r"(?:data|base)\.tar(?:\.(?:gz|bz2|xz|zst|lz4|sz|snappy))?")
"""The file that stands for a backup's folder: barman's, or pg_basebackup's."""
_TAR: Final = re.compile(r".+\.(?:tar(?:\.(?:gz|bz2|xz|zst|lz4|sz|snappy))?|tgz|tbz2?|txz)")
# WAL, a tablespace (by its OID), a later part: each lies beside the tar that is the snapshot.
_PART: Final = re.compile(r"(?:pg_wal|\d+|data_\d{4})\.tar(?:\..+)?")
_BACKUP_ID: Final = re.compile(r"\d{8}T\d{6}")
_MAGIC: Final = re.compile(r"[*?[]")
_DATA_DIRECTORIES: Final = ("", "data", "pgdata")
# What a drill or a rescue works in holds a copy, and a file system keeps lost+found from everybody.
_NO_BACKUPS: Final = re.compile(r".+\.(?:drill|pgrescue)|lost\+found")
_MOST_NAMED: Final = 3


class NoSnapshotError(RescueError):
    """Nothing that could be restored lies where the drill looks for it."""


@dataclass(frozen=True)
class Chosen:
    """The snapshot to restore, and why this one; the reason is empty where there was no choice."""

    path: Path
    because: str


@dataclass(frozen=True)
class Candidate:
    """What could be restored: its path or key, the text of backup.info beside it, when it was modified (UTC)."""

    place: str
    info: str | None
    modified: datetime


class _Sign(StrEnum):
    """What tells how old a backup is, best first."""

    BACKUP_INFO = "backup.info"
    BACKUP_ID = "barman's id"
    MODIFIED = "modification time"


@dataclass(frozen=True)
class _Aged:
    candidate: Candidate
    time: datetime
    sign: _Sign

    @property
    def when(self) -> str:
        """As much as the sign tells."""
        match self.sign:
            case _Sign.BACKUP_INFO:
                return f"ended {self.time:%Y-%m-%d %H:%M} UTC"
            case _Sign.BACKUP_ID:
                return f"begun {self.time:%Y-%m-%d %H:%M} by barman's clock"
            case _Sign.MODIFIED:
                return f"modified {self.time:%Y-%m-%d %H:%M} UTC"


def choose_snapshot(text: str, *, takes_newest: bool) -> Chosen:
    """Return the snapshot at an absolute path, or the newest one that matches a pattern or lies below a directory.

    A path that exists is never a pattern. Below a directory it is what lies in it or in its `base`, as barman has it.
    Raises NoSnapshotError where there is none.
    """
    path = Path(text)
    try:
        if path.exists() and not (takes_newest and path.is_dir()):
            return Chosen(path, "")
        if path.exists():
            paths = _below(path)
        elif takes_newest or _MAGIC.search(text):
            # Path.glob would match hidden files, too, such as those that are still being written.
            paths = [Path(match) for match in glob.glob(text, recursive=True)]  # noqa: PTH207
        else:
            raise NoSnapshotError(f"{text} does not exist", hint=_what_is_there(path))
        snapshots = {snapshot for found in paths if (snapshot := _snapshot_at(found)) is not None}
        if not snapshots:
            raise NoSnapshotError(f"{text} matches no snapshot", hint=_what_is_there(path))
        chosen, because = choose([_candidate(snapshot) for snapshot in snapshots], among=text)
        return Chosen(Path(chosen.place), because)
    except OSError as error:
        raise NoSnapshotError(
            f"{text} cannot be looked through: {error.filename or text}: {error.strerror}",
            hint="Run pgrescue as a user who may read all snapshots.",
        ) from error


def choose(candidates: Sequence[Candidate], *, among: str) -> tuple[Candidate, str]:
    """Return the newest that may have ended well, and why this one.

    Its age is told by the end in backup.info, else by the id that barman gave it, which is when it began by the clock
    of barman's host, else by when it was modified, which is never before it ended but may be long after. Where
    candidates differ in this, the times are compared all the same, and the reason says so. What barman calls anything
    but DONE is passed over, and so is a barman backup without backup.info where others of its server have one: it is
    the last file of a backup. Raises NoSnapshotError where that leaves none.
    """
    infos = {one.place: _info(one) for one in candidates}
    complete = {_server(one.place) for one in candidates if one.info is not None} - {None}
    good, bad = [], []
    for one in sorted(candidates, key=lambda one: one.place):
        info = infos[one.place]
        if info is not None and not info.is_done:
            bad.append(f"{one.place} (its status is {info.status})")
        elif one.info is None and _server(one.place) in complete:
            bad.append(f"{one.place} (it has no backup.info, so it has not ended)")
        else:
            good.append(_aged(one, info))
    if not good:
        raise NoSnapshotError(
            f"no backup of {among} has ended well: {_listed(bad)}",
            hint="Look at the backup tool's log. A backup that runs right now can be drilled when it has ended.",
        )
    # Of two with the same time, the better sign; the place, so that the choice is the same the next time.
    newest, *others = sorted(good, key=_order, reverse=True)
    return newest.candidate, _because(newest, others, bad)


def _order(one: _Aged) -> tuple[datetime, int, str]:
    return one.time, -list(_Sign).index(one.sign), one.candidate.place


def _because(newest: _Aged, others: Sequence[_Aged], passed_over: Sequence[str]) -> str:
    signs = {one.sign for one in (newest, *others)}
    if not others:
        words = [f"the only one: {newest.when}"]
    elif len(signs) == 1:
        words = [f"the newest of {len(others) + 1} by {newest.sign}: {newest.when}"]
    else:
        words = [f"the newest of {len(others) + 1} as far as can be told, by its {newest.sign}: {newest.when}"]
    if others:
        words.append(f"also there: {_listed([f'{one.candidate.place} ({one.when})' for one in others])}")
    if passed_over:
        words.append(f"passed over: {_listed(passed_over)}")
    return "; ".join(words)


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - _MOST_NAMED:,} more" if len(words) > _MOST_NAMED else ""
    return ", ".join(words[:_MOST_NAMED]) + more


def _info(candidate: Candidate) -> BackupInfo | None:
    """Return what backup.info says; one that cannot be understood tells nothing, and the rescue reports it."""
    try:
        return None if candidate.info is None else parse_backup_info(candidate.info)
    except SnapshotError:
        return None


def _aged(candidate: Candidate, info: BackupInfo | None) -> _Aged:
    if info is not None and info.end_time is not None and (ended := _utc(info.end_time)) is not None:
        return _Aged(candidate, ended, _Sign.BACKUP_INFO)
    for backup_id in reversed(_BACKUP_ID.findall(candidate.place)):
        if (begun := _utc(backup_id)) is not None:
            return _Aged(candidate, begun, _Sign.BACKUP_ID)
    return _Aged(candidate, candidate.modified, _Sign.MODIFIED)


def _utc(text: str) -> datetime | None:
    """Read an ISO time; where it names no zone it is taken for UTC, and is wrong by some hours at most."""
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _server(place: str) -> str | None:
    """Return where the backups of the same barman server lie; None for what is no barman backup."""
    folder = posixpath.dirname(place) if BACKUP_TAR.fullmatch(posixpath.basename(place)) else place
    parent, name = posixpath.split(folder)
    return parent if _BACKUP_ID.fullmatch(name) else None


def _below(directory: Path) -> list[Path]:
    if _snapshot_at(directory) is not None:
        return [directory]
    places = (directory, directory / "base")
    return [path for place in places if place.is_dir() for path in place.iterdir() if not path.name.startswith(".")]


def may_be_snapshot(file_name: str) -> bool:
    """Tell whether a file with this name may hold a data directory, rather than a part of one or nothing of it."""
    return _TAR.fullmatch(file_name) is not None and _PART.fullmatch(file_name) is None


def _snapshot_at(path: Path) -> Path | None:
    """Return the tar or data directory that lies at, or in, a path; None where it is no snapshot by its names."""
    if path.is_file():
        return path if may_be_snapshot(path.name) else None
    if not path.is_dir() or _NO_BACKUPS.fullmatch(path.name):
        return None
    tars = sorted(file for file in path.iterdir() if BACKUP_TAR.fullmatch(file.name) and file.is_file())
    if tars:
        return tars[0]
    return path if _control(path) is not None else None


def _control(directory: Path) -> Path | None:
    """Return pg_control of a data directory, or of one in it as barman and volumes have it."""
    for name in _DATA_DIRECTORIES:
        if (directory / name / "PG_VERSION").is_file():
            return directory / name / "global" / "pg_control"
    return None


def _candidate(snapshot: Path) -> Candidate:
    """Describe a snapshot; a data directory was modified when the server last wrote pg_control, not its own entry."""
    control = _control(snapshot) if snapshot.is_dir() else None
    modified = (control if control is not None and control.exists() else snapshot).stat().st_mtime
    beside = (snapshot if snapshot.is_dir() else snapshot.parent) / "backup.info"
    info = beside.read_text(errors="replace") if beside.is_file() else None
    return Candidate(str(snapshot), info, datetime.fromtimestamp(modified, UTC))


def _what_is_there(path: Path) -> str:
    """Say what the directory holds, or the nearest one on the way to a path or pattern."""
    directory = next(place for place in (path, *path.parents) if place.is_dir())
    names = sorted(found.name for found in directory.iterdir() if not found.name.startswith("."))
    if not names:
        return f"{directory} is empty."
    return f"In {directory} there are: {_listed(names)}. A snapshot is a tar, a data directory, or a backup's folder."
