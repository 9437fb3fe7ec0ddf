"""What a person finds in the workspace."""

from __future__ import annotations

import configparser
import os
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from pgrescue.engine.interface import ServerState, ServerStatus
from pgrescue.errors import ServerError
from pgrescue.ledger import EngineRecord
from pgrescue.model import EngineName, Owner
from pgrescue.pipeline import Silent
from pgrescue.steps.hand_over import HandOver, compose, service
from tests.unit.builders import FakeEngine, data_directory, make_run, snapshot

if TYPE_CHECKING:
    from pathlib import Path

RUNNING = ServerStatus(ServerState.RUNNING, 5499)


def composed(root: Path, engine: FakeEngine | None = None, *, major: int = 17) -> Any:
    document = yaml.safe_load(compose(make_run(root, engine, of=snapshot(data_directory(major=major))), 5499))
    assert set(document) == {"name", "services"}
    [(name, server)] = document["services"].items()
    assert name == "postgres"
    return server


def test_the_service_is_one_that_libpq_reads(tmp_path: Path) -> None:
    parser = configparser.ConfigParser()
    parser.read_string(service(5499, tmp_path / "pgpass"))
    assert dict(parser["pgrescue"]) == {
        "host": "127.0.0.1",
        "port": "5499",
        "user": "pgrescue",
        "dbname": "postgres",
        "passfile": str(tmp_path / "pgpass"),
        "sslmode": "disable",
    }


def test_the_compose_file_serves_the_copy_on_this_machine_only(tmp_path: Path) -> None:
    server = composed(tmp_path)
    assert server["ports"] == ["127.0.0.1:5499:5432"]
    assert server["entrypoint"] == ["postgres"]
    assert server["command"][:2] == ["-D", "/pgrescue/pgdata"]
    settings = dict(word.split("=", 1) for word in server["command"][3::2])
    assert settings == {
        "config_file": "/pgrescue/server/postgresql.conf",
        "hba_file": "/pgrescue/server/pg_hba.conf",
        "ident_file": "/pgrescue/server/pg_ident.conf",
        "listen_addresses": "*",
        "unix_socket_directories": "",
    }
    assert server["command"][2::2] == ["-c"] * 5
    assert server["volumes"] == ["./pgdata:/pgrescue/pgdata", "./server:/pgrescue/server:ro"]
    assert server["environment"] == {"PGDATA": "/pgrescue/pgdata"}


@pytest.mark.parametrize(("major", "volume"), [(17, "/var/lib/postgresql/data"), (18, "/var/lib/postgresql")])
def test_the_images_own_volume_is_never_made(tmp_path: Path, major: int, volume: str) -> None:
    server = composed(tmp_path, major=major)
    assert server["tmpfs"] == [volume]
    assert server["image"] == f"postgres:{major}"


def test_image_and_owner_are_the_engines(tmp_path: Path) -> None:
    record = EngineRecord(EngineName.DOCKER, image="registry:5000/own: image")
    server = composed(tmp_path, FakeEngine(owner=Owner(999, 998), record=record))
    assert (server["image"], server["user"]) == ("registry:5000/own: image", "999:998")


def test_without_an_owner_it_is_the_caller(tmp_path: Path) -> None:
    assert composed(tmp_path)["user"] == f"{os.getuid()}:{os.getgid()}"


def test_both_files_hold_no_password_and_are_private(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.server = RUNNING
    run = make_run(tmp_path, engine)
    run.workspace.pgpass.write_text("127.0.0.1:*:*:pgrescue:s3cret-password\n")
    assert not HandOver().holds(run)
    HandOver().apply(run, Silent())
    assert HandOver().holds(run)
    for path in (run.workspace.service_file, run.workspace.compose):
        assert "s3cret" not in path.read_text()
        assert path.stat().st_mode & 0o777 == 0o600


def test_another_port_is_written_down_anew(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.server = RUNNING
    run = make_run(tmp_path, engine)
    HandOver().apply(run, Silent())
    engine.server = ServerStatus(ServerState.RUNNING, 5500)
    assert not HandOver().holds(run)
    HandOver().apply(run, Silent())
    assert HandOver().holds(run)
    assert "port=5500\n" in run.workspace.service_file.read_text()


def test_a_server_that_ended_meanwhile_is_an_error(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(ServerError):
        HandOver().apply(run, Silent())
    assert not run.workspace.compose.exists()
