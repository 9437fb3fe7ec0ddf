"""What a person finds in the workspace: ways in, ways to keep the server, and no secret where none belongs."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from pgrescue.engine.native import find_native
from tests.cli import environment, pgrescue

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli import Rescue
    from tests.conftest import Rescuer
    from tests.snapshots import Shelf

PRIVATE = ("pgpass", "pg_service.conf", "report.json", "ledger.json", "compose.yaml")


@pytest.fixture(scope="module")
def rescued(shelf: Shelf, engine_name: str, shared_rescue: Rescuer) -> Rescue:
    """Return a rescue whose strategy is a reset: it has the most files."""
    return shared_rescue(shelf.get("basebackup-none"), "--engine", engine_name)


@pytest.mark.parametrize("name", PRIVATE)
def test_files_of_the_hand_over_are_private(rescued: Rescue, name: str) -> None:
    assert (rescued.workspace / name).stat().st_mode & 0o777 == 0o600


def test_nobody_else_can_look_into_the_workspace(rescued: Rescue) -> None:
    assert rescued.workspace.stat().st_mode & 0o066 == 0
    for name in ("pgdata", "server", "logs", "removed"):
        assert (rescued.workspace / name).stat().st_mode & 0o077 == 0


def test_the_password_is_in_pgpass_and_on_stdout_and_nowhere_else(rescued: Rescue) -> None:
    password = rescued.password
    assert len(password) >= 20
    assert password in rescued.done.stdout
    assert password not in rescued.done.stderr
    files = [path for path in rescued.workspace.rglob("*") if path.is_file() and not path.is_symlink()]
    assert {path.name for path in files if password.encode() in path.read_bytes()} == {"pgpass"}


@pytest.mark.parametrize("command", [("status",), ("status", "--json"), ("logs",), ("logs", "--json")], ids=" ".join)
def test_no_other_command_shows_the_password(rescued: Rescue, command: tuple[str, ...]) -> None:
    done = rescued.run(*command).ok()
    assert rescued.password not in done.stdout + done.stderr


def test_the_summary_for_a_person_says_how_to_connect_and_does_not_show_the_password(rescued: Rescue) -> None:
    snapshot, workspace = rescued.snapshot.path, rescued.workspace
    done = pgrescue("local", snapshot, "-w", workspace, cwd=workspace.parent).ok()
    assert "Verdict: best-effort" in done.stdout
    for command in ("psql", "stop", "rm"):
        assert f"pgrescue {command} -w {workspace}" in done.stdout
    assert rescued.password not in done.stdout + done.stderr


@pytest.mark.native
def test_the_service_file_opens_the_server(rescued: Rescue, tmp_path: Path) -> None:
    done = subprocess.run(
        [find_native(17).bindir / "psql", "-XAtc", "SELECT current_user", "service=pgrescue"],
        env=environment({"PGSERVICEFILE": str(rescued.workspace / "pg_service.conf"), "HOME": str(tmp_path)}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "pgrescue\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--", "-XAtc", "select 1"), "1\n"),
        (("-d", "portal", "--", "-XAtc", "select current_database()"), "portal\n"),
    ],
)
def test_pgrescue_psql_opens_the_server(rescued: Rescue, arguments: tuple[str, ...], said: str) -> None:
    done = rescued.run("psql", *arguments)
    assert (done.status, done.stdout) == (0, said), done.stderr


def test_pgrescue_psql_gives_psqls_own_exit_status(rescued: Rescue) -> None:
    assert rescued.run("psql", "--", "-Xc", "select no_such_column").status == 1


def test_it_belongs_to_the_caller(rescued: Rescue) -> None:
    assert {(rescued.workspace / name).stat().st_uid for name in PRIVATE} == {os.geteuid()}
