"""The engine that runs an image's PostgreSQL in containers."""

from __future__ import annotations

import contextlib
import io
import math
import os
import tarfile
import threading
import weakref
from collections import deque
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pgrescue.command import Completed
from pgrescue.engine.docker_container import (
    SERVER,
    TOOL,
    WORKSPACE,
    Container,
    Site,
    lines,
    server_config,
    server_name,
    tool_config,
    tool_name,
)
from pgrescue.engine.docker_daemon import Daemon, MissingError, OvertimeError, RefusedError
from pgrescue.engine.docker_image import (
    DockerInstallation,
    default_image,
    docker_unavailable,
    find_docker,
    image_is_present,
    known_docker,
)
from pgrescue.engine.interface import ServerState, ServerStatus
from pgrescue.errors import EngineError, PortInUseError, ServerError, ToolError
from pgrescue.model import Owner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pgrescue.engine.interface import Installation
    from pgrescue.workspace import Workspace

__all__ = [
    "DockerEngine",
    "DockerInstallation",
    "default_image",
    "docker_unavailable",
    "find_docker",
    "image_is_present",
    "known_docker",
]

# Docker's words for a taken port: its own allocator's, the kernel's, Docker Desktop's
_PORT_TAKEN = ("port is already allocated", "address already in use", "Ports are not available")
_NO_PROGRAM = "not found in $PATH"  # runc's words and crun's
_NO_NETWORK = "none"
_HOST_NETWORK = "host"
_SIGNALS = range(129, 193)  # a shell's and runc's status of a process that a signal ended: 128 and the signal
_LIST_LIBRARIES = (
    'for directory in "$(pg_config --pkglibdir 2>/dev/null)" /usr/lib/postgresql/*/lib /usr/local/lib/postgresql; do '
    'if [ -d "$directory" ]; then ls "$directory"; fi; done'
)


class DockerEngine:
    """Runs the programs of an image on one workspace (the promises are those of Engine).

    The programs see the workspace at /pgrescue and reach a running server at 127.0.0.1 and the port that it has on
    the host. The first call that changes anything ends what a killed pgrescue left running: the caller holds the
    workspace's lock. Its connections are closed by `close`, or with the object.
    """

    def __init__(self, found: DockerInstallation, workspace: Workspace, workspace_id: str) -> None:
        self._found = found
        self._workspace = workspace
        self._id = workspace_id
        self._server = server_name(workspace.root, workspace_id)
        self._sweeping = threading.Lock()
        self._is_swept = False

    @property
    def installation(self) -> Installation:
        """What this engine runs."""
        return self._found.installation

    def close(self) -> None:
        """Close the connections to the daemon; the next call makes a new one."""
        if daemon := self.__dict__.pop("_daemon", None):
            daemon.close()

    def path(self, path: Path) -> str:
        """Return how the programs name a path that lies in the workspace: below /pgrescue."""
        return str(WORKSPACE / path.absolute().relative_to(self._workspace.root))

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
        """Run one of PostgreSQL's programs to its end, in a container of its own; `online`, in the host's network."""
        command = (program, *args)
        if "--single" in args:
            self._require_sole_use()
        config = tool_config(
            self._site,
            command,
            network=_HOST_NETWORK if online else self._network(),
            stdin=None if stdin is None else self.path(stdin),
            env=env,
        )
        # The server's programs look their user up by number (get_user_name), and any number may be the caller's.
        archive = _passwd(self._site.user) if program in {"postgres", "initdb"} else None
        try:
            status, out, err = self._daemon.run(
                config, name=tool_name(self._server), timeout_s=timeout_s, archive=archive, on_stderr=on_stderr
            )
        except OvertimeError as error:
            raise ToolError(f"{program} did not end within {timeout_s:g} s and was stopped") from error
        except RefusedError as error:
            if _NO_PROGRAM in error.problem:
                raise EngineError(
                    f"the image {self._found.image} has no program {program}", hint="Name another one with --image."
                ) from error
            raise
        return Completed(command, 128 - status if status in _SIGNALS else status, out, err)

    def libraries(self) -> frozenset[str]:
        """Return the names of the loadable modules, without suffix."""
        return self._libraries

    def start(self, settings: Mapping[str, str], *, port: int) -> None:
        """Start the server's container and return at once; does nothing when it runs.

        What is left of an earlier one is removed, after its log is saved. Raises ServerError when the port is taken,
        or when a container that is not pgrescue's works in the workspace.
        """
        for container in self._swept():
            match container.state:
                case "running":
                    return
                case "paused":
                    self._daemon.unpause(container.name)
                    return
                case _:
                    self._put_away(container)
        self._require_sole_use()
        try:
            self._daemon.launch(server_config(self._site, settings, port=port), name=self._server)
        except RefusedError as error:
            if any(words in error.problem for words in _PORT_TAKEN):
                raise PortInUseError(
                    f"the server cannot listen on 127.0.0.1:{port}: the port is in use",
                    hint="Choose another port with --port, or leave it out to have a free one chosen.",
                ) from error
            raise

    def status(self) -> ServerStatus:
        """Tell whether the server runs, by asking for the workspace's containers."""
        for container in self._containers(SERVER):
            if container.state == "running":
                return ServerStatus(ServerState.RUNNING, container.port, f"container {container.name}")
        return ServerStatus(ServerState.STOPPED)

    def stop(self, *, timeout_s: float = 600) -> None:
        """Shut the server down (fast mode), by force after `timeout_s`; save its log, remove its container."""
        for container in self._containers(SERVER):
            with contextlib.suppress(MissingError):
                if container.state == "paused":
                    self._daemon.unpause(container.name)
                self._daemon.stop(container.name, timeout_s=math.ceil(timeout_s))
                self._put_away(container)

    def logs(self, *, tail: int | None = None, follow: bool = False) -> Iterator[str]:
        """Yield the lines of the container's log, or of logs/server.log where there is no container."""
        for container in self._containers(SERVER):
            yield from lines(self._daemon.logs(container.name, tail=tail, follow=follow))
            return
        if self._workspace.server_log.exists():
            with self._workspace.server_log.open(errors="replace") as file:
                yield from (line.rstrip("\n") for line in (file if tail is None else deque(file, maxlen=tail)))

    def remove(self) -> None:
        """Remove all containers of the workspace, at once, and give back to the caller the files that are not theirs.

        The official image's entrypoint, when a user starts it by hand, chowns the data directory to its own user.
        """
        for container in self._containers():
            self._daemon.remove(container.name)
        if os.geteuid() != 0 and _has_foreign_files(self._workspace.root):
            self._give_back()

    @cached_property
    def _daemon(self) -> Daemon:
        daemon = Daemon()
        weakref.finalize(self, daemon.close)
        return daemon

    @cached_property
    def _site(self) -> Site:
        try:
            declared = self._daemon.image(self._found.image)["Config"].get("Volumes") or {}
        except MissingError as error:
            image = self._found.image
            raise EngineError(f"Docker has no image {image} any more", hint=f"`docker pull {image}`") from error
        user = self._found.owner or Owner(os.geteuid(), os.getegid())
        return Site(self._workspace.root, self._id, self._found.image, tuple(declared), user)

    @cached_property
    def _libraries(self) -> frozenset[str]:
        listed = self.run("sh", ["-c", _LIST_LIBRARIES]).check("the image's loadable modules cannot be listed")
        return frozenset(Path(name).stem for name in listed.stdout.split() if name.endswith(".so"))

    def _containers(self, role: str | None = None) -> list[Container]:
        """List the workspace's containers, of one role or of all."""
        found = self._daemon.containers(self._id)
        return [one for one in found if role in {None, one.role} and one.belongs_to(self._workspace.root)]

    def _swept(self) -> list[Container]:
        """List the server's containers; at the first time, end the tools that a killed pgrescue left."""
        with self._sweeping:
            found = self._containers()
            if not self._is_swept:
                for container in found:
                    if container.role == TOOL:
                        self._daemon.remove(container.name)
                self._is_swept = True
        return [one for one in found if one.role == SERVER]

    def _network(self) -> str:
        """Return the network of a tool: the running server's, else none."""
        running = [container.name for container in self._swept() if container.state == "running"]
        return f"container:{running[0]}" if running else _NO_NETWORK

    def _require_sole_use(self) -> None:
        """Refuse to work beside a server on the same files: pgrescue's, or one that a user started by compose.yaml.

        PostgreSQL cannot notice: postmaster.pid names process 1, which each is in its own container.
        """
        root = self._workspace.root
        for other in self._daemon.running():
            if other.role != TOOL and any(path.is_relative_to(root) for path in other.mounted):
                stop = "pgrescue stop" if other.role == SERVER else f"docker stop {other.name}"
                raise ServerError(
                    f"the container {other.name} works in {root} already: two servers would destroy the data",
                    hint=f"Stop it first: `{stop}`",
                )

    def _put_away(self, container: Container) -> None:
        """Append a container's log to logs/server.log, readable by nobody else, and remove the container."""
        log = self._workspace.server_log
        log.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.writelines(self._daemon.logs(container.name))
        self._daemon.remove(container.name)

    def _give_back(self) -> None:
        """Chown the workspace to the caller, as root in a container; links themselves, never what they lead to."""
        caller = f"{os.geteuid()}:{os.getegid()}"
        command = ("chown", "-hR", caller, str(WORKSPACE))
        config = tool_config(self._site, command, network=_NO_NETWORK, user=Owner(0, 0))
        status, _, err = self._daemon.run(config, name=tool_name(self._server))
        if status != 0:
            raise EngineError(
                f"files in {self._workspace.root} belong to another user, and stay so: {err.strip()}",
                hint=f"`sudo chown -hR {caller} {self._workspace.root}`",
            )


def _passwd(user: Owner) -> bytes:
    """Return a tar with an etc/passwd that names `user`."""
    text = f"root:x:0:0::/root:/bin/sh\npostgres:x:{user}::/nonexistent:/bin/sh\n".encode()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("etc/passwd")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    return archive.getvalue()


def _has_foreign_files(root: Path) -> bool:
    """Tell whether anything below `root` belongs to somebody else than the caller, links not followed."""
    for directory, directories, files in os.walk(root):
        for name in (*directories, *files):
            with contextlib.suppress(FileNotFoundError):
                if (Path(directory) / name).lstat().st_uid != os.geteuid():
                    return True
    return False
