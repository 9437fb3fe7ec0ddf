"""The command line, run in this process on an engine that runs nothing."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from pgrescue.cli.app import app
from pgrescue.ledger import EngineRecord, Ledger
from pgrescue.model import EngineName
from pgrescue.workspace import Workspace
from tests.unit.builders import FakeEngine
from tests.unit.snapshot.archives import of_files
from tests.unit.snapshot.conftest import DATA

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WAL = "000000010000000000000009"


@dataclass(frozen=True)
class Ended:
    """A command that ended."""

    status: int
    stdout: str
    stderr: str

    def document(self) -> Any:
        """Return the one JSON object on stdout."""
        return json.loads(self.stdout)


def pgrescue(*args: object, stdin: str = "") -> Ended:
    """Run a command line; an exception that no command catches is raised."""
    done = CliRunner().invoke(app, [str(arg) for arg in args], input=stdin, catch_exceptions=False)
    return Ended(done.exit_code, done.stdout, done.stderr)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty directory."""
    directory = tmp_path / "here"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """Return a small snapshot of a server that was backed up while it ran."""
    path = tmp_path / "data.tar"
    path.write_bytes(
        of_files(
            {
                "PG_VERSION": b"17\n",
                "backup_label": (DATA / "backup_label_17.txt").read_bytes(),
                "global/pg_control": (DATA / "pg_control_17.bin").read_bytes(),
            }
        )
    )
    return path


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """Let every workspace have this engine."""
    found = FakeEngine()
    monkeypatch.setattr("pgrescue.cli.common.reopen", lambda *_: found)
    return found


@pytest.fixture
def rescued(here: Path) -> Callable[..., Workspace]:
    """Return what makes a workspace here."""

    def make(name: str = "data.pgrescue", *, is_finished: bool = True) -> Workspace:
        workspace = Workspace(here / name)
        workspace.create(shared=False)
        record = EngineRecord(EngineName.NATIVE)
        ledger = Ledger.begin(workspace.ledger, snapshot=here / "data.tar", fingerprint="f", major=17, engine=record)
        ledger.change(is_finished=is_finished)
        workspace.pgdata.mkdir()
        return workspace

    return make


@pytest.fixture
def module() -> Callable[[str], Any]:
    """Return what finds a command's module: its function has the same name in the package."""
    return lambda name: sys.modules[f"pgrescue.cli.{name}"]
