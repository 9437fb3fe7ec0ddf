"""The contract of Engine, over every engine and major that can be had here."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from pgrescue.engine.interface import ServerState
from pgrescue.errors import EngineError, RescueError, ServerError, ToolError
from tests.contract.conftest import PASSWORD, Site, connect, free_port, own

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgrescue.engine.interface import Engine

CHECKOUT = Path(__file__).parents[2]

STARTER = """
import sys, time
from pathlib import Path
from pgrescue.workspace import Workspace
from tests.contract.conftest import Site
kind, major, root, identity, port = sys.argv[1:]
site = Site(kind, int(major), Workspace(Path(root)), identity)
site.start(site.engine(), int(port))
print("started", flush=True)
time.sleep(600)
"""


def kill_server(engine: Engine) -> None:
    """End the server as a power failure would, and wait until it is gone."""
    match engine.status().where.split():
        case ["process", pid]:
            os.kill(int(pid), signal.SIGKILL)
        case ["container", name]:
            subprocess.run(["docker", "kill", "--signal", "KILL", name], check=True, capture_output=True)
        case where:
            pytest.fail(f"the server is nowhere: {where}")
    wait_until(lambda: engine.status().state is ServerState.STOPPED)


def wait_until(holds: Callable[[], bool], *, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.05)


def select(port: int, sql: str) -> object:
    with connect(port) as connection:
        row = connection.execute(sql).fetchone()
        assert row is not None
        return row[0]


def control(engine: Engine, site: Site) -> dict[str, str]:
    said = engine.run("pg_controldata", [engine.path(site.workspace.pgdata)]).check("pg_controldata").stdout
    return {name: value.strip() for name, _, value in (line.partition(":") for line in said.splitlines())}


def test_the_installation_has_the_major_and_describes_itself(site: Site, engine: Engine) -> None:
    installation = engine.installation
    assert installation.version.major == site.major
    assert installation.record.name is installation.name
    assert installation.name in installation.described
    assert str(site.major) in installation.described
    assert "\n" not in installation.described


def test_programs_find_the_paths_of_the_workspace(site: Site, engine: Engine) -> None:
    assert control(engine, site)["Database cluster state"] == "shut down"
    said = engine.run("postgres", ["-C", "hba_file", "-D", engine.path(site.workspace.pgdata)])
    assert Path(said.stdout.strip()).name == "pg_hba.conf"


def test_a_path_outside_of_the_workspace_has_no_name(engine: Engine) -> None:
    with pytest.raises(ValueError, match="not in the subpath"):
        engine.path(Path("/etc/passwd"))


def test_run_tells_status_and_both_outputs(site: Site, engine: Engine) -> None:
    done = engine.run("pg_resetwal", ["-n", "-D", engine.path(site.workspace.pgdata)])
    assert (done.status, done.stderr) == (0, "")
    assert "First log segment after reset" in done.stdout
    failed = engine.run("pg_controldata", [engine.path(site.workspace.pgdata / "nothing")])
    assert failed.status == 1
    assert "nothing" in failed.stderr
    with pytest.raises(ToolError, match="pg_controldata ended with status 1"):
        failed.check("it failed")


def test_run_tells_of_stderr_as_it_comes(site: Site, engine: Engine) -> None:
    """Before the program has ended: the query waits for the file that the listener makes."""
    heard: list[str] = []
    sign, sql = site.workspace.pgdata / "heard", site.workspace.root / "in.sql"

    def hear(line: str) -> None:
        heard.append(line)
        if "first words" in line:
            sign.touch()
            own(sign, engine)

    wait = "WHILE pg_stat_file('heard', true) IS NULL LOOP PERFORM pg_sleep(0.02); END LOOP;"
    sql.write_text(f"DO $$ BEGIN RAISE LOG 'first words'; {wait} RAISE LOG 'last words'; END $$;\n")
    own(sql, engine)
    done = engine.run("postgres", single(engine, site), stdin=sql, on_stderr=hear)
    assert done.status == 0
    told = [line.partition("LOG:  ")[2] for line in heard if "words" in line and "LOG:  " in line]
    assert told == ["first words", "last words"]
    assert heard == done.stderr.splitlines()


def single(engine: Engine, site: Site) -> list[str]:
    """Return the arguments of a server in single-user mode that says what is logged."""
    return ["--single", "-D", engine.path(site.workspace.pgdata), "-c", "log_min_messages=log", "postgres"]


def test_run_passes_the_environment(site: Site, engine: Engine) -> None:
    done = engine.run("psql", ["-h", "127.0.0.1", "-p", "1", "-U", "a"], env={"PGAPPNAME": "x", "PGPORT": "1"})
    assert done.status == 2
    assert "port 1 failed" in done.stderr
    assert site.workspace.pgdata.is_dir()


def test_single_user_mode_reads_a_file_of_the_workspace(site: Site, engine: Engine) -> None:
    sql = site.workspace.root / "input.sql"
    sql.write_text("SELECT 41 + 1 AS answer;\n")
    own(sql, engine)
    done = engine.run("postgres", ["--single", "-D", engine.path(site.workspace.pgdata), "postgres"], stdin=sql)
    assert 'answer = "42"' in done.check("single").stdout
    assert control(engine, site)["Database cluster state"] == "shut down"


def test_a_missing_program_is_an_error_that_names_it(engine: Engine) -> None:
    with pytest.raises((EngineError, ToolError), match="pg_nothing") as caught:
        engine.run("pg_nothing", [])
    assert caught.value.problem


def test_a_program_that_takes_too_long_is_ended(site: Site, engine: Engine) -> None:
    fifo = site.workspace.root / "fifo"
    os.mkfifo(fifo)
    own(fifo, engine)
    keep_open = os.open(fifo, os.O_RDWR)
    begun = time.monotonic()
    try:
        arguments = ["--single", "-D", engine.path(site.workspace.pgdata), "postgres"]
        with pytest.raises(ToolError, match="did not end within 2 s"):
            engine.run("postgres", arguments, stdin=fifo, timeout_s=2)
    finally:
        os.close(keep_open)
    assert time.monotonic() - begun < 30
    # The killed backend left its lock file, and nothing that would be in the way of the next program.
    assert engine.run("postgres", ["-C", "port", "-D", engine.path(site.workspace.pgdata)]).status == 0
    site.start(engine)


def test_libraries_are_module_names(engine: Engine) -> None:
    libraries = engine.libraries()
    assert {"plpgsql", "dict_snowball"} <= libraries
    assert not any("." in name for name in libraries)


def test_the_server_answers_on_its_port_only(site: Site, engine: Engine) -> None:
    port = site.start(engine)
    assert engine.status().state is ServerState.RUNNING
    assert engine.status().port == port
    assert engine.status().where
    assert select(port, "SHOW server_version_num")[:2] == str(site.major)  # type: ignore[index]
    assert select(port, "SELECT system_identifier::text FROM pg_control_system()") == str(
        control(engine, site)["Database system identifier"]
    )
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(host="127.0.0.1", port=port, user="pgrescue", password=PASSWORD + "!", dbname="postgres")
    for address in other_addresses():
        with socket.socket() as probe:
            probe.settimeout(2)
            assert probe.connect_ex((address, port)) != 0, f"it listens on {address}"


def other_addresses() -> list[str]:
    """Return this machine's address on a network, where it has one; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return []
        return [str(probe.getsockname()[0])]


def test_settings_reach_the_server(site: Site, engine: Engine) -> None:
    port = free_port()
    engine.start({**site.settings(engine), "work_mem": "7MB", "cluster_name": "it's = a 'name'"}, port=port)
    assert select(port, "SHOW work_mem") == "7MB"
    assert select(port, "SHOW cluster_name") == "it's = a 'name'"


def test_a_reload_reads_the_files_again(site: Site, engine: Engine) -> None:
    port = site.start(engine)
    with (site.workspace.server / "postgresql.conf").open("a") as file:
        file.write("work_mem = 9MB\n")
    assert select(port, "SELECT pg_reload_conf()") is True
    wait_until(lambda: select(port, "SHOW work_mem") == "9MB")


def test_a_second_start_changes_nothing(site: Site, engine: Engine) -> None:
    port = site.start(engine)
    before = engine.status()
    engine.start(site.settings(engine), port=free_port())
    site.engine().start(site.settings(engine), port=port)
    assert engine.status() == before


def test_client_programs_reach_the_server(site: Site, engine: Engine) -> None:
    port = site.start(engine)
    done = engine.run(
        "psql",
        ["-XAt", "-h", "127.0.0.1", "-p", str(port), "-U", "pgrescue", "-d", "postgres", "-c", "SELECT 'hello'"],
        env={"PGPASSWORD": PASSWORD},
    )
    assert done.check("psql").stdout == "hello\n"
    assert engine.status().state is ServerState.RUNNING


def test_client_programs_that_go_online_reach_other_servers(
    site: Site, engine: Engine, new_site: Callable[..., Site]
) -> None:
    port = site.start(engine)
    other = new_site(site.kind, site.major).engine()
    asked = ["-d", f"host=127.0.0.1 port={port} user=pgrescue dbname=postgres", "-Atc", "select 6 * 7"]
    assert other.run("psql", asked, env={"PGPASSWORD": PASSWORD}, online=True).check("psql").stdout == "42\n"


def test_stop_shuts_down_and_may_be_repeated(site: Site, engine: Engine) -> None:
    engine.stop()
    port = site.start(engine)
    with connect(port) as open_connection:
        engine.stop()
        assert open_connection.info.transaction_status is not None
    assert engine.status().state is ServerState.STOPPED
    assert engine.status().port is None
    engine.stop()
    assert control(engine, site)["Database cluster state"] == "shut down"


def test_data_outlives_a_stop(site: Site, engine: Engine) -> None:
    with connect(site.start(engine)) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    engine.stop()
    again = site.engine()
    assert select(site.start(again), "SELECT one FROM kept") == 1


def test_the_server_outlives_who_started_it(site: Site) -> None:
    port = free_port()
    arguments = [site.kind, str(site.major), str(site.workspace.root), site.id, str(port)]
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, *arguments],
        stdout=subprocess.PIPE,
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        start_new_session=True,
    ) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"started\n"
        os.killpg(starter.pid, signal.SIGKILL)
    engine = site.engine()
    assert engine.status().state is ServerState.RUNNING
    assert engine.status().port == port
    assert select(port, "SELECT 1") == 1
    engine.remove()
    assert engine.status().state is ServerState.STOPPED


def test_a_crash_is_seen_and_recovered_from(site: Site, engine: Engine) -> None:
    port = site.start(engine)
    with connect(port) as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 20000) AS number")
    kill_server(engine)
    assert control(engine, site)["Database cluster state"] == "in production"
    assert select(site.start(engine, port), "SELECT count(*) FROM kept") == 20000


def test_a_stale_lock_file_is_no_server(site: Site, engine: Engine) -> None:
    lock = site.workspace.pgdata / "postmaster.pid"
    lock.write_text("4194303\n/var/lib/postgresql/data/pgdata\n1700000000\n5432\n\nlocalhost\n 1 1\nready\n")
    own(lock, engine)
    assert engine.status().state is ServerState.STOPPED
    site.start(engine)
    assert engine.status().state is ServerState.RUNNING


def test_two_workspaces_run_side_by_side(site: Site, engine: Engine, new_site: Callable[..., Site]) -> None:
    other = new_site(site.kind, site.major)
    other_engine = other.engine()
    ports = site.start(engine), other.start(other_engine)
    assert len(set(ports)) == 2
    engine.remove()
    assert engine.status().state is ServerState.STOPPED
    assert select(ports[1], "SELECT 1") == 1


def test_a_taken_port_is_an_error_with_its_remedy(site: Site, engine: Engine) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=str(port)) as caught:
            engine.start(site.settings(engine), port=port)
    assert "--port" in caught.value.hint
    assert engine.status().state is ServerState.STOPPED
    site.start(engine)


def test_logs_show_the_last_lines(site: Site, engine: Engine) -> None:
    assert not list(engine.logs())
    port = site.start(engine)
    for number in range(3):
        with pytest.raises(psycopg.errors.DivisionByZero):
            select(port, f"SELECT {number} / 0")
    wait_until(lambda: "SELECT 2 / 0" in "".join(engine.logs()))
    lines = list(engine.logs())
    assert list(engine.logs(tail=2)) == lines[-2:]
    assert list(engine.logs(tail=0)) == []
    assert not any(line.endswith("\n") for line in lines)
    engine.stop()
    assert "SELECT 2 / 0" in "".join(engine.logs())


def test_logs_follow_until_the_server_stops(site: Site, engine: Engine) -> None:
    port = site.start(engine)
    seen: list[str] = []
    follower = threading.Thread(target=lambda: seen.extend(site.engine().logs(follow=True)))
    follower.start()
    with pytest.raises(psycopg.errors.DivisionByZero):
        select(port, "SELECT 7 / 0")
    wait_until(lambda: any("7 / 0" in line for line in seen))
    engine.stop()
    follower.join(30)
    assert not follower.is_alive()


def test_remove_may_be_repeated_and_the_files_can_go(site: Site, engine: Engine) -> None:
    site.start(engine)
    kill_server(engine)
    site.start(engine)
    engine.remove()
    engine.remove()
    assert engine.status().state is ServerState.STOPPED
    subprocess.run(["rm", "-r", site.workspace.root], check=True)
    site.engine().remove()


def test_nothing_outside_of_the_workspace_changes(site: Site, engine: Engine) -> None:
    def look() -> dict[Path, tuple[int, int, int]]:
        record = engine.installation.record
        watched = [*site.workspace.root.parents, *([Path(record.bindir)] if record.bindir else [])]
        return {path: (found.st_mode, found.st_uid, found.st_gid) for path in watched for found in [path.stat()]}

    before = look()
    site.start(engine)
    engine.stop()
    engine.remove()
    assert look() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can pass a directory that PostgreSQL's identity cannot")
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_permissions_above_the_workspace_do_not_matter(
    site: Site, new_site: Callable[..., Site], tmp_path_factory: pytest.TempPathFactory, mode: int
) -> None:
    above = Path(subprocess.run(["mktemp", "-d"], check=True, capture_output=True, text=True).stdout.strip())
    above.chmod(mode)
    try:
        inside = new_site(site.kind, site.major, above / "inside.pgrescue")
        engine = inside.engine()
        assert control(engine, inside)["Database cluster state"] == "shut down"
        assert select(inside.start(engine), "SELECT 1") == 1
        kill_server(engine)
        assert select(inside.start(engine), "SELECT 1") == 1
        engine.stop()
        assert above.stat().st_mode & 0o777 == mode
    finally:
        inside.engine().remove()
        subprocess.run(["rm", "-rf", above], check=True)
    assert tmp_path_factory.getbasetemp().is_dir()


def test_an_error_of_the_engine_is_one_that_a_user_can_read(site: Site, engine: Engine) -> None:
    port = site.start(engine)
    engine.stop()
    (site.workspace.pgdata / "PG_VERSION").write_text("9.6\n")
    try:
        engine.start(site.settings(engine), port=port)
    except RescueError as error:
        assert "9.6" in error.problem  # noqa: PT017 - docker's start returns before the server has looked
    wait_until(lambda: engine.status().state is ServerState.STOPPED)
    assert "9.6" in "\n".join(engine.logs())
