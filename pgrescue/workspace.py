"""Where things lie in a workspace, how it is opened and locked, and how its files are written."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgrescue.errors import UsageError, WorkspaceBusyError, WorkspaceError
from pgrescue.files import is_remains, remove_remains

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUFFIX = ".pgrescue"


@dataclass(frozen=True)
class Workspace:
    """The directory of one rescue. `root` is absolute; nothing outside of it is ever written."""

    root: Path

    @property
    def pgdata(self) -> Path:
        """The copy that PostgreSQL runs on; it exists only once it is complete."""
        return self.root / "pgdata"

    @property
    def unpacking(self) -> Path:
        """The copy while it is being made; worthless, and begun again, after a crash."""
        return self.root / "unpacking"

    @property
    def unpacked(self) -> Path:
        """What unpacking left out or set aside, as JSON."""
        return self.root / "unpacked.json"

    @property
    def removed(self) -> Path:
        """Every file that a step took away or replaced, as it was, under its path in the data directory."""
        return self.root / "removed"

    @property
    def server(self) -> Path:
        """pgrescue's own configuration of the server."""
        return self.root / "server"

    @property
    def logs(self) -> Path:
        """What the server and the tools said."""
        return self.root / "logs"

    @property
    def server_log(self) -> Path:
        """The server's log, where the engine keeps it in a file."""
        return self.logs / "server.log"

    @property
    def reset_plan(self) -> Path:
        """The values of the last WAL reset with their derivations, as JSON."""
        return self.root / "reset.json"

    @property
    def recovered(self) -> Path:
        """How far crash recovery came, as JSON; it exists only once recovery has ended."""
        return self.root / "recovered.json"

    @property
    def health(self) -> Path:
        """What the last health check found, as JSON."""
        return self.root / "health.json"

    @property
    def wal(self) -> Path:
        """WAL files on their way from an archive to the server."""
        return self.root / "wal"

    @property
    def staged(self) -> Path:
        """Which WAL files were put into the copy, as JSON."""
        return self.root / "staged.json"

    @property
    def replayed_part(self) -> Path:
        """Whether WAL was replayed before a reset, as JSON."""
        return self.root / "replayed.json"

    @property
    def repaired(self) -> Path:
        """What the repair found and did, as JSON; it exists only once the repair has ended."""
        return self.root / "repaired.json"

    @property
    def manifest(self) -> Path:
        """The rows that the repair set aside, brought back or knows to be lost, table by table, as JSON."""
        return self.root / "manifest.json"

    @property
    def checked_files(self) -> Path:
        """What the check of the copy's files found, as JSON."""
        return self.root / "files.json"

    @property
    def file_names(self) -> Path:
        """Which relations the damaged files belong to, by path, as JSON."""
        return self.root / "names.json"

    @property
    def verified(self) -> Path:
        """What the checks on the running server found, as JSON."""
        return self.root / "verified.json"

    @property
    def copied_config(self) -> Path:
        """Which of override.conf and custom.conf the copy had, as JSON; written before either is changed."""
        return self.root / "config.json"

    @property
    def taken_config(self) -> Path:
        """The override.conf and custom.conf that were taken from elsewhere for the copy, as JSON."""
        return self.root / "taken.json"

    @property
    def transfer(self) -> Path:
        """The report of the last transfer into another cluster, as JSON."""
        return self.root / "transfer.json"

    @property
    def salvage(self) -> Path:
        """The rows and blocks that a transfer with --salvage could not move, as JSON."""
        return self.root / "salvage.json"

    @property
    def made_from_copy(self) -> tuple[Path, ...]:
        """The files that say something of the copy in pgdata; with another copy they are void."""
        return (
            self.unpacked,
            self.copied_config,
            self.reset_plan,
            self.staged,
            self.replayed_part,
            self.recovered,
            self.repaired,
            self.manifest,
            self.checked_files,
            self.file_names,
            self.verified,
            self.health,
            self.pgpass,
            self.report,
            self.report_page,
            self.transfer,
            self.salvage,
            self.logs / "recover.log",
            self.server / "opened.conf",
        )

    @property
    def ledger(self) -> Path:
        """The durable record of steps; a directory without it is no workspace."""
        return self.root / "ledger.json"

    @property
    def report(self) -> Path:
        """The rescue report, as `local --json` prints it."""
        return self.root / "report.json"

    @property
    def report_page(self) -> Path:
        """The rescue report for a browser."""
        return self.root / "report.html"

    @property
    def pgpass(self) -> Path:
        """libpq's password file; it exists only once the server's role has that password."""
        return self.root / "pgpass"

    @property
    def service_file(self) -> Path:
        """libpq's service file with the service `pgrescue`."""
        return self.root / "pg_service.conf"

    @property
    def compose(self) -> Path:
        """The server as the runbook's step 6 starts it, for keeping."""
        return self.root / "compose.yaml"

    def create(self, *, shared: bool) -> None:
        """Make the directory; `shared` lets the identity that runs PostgreSQL pass through it.

        Raises WorkspaceError where something that is no workspace lies in the way: nothing of it is touched.
        """
        try:
            self._refuse_foreign()
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if shared and not self.root.stat().st_mode & stat.S_IXOTH:
                self.root.chmod(0o711)
            for directory in (self.removed, self.logs):
                directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise WorkspaceError(
                f"{self.root} cannot be made a workspace: {error.strerror}",
                hint="Name a directory that you can write to with --workspace.",
            ) from error

    def _refuse_foreign(self) -> None:
        if self.root.is_symlink() or (self.root.exists() and not self.root.is_dir()):
            raise WorkspaceError(
                f"{self.root} is in the way: it is not a directory", hint="Name another place with --workspace."
            )
        if self.root.is_dir() and not self.ledger.exists() and not self._is_unused():
            raise WorkspaceError(
                f"{self.root} is in the way: it holds files, and no ledger.json of pgrescue",
                hint="Nothing was changed there. Name an empty or a new directory with --workspace.",
            )

    def _is_unused(self) -> bool:
        """Tell whether nothing is there but what `create` makes, as after a kill before the rescue began."""
        return all(
            (path.name.startswith(f".{self.ledger.name}.") and is_remains(path))
            or (
                path in {self.removed, self.logs}
                and path.is_dir()
                and not path.is_symlink()
                and not any(path.iterdir())
            )
            for path in self.root.iterdir()
        )

    def discard_if_unused(self) -> None:
        """Remove the directory where no rescue has begun in it."""
        if self.root.is_dir() and self._is_unused():
            remove_remains(self.root)
            for directory in (*self.root.iterdir(), self.root):
                directory.rmdir()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other pgrescue out while the block runs; raise WorkspaceBusyError when one is in.

        The kernel drops the lock with the process, so that a kill leaves nothing behind; what a kill left of a file
        that was being written is removed.
        """
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise WorkspaceBusyError(
                    f"another pgrescue is at work in {self.root}",
                    hint="Wait for it to end, or stop it, and run the same command again.",
                ) from error
            for directory in (self.root, self.removed, self.removed / "global", self.logs, self.server, self.pgdata):
                remove_remains(directory)
            yield
        finally:
            os.close(descriptor)


def default_root(snapshot: Path, beside: Path) -> Path:
    """Return where a snapshot's rescue happens unless the user says otherwise: `<name>.pgrescue` in `beside`."""
    name = snapshot.name or "snapshot"
    for suffix in (".gz", ".bz2", ".xz", ".tgz", ".tar"):
        name = name.removesuffix(suffix)
    return beside / f"{name}{SUFFIX}"


def find(directory: Path) -> Workspace:
    """Return the only workspace in `directory`, or `directory` itself where it is one; raise UsageError otherwise."""
    if (directory / "ledger.json").exists():
        return Workspace(directory)
    found = sorted(path.parent for path in directory.glob(f"*{SUFFIX}/ledger.json"))
    match found:
        case [only]:
            return Workspace(only)
        case []:
            raise UsageError(
                f"there is no workspace in {directory}",
                hint="Name one with --workspace DIR, or make one with: pgrescue local SNAPSHOT",
            )
        case _:
            names = ", ".join(path.name for path in found)
            raise UsageError(f"several workspaces are in {directory}: {names}", hint="Choose one with --workspace DIR.")


def existing(root: Path) -> Workspace:
    """Return the workspace at `root`; raise UsageError where there is none."""
    workspace = Workspace(root.absolute())
    try:
        known = workspace.ledger.exists()
    except OSError as error:
        raise WorkspaceError(
            f"{root} cannot be looked into: {error.strerror}", hint="Run pgrescue as the user who made the workspace."
        ) from error
    if not known:
        raise UsageError(
            f"{root} is no workspace: it has no ledger.json", hint="Make one with: pgrescue local SNAPSHOT"
        )
    return workspace
