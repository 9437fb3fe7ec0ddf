"""The role pgrescue and its password."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
from typing import TYPE_CHECKING

import pytest

from pgrescue.command import Completed
from pgrescue.engine.interface import ServerState, ServerStatus
from pgrescue.errors import CopyRefusedError, RescueError, WorkspaceError
from pgrescue.pipeline import Silent
from pgrescue.steps.access import Access, read_password, role_statements, scram_verifier
from tests.unit.builders import FakeEngine, make_run

if TYPE_CHECKING:
    from pathlib import Path

    from pgrescue.run import Run

GRANTED = Completed(("postgres",), 0, 'backend> \t 1: ?column? = "access granted"', "")


def _hi(password: bytes, salt: bytes, rounds: int) -> bytes:
    """Return RFC 5802's Hi(), written out as it stands there."""
    last = hmac.new(password, salt + b"\0\0\0\1", hashlib.sha256).digest()
    sum_ = int.from_bytes(last, "big")
    for _ in range(rounds - 1):
        last = hmac.new(password, last, hashlib.sha256).digest()
        sum_ ^= int.from_bytes(last, "big")
    return sum_.to_bytes(32, "big")


@pytest.mark.parametrize(
    ("password", "salt"), [("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")), ("x" * 80, b"\0" * 16)]
)
def test_the_verifier_is_what_the_rfc_says(password: str, salt: bytes) -> None:
    form, rounds_and_salt, keys = scram_verifier(password, salt).split("$")
    rounds, _, encoded_salt = rounds_and_salt.partition(":")
    stored, _, server = keys.partition(":")
    salted = _hi(password.encode(), salt, int(rounds))
    client_key = hmac.new(salted, b"Client Key", hashlib.sha256).digest()
    assert (form, int(rounds), base64.b64decode(encoded_salt)) == ("SCRAM-SHA-256", 4096, salt)
    assert base64.b64decode(stored) == hashlib.sha256(client_key).digest()
    assert base64.b64decode(server) == hmac.new(salted, b"Server Key", hashlib.sha256).digest()


def test_the_example_of_rfc_7677_is_accepted() -> None:
    """The RFC's client proof, checked as a server does: with the stored key only."""
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    message = (
        b"n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    keys = scram_verifier("pencil", salt).split("$")[2]
    stored, server = (base64.b64decode(key) for key in keys.split(":"))
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    signature = hmac.digest(stored, message, "sha256")
    client_key = bytes(one ^ other for one, other in zip(proof, signature, strict=True))
    assert hashlib.sha256(client_key).digest() == stored
    assert base64.b64encode(hmac.digest(server, message, "sha256")) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


@pytest.mark.parametrize("major", [12, 13, 14, 16, 17, 18])
def test_only_settings_that_the_major_knows_are_set(major: int) -> None:
    statements = "\n".join(role_statements(major, "VERIFIER"))
    assert ("idle_session_timeout" in statements) is (major >= 14)
    assert ("event_triggers" in statements) is (major >= 17)
    assert ("transaction_timeout = 0" in statements.replace("idle_in_transaction_session_timeout", "")) is (major >= 17)
    assert "statement_timeout = 0" in statements


def test_each_statement_is_one_line_and_the_last_one_proves_the_role() -> None:
    statements = role_statements(17, "VERIFIER")
    assert statements[0] == "CREATE ROLE pgrescue"
    assert "SUPERUSER LOGIN" in statements[1]
    assert "PASSWORD 'VERIFIER'" in statements[1]
    assert statements[-1].startswith("SELECT 'access granted'")
    assert "rolpassword = 'VERIFIER'" in statements[-1]
    assert not [line for line in statements if "\n" in line or ";" in line]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    found = make_run(tmp_path)
    found.workspace.server.mkdir()
    return found


def engine_of(run: Run) -> FakeEngine:
    assert isinstance(run.engine, FakeEngine)
    return run.engine


def test_a_password_is_made_and_kept_in_one_private_file(run: Run) -> None:
    engine = engine_of(run)
    engine.answer = GRANTED
    assert not Access().holds(run)
    Access().apply(run, Silent())
    assert Access().holds(run)
    password = read_password(run.workspace)
    assert len(password) >= 32
    assert run.workspace.pgpass.read_text() == f"127.0.0.1:*:*:pgrescue:{password}\n"
    assert run.workspace.pgpass.stat().st_mode & 0o777 == 0o600
    others = [path for path in run.workspace.root.rglob("*") if path.is_file() and path != run.workspace.pgpass]
    assert others
    assert not [path for path in others if password in path.read_text()]


def test_the_server_only_sees_the_verifier_of_the_password(run: Run) -> None:
    engine = engine_of(run)
    engine.answer = GRANTED
    Access().apply(run, Silent())
    password = read_password(run.workspace)
    [script] = engine.scripts
    assert password not in script
    verifier = script.partition("PASSWORD '")[2].partition("'")[0]
    salt = base64.b64decode(verifier.split("$")[1].partition(":")[2])
    assert verifier == scram_verifier(password, salt)
    [asked] = engine.asked
    assert asked[:2] == ("postgres", "--single")
    assert not [word for word in asked if password in word or "SCRAM" in word]
    assert not list(run.workspace.server.iterdir())


def test_each_workspace_has_its_own_password(run: Run) -> None:
    engine_of(run).answer = GRANTED
    Access().apply(run, Silent())
    first = read_password(run.workspace)
    Access().apply(run, Silent())
    assert read_password(run.workspace) != first


def test_a_running_server_is_stopped_first(run: Run) -> None:
    engine = engine_of(run)
    engine.answer = GRANTED
    engine.server = ServerStatus(ServerState.RUNNING, 5432)
    Access().apply(run, Silent())
    assert [words[0] for words in engine.asked] == ["stop", "postgres"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Completed(("postgres",), 1, "", "FATAL:  no"), RescueError),
        (Completed(("postgres",), 0, "backend>", "ERROR:  catalog is damaged"), CopyRefusedError),
    ],
)
def test_without_the_role_there_is_no_password_file(run: Run, answer: Completed, kind: type[RescueError]) -> None:
    engine_of(run).answer = answer
    with pytest.raises(kind, match=r"FATAL:  no|catalog is damaged"):
        Access().apply(run, Silent())
    assert not Access().holds(run)
    with pytest.raises(WorkspaceError, match="logged in"):
        read_password(run.workspace)
    assert not list(run.workspace.server.iterdir())


def test_it_has_nothing_to_tell(run: Run) -> None:
    assert tuple(Access().findings(dataclasses.replace(run))) == ()
