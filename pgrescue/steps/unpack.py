"""Step: the snapshot's data directory lies, complete, in the workspace."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import errno
import json
import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgrescue.errors import DiskSpaceError, RescueError, SnapshotError
from pgrescue.files import sync_directory, write_atomically
from pgrescue.model import Finding, Severity
from pgrescue.pipeline import Observer, Unit
from pgrescue.snapshot.contents import CONTROL
from pgrescue.snapshot.interface import Content, Entry, Kind
from pgrescue.steps.layout import Place, is_tablespace, place_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgrescue.model import Owner
    from pgrescue.run import Run
    from pgrescue.workspace import Workspace

_RESERVE_BYTES = 256 << 20  # WAL, logs and what the server writes when it starts
_COPIED_ASIDE_BYTES = 1 << 20  # smaller files are copied faster than they are handed to another thread
_WORKERS = 2
_FILE_MODE = 0o600
_DIRECTORY_MODE = 0o700


@dataclass
class Unpacked:
    """What unpacking did not put into the data directory: paths relative to it, and links with their targets."""

    files: int = 0
    size_bytes: int = 0
    links: dict[str, str] = field(default_factory=dict)
    special: list[str] = field(default_factory=list)
    set_aside: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> Unpacked:
        """Read what an earlier run wrote."""
        return cls(**json.loads(path.read_text()))


class Unpack:
    """The copy is made beside its place and renamed when it is complete, pg_control being its last file."""

    name = "unpack"
    title = "Unpack the snapshot"

    def holds(self, run: Run) -> bool:
        """Tell whether the copy is there: it has its name only when it is complete."""
        return (run.workspace.pgdata / CONTROL).exists()

    def apply(self, run: Run, observer: Observer) -> None:
        """Make the copy from the beginning; what an interrupted attempt left is thrown away."""
        workspace = run.workspace
        for remains in (workspace.unpacking, workspace.pgdata, workspace.removed):
            if remains.exists():
                shutil.rmtree(remains)
        for statement in workspace.made_from_copy:
            statement.unlink(missing_ok=True)
        _require_room(run)
        with _disk_errors(workspace):
            workspace.removed.mkdir(mode=_DIRECTORY_MODE)
            unpacked = _Copy(run, observer).make()
            write_atomically(workspace.unpacked, json.dumps(dataclasses.asdict(unpacked), indent=1) + "\n")
            workspace.unpacking.rename(workspace.pgdata)
            sync_directory(workspace.root)

    def findings(self, run: Run) -> tuple[Finding, ...]:
        """Tell what the snapshot holds besides the data, and what it lacks."""
        return tuple(_findings(run, Unpacked.load(run.workspace.unpacked)))


def discard_copy(workspace: Workspace) -> None:
    """Make the copy void, so that it is made anew; the file that makes it valid goes first."""
    (workspace.pgdata / CONTROL).unlink(missing_ok=True)


def _require_room(run: Run) -> None:
    needed = run.snapshot.chosen.size_bytes + _RESERVE_BYTES
    free = shutil.disk_usage(run.workspace.root).free
    if free < needed:
        raise DiskSpaceError(
            f"the copy needs {_megabytes(needed)}, and {_megabytes(free)} are free at {run.workspace.root}",
            hint="Free some space, or name a directory on another disk with --workspace.",
        )


def _megabytes(size: int) -> str:
    return f"{size / (1 << 20):,.0f} MiB"


@contextlib.contextmanager
def _disk_errors(workspace: Workspace) -> Iterator[None]:
    """Turn what the operating system raises while writing into errors with a remedy.

    On a full disk the part that was copied, which is worthless, is removed: the ledger needs room, and so do others.
    """
    root = workspace.root
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            shutil.rmtree(workspace.unpacking, ignore_errors=True)
            raise DiskSpaceError(
                f"the disk became full while the copy was written to {root}",
                hint="Free some space and run the same command again, or name another place with --workspace.",
            ) from error
        where = f" ({error.filename})" if error.filename else ""
        raise RescueError(f"the copy cannot be written to {root}: {error.strerror}{where}") from error


class _Copy:
    """One pass over the snapshot that writes its data directory to `unpacking`."""

    def __init__(self, run: Run, observer: Observer) -> None:
        self._source = run.snapshot.source
        self._prefix = run.snapshot.chosen.prefix
        self._total_bytes = run.snapshot.chosen.size_bytes
        self._to = run.workspace.unpacking
        self._aside = run.workspace.removed
        self._owner = run.engine.installation.owner
        self._observer = observer
        self._unpacked = Unpacked()
        self._made: set[str] = set()
        self._pending: set[concurrent.futures.Future[int]] = set()
        self._hard_links: list[Entry] = []

    def make(self) -> Unpacked:
        """Copy everything; large files are written by other threads where the source allows it."""
        self._directory("")
        entries = self._source.entries()
        with concurrent.futures.ThreadPoolExecutor(_WORKERS) as pool, contextlib.closing(entries):  # type: ignore[type-var]  # a generator
            try:
                for entry, content, _ in entries:
                    path = self._relative(entry.path)
                    if path is not None:
                        self._take(dataclasses.replace(entry, path=path), content, pool)
                self._wait(everything=True)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        for link in self._hard_links:
            self._copy_hard_link(link)
        self._publish_control()
        return self._unpacked

    def _relative(self, path: str) -> str | None:
        if not self._prefix:
            return path
        return path[len(self._prefix) + 1 :] if path.startswith(f"{self._prefix}/") else None

    def _take(self, entry: Entry, content: Content, pool: concurrent.futures.Executor) -> None:
        place = place_of(entry.path)
        if place is Place.NOWHERE:
            return
        match entry.kind:
            case Kind.DIRECTORY:
                if place is Place.DATA:
                    self._directory(entry.path)
            case Kind.FILE:
                self._file(entry, content, place, pool)
            case Kind.SYMLINK:
                self._unpacked.links[entry.path] = entry.target
            case Kind.HARDLINK:
                self._hard_links.append(entry)
            case Kind.OTHER:
                self._unpacked.special.append(entry.path)

    def _file(self, entry: Entry, content: Content, place: Place, pool: concurrent.futures.Executor) -> None:
        if place is Place.ASIDE:
            self._unpacked.set_aside.append(entry.path)
            target = self._aside / entry.path
            target.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
            descriptor = self._open(target, None)
        else:
            self._directory(entry.path.rpartition("/")[0])
            # The file that makes the copy valid gets its name last of all.
            target = self._to / (f"{CONTROL}.unpacking" if entry.path == CONTROL else entry.path)
            descriptor = self._open(target, self._owner)
        self._unpacked.files += 1
        if self._source.parallel and entry.size >= _COPIED_ASIDE_BYTES:
            self._wait(everything=False)
            self._pending.add(pool.submit(_write, descriptor, content, entry.size))
        else:
            self._arrived(_write(descriptor, content, entry.size))

    def _open(self, path: Path, owner: Owner | None) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, _FILE_MODE)
        except FileExistsError:
            # A later member of the same name replaces the earlier one, as with `tar -r`.
            self._wait(everything=True)
            path.unlink()
            descriptor = os.open(path, flags, _FILE_MODE)
        if owner is not None:
            os.fchown(descriptor, owner.uid, owner.gid)
        return descriptor

    def _directory(self, path: str) -> None:
        """Make a directory of the copy, and those above it, once."""
        if path in self._made:
            return
        if path:
            self._directory(path.rpartition("/")[0])
        target = self._to / path
        target.mkdir(mode=_DIRECTORY_MODE)
        if self._owner is not None:
            os.chown(target, self._owner.uid, self._owner.gid)
        self._made.add(path)

    def _wait(self, *, everything: bool) -> None:
        """Take in what the threads have written; keep a few files in flight at most, so that memory stays flat."""
        if self._pending and (everything or len(self._pending) >= 2 * _WORKERS):
            wanted = concurrent.futures.ALL_COMPLETED if everything else concurrent.futures.FIRST_COMPLETED
            done, self._pending = concurrent.futures.wait(self._pending, return_when=wanted)
            for future in done:
                self._arrived(future.result())

    def _arrived(self, size: int) -> None:
        self._unpacked.size_bytes += size
        self._observer.advanced(self._unpacked.size_bytes, self._total_bytes, Unit.BYTES)

    def _copy_hard_link(self, entry: Entry) -> None:
        target = self._relative(entry.target)
        if target is None or not (self._to / target).is_file():
            raise SnapshotError(
                f"{entry.path} is a hard link to {entry.target}, which the snapshot does not hold before it",
                hint="Make the archive again with GNU tar's --hard-dereference.",
            )
        self._directory(entry.path.rpartition("/")[0])
        shutil.copyfile(self._to / target, self._to / entry.path)
        if self._owner is not None:
            os.chown(self._to / entry.path, self._owner.uid, self._owner.gid)

    def _publish_control(self) -> None:
        waiting = self._to / f"{CONTROL}.unpacking"
        waiting.rename(self._to / CONTROL)


def _write(descriptor: int, content: Content, size: int) -> int:
    """Write a whole file, close it, and return its size in bytes."""
    try:
        content.write_to(descriptor)
    finally:
        os.close(descriptor)
    return size


def _missing_tablespaces(run: Run, unpacked: Unpacked) -> dict[str, str]:
    """Return OID and location of each tablespace that the backup knows of and whose files the copy does not hold."""
    chosen, info = run.snapshot.chosen, run.snapshot.backup_info
    known = {path.rpartition("/")[2]: target for path, target in unpacked.links.items() if is_tablespace(path)}
    for link in (*chosen.tablespace_map, *(info.tablespaces if info is not None else ())):
        known.setdefault(str(link.oid), link.location)
    return {oid: place for oid, place in known.items() if not (run.workspace.pgdata / "pg_tblspc" / oid).is_dir()}


def _findings(run: Run, unpacked: Unpacked) -> Iterator[Finding]:
    chosen = run.snapshot.chosen
    for other in run.snapshot.others:
        yield Finding(
            "data_directory_passed_over",
            Severity.WARNING,
            other.prefix or ".",
            f"The snapshot holds several data directories. {chosen.prefix or '.'} was taken, whose last checkpoint is "
            f"of {chosen.control.checkpoint_time:%Y-%m-%d %H:%M:%S} UTC; that of this one is of "
            f"{other.control.checkpoint_time:%Y-%m-%d %H:%M:%S} UTC.",
            "If the other one is meant, unpack the snapshot and give pgrescue that directory.",
        )
    for item in run.snapshot.unreadable:
        yield Finding(
            "part_not_understood",
            Severity.WARNING,
            item.name,
            f"The rescue went on without it. {item.problem}",
            "If it matters, find an undamaged copy of it.",
        )
    info = run.snapshot.backup_info
    if info is not None and not info.is_done:
        yield Finding(
            "backup_unfinished",
            Severity.ERROR,
            "backup.info",
            f"Its status is {info.status}: the backup did not end well, and files may be missing from it.",
            "Use another backup, whose status is DONE.",
        )
    for oid, location in _missing_tablespaces(run, unpacked).items():
        yield Finding(
            "tablespace_missing",
            Severity.ERROR,
            f"pg_tblspc/{oid}",
            f"The tablespace lay at {location}, outside of the snapshot: its tables are not in the copy.",
            "Get the tablespace's files (barman-cloud: the tar named by its OID beside data.tar).",
        )
    for path, target in unpacked.links.items():
        if not is_tablespace(path):
            yield Finding(
                "link_not_followed",
                Severity.INFO,
                path,
                f"It is a symbolic link to {target}; pgrescue follows none, since it may point at a live server.",
                "If the data behind it is needed, add it to the snapshot as a directory.",
            )
    for path in unpacked.special:
        yield Finding(
            "special_file_skipped",
            Severity.INFO,
            path,
            "It is a device, a pipe or a socket, and was not copied.",
            "None is needed: no PostgreSQL data lies in such a file.",
        )
    if unpacked.set_aside:
        yield Finding(
            "files_set_aside",
            Severity.INFO,
            ", ".join(unpacked.set_aside),
            "These files would make the copy act like the original server, or keep it from starting.",
            "None is needed; they lie in removed/ of the workspace as they were.",
        )
