"""What all tests share: real snapshots, made once in a session, and rescues of them that clean up."""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING, Protocol

import pytest

from pgrescue.engine.choose import reopen
from pgrescue.ledger import Ledger
from pgrescue.workspace import Workspace
from tests import cli
from tests.contract import engines_docker, engines_native
from tests.snapshots import Shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fixtures import Snapshot

# A shell's background job ignores Ctrl-C, and so would everything that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ENGINES = [pytest.param("docker", marks=pytest.mark.docker), pytest.param("native", marks=pytest.mark.native)]


def require_engine(name: str, major: int = 17) -> None:
    """Skip the test where this machine lacks the engine; fail it where PGRESCUE_REQUIRE_ENGINES names it."""
    {"docker": engines_docker, "native": engines_native}[name].require(major)


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """Return the session's snapshots; all processes of pytest-xdist share them."""
    base = tmp_path_factory.getbasetemp()
    return Shelf((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shelf")


@pytest.fixture(scope="module", params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    """Return the name of each engine that this machine has, for PostgreSQL 17."""
    name = str(request.param)
    require_engine(name)
    return name


class Rescuer(Protocol):
    """Runs `pgrescue local --json` on a snapshot in a new workspace, or in `workspace`."""

    def __call__(self, snapshot: Snapshot, *options: str, workspace: Path | None = None) -> cli.Rescue: ...


def _rescuer(new_directory: Callable[[], Path]) -> Iterator[Rescuer]:
    made: list[cli.Rescue] = []

    def rescue(snapshot: Snapshot, *options: str, workspace: Path | None = None) -> cli.Rescue:
        made.append(cli.local(snapshot, workspace or new_directory() / "it.pgrescue", *options))
        return made[-1]

    yield rescue
    for workspace in {rescued.workspace for rescued in made if rescued.workspace.exists()}:
        _remove(Workspace(workspace))


def _remove(workspace: Workspace) -> None:
    """Do as `pgrescue rm`, without a program of its own: that takes longer than the rest."""
    state = Ledger.load(workspace.ledger).state
    reopen(state.engine, state.major, workspace, state.workspace_id).remove()
    shutil.rmtree(workspace.root)


@pytest.fixture
def rescue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rescuer]:
    """Rescue snapshots; at the end of the test they are removed."""
    yield from _rescuer(lambda: tmp_path_factory.mktemp("rescue"))


@pytest.fixture(scope="module")
def shared_rescue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rescuer]:
    """Rescue snapshots for several tests of a module, which must leave the server as it is."""
    yield from _rescuer(lambda: tmp_path_factory.mktemp("rescue"))
