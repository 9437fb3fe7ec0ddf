"""`status`, `stop`, `logs`, `psql` and `rm` on a workspace."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pgrescue.engine.interface import ServerState, ServerStatus
from pgrescue.errors import EngineError
from tests.unit.cli.conftest import pgrescue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pgrescue.workspace import Workspace
    from tests.unit.builders import FakeEngine

RUNNING = ServerStatus(ServerState.RUNNING, 5499, "process 42")
REPORT = '{"verdict": "best-effort", "url": "postgresql://pgrescue@127.0.0.1:5499/postgres"}'


class Terminal(io.StringIO):
    """A standard input at which somebody sits."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def workspace(rescued: Callable[..., Workspace]) -> Workspace:
    return rescued()


def test_status_of_a_running_server(workspace: Workspace, engine: FakeEngine) -> None:
    engine.server = RUNNING
    workspace.report.write_text(REPORT)
    document = pgrescue("status", "--json").document()
    assert document["workspace"] == str(workspace.root)
    assert [document[name] for name in ("schema", "state", "port", "where")] == [1, "running", 5499, "process 42"]
    assert (document["verdict"], document["url"]) == ("best-effort", "postgresql://pgrescue@127.0.0.1:5499/postgres")
    assert "verdict:   best-effort\n" in pgrescue("status").stdout


@pytest.mark.usefixtures("engine")
def test_status_of_a_stopped_server_has_no_url(workspace: Workspace) -> None:
    workspace.report.write_text(REPORT)
    document = pgrescue("status", "-w", workspace.root, "--json").document()
    assert (document["state"], document["port"], document["url"]) == ("stopped", None, None)
    assert document["verdict"] == "best-effort"


@pytest.mark.usefixtures("engine", "workspace")
def test_status_before_the_rescue_is_finished() -> None:
    document = pgrescue("status", "--json").document()
    assert (document["verdict"], document["strategy"], document["steps"]) == (None, None, [])


def test_stop(workspace: Workspace, engine: FakeEngine) -> None:
    engine.server = RUNNING
    assert pgrescue("stop", "--json").document() == {
        "schema": 1,
        "workspace": str(workspace.root),
        "was": "running",
        "state": "stopped",
    }
    assert engine.asked == [("stop",)]
    assert pgrescue("stop").stdout == f"stopped: {workspace.root}\n"


@pytest.mark.parametrize("command", [["stop"], ["rm", "--yes"]])
def test_a_busy_workspace_is_left_alone(workspace: Workspace, engine: FakeEngine, command: list[str]) -> None:
    with workspace.locked():
        done = pgrescue(*command, "--json")
    assert (done.status, engine.asked) == (1, [])
    assert "another pgrescue" in done.document()["error"]["problem"]
    assert workspace.ledger.exists()


@pytest.mark.usefixtures("workspace")
def test_logs(engine: FakeEngine) -> None:
    engine.log = ("one", "two", "three")
    assert pgrescue("logs").stdout == "one\ntwo\nthree\n"
    assert pgrescue("logs", "-n", "2").stdout == "two\nthree\n"
    assert pgrescue("logs", "--json").document() == {"schema": 1, "lines": ["one", "two", "three"]}


def test_without_a_terminal_rm_needs_yes(workspace: Workspace, engine: FakeEngine) -> None:
    for answer in ("", "y\n"):
        done = pgrescue("rm", "--json", stdin=answer)
        assert done.status == 2
        assert "--yes" in done.document()["error"]["hint"]
    assert engine.asked == []
    assert workspace.ledger.exists()


@pytest.mark.parametrize(("option", "as_json"), [("--yes", True), ("-y", False)])
def test_rm_ends_the_server_and_removes_the_workspace_only(
    here: Path,
    workspace: Workspace,
    engine: FakeEngine,
    option: str,
    as_json: bool,  # noqa: FBT001 - pytest gives it
) -> None:
    (here / "data.tar").write_bytes(b"the snapshot")
    (workspace.pgdata / "link").symlink_to(here / "data.tar")
    done = pgrescue("rm", option, *(["--json"] if as_json else []))
    assert done.status == 0
    assert engine.asked == [("stop",), ("remove",)]
    assert [path.name for path in here.iterdir()] == ["data.tar"]
    if as_json:
        assert done.document() == {"schema": 1, "workspace": str(workspace.root), "removed": True}
    else:
        assert done.stdout == f"removed: {workspace.root}\n"


@pytest.mark.parametrize("agreed", [True, False])
def test_on_a_terminal_rm_asks(
    workspace: Workspace,
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    module: Callable[[str], Any],
    agreed: bool,  # noqa: FBT001 - pytest gives it
) -> None:
    asked: list[str] = []

    def confirm(text: str, **_: object) -> bool:
        asked.append(text)
        return agreed

    rm = module("rm")
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(rm.typer, "confirm", confirm)
    if agreed:
        rm.rm(None)
    else:
        with pytest.raises(rm.typer.Exit) as caught:
            rm.rm(None)
        assert caught.value.exit_code == 1
    assert workspace.root.exists() is not agreed
    assert (engine.asked == [("stop",), ("remove",)]) is agreed
    [question] = asked
    assert str(workspace.root) in question


@pytest.mark.usefixtures("engine")
def test_of_several_workspaces_one_must_be_named(rescued: Callable[..., Workspace]) -> None:
    first, second = rescued("a.pgrescue"), rescued("b.pgrescue")
    done = pgrescue("rm", "--yes", "--json")
    assert done.status == 2
    assert "several workspaces" in done.document()["error"]["problem"]
    assert pgrescue("rm", "--yes", "-w", first.root).status == 0
    assert (first.root.exists(), second.root.exists()) == (False, True)


def test_psql_needs_a_running_server(workspace: Workspace, engine: FakeEngine) -> None:
    done = pgrescue("psql", "-w", workspace.root)
    assert done.status == 1
    assert "the server does not run" in done.stderr
    assert engine.asked == []


def test_psql_waits_for_the_checks(rescued: Callable[..., Workspace], engine: FakeEngine) -> None:
    engine.server = RUNNING
    done = pgrescue("psql", "-w", rescued("other.pgrescue", is_finished=False).root)
    assert done.status == 1
    assert "is not finished" in done.stderr


def test_psql_hands_everything_else_over(
    workspace: Workspace, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, module: Callable[[str], Any]
) -> None:
    engine.server = RUNNING
    became: list[tuple[list[str], dict[str, str]]] = []

    def become(args: list[str], *, env: dict[str, str]) -> None:
        became.append((args, env))
        sys.exit(0)

    monkeypatch.setattr(module("server"), "replace_process", become)
    assert pgrescue("psql", "-d", "app", "--", "-c", "select 1", "--csv").status == 0
    [(args, env)] = became
    assert args == ["/usr/lib/postgresql/17/bin/psql", "-d", "app", "-c", "select 1", "--csv"]
    assert env == {"PGSERVICEFILE": str(workspace.service_file), "PGSERVICE": "pgrescue"}


@pytest.mark.parametrize("command", ["status", "stop", "logs"])
@pytest.mark.usefixtures("workspace")
def test_an_engine_that_is_gone_is_one_object(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise EngineError("PostgreSQL 17 was not found", hint="install it")

    monkeypatch.setattr("pgrescue.cli.common.reopen", gone)
    done = pgrescue(command, "--json")
    assert done.status == 1
    assert done.document()["error"]["hint"] == "install it"


@pytest.mark.parametrize("command", ["status", "stop", "logs", "rm"])
@pytest.mark.usefixtures("engine")
def test_a_ledger_that_cannot_be_read_is_told(workspace: Workspace, command: str) -> None:
    workspace.ledger.write_text("{")
    done = pgrescue(command, "--json", *(["--yes"] if command == "rm" else []))
    assert done.status == 2
    assert "ledger.json cannot be read" in done.document()["error"]["problem"]
