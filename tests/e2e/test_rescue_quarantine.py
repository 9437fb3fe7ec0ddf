"""The copy does not act like production, whatever the snapshot's own settings say."""

from __future__ import annotations

import socket
import tarfile
from typing import TYPE_CHECKING, Any

import docker
import psycopg
import pytest

from fixtures.portal import PASSWORDS
from tests.conftest import require_engine
from tests.producers import facts
from tests.snapshots import MISSING_LIBRARY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli import Rescue
    from tests.conftest import Rescuer
    from tests.snapshots import Shelf

QUIET = {
    "archive_mode": "off",
    "primary_conninfo": "",
    "restore_command": "",
    "max_logical_replication_workers": "0",
    "synchronous_standby_names": "",
    "shared_preload_libraries": "",
    "ssl": "off",
}
PRODUCTION = ("walreceiver", "archiver", "logical replication launcher", "walsender")


@pytest.fixture(scope="module")
def hostile(shelf: Shelf, engine_name: str, shared_rescue: Rescuer) -> Rescue:
    """Return the rescue of a snapshot whose settings would keep everybody out."""
    return shared_rescue(shelf.get("hostile"), "--engine", engine_name)


def test_settings_of_databases_and_roles_and_a_login_trigger_do_not_stop_it(hostile: Rescue) -> None:
    hostile.done.ok()
    assert hostile.report["verdict"] == "consistent"
    assert facts.missed(hostile, hostile.snapshot.expected) == []
    with hostile.connect("portal") as connection:
        connection.execute("SELECT pg_sleep(0.05)")  # statement_timeout of ALL is 1 ms
        connection.execute("CREATE TABLE written AS SELECT 1 AS n")
        connection.execute("DROP TABLE written")


@pytest.mark.parametrize("engine", [pytest.param("native", marks=pytest.mark.native)])
def test_nor_do_they_on_postgresql_18(shelf: Shelf, rescue: Rescuer, engine: str) -> None:
    require_engine(engine, 18)
    hostile = rescue(shelf.get("hostile", 18), "--engine", engine)
    hostile.done.ok()
    assert hostile.report["verdict"] == "consistent"
    assert facts.missed(hostile, hostile.snapshot.expected) == []


def test_a_preloaded_library_that_is_missing_here_is_left_out_and_told(hostile: Rescue) -> None:
    finding = hostile.finding("preload_library_left_out")
    assert (finding["object"], finding["severity"]) == (MISSING_LIBRARY, "warning")


def test_every_setting_that_reaches_out_is_off(hostile: Rescue) -> None:
    assert {name: hostile.one(f"SELECT current_setting('{name}')") for name in QUIET} == QUIET


def test_no_process_of_production_runs(hostile: Rescue) -> None:
    kinds = hostile.one("SELECT array_agg(DISTINCT backend_type) FROM pg_stat_activity")
    assert set(kinds).isdisjoint(PRODUCTION)
    assert hostile.one("SELECT count(*) FROM pg_stat_subscription WHERE pid IS NOT NULL", "portal") == 0
    assert hostile.one("SELECT count(*) FROM pg_subscription") == 1


def test_autovacuum_begins_when_the_checks_are_over(hostile: Rescue) -> None:
    """Until then the server runs without, so that nothing wipes out what they look for."""
    server = hostile.workspace / "server"
    assert "autovacuum = 'off'" in (server / "postgresql.conf").read_text()
    assert "autovacuum = 'on'" in (server / "opened.conf").read_text()
    assert hostile.one("SELECT current_setting('autovacuum')") == "on"
    assert 'parameter "autovacuum" changed to "on"' in hostile.run("logs").ok().stdout


def test_replication_slots_are_gone_and_kept_aside(hostile: Rescue) -> None:
    assert hostile.one("SELECT count(*) FROM pg_replication_slots") == 0
    assert hostile.finding("replication_slots_dropped")["object"] == "cdc, standby_1"
    removed = hostile.workspace / "removed" / "pg_replslot"
    assert {path.name for path in removed.iterdir()} == {"cdc", "standby_1"}


def test_postgresql_auto_conf_is_set_aside_as_it_was(hostile: Rescue) -> None:
    with tarfile.open(hostile.snapshot.path) as archive:
        original = archive.extractfile("./postgresql.auto.conf")
        assert original is not None
        assert (hostile.workspace / "removed" / "postgresql.auto.conf").read_bytes() == original.read()
    assert hostile.one("SELECT current_setting('work_mem')") == "4MB"
    assert hostile.one("SELECT count(*) FROM pg_file_settings WHERE sourcefile LIKE '%auto.conf'") == 0


def addresses() -> list[str]:
    """Return this machine's addresses besides the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return []
        return [str(probe.getsockname()[0])]


def test_the_server_answers_on_the_loopback_only(hostile: Rescue) -> None:
    assert "@127.0.0.1:" in hostile.url
    for address in addresses():
        with pytest.raises(OSError, match=r"refused|timed out|unreachable"):
            socket.create_connection((address, hostile.port), timeout=2).close()


@pytest.fixture
def client() -> Iterator[Any]:
    client = docker.DockerClient.from_env()
    yield client
    client.close()


def container_of(client: Any, rescued: Rescue) -> Any:
    (container,) = client.containers.list(
        all=True, filters={"label": f"io.pgrescue.workspace={rescued.workspace}"}, ignore_removed=True
    )
    return container


def test_its_address_is_the_loopback_only(hostile: Rescue, engine_name: str, request: pytest.FixtureRequest) -> None:
    if engine_name == "native":
        assert hostile.one("SELECT current_setting('listen_addresses')") == "127.0.0.1"
        return
    container = container_of(request.getfixturevalue("client"), hostile)
    published = [binding for bindings in container.ports.values() for binding in bindings or ()]
    assert published == [{"HostIp": "127.0.0.1", "HostPort": str(hostile.port)}]
    assert "volume" not in {mount["Type"] for mount in container.attrs["Mounts"]}


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("pgrescue", "wrong"),
        ("pgrescue", None),
        ("postgres", "postgres-fixture"),
        ("postgres", None),
        ("portal", PASSWORDS["portal"]),
        ("billing", PASSWORDS["billing"]),
    ],
)
def test_nobody_gets_in_but_the_role_with_its_password(hostile: Rescue, user: str, password: str | None) -> None:
    with pytest.raises(psycopg.OperationalError, match=r"FATAL|no password supplied"):
        psycopg.connect(
            host="127.0.0.1",
            port=hostile.port,
            dbname="postgres",
            user=user,
            password=password,
            passfile="/dev/null",
            connect_timeout=10,
        )


def test_the_roles_own_password_does_not_open_another_role(hostile: Rescue) -> None:
    with pytest.raises(psycopg.OperationalError, match="FATAL"):
        hostile.connect(user="postgres")
