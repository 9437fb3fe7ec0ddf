"""What containers are made of, without a daemon."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

from pgrescue.engine.docker_container import (
    Container,
    Site,
    frames,
    lines,
    outputs,
    server_config,
    server_name,
    tool_config,
)
from pgrescue.model import Owner

if TYPE_CHECKING:
    from pathlib import Path

VOLUME = "/var/lib/postgresql/data"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, "0123456789ab", "postgres:17", (VOLUME,), Owner(1000, 1001))


def frame(stream: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(data)) + data


def test_a_tool_is_described_whole(site: Site) -> None:
    assert tool_config(site, ("pg_resetwal", "-n"), network="none", env={"PGUSER": "x"}) == {
        "Image": "postgres:17",
        "Entrypoint": ["pg_resetwal"],
        "Cmd": ["-n"],
        "User": "1000:1001",
        "WorkingDir": "/",
        "Env": ["LC_ALL=C", "PGDATA=/pgrescue/pgdata", "HOME=/nonexistent", "PGUSER=x"],
        "Labels": {
            "io.pgrescue.workspace": str(site.root),
            "io.pgrescue.workspace-id": "0123456789ab",
            "io.pgrescue.role": "tool",
        },
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {
            "Mounts": [
                {"Type": "bind", "Source": str(site.root), "Target": "/pgrescue"},
                {"Type": "tmpfs", "Target": VOLUME, "TmpfsOptions": {"SizeBytes": 65536}},
            ],
            "SecurityOpt": ["label=disable"],
            "AutoRemove": True,
            "NetworkMode": "none",
            "LogConfig": {"Type": "none", "Config": {}},
        },
    }


def test_stdin_is_a_file_that_no_shell_interprets(site: Site) -> None:
    config = tool_config(site, ("postgres", "--single", "$(x) 'y"), network="none", stdin="/pgrescue/a b.sql")
    assert config["Entrypoint"] == ["sh"]
    assert config["Cmd"] == ["-c", 'exec "$@" <"$0"', "/pgrescue/a b.sql", "postgres", "--single", "$(x) 'y"]


def test_the_server_listens_on_one_port_inside_and_outside_and_on_the_loopback_only(site: Site) -> None:
    config = server_config(site, {"fsync": "off"}, port=54321)
    own = ["-c", "listen_addresses=*", "-c", "port=54321", "-c", "unix_socket_directories="]
    assert config["Entrypoint"] == ["postgres"]
    assert config["Cmd"] == ["-D", "/pgrescue/pgdata", *own, "-c", "fsync=off"]
    host = config["HostConfig"]
    assert host["PortBindings"] == {"54321/tcp": [{"HostIp": "127.0.0.1", "HostPort": "54321"}]}
    assert host["RestartPolicy"] == {"Name": "no"}
    assert host["ShmSize"] == 1 << 30
    assert host["LogConfig"]["Config"] == {"max-size": "32m", "max-file": "4"}
    assert (config["StopSignal"], config["StopTimeout"]) == ("SIGINT", 600)
    assert config["Labels"]["io.pgrescue.role"] == "server"
    assert config["Labels"]["io.pgrescue.port"] == "54321"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("backup.pgrescue", "pgrescue-backup-id1"),
        ("Sicherung vom 3. März", "pgrescue-Sicherung-vom-3.-M-rz-id1"),
        ("…", "pgrescue-workspace-id1"),
        ("x" * 200, f"pgrescue-{'x' * 40}-id1"),
    ],
)
def test_a_name_is_made_of_what_docker_allows(tmp_path: Path, name: str, expected: str) -> None:
    assert server_name(tmp_path / name, "id1") == expected


def listed(**changed: Any) -> dict[str, Any]:
    labels = {"io.pgrescue.role": "server", "io.pgrescue.port": "5432"}
    return {"Names": ["/pgrescue-x"], "State": "running", "Labels": labels, **changed}


def test_a_listed_container_is_read(tmp_path: Path) -> None:
    read = Container.parse(listed(Mounts=[{"Source": str(tmp_path)}, {"Type": "tmpfs", "Source": ""}]))
    assert (read.name, read.state, read.role, read.port) == ("pgrescue-x", "running", "server", 5432)
    assert read.mounted == (tmp_path,)


def test_a_foreign_container_without_labels_is_read() -> None:
    read = Container.parse(listed(Labels=None))
    assert (read.role, read.port, read.mounted) == ("", None, ())


def test_a_moved_workspace_keeps_its_containers_and_a_copy_has_none(tmp_path: Path) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    of_here = Container("x", "running", {"io.pgrescue.workspace": str(here)})
    of_elsewhere = Container("x", "running", {"io.pgrescue.workspace": str(elsewhere)})
    assert of_here.belongs_to(here)
    assert of_elsewhere.belongs_to(here)
    elsewhere.mkdir()
    assert not of_elsewhere.belongs_to(here)


@pytest.mark.parametrize("size", [1, 3, 8, 1000])
def test_frames_are_found_however_the_stream_is_cut(size: int) -> None:
    stream = frame(1, b"one\n") + frame(2, b"") + frame(2, b"two") + frame(1, b"three")
    cut = [stream[begin : begin + size] for begin in range(0, len(stream), size)]
    assert list(frames(cut)) == [(False, b"one\n"), (True, b""), (True, b"two"), (False, b"three")]
    assert outputs(cut) == ("one\nthree", "two")


def test_a_frame_that_is_cut_off_is_dropped() -> None:
    assert outputs([frame(1, b"whole"), frame(1, b"cut off")[:-1]]) == ("whole", "")


def test_lines_are_joined_and_a_last_one_without_its_end_is_kept() -> None:
    assert list(lines([b"a\nb", b"c\n", b"", b"\xff\nd"])) == ["a", "bc", "\ufffd", "d"]
    assert list(lines([])) == []
