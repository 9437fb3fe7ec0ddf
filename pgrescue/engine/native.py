"""The engine that runs the PostgreSQL of this machine, or of an embedded wheel."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from pgrescue import command
from pgrescue.engine import native_process as process
from pgrescue.engine.interface import ServerState, ServerStatus
from pgrescue.engine.native_find import NativeInstallation, find_native
from pgrescue.errors import EngineError, PortInUseError, ServerError
from pgrescue.retry import until_returns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pgrescue.command import Completed
    from pgrescue.engine.interface import Installation
    from pgrescue.workspace import Workspace

__all__ = ["NativeEngine", "NativeInstallation", "find_native"]

_FOLLOW_PAUSE_S = 0.2

# Shared memory in pg_dynshmem of the data directory: a kill leaves none of it in /dev/shm, which is 64 MB small in a
# container, where parallel queries fail for want of it ("could not resize shared memory segment").
_MEMORY = {"dynamic_shared_memory_type": "mmap"}
_SETTINGS = {"unix_socket_directories": "", **_MEMORY}


class _UndecidedError(Exception):
    """A server that was just started has neither written its lock file nor ended."""


class NativeEngine:
    """Runs the programs of an installation on one workspace (the promises are those of Engine)."""

    def __init__(self, found: NativeInstallation, workspace: Workspace) -> None:
        self._found = found
        self._workspace = workspace
        self._reachable: bool | None = None

    @property
    def installation(self) -> Installation:
        """What this engine runs."""
        return self._found.installation

    def path(self, path: Path) -> str:
        """Return how the engine's programs name a path that lies in the workspace.

        It is the path itself, unless a directory above the workspace keeps the programs' identity out, such as
        /root: then it leads through a descriptor that every program inherits (command.WITHIN).
        """
        inside = path.absolute().relative_to(self._workspace.root)
        return str((self._workspace.root if self._is_reachable else command.WITHIN) / inside)

    def run(
        self,
        program: str,
        args: Sequence[str],
        *,
        stdin: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        on_stderr: Callable[[str], None] | None = None,
        online: bool = False,
    ) -> Completed:
        """Run one of PostgreSQL's programs to its end, after ending what a killed pgrescue left running.

        One that goes `online` runs as the caller, who reaches sockets and certificates that the owner does not; the
        data directory is none of its business.
        """
        if not online:
            self._end_leftovers()
        return command.run(
            [self._program(program), *_in_single_user_mode(args)],
            stdin=stdin,
            cwd=self._cwd,
            env={**(env or {}), **process.mark(self._workspace.root)},
            owner=None if online else self._found.owner,
            within=self._within,
            timeout_s=timeout_s,
            on_stderr=on_stderr,
        )

    def libraries(self) -> frozenset[str]:
        """Return the names of the loadable modules, without suffix."""
        return frozenset(
            path.stem
            for directory in self._library_directories()
            for path in directory.iterdir()
            if path.suffix in {".so", ".dylib"}
        )

    def start(self, settings: Mapping[str, str], *, port: int) -> None:
        """Start `postgres` on pgdata; return once it holds the directory, which takes some milliseconds.

        Does nothing when it runs. Raises ServerError when the port is taken, or when postgres ends at once.
        """
        if self._postmaster() is not None:
            return
        self._end_leftovers()
        self._require_free(port)
        arguments = {"listen_addresses": "127.0.0.1", "port": str(port), **_SETTINGS, **settings}
        pgdata = self.path(self._workspace.pgdata)
        log = self._workspace.server_log
        _make_private(log)
        begin = log.stat().st_size
        child = command.spawn(
            [self._program("postgres"), "-D", pgdata, *_options(arguments)],
            log=log,
            cwd=self._cwd,
            owner=self._found.owner,
            within=self._within,
        )
        # The server outlives this object and this process: nobody waits for it through `child`.
        process.adopt(child.pid)
        child.returncode = 0
        self._await_decision(child.pid, begin)

    def status(self) -> ServerStatus:
        """Tell whether the server runs, by looking at postmaster.pid and at the process that it names."""
        found = self._postmaster()
        if found is None:
            return ServerStatus(ServerState.STOPPED)
        return ServerStatus(ServerState.RUNNING, port=found.port, where=f"process {found.pid}")

    def stop(self, *, timeout_s: float = 600) -> None:
        """Shut the server down (fast mode); after `timeout_s` at once, and then by force. Idempotent.

        SIGINT is the fast shutdown, SIGQUIT the immediate one (postgres(1), "Signals").
        """
        found = self._postmaster()
        if found is not None and not process.end(found.pid, by=signal.SIGINT, timeout_s=timeout_s):
            process.end_by_force(found.pid, first=signal.SIGQUIT, patience_s=10)
        self._end_leftovers()

    def logs(self, *, tail: int | None = None, follow: bool = False) -> Iterator[str]:
        """Yield the lines of logs/server.log; with `follow` until the server has stopped."""
        log = self._workspace.server_log
        if not log.exists():
            return
        with log.open(errors="replace") as file:
            yield from (line.rstrip("\n") for line in (file if tail is None else deque(file, maxlen=tail)))
            if not follow:
                return
            part = ""
            while True:
                # Asked before reading: what a server wrote before it ended is read after it ended.
                is_over = self._postmaster() is None
                while read := file.readline():
                    part += read
                    if part.endswith("\n"):
                        yield part.rstrip("\n")
                        part = ""
                if is_over:
                    break
                time.sleep(_FOLLOW_PAUSE_S)
            if part:
                yield part

    def remove(self) -> None:
        """Stop the server, end every program of the workspace, free what a crash left in memory; idempotent."""
        self.stop()
        ipcrm = shutil.which("ipcrm")
        for segment in process.dead_segments(self._workspace.pgdata) if ipcrm else ():
            command.run([str(ipcrm), "-m", segment])

    @property
    def _cwd(self) -> Path:
        """Where programs begin: in the data directory, by which they are recognised.

        Before 16, find_my_exec of PostgreSQL leaves its working directory and returns to it by its name (exec.c,
        resolve_symlinks), which fails where the identity cannot pass the directories above.
        """
        if not self._is_reachable:
            return Path("/")
        return self._workspace.pgdata if self._workspace.pgdata.is_dir() else self._workspace.root

    @property
    def _is_reachable(self) -> bool:
        """Whether the identity can pass all directories down to the workspace; the kernel is asked, once it exists."""
        if self._reachable is None and self._workspace.root.is_dir():
            self._reachable = self._can_pass()
        return self._reachable is not False

    def _can_pass(self) -> bool:
        test = shutil.which("test")
        if self._found.owner is None or test is None:
            return True
        done = command.run([test, "-x", f"{self._workspace.root}/."], cwd=Path("/"), owner=self._found.owner)
        return done.status == 0

    @property
    def _within(self) -> Path | None:
        return None if self._is_reachable else self._workspace.root

    def _program(self, name: str) -> str:
        program = self._found.bindir / name
        if not program.exists():
            raise EngineError(
                f"PostgreSQL {self._found.version} in {self._found.source} has no program {name}",
                hint="Install the complete server packages, or name another place with --bindir DIR.",
            )
        return str(program)

    def _library_directories(self) -> tuple[Path, ...]:
        """Return where the loadable modules lie: what pg_config tells, else the layouts of the wheels and of source."""
        bindir = self._found.bindir
        if (bindir / "pg_config").exists():
            said = command.run([str(bindir / "pg_config"), "--pkglibdir"], cwd=Path("/"), owner=self._found.owner)
            told = Path(said.check("the place of PostgreSQL's modules cannot be told").stdout.strip())
            if told.is_dir():
                return (told,)
        usual = (bindir.parent / "lib", bindir.parent / "lib" / "postgresql")
        return tuple(directory for directory in usual if directory.is_dir())

    def _postmaster(self) -> process.LockFile | None:
        """Return the lock file of the running server, None where no server runs."""
        pgdata = self._workspace.pgdata
        found = process.LockFile.read(pgdata)
        return found if found is not None and process.is_server(found.pid, pgdata) else None

    def _end_leftovers(self) -> None:
        """End what outlived its pgrescue or its postmaster; then remove a lock file that nobody holds.

        A one-shot such as pg_resetwal refuses a data directory with postmaster.pid, and a server refuses one whose
        number was given to another process of the same user. Raises ServerError when a container uses the directory.
        """
        pgdata = self._workspace.pgdata
        left = process.leftovers(self._workspace.root, pgdata)
        if any(process.is_contained(pid) for pid in left):
            raise ServerError(
                f"a PostgreSQL in a container works in {pgdata}; two servers would destroy it",
                hint="Stop that container, or use --engine docker.",
            )
        process.end_by_force(*left, first=signal.SIGTERM, patience_s=5)
        lock = process.LockFile.read(pgdata)
        if lock is None or not process.is_server(abs(lock.pid), pgdata):
            (pgdata / "postmaster.pid").unlink(missing_ok=True)

    def _require_free(self, port: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # As PostgreSQL does (pqcomm.c): connections that are closing do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                why = "it is in use" if error.errno == errno.EADDRINUSE else error.strerror
                raise PortInUseError(
                    f"the server cannot listen on 127.0.0.1:{port}: {why}",
                    hint="Choose another port with --port, or leave it out to have a free one chosen.",
                ) from error

    def _await_decision(self, pid: int, begin: int) -> None:
        """Wait until the server holds its directory or has ended; raise ServerError in the second case."""

        def decided() -> bool:
            if self._postmaster() is not None:
                return True
            if not process.is_alive(pid):
                return False
            raise _UndecidedError

        if not until_returns(decided, on=_UndecidedError, timeout_s=60, longest_pause_s=0.1):
            with self._workspace.server_log.open(errors="replace") as log:
                log.seek(begin)
                said = "\n".join(f"  {line.rstrip()}" for line in deque(log, maxlen=12))
            raise ServerError(f"the server ended at once:\n{said or '  it said nothing'}")


def _options(settings: Mapping[str, str]) -> list[str]:
    return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]


def _in_single_user_mode(args: Sequence[str]) -> Sequence[str]:
    """Return the arguments with the engine's setting, where they are those of `postgres --single`."""
    match args:
        case ["--single", *others]:
            return ["--single", *_options(_MEMORY), *others]
        case _:
            return args


def _make_private(log: Path) -> None:
    """Create a log that nobody else reads: it may hold rows of the database."""
    log.parent.mkdir(mode=0o700, exist_ok=True)
    os.close(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
