"""What every command shares: help, usage errors, errors as one object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pgrescue import __version__
from tests.unit.cli.conftest import pgrescue

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = ("inspect", "local", "to-cluster", "migration", "status", "psql", "logs", "stop", "rm", "doctor")
ON_A_WORKSPACE = ("status", "logs", "stop", "rm")


def test_without_a_command_the_help_is_shown() -> None:
    done = pgrescue()
    assert "Usage: " in done.stdout + done.stderr
    assert all(command in done.stdout + done.stderr for command in COMMANDS)


def test_the_version() -> None:
    assert pgrescue("--version").stdout == f"pgrescue {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_has_help(command: str, option: str) -> None:
    done = pgrescue(command, option)
    assert done.status == 0
    assert f"{command} [OPTIONS]" in done.stdout
    assert done.stderr == ""
    assert ("--json" in done.stdout) is (command != "psql")
    assert ("--workspace" in done.stdout) is (command not in {"inspect", "doctor"})


@pytest.mark.parametrize(
    "args",
    [
        ["no-such-command"],
        ["inspect"],
        ["local"],
        ["local", "a.tar", "b.tar"],
        ["local", "a.tar", "--no-such-option"],
        ["local", "a.tar", "--port", "0"],
        ["local", "a.tar", "--port", "65536"],
        ["local", "a.tar", "--port", "many"],
        ["logs", "--tail", "-1"],
        ["status", "--workspace"],
    ],
)
@pytest.mark.usefixtures("here")
def test_what_cannot_be_parsed_ends_with_2_and_writes_nothing_to_stdout(args: list[str]) -> None:
    done = pgrescue(*args)
    assert (done.status, done.stdout) == (2, "")
    assert "Error: " in done.stderr


@pytest.mark.parametrize(
    ("option", "value", "possible"),
    [
        ("--engine", "podman", "docker, native"),
        ("--strategy", "hope", "clean, archive, replay, crash, reset"),
        ("--require", "damaged", "consistent, best-effort"),
    ],
)
def test_an_unknown_word_is_told_with_what_is_possible(here: Path, option: str, value: str, possible: str) -> None:
    done = pgrescue("local", "absent.tar", option, value)
    assert (done.status, done.stdout) == (2, "")
    assert f"error: {option} '{value}' is unknown\n" in done.stderr
    assert possible in done.stderr
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("command", ON_A_WORKSPACE)
@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.usefixtures("here")
def test_without_a_workspace_the_error_says_so(command: str, as_json: bool) -> None:  # noqa: FBT001 - pytest gives it
    done = pgrescue(command, *(["--json"] if as_json else []))
    assert done.status == 2
    assert "error: there is no workspace in" in done.stderr
    if as_json:
        error = done.document()["error"]
        assert "there is no workspace" in error["problem"]
        assert (error["exit_status"], bool(error["hint"])) == (2, True)
    else:
        assert done.stdout == ""


@pytest.mark.parametrize("command", ON_A_WORKSPACE)
def test_a_directory_that_is_no_workspace_is_left_alone(here: Path, command: str) -> None:
    (here / "photos").mkdir()
    (here / "photos/a.jpg").touch()
    done = pgrescue(command, "-w", "photos", "--json", *(["--yes"] if command == "rm" else []))
    assert done.status == 2
    assert "no ledger.json" in done.document()["error"]["problem"]
    assert (here / "photos/a.jpg").exists()


@pytest.mark.parametrize("command", ["inspect", "local"])
@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "does not exist"), (b"", "is empty"), (b"PGDMP\1", "archive of pg_dump"), (bytes(1024), "found nothing")],
)
def test_a_bad_snapshot_is_one_object_and_leaves_nothing_behind(
    here: Path, tmp_path: Path, command: str, content: bytes | None, problem: str
) -> None:
    path = tmp_path / "bad.tar"
    if content is not None:
        path.write_bytes(content)
    done = pgrescue(command, path, "--json")
    assert done.status == 2
    assert problem in done.document()["error"]["problem"]
    assert f"{path}" in done.stderr
    assert list(here.iterdir()) == []
