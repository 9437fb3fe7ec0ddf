"""The runbook's last promise: the copy starts without pgrescue, in the official image and from compose.yaml."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

import docker
import psycopg
import pytest
import yaml

from tests.cli import environment
from tests.conftest import require_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli import Rescue
    from tests.conftest import Rescuer
    from tests.snapshots import Shelf

START_TIMEOUT_S = 60
PGDATA = {17: "/var/lib/postgresql/data", 18: "/var/lib/postgresql/18/docker"}
CASES = [("stopped-tar", 17), ("basebackup-none", 17), ("basebackup-none", 18)]
USERS = "SELECT count(*) FROM users"

pytestmark = pytest.mark.docker


@pytest.fixture
def client() -> Iterator[Any]:
    client = docker.DockerClient.from_env()
    yield client
    client.close()


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def stopped(request: pytest.FixtureRequest, shelf: Shelf, rescue: Rescuer) -> Rescue:
    """Return a rescue whose server was stopped."""
    name, major = request.param
    require_engine("docker", major)
    rescued = rescue(shelf.get(name, major), "--engine", "docker")
    rescued.done.ok()
    rescued.run("stop").ok()
    return rescued


def until(attempt: Callable[[], str | None]) -> str:
    """Return the first result, asking again for a while."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while (found := attempt()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def expected_users(rescued: Rescue) -> str:
    return next(str(entry.value) for entry in rescued.snapshot.expected if entry.query == USERS)


@contextlib.contextmanager
def running(client: Any, image: str, **options: Any) -> Iterator[Any]:
    container = client.containers.create(image, **options)
    try:
        container.start()
        yield container
    finally:
        container.remove(force=True, v=True)


def knows_ssl(client: Any, image: str) -> bool:
    """Tell whether an image's server was built with SSL, as the official one always is and its stand-in may not be."""
    with running(client, image, command=["--configure"], entrypoint=["pg_config"]) as container:
        container.wait()
        configured = container.logs().decode()
    return "--with-openssl" in configured or "--with-ssl" in configured


def without_ssl(hba: Path) -> None:
    """Take the lines away that a server without SSL refuses to start with; CloudNativePG always writes some."""
    kept = [line for line in hba.read_text().splitlines() if not line.startswith("hostssl")]
    hba.write_text("\n".join(kept) + "\n")


def test_the_official_image_starts_on_it_without_pgrescues_files(stopped: Rescue, client: Any) -> None:
    major = stopped.snapshot.major
    if not knows_ssl(client, f"postgres:{major}"):
        without_ssl(stopped.workspace / "pgdata" / "pg_hba.conf")
    volume = docker.types.Mount(PGDATA[major], str(stopped.workspace / "pgdata"), type="bind")
    with running(client, f"postgres:{major}", mounts=[volume]) as container:

        def count() -> str | None:
            container.reload()
            assert container.status == "running", container.logs().decode()
            query = ["psql", "-XAt", "-d", "portal", "-c", "SET enable_indexonlyscan = off", "-c", USERS]
            status, output = container.exec_run(query, user="postgres")
            return None if status else str(output.decode().split()[-1])

        assert until(count) == expected_users(stopped)


def test_compose_yaml_starts_it_with_the_same_role_password_and_port(stopped: Rescue, client: Any) -> None:
    with composed(stopped, client):

        def count() -> str | None:
            with contextlib.suppress(psycopg.OperationalError), login(stopped) as connection:
                connection.execute("SET enable_indexonlyscan = off")
                return str((connection.execute(USERS).fetchone() or ("",))[0])
            return None

        assert until(count) == expected_users(stopped)
        with login(stopped) as connection:
            row = connection.execute("SELECT current_setting('archive_mode'), current_user").fetchone()
        assert row == ("off", "pgrescue")


def login(rescued: Rescue) -> psycopg.Connection:
    return psycopg.connect(
        host="127.0.0.1",
        port=rescued.port,
        user="pgrescue",
        dbname="portal",
        passfile=str(rescued.workspace / "pgpass"),
        connect_timeout=5,
        autocommit=True,
    )


@contextlib.contextmanager
def composed(rescued: Rescue, client: Any) -> Iterator[None]:
    """Run compose.yaml: by docker compose where it is installed, else with the same values by the API."""
    program = compose_program()
    if program is None:
        with running(client, **as_options(rescued.workspace)):
            yield
        return
    subprocess.run([*program, "up", "--detach"], cwd=rescued.workspace, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run([*program, "down", "--volumes"], cwd=rescued.workspace, check=True, capture_output=True)


def compose_program() -> list[str] | None:
    """Return Compose, from its second version on: the first does not know that a file may name its project."""
    for program in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(program[0]) is not None:
            done = subprocess.run([*program, "version", "--short"], env=environment(), capture_output=True, check=False)
            if done.returncode == 0 and not done.stdout.startswith(b"1."):
                return program
    return None


def as_options(workspace: Path) -> dict[str, Any]:
    """Return the only service of compose.yaml as options of the Docker SDK; an unknown key is an error."""
    (service,) = yaml.safe_load((workspace / "compose.yaml").read_text())["services"].values()
    (port,) = service.pop("ports")
    address, published, inside = port.split(":")
    options = {
        "image": service.pop("image"),
        "user": service.pop("user"),
        "entrypoint": service.pop("entrypoint"),
        "command": service.pop("command"),
        "environment": service.pop("environment"),
        "ports": {f"{inside}/tcp": (address, int(published))},
        "volumes": [str(workspace / volume.removeprefix("./")) for volume in service.pop("volumes")],
        "tmpfs": dict.fromkeys(service.pop("tmpfs"), ""),
        "shm_size": service.pop("shm_size"),
        "stop_signal": service.pop("stop_signal"),
    }
    assert service == {"stop_grace_period": "10m"}
    return options
