"""What pgrescue's containers are made of, as Docker's API takes and gives it; pure."""

from __future__ import annotations

import re
import secrets
import struct
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pgrescue.model import Owner

WORKSPACE = PurePosixPath("/pgrescue")
"""Where a container sees the workspace. The image's own place moved with 18 (formats.md §7); this one never does."""

PGDATA = WORKSPACE / "pgdata"

LABEL_PATH = "io.pgrescue.workspace"
LABEL_ID = "io.pgrescue.workspace-id"
LABEL_ROLE = "io.pgrescue.role"
LABEL_PORT = "io.pgrescue.port"
SERVER = "server"
TOOL = "tool"

STOP_TIMEOUT_S = 600
_SHM_BYTES = 1 << 30  # parallel queries and index builds die on Docker's 64 MB; it is a limit, not a reservation
_COVER_BYTES = 1 << 16
_LOG = {"Type": "json-file", "Config": {"max-size": "32m", "max-file": "4"}}
_NO_LOG: dict[str, Any] = {"Type": "none", "Config": {}}
FRAME_HEADER = struct.Struct(">BxxxL")
_STDERR = 2


@dataclass(frozen=True)
class Site:
    """What every container of one workspace has in common.

    `volumes` are the mount points that the image declares; `user` is whom the programs run as.
    """

    root: Path
    workspace_id: str
    image: str
    volumes: tuple[str, ...]
    user: Owner


@dataclass(frozen=True)
class Container:
    """A container as the daemon lists it; `state` is Docker's word, such as `running`, `mounted` paths of the host."""

    name: str
    state: str
    labels: Mapping[str, str]
    mounted: tuple[Path, ...] = ()

    @classmethod
    def parse(cls, listed: Mapping[str, Any]) -> Container:
        """Read one element of the daemon's list of containers."""
        mounted = tuple(Path(mount["Source"]) for mount in listed.get("Mounts") or [] if mount.get("Source"))
        return cls(listed["Names"][0].removeprefix("/"), listed["State"], listed.get("Labels") or {}, mounted)

    @property
    def role(self) -> str:
        """What it is for: `server` or `tool`."""
        return self.labels.get(LABEL_ROLE, "")

    @property
    def port(self) -> int | None:
        """The port on 127.0.0.1 that a server was started with."""
        text = self.labels.get(LABEL_PORT, "")
        return int(text) if text.isdecimal() else None

    def belongs_to(self, root: Path) -> bool:
        """Tell whether it is of the workspace at `root`, which it is by its id already.

        A workspace that was moved keeps its containers; a copy of it (`cp -a`) has the same id and none of them.
        """
        labelled = Path(self.labels.get(LABEL_PATH, ""))
        return labelled == root or not labelled.exists() or labelled.samefile(root)


def server_name(root: Path, workspace_id: str) -> str:
    """Return the name of the server's container, from what Docker allows: `pgrescue-<workspace>-<id>`."""
    base = re.sub(r"[^A-Za-z0-9_.-]+", "-", root.name.removesuffix(".pgrescue")).strip("-.") or "workspace"
    return f"pgrescue-{base[:40]}-{workspace_id}"


def tool_name(server: str) -> str:
    """Return a fresh name for a tool's container, beside the server's."""
    return f"{server}-tool-{secrets.token_hex(4)}"


def tool_config(
    site: Site,
    command: Sequence[str],
    *,
    network: str,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    user: Owner | None = None,
) -> dict[str, Any]:
    """Describe a container that runs `command` once and is removed by the daemon when it ends.

    `stdin` is a path in the container. Its output reaches only who is attached: a log driver would write all that
    pg_dump prints to the daemon's disk.
    """
    if stdin is not None:
        command = ("sh", "-c", 'exec "$@" <"$0"', stdin, *command)
    return {
        **_common(site, command, role=TOOL, env=env, user=user),
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {
            **_host(site),
            "AutoRemove": True,
            "NetworkMode": network,
            "LogConfig": _NO_LOG,
        },
    }


def probe_config(image: str, volumes: Iterable[str], script: str) -> dict[str, Any]:
    """Describe a container that asks an image something, without a workspace; it is removed when it ends."""
    return {
        "Image": image,
        "Entrypoint": ["sh", "-c"],
        "Cmd": [script],
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {"Mounts": _covers(volumes), "AutoRemove": True, "NetworkMode": "none", "LogConfig": _NO_LOG},
    }


def server_config(site: Site, settings: Mapping[str, str], *, port: int) -> dict[str, Any]:
    """Describe the container of the server: published on 127.0.0.1 only, never restarted by the daemon.

    The server listens on `port` inside too, so that 127.0.0.1:`port` is right on the host and in the tools'
    containers, which share its network. It has no socket directory: the image's belongs to another user.
    """
    own = {"listen_addresses": "*", "port": str(port), "unix_socket_directories": ""}
    given = [f"{name}={value}" for name, value in (*own.items(), *settings.items())]
    command = ["postgres", "-D", str(PGDATA), *(word for setting in given for word in ("-c", setting))]
    common = _common(site, command, role=SERVER)
    return {
        **common,
        "Labels": {**common["Labels"], LABEL_PORT: str(port)},
        "ExposedPorts": {f"{port}/tcp": {}},
        "StopSignal": "SIGINT",  # PostgreSQL's fast shutdown; SIGTERM would wait for the clients
        "StopTimeout": STOP_TIMEOUT_S,
        "HostConfig": {
            **_host(site),
            "NetworkMode": "bridge",
            "PortBindings": {f"{port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]},
            "ShmSize": _SHM_BYTES,
            "LogConfig": _LOG,
            "RestartPolicy": {"Name": "no"},
        },
    }


def _common(
    site: Site,
    command: Sequence[str],
    *,
    role: str,
    env: Mapping[str, str] | None = None,
    user: Owner | None = None,
) -> dict[str, Any]:
    """Describe what runs, without the image's entrypoint: that one runs initdb where it finds no data directory."""
    variables = {"LC_ALL": "C", "PGDATA": str(PGDATA), "HOME": "/nonexistent", **(env or {})}
    return {
        "Image": site.image,
        "Entrypoint": list(command[:1]),
        "Cmd": list(command[1:]),
        "User": str(user or site.user),
        "WorkingDir": "/",
        "Env": [f"{name}={value}" for name, value in variables.items()],
        "Labels": {LABEL_PATH: str(site.root), LABEL_ID: site.workspace_id, LABEL_ROLE: role},
    }


def _host(site: Site) -> dict[str, Any]:
    """Describe the mounts: the workspace, and a small tmpfs over each volume that the daemon would make otherwise.

    A mount, unlike a bind (`-v`), is refused when its source does not exist, instead of being made by root. SELinux
    is told to let the container read the workspace rather than to relabel it.
    """
    return {
        "Mounts": [{"Type": "bind", "Source": str(site.root), "Target": str(WORKSPACE)}, *_covers(site.volumes)],
        "SecurityOpt": ["label=disable"],
    }


def _covers(volumes: Iterable[str]) -> list[dict[str, Any]]:
    return [{"Type": "tmpfs", "Target": volume, "TmpfsOptions": {"SizeBytes": _COVER_BYTES}} for volume in volumes]


def frames(chunks: Iterable[bytes]) -> Iterator[tuple[bool, bytes]]:
    """Split Docker's stream of both outputs into its frames: whether it is of stderr, and what was written.

    Eight bytes precede each: the stream, three zeros, the length (Docker Engine API, "Attach to a container"). A
    frame that the stream's end cuts off is dropped.
    """
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= FRAME_HEADER.size:
            stream, length = FRAME_HEADER.unpack_from(buffer)
            end = FRAME_HEADER.size + length
            if len(buffer) < end:
                break
            yield stream == _STDERR, bytes(buffer[FRAME_HEADER.size : end])
            del buffer[:end]


def outputs(chunks: Iterable[bytes], on_stderr: Callable[[str], None] | None = None) -> tuple[str, str]:
    """Return what a program wrote to stdout and to stderr, telling of each line of stderr as it comes."""
    out, err = bytearray(), bytearray()

    def to_stderr() -> Iterator[bytes]:
        for is_stderr, data in frames(chunks):
            (err if is_stderr else out).extend(data)
            if is_stderr:
                yield data

    for line in lines(to_stderr()):
        if on_stderr is not None:
            on_stderr(line)
    return out.decode(errors="replace"), err.decode(errors="replace")


def lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Join pieces of text and split them into lines, without their ends."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)
    if rest:
        yield rest.decode(errors="replace")
