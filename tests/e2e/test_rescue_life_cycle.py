"""A rescue's life: started, stopped, started again, two side by side, removed without a trace."""

from __future__ import annotations

import contextlib
import hashlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import psycopg
import pytest

from tests.cli import pgrescue
from tests.conftest import require_engine

if TYPE_CHECKING:
    from tests.cli import Rescue
    from tests.conftest import Rescuer
    from tests.snapshots import Shelf


def outcomes(rescued: Rescue) -> set[str]:
    return {step["outcome"] for step in rescued.report["steps"]}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        pytest.param("native", "stopped-copy", marks=pytest.mark.native),
        pytest.param("native", "running-wal-last", marks=pytest.mark.native),
        pytest.param("native", "running-wal-first", marks=pytest.mark.native),
        pytest.param("docker", "running-wal-last", marks=pytest.mark.docker),
    ],
)
def test_a_second_run_finds_every_step_done(shelf: Shelf, rescue: Rescuer, engine: str, name: str) -> None:
    require_engine(engine)
    first = rescue(shelf.get(name), "--engine", engine)
    first.done.ok()
    started = first.one("SELECT pg_postmaster_start_time()")
    second = first.again()
    second.done.ok()
    assert outcomes(second) == {"held"}
    same = ("verdict", "strategy", "engine", "url", "databases", "recovered_to", "findings", "system_identifier")
    assert {name: second.report[name] for name in same} == {name: first.report[name] for name in same}
    assert second.one("SELECT pg_postmaster_start_time()") == started


def test_stop_ends_the_server_and_local_starts_it_with_what_was_written_since(
    shelf: Shelf, rescue: Rescuer, engine_name: str
) -> None:
    rescued = rescue(shelf.get("stopped-tar"), "--engine", engine_name)
    rescued.done.ok()
    with rescued.connect("portal") as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    running = rescued.run("status", "--json").ok().document()
    assert (running["state"], running["port"], running["engine"]) == ("running", rescued.port, engine_name)

    assert rescued.run("stop", "--json").ok().document()["state"] == "stopped"
    with pytest.raises(psycopg.OperationalError):
        rescued.connect()
    stopped = rescued.run("status", "--json").ok().document()
    assert (stopped["state"], stopped["url"], stopped["verdict"]) == ("stopped", None, "consistent")
    assert rescued.run("psql", "--", "-c", "select 1").status == 1
    assert rescued.run("stop").ok().status == 0

    again = rescued.again()
    again.done.ok()
    assert again.password == rescued.password
    assert again.one("SELECT answer FROM kept", "portal") == 42
    assert {step["name"] for step in again.report["steps"] if step["outcome"] == "done"} <= {
        "start",
        "health-check",
        "hand-over",
    }


def test_logs_show_what_the_server_said(shelf: Shelf, rescue: Rescuer, engine_name: str) -> None:
    rescued = rescue(shelf.get("stopped-tar"), "--engine", engine_name)
    with rescued.connect() as connection, contextlib.suppress(psycopg.Error):
        connection.execute("SELECT no_such_column_here")
    assert "no_such_column_here" in rescued.run("logs").ok().stdout
    lines = rescued.run("logs", "--json", "--tail", "5").ok().document()["lines"]
    assert 1 <= len(lines) <= 5


def test_two_rescues_of_one_snapshot_run_side_by_side(
    shelf: Shelf, rescue: Rescuer, engine_name: str, tmp_path: Path
) -> None:
    places = [tmp_path / "one.pgrescue", tmp_path / "two.pgrescue"]
    one, two = (rescue(shelf.get("stopped-tar"), "--engine", engine_name, workspace=place) for place in places)
    one.done.ok()
    two.done.ok()
    assert one.port != two.port
    assert one.password != two.password
    with one.connect("portal") as connection:
        connection.execute("CREATE TABLE only_here ()")
    assert two.one("SELECT to_regclass('only_here')", "portal") is None
    one.run("rm", "--yes").ok()
    assert two.one("SELECT 1") == 1
    several = pgrescue("status", "--json", cwd=tmp_path).ok().document()
    assert several["workspace"] == str(places[1])


def test_the_port_is_the_one_that_was_asked_for(shelf: Shelf, rescue: Rescuer, engine_name: str) -> None:
    port = free_port()
    rescued = rescue(shelf.get("stopped-tar"), "--engine", engine_name, "--port", str(port))
    rescued.done.ok()
    assert rescued.port == port
    assert rescued.one("SELECT 1") == 1


@pytest.mark.native
def test_a_verdict_less_than_required_is_exit_status_3_and_the_server_runs(shelf: Shelf, rescue: Rescuer) -> None:
    require_engine("native")
    reset = rescue(shelf.get("basebackup-none"), "--engine", "native", "--no-repair", "--require", "consistent")
    assert (reset.report["verdict"], reset.done.status) == ("best-effort", 3)
    assert reset.one("SELECT 1") == 1
    enough = reset.again("--require", "best-effort")
    assert (enough.report["verdict"], enough.done.status) == ("best-effort", 0)
    assert enough.one("SELECT 1") == 1
    clean = rescue(shelf.get("stopped-tar"), "--engine", "native", "--require", "consistent")
    assert (clean.report["verdict"], clean.done.status) == ("consistent", 0)


def contents(root: Path) -> dict[str, tuple[int, int, int, str]]:
    """Return mode, owner, time of change and content of everything below a directory."""
    found = {}
    for path in sorted(root.rglob("*")):
        stat = path.lstat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(root))] = (stat.st_mode, stat.st_uid, stat.st_mtime_ns, digest)
    return found


def test_nothing_but_the_workspace_changes_and_rm_leaves_nothing(
    shelf: Shelf, rescue: Rescuer, engine_name: str, tmp_path: Path
) -> None:
    """By a reset, with its repair and all checks, which writes most."""
    snapshot = shelf.get("basebackup-none")
    original = contents(snapshot.directory)
    place, temporary = tmp_path / "work" / "it.pgrescue", tmp_path / "tmp"
    place.parent.mkdir()
    temporary.mkdir()
    done = pgrescue(
        *("local", snapshot.path, "--engine", engine_name, "-w", place, "--json"),
        cwd=place.parent,
        env={"TMPDIR": str(temporary)},
    ).ok()
    assert done.document()["verdict"] == "best-effort"
    rescued = rescue(snapshot, workspace=place)
    rescued.done.ok()
    assert list(place.parent.iterdir()) == [place]
    assert list(temporary.iterdir()) == []
    assert contents(snapshot.directory) == original
    assert traces(place)

    assert rescued.run("rm", "--yes", "--json").ok().document() == {
        "schema": 1,
        "workspace": str(place),
        "removed": True,
    }
    assert list(place.parent.iterdir()) == []
    assert traces(place) == []
    assert contents(snapshot.directory) == original
    with pytest.raises(psycopg.OperationalError):
        rescued.connect()


def traces(place: Path) -> list[str]:
    """Return the processes that work in a workspace, and the containers that belong to it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (
                str(place) in str((process / "cwd").readlink())
                or str(place).encode() in (process / "cmdline").read_bytes()
            ):
                found.append(process.name)
    return found + containers(place)


def containers(place: Path) -> list[str]:
    try:
        client: Any = docker.DockerClient.from_env()
    except docker.errors.DockerException:
        return []
    with contextlib.closing(client):
        filters = {"label": f"io.pgrescue.workspace={place}"}
        return [found.id for found in client.containers.list(all=True, filters=filters, ignore_removed=True)]


def test_rm_asks_where_it_is_not_told_and_removes_nothing_without_an_answer(
    shelf: Shelf, rescue: Rescuer, engine_name: str
) -> None:
    rescued = rescue(shelf.get("stopped-tar"), "--engine", engine_name)
    refused = rescued.run("rm")
    assert refused.status == 2
    assert "--yes" in refused.stderr
    assert rescued.one("SELECT 1") == 1
