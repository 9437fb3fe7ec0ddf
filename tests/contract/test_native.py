"""What only the native engine promises: identities, what a kill leaves, and nothing left in memory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pgrescue.engine.interface import ServerState
from pgrescue.engine.native import NativeEngine, find_native
from pgrescue.errors import ServerError, ToolError
from pgrescue.workspace import Workspace
from tests.contract import engines_native
from tests.contract.conftest import Site, connect, free_port, own
from tests.contract.test_engine import CHECKOUT, control, kill_server, select, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgrescue.engine.interface import Engine

pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc"),
]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

WAITING_ONE_SHOT = """
import sys
from pathlib import Path
from pgrescue.workspace import Workspace
from tests.contract.conftest import Site
site = Site("native", int(sys.argv[1]), Workspace(Path(sys.argv[2])))
engine = site.engine()
args = ["--single", "-D", engine.path(site.workspace.pgdata), "postgres"]
engine.run("postgres", args, stdin=site.workspace.root / "fifo")
"""

ORDINARY_USER = """
import sys
from pathlib import Path
from pgrescue.engine.native import NativeEngine, find_native
from pgrescue.workspace import Workspace
workspace = Workspace(Path(sys.argv[1]))
workspace.create(shared=False)
found = find_native(17)
assert found.owner is None
engine = NativeEngine(found, workspace)
pgdata = engine.path(workspace.pgdata)
engine.run("initdb", ["-D", pgdata, "-A", "trust", "--no-sync"]).check("initdb")
engine.start({}, port=int(sys.argv[2]))
print(engine.status().state)
engine.stop()
engine.remove()
print(engine.status().state, workspace.root.stat().st_mode & 0o777 == 0o700)
"""


@pytest.fixture(params=(17, 18))
def site(request: pytest.FixtureRequest, new_site: Callable[..., Site]) -> Site:
    return new_site("native", request.param)


def workers(pgdata: Path) -> list[int]:
    """Return the processes that work in a data directory."""
    return [
        int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal() and _is_in(entry / "cwd", pgdata)
    ]


def _is_in(link: Path, pgdata: Path) -> bool:
    try:
        return link.readlink() == pgdata
    except OSError:
        return False


def test_a_one_shot_that_outlived_its_pgrescue_is_ended(site: Site, engine: Engine) -> None:
    fifo = site.workspace.root / "fifo"
    os.mkfifo(fifo)
    own(fifo, engine)
    keep_open = os.open(fifo, os.O_RDWR)
    program = [sys.executable, "-c", WAITING_ONE_SHOT, str(site.major), str(site.workspace.root)]
    with subprocess.Popen(program, cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}) as starter:
        wait_until((site.workspace.pgdata / "postmaster.pid").exists)
        starter.kill()
    assert len(workers(site.workspace.pgdata)) == 1
    try:
        assert engine.status().state is ServerState.STOPPED
        done = engine.run("pg_resetwal", ["-n", "-D", engine.path(site.workspace.pgdata)])
    finally:
        os.close(keep_open)
    assert (done.status, done.stderr) == (0, "")
    assert workers(site.workspace.pgdata) == []


def test_backends_that_outlived_their_postmaster_are_ended(site: Site, engine: Engine) -> None:
    port = site.start(engine)
    connection = connect(port)
    backend = connection.info.backend_pid
    os.kill(backend, signal.SIGSTOP)
    kill_server(engine)
    assert backend in workers(site.workspace.pgdata)
    assert select(site.start(engine), "SELECT 1") == 1
    assert backend not in workers(site.workspace.pgdata)
    connection.close()


def test_a_lock_file_with_the_number_of_a_living_process_is_no_server(site: Site, engine: Engine) -> None:
    owner = engine.installation.owner
    with subprocess.Popen(["sleep", "600"], user=owner.uid if owner else None) as other:
        lock = site.workspace.pgdata / "postmaster.pid"
        lock.write_text(f"{other.pid}\n/data\n1700000000\n5432\n\nlocalhost\n 1 1\nready\n")
        own(lock, engine)
        assert engine.status().state is ServerState.STOPPED
        assert select(site.start(engine), "SELECT 1") == 1
        engine.remove()
        assert other.poll() is None
        other.kill()


def test_a_kill_leaves_no_shared_memory_after_remove(site: Site, engine: Engine) -> None:
    def segments() -> list[str]:
        ours = site.workspace.pgdata.stat().st_ino & 0xFFFFFFFF
        table = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
        return [line for line in table if int(line.split()[0]) & 0xFFFFFFFF == ours]

    def mapped() -> set[Path]:
        return {path for path in Path("/dev/shm").iterdir() if path.stat().st_uid == owner_uid(engine)}

    before = mapped()
    with connect(site.start(engine)) as connection:
        connection.execute("SET debug_parallel_query = on")
        connection.execute("SELECT count(*) FROM pg_class")
    assert segments()
    kill_server(engine)
    wait_until(lambda: workers(site.workspace.pgdata) == [])
    fifo = site.workspace.root / "fifo"
    os.mkfifo(fifo)
    own(fifo, engine)
    keep_open = os.open(fifo, os.O_RDWR)
    arguments = ["--single", "-D", engine.path(site.workspace.pgdata), "postgres"]
    with pytest.raises(ToolError):
        engine.run("postgres", arguments, stdin=fifo, timeout_s=2)
    os.close(keep_open)
    engine.remove()
    assert segments() == []
    assert mapped() <= before


def owner_uid(engine: Engine) -> int:
    return engine.installation.owner.uid if engine.installation.owner else os.geteuid()


def test_the_log_is_private(site: Site, engine: Engine) -> None:
    site.start(engine)
    assert site.workspace.server_log.stat().st_mode & 0o777 == 0o600


def test_a_server_that_ends_at_once_is_an_error_with_its_words(engine: Engine) -> None:
    with pytest.raises(ServerError, match="no_such_parameter"):
        engine.start({"no_such_parameter": "1"}, port=free_port())
    assert engine.status().state is ServerState.STOPPED


def test_a_server_that_does_not_end_is_ended(site: Site, engine: Engine) -> None:
    with connect(site.start(engine)) as connection:
        os.kill(connection.info.backend_pid, signal.SIGSTOP)
        engine.stop(timeout_s=0.5)
    assert engine.status().state is ServerState.STOPPED
    assert workers(site.workspace.pgdata) == []


@as_root
def test_programs_do_not_run_as_root_nor_with_its_groups(site: Site, engine: Engine) -> None:
    owner = engine.installation.owner
    assert owner is not None
    port = site.start(engine)
    pid = (site.workspace.pgdata / "postmaster.pid").read_text().split()[0]
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in status)}
    assert set(fields["Uid"]) == {str(owner.uid)}
    assert set(fields["Gid"]) == {str(owner.gid)}
    assert fields["Groups"] == []
    assert fields["Umask"] == ["0077"]
    assert select(port, "SELECT 1") == 1


@as_root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare of util-linux")
def test_a_server_in_a_container_is_left_alone(site: Site, engine: Engine, tmp_path: Path) -> None:
    sleeper = shutil.which("sleep")
    assert sleeper is not None
    imitation = shutil.copy(Path(sleeper).resolve(), tmp_path / "postgres")
    container = ["unshare", "--pid", "--fork", "--kill-child", imitation, "600"]
    with subprocess.Popen(container, cwd=site.workspace.pgdata, stderr=subprocess.PIPE) as contained:
        wait_until(lambda: contained.poll() is not None or _is_postgres(workers(site.workspace.pgdata)))
        if contained.poll() is not None:
            pytest.skip("this machine lets nobody make a process namespace")
        for act in (lambda: site.start(engine), lambda: control(engine, site), engine.remove):
            with pytest.raises(ServerError, match="a PostgreSQL in a container"):
                act()
        assert contained.poll() is None
        contained.kill()
    wait_until(lambda: workers(site.workspace.pgdata) == [])
    assert select(site.start(engine), "SELECT 1") == 1


def _is_postgres(pids: list[int]) -> bool:
    return any(Path(f"/proc/{pid}/comm").read_text() == "postgres\n" for pid in pids)


@pytest.fixture
def hidden_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the bindir of a wheel below a directory that only root may pass, such as a venv in /root."""
    source = find_native(18).source.parents[1]
    monkeypatch.setenv("PGRESCUE_CACHE", "")
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    for tree in (source, source.with_name(f"{source.name}.libs")):
        if tree.is_dir():
            shutil.copytree(tree, private / tree.name, symlinks=True)
    cache = Path(subprocess.run(["mktemp", "-d"], check=True, capture_output=True, text=True).stdout.strip())
    cache.chmod(0o755)
    monkeypatch.setenv("PGRESCUE_CACHE", str(cache))
    yield private / source.name / "pginstall" / "bin"
    shutil.rmtree(cache)


@as_root
@pytest.mark.skipif(engines_native.missing(18) is not None, reason="needs PostgreSQL 18")
def test_programs_that_only_root_can_read_run_from_a_copy(hidden_wheel: Path, new_site: Callable[..., Site]) -> None:
    site = new_site("native", 18)
    found = find_native(18, bindir=hidden_wheel, pgdata=site.workspace.pgdata)
    assert found.source == hidden_wheel
    assert found.bindir != hidden_wheel
    assert found.installation.record.bindir == str(hidden_wheel)
    engine = NativeEngine(found, site.workspace)
    assert control(engine, site)["Database cluster state"] == "shut down"
    assert "plpgsql" in engine.libraries()
    assert "18." in engine.run("psql", ["--version"]).check("psql").stdout  # it finds libpq beside the copy
    assert select(site.start(engine), "SELECT 1") == 1
    engine.remove()


@as_root
def test_an_ordinary_user_runs_everything_as_oneself(tmp_path: Path) -> None:
    engines_native.require(17)
    owner = find_native(17).owner
    assert owner is not None
    # This machine's interpreter may lie below /root; then the system's has to do.
    path = os.pathsep.join([str(CHECKOUT), *(entry for entry in sys.path if entry.endswith("site-packages"))])
    home = Path(subprocess.run(["mktemp", "-d"], check=True, capture_output=True, text=True).stdout.strip())
    os.chown(home, owner.uid, owner.gid)
    try:
        for interpreter in (sys.executable, "/usr/bin/python3"):
            done = _as_ordinary_user([interpreter, "-c", "import pgrescue.engine.native"], owner.uid, owner.gid, path)
            if done is not None and done.returncode == 0:
                break
        else:
            pytest.skip("an ordinary user can read no interpreter with pgrescue's dependencies here")
        arguments = [interpreter, "-c", ORDINARY_USER, str(home / "x.pgrescue"), str(free_port())]
        done = _as_ordinary_user(arguments, owner.uid, owner.gid, path)
        assert done is not None
        assert done.stdout.split() == ["running", "stopped", "True"], done.stderr
    finally:
        shutil.rmtree(home)
    assert tmp_path.is_dir()


def _as_ordinary_user(arguments: list[str], uid: int, gid: int, path: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(
            arguments,
            user=uid,
            group=gid,
            extra_groups=[],
            cwd="/",
            env={"PATH": os.environ["PATH"], "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None


def test_a_workspace_without_files_is_stopped(tmp_path: Path) -> None:
    engines_native.require(17)
    workspace = Workspace(tmp_path / "new.pgrescue")
    engine = engines_native.make(workspace, 17, "x")
    assert engine.status().state is ServerState.STOPPED
    engine.remove()
    assert list(engine.logs(follow=True)) == []
