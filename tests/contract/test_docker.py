"""What only the docker engine promises: containers, images, ownership across the mount."""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import docker
import pytest

from pgrescue.engine.docker import DockerEngine, find_docker, known_docker
from pgrescue.engine.interface import ServerState
from pgrescue.errors import EngineError, ServerError, ToolError
from pgrescue.model import Owner, PgVersion
from pgrescue.pipeline import Silent
from pgrescue.workspace import Workspace
from tests.contract import engines_docker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.docker

SETTINGS = {"shared_buffers": "16MB", "fsync": "off"}


@pytest.fixture(autouse=True)
def _available() -> None:
    engines_docker.require(17)


@pytest.fixture
def client() -> Iterator[Any]:
    client = docker.DockerClient.from_env()
    yield client
    client.close()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., DockerEngine]]:
    """Make engines on workspaces of their own; remove at the end what they hold."""
    made: list[DockerEngine] = []

    def make(major: int = 17, *, root: Path | None = None, workspace_id: str | None = None) -> DockerEngine:
        root = root or tmp_path / f"{len(made)} é.pgrescue"
        workspace = Workspace(root)
        workspace.create(shared=True)
        made.append(engines_docker.make(workspace, major, workspace_id or secrets.token_hex(6)))
        return made[-1]

    yield make
    for engine in made:
        engine.remove()
        engine.close()
    gc.collect()  # an unclosed socket must be seen as a failure of this test


@pytest.fixture(scope="session")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Return data directories as initdb makes them, one for each major, made when first asked for."""
    made: dict[int, Path] = {}

    def cluster(major: int) -> Path:
        if major not in made:
            workspace = Workspace(tmp_path_factory.mktemp(f"cluster-{major}") / "w")
            workspace.create(shared=True)
            with contextlib.closing(engines_docker.make(workspace, major, secrets.token_hex(6))) as engine:
                own(workspace.root, engine)
                initdb = ["-D", engine.path(workspace.pgdata), "-U", "postgres", "-A", "trust", "--no-sync"]
                engine.run("initdb", initdb).check("initdb")
            made[major] = workspace.pgdata
        return made[major]

    return cluster


def own(path: Path, engine: DockerEngine) -> None:
    if owner := engine.installation.owner:
        subprocess.run(["chown", "-R", str(owner), path], check=True)


@pytest.fixture
def stocked(
    make: Callable[..., DockerEngine], clusters: Callable[[int], Path]
) -> Callable[..., tuple[DockerEngine, Workspace]]:
    """Make an engine on a workspace with a data directory."""

    def stocked(major: int = 17) -> tuple[DockerEngine, Workspace]:
        engine = make(major)
        workspace = engine._workspace
        subprocess.run(["cp", "-a", clusters(major), workspace.pgdata], check=True)
        return engine, workspace

    return stocked


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_ready(engine: DockerEngine) -> None:
    deadline = time.monotonic() + 60
    while not any("ready to accept connections" in line for line in engine.logs()):
        assert time.monotonic() < deadline, list(engine.logs())
        time.sleep(0.05)


def start(engine: DockerEngine) -> int:
    port = free_port()
    engine.start(SETTINGS, port=port)
    await_ready(engine)
    return port


def query(engine: DockerEngine, port: int, sql: str) -> str:
    args = ["-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-XAtc", sql]
    return engine.run("psql", args).check("psql").stdout.strip()


def of_workspace(client: Any, engine: DockerEngine) -> list[Any]:
    found: list[Any] = client.containers.list(
        all=True, filters={"label": f"io.pgrescue.workspace-id={engine._id}"}, ignore_removed=True
    )
    return found


@contextlib.contextmanager
def by_hand(client: Any, workspace: Workspace, program: str, *args: str) -> Iterator[Any]:
    """Run a container on the data directory, as root, as a user may do."""
    mount = docker.types.Mount("/data", str(workspace.pgdata), type="bind")
    container = client.containers.run("postgres:17", list(args), entrypoint=[program], mounts=[mount], detach=True)
    try:
        yield container
    finally:
        container.remove(force=True, v=True)


def is_tool(container: Any) -> bool:
    return bool(container.labels["io.pgrescue.role"] == "tool")


# ---- the server's container


@pytest.mark.parametrize("major", [17, 18])
def test_the_server_is_named_labelled_and_published_on_the_loopback_only(
    stocked: Callable[..., tuple[DockerEngine, Workspace]], client: Any, major: int
) -> None:
    engine, workspace = stocked(major)
    port = start(engine)
    [container] = of_workspace(client, engine)
    assert re.fullmatch(rf"pgrescue-0-{engine._id}", container.name)
    assert container.labels["io.pgrescue.workspace"] == str(workspace.root)
    assert container.labels["io.pgrescue.role"] == "server"
    assert container.ports[f"{port}/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": str(port)}]
    assert [ports for ports in container.ports.values() if ports] == [container.ports[f"{port}/tcp"]]
    assert {mount["Type"] for mount in container.attrs["Mounts"]} <= {"bind", "tmpfs"}
    assert engine.status().where == f"container {container.name}"
    assert query(engine, port, "show server_version").startswith(f"{major}.")


@pytest.mark.parametrize("major", [17, 18])
def test_no_volume_is_made_where_the_image_declares_one(
    make: Callable[..., DockerEngine], client: Any, major: int
) -> None:
    engine = make(major)
    [declared] = client.images.get(f"postgres:{major}").attrs["Config"]["Volumes"]
    mounts = engine.run("cat", ["/proc/mounts"]).stdout.splitlines()
    assert [line.split()[0] for line in mounts if line.split()[1] == declared] == ["tmpfs"]


def test_two_rescues_stand_side_by_side(stocked: Callable[..., tuple[DockerEngine, Workspace]]) -> None:
    one, _ = stocked()
    other, _ = stocked()
    ports = [start(one), start(other)]
    assert [one.status().port, other.status().port] == ports
    one.remove()
    assert one.status().state is ServerState.STOPPED
    assert query(other, ports[1], "select 1") == "1"


def test_a_taken_port_is_told_and_leaves_nothing(
    stocked: Callable[..., tuple[DockerEngine, Workspace]], client: Any
) -> None:
    engine, _ = stocked()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"127.0.0.1:{port}") as caught:
            engine.start(SETTINGS, port=port)
    assert "--port" in caught.value.hint
    assert of_workspace(client, engine) == []
    engine.start(SETTINGS, port=port)
    assert engine.status().port == port


def test_a_port_of_another_rescue_is_taken(stocked: Callable[..., tuple[DockerEngine, Workspace]]) -> None:
    one, _ = stocked()
    other, _ = stocked()
    port = start(one)
    with pytest.raises(ServerError, match=f"127.0.0.1:{port}"):
        other.start(SETTINGS, port=port)


def test_a_server_that_was_killed_is_started_anew_and_its_log_is_kept(
    stocked: Callable[..., tuple[DockerEngine, Workspace]], client: Any
) -> None:
    engine, workspace = stocked()
    start(engine)
    [container] = of_workspace(client, engine)
    container.kill("SIGKILL")
    container.wait()
    assert engine.status().state is ServerState.STOPPED
    start(engine)
    assert engine.status().state is ServerState.RUNNING
    assert "ready to accept connections" in workspace.server_log.read_text()
    assert workspace.server_log.stat().st_mode & 0o777 == 0o600
    [container] = of_workspace(client, engine)
    container.kill("SIGKILL")
    container.wait()
    engine.stop()
    assert of_workspace(client, engine) == []


def test_a_paused_server_is_stopped_and_started(
    stocked: Callable[..., tuple[DockerEngine, Workspace]], client: Any
) -> None:
    engine, _ = stocked()
    port = start(engine)
    of_workspace(client, engine)[0].pause()
    assert engine.status().state is ServerState.STOPPED
    engine.start(SETTINGS, port=port)
    assert query(engine, port, "select 1") == "1"
    of_workspace(client, engine)[0].pause()
    engine.stop()
    assert of_workspace(client, engine) == []
    assert "database system is shut down" in list(engine.logs())[-1]


def test_a_container_removed_behind_our_back(
    stocked: Callable[..., tuple[DockerEngine, Workspace]], client: Any
) -> None:
    engine, _ = stocked()
    start(engine)
    of_workspace(client, engine)[0].remove(force=True, v=True)
    assert engine.status().state is ServerState.STOPPED
    assert list(engine.logs()) == []
    engine.stop()
    port = start(engine)
    assert query(engine, port, "select 1") == "1"


def test_a_container_of_the_user_on_the_same_files_forbids_a_start(
    stocked: Callable[..., tuple[DockerEngine, Workspace]], client: Any
) -> None:
    engine, workspace = stocked()
    with by_hand(client, workspace, "sleep", "300") as container:
        with pytest.raises(ServerError, match=container.name) as caught:
            engine.start(SETTINGS, port=free_port())
        assert f"docker stop {container.name}" in caught.value.hint
    start(engine)


def test_no_single_user_backend_beside_the_server(stocked: Callable[..., tuple[DockerEngine, Workspace]]) -> None:
    engine, workspace = stocked()
    start(engine)
    with pytest.raises(ServerError, match="works in") as caught:
        engine.run("postgres", ["--single", "-D", engine.path(workspace.pgdata), "postgres"])
    assert "pgrescue stop" in caught.value.hint


# ---- logs


def test_followed_logs_end_with_the_server(stocked: Callable[..., tuple[DockerEngine, Workspace]]) -> None:
    engine, _ = stocked()
    start(engine)
    seen: list[str] = []
    follower = threading.Thread(target=lambda: seen.extend(engine.logs(tail=1, follow=True)))
    follower.start()
    time.sleep(0.5)
    engine.stop()
    follower.join(timeout=30)
    assert not follower.is_alive()
    assert "database system is shut down" in seen[-1]


def test_followed_logs_can_be_left(stocked: Callable[..., tuple[DockerEngine, Workspace]]) -> None:
    engine, _ = stocked()
    start(engine)
    following = engine.logs(follow=True)
    assert len(list(itertools.islice(following, 2))) == 2
    following.close()  # type: ignore[attr-defined] # a generator
    assert engine.status().state is ServerState.RUNNING


# ---- a client that dies

CLIENT = """
import sys
from pathlib import Path
from pgrescue.engine.docker import DockerEngine, known_docker
from pgrescue.model import PgVersion
from pgrescue.workspace import Workspace
workspace = Workspace(Path(sys.argv[1]))
found = known_docker("postgres:17", version=PgVersion(17), pgdata=workspace.pgdata)
DockerEngine(found, workspace, sys.argv[2]).run("sleep", ["300"])
"""


@contextlib.contextmanager
def busy_client(engine: DockerEngine, client: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a pgrescue whose tool is at work."""
    args = [sys.executable, "-c", CLIENT, str(engine._workspace.root), engine._id]
    with subprocess.Popen(args, stderr=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 60
            while not any(is_tool(one) and one.status == "running" for one in of_workspace(client, engine)):
                assert time.monotonic() < deadline
                assert process.poll() is None, process.stderr and process.stderr.read()
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


def test_ctrl_c_ends_the_tool(make: Callable[..., DockerEngine], client: Any) -> None:
    engine = make()
    with busy_client(engine, client) as process:
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert b"KeyboardInterrupt" in process.stderr.read()
    assert of_workspace(client, engine) == []


def test_what_a_killed_client_leaves_is_ended_by_the_next_call(make: Callable[..., DockerEngine], client: Any) -> None:
    engine = make()
    with busy_client(engine, client):
        pass
    assert engine.status().state is ServerState.STOPPED
    assert list(engine.logs()) == []
    assert [one.status for one in of_workspace(client, engine)] == ["running"], "looking changes nothing"
    engine.run("true", [])
    assert of_workspace(client, engine) == []


def test_what_a_killed_client_leaves_is_ended_by_remove(
    stocked: Callable[..., tuple[DockerEngine, Workspace]], client: Any
) -> None:
    engine, _ = stocked()
    start(engine)
    with busy_client(engine, client):
        pass
    assert len(of_workspace(client, engine)) == 2
    engine.remove()
    assert of_workspace(client, engine) == []
    engine.remove()


def test_a_second_call_of_the_same_engine_leaves_the_first_alone(
    make: Callable[..., DockerEngine], client: Any
) -> None:
    engine = make()
    engine.run("true", [])
    status: list[int] = []
    slow = threading.Thread(target=lambda: status.append(engine.run("sleep", ["2"]).status))
    slow.start()
    while not of_workspace(client, engine):
        time.sleep(0.05)
    engine.run("true", [])
    slow.join()
    assert status == [0]


def test_a_program_that_is_stopped_after_its_time_is_gone(make: Callable[..., DockerEngine], client: Any) -> None:
    engine = make()
    with pytest.raises(ToolError, match=r"did not end within 0\.5 s"):
        engine.run("sleep", ["300"], timeout_s=0.5)
    assert of_workspace(client, engine) == []


# ---- ownership


def test_programs_run_as_the_owner_and_write_only_into_the_workspace(make: Callable[..., DockerEngine]) -> None:
    engine = make()
    workspace = engine._workspace
    own(workspace.root, engine)
    said = engine.run("sh", ["-c", f"id -u; id -g; touch {engine.path(workspace.root)}/made"]).check("sh")
    expected = engine.installation.owner or Owner(os.geteuid(), os.getegid())
    assert said.stdout.split() == [str(expected.uid), str(expected.gid)]
    found = (workspace.root / "made").stat()
    assert (found.st_uid, found.st_gid) == (expected.uid, expected.gid)
    if os.geteuid() == 0:
        assert expected == Owner(999, 999)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make files of another user")
def test_any_uid_runs_every_program(stocked: Callable[..., tuple[DockerEngine, Workspace]]) -> None:
    _, workspace = stocked()
    subprocess.run(["chown", "-R", "54321:54322", workspace.root], check=True)
    sql = workspace.root / "a $(touch x) 'b.sql"
    sql.write_text("select 40 + 2 as answer\n")
    sql.chmod(0o644)
    with contextlib.closing(engines_docker.make(workspace, 17, secrets.token_hex(6))) as engine:
        assert engine.installation.owner == Owner(54321, 54322)
        args = ["--single", "-D", engine.path(workspace.pgdata), "postgres"]
        assert 'answer = "42"' in engine.run("postgres", args, stdin=sql).check("single").stdout
        port = start(engine)
        assert query(engine, port, "select 1") == "1"
        engine.remove()
    assert {path.stat().st_uid for path in workspace.pgdata.rglob("*")} == {54321}


def test_remove_gives_a_plain_user_the_files_that_an_entrypoint_took(
    stocked: Callable[..., tuple[DockerEngine, Workspace]], client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, workspace = stocked()
    user = Owner(os.geteuid() or 12345, os.getegid() or 12346)
    outside = tmp_path / "outside"
    outside.touch()
    (workspace.pgdata / "link").symlink_to(outside)
    if os.geteuid() == 0:
        subprocess.run(["chown", "-hR", str(user), workspace.root], check=True)
    with by_hand(client, workspace, "chown", "-hR", "999", "/data") as container:
        container.wait()
    assert workspace.pgdata.stat().st_uid == 999
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: user.uid)
        patch.setattr(os, "getegid", lambda: user.gid)
        engine.remove()
    assert {path.lstat().st_uid for path in workspace.root.rglob("*")} == {user.uid}
    assert outside.stat().st_uid == os.geteuid()


# ---- images


def test_an_absent_image_is_told_with_the_remedy() -> None:
    absent = "127.0.0.1:9/absent:17"
    for may_pull in (False, True):
        with pytest.raises(EngineError, match="absent:17") as caught:
            find_docker(17, image=absent, may_pull=may_pull, observer=Silent())
        assert f"docker pull {absent}" in caught.value.hint
        assert "--engine native" in caught.value.hint


def test_an_image_of_another_major_is_refused() -> None:
    with pytest.raises(EngineError, match=r"PostgreSQL 16, and the image postgres:17 has PostgreSQL 17\."):
        find_docker(16, image="postgres:17", may_pull=False, observer=Silent())


@pytest.fixture
def derived(client: Any) -> Iterator[Callable[[str], str]]:
    made: list[str] = []

    def derive(lines: str) -> str:
        tag = f"pgrescue-test:{secrets.token_hex(4)}"
        client.images.build(fileobj=io.BytesIO(f"FROM postgres:17\n{lines}\n".encode()), tag=tag, rm=True)
        made.append(tag)
        return tag

    yield derive
    for tag in made:
        client.images.remove(tag, force=True)


def test_an_image_that_does_not_tell_its_version_is_asked(derived: Callable[[str], str]) -> None:
    image = derived("ENV PG_MAJOR=''\nVOLUME /one /two")
    found = find_docker(17, image=image, may_pull=False, observer=Silent())
    assert found.version.major == 17
    assert found.version.minor is not None
    assert found.owner == (Owner(999, 999) if os.geteuid() == 0 else None)
    with pytest.raises(EngineError, match="has PostgreSQL 17"):
        find_docker(16, image=image, may_pull=False, observer=Silent())


def test_an_image_without_postgresql_is_refused(derived: Callable[[str], str]) -> None:
    image = derived("ENV PG_MAJOR='' PATH=/usr/bin:/bin")
    with pytest.raises(EngineError, match="does not tell its PostgreSQL version"):
        find_docker(17, image=image, may_pull=False, observer=Silent())


def test_a_workspace_is_looked_at_and_removed_without_its_image(make: Callable[..., DockerEngine]) -> None:
    workspace = make()._workspace
    found = known_docker("pgrescue-test:gone", version=PgVersion(17), pgdata=workspace.pgdata)
    with contextlib.closing(DockerEngine(found, workspace, secrets.token_hex(6))) as engine:
        assert engine.status().state is ServerState.STOPPED
        assert list(engine.logs()) == []
        engine.stop()
        engine.remove()
        with pytest.raises(EngineError, match="no image pgrescue-test:gone any more"):
            engine.run("true", [])


def test_a_workspace_that_the_daemon_does_not_see_is_told(make: Callable[..., DockerEngine]) -> None:
    engine = make()
    shutil.rmtree(engine._workspace.root)
    with pytest.raises(EngineError, match="bind source path does not exist") as caught:
        engine.run("true", [])
    assert "--engine native" in caught.value.hint
