"""Workspaces with a server's files, for every engine and major that this machine has."""

from __future__ import annotations

import secrets
import socket
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import psycopg
import pytest

from pgrescue.retry import until_returns
from pgrescue.workspace import Workspace
from tests.contract import engines_docker, engines_native

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pgrescue.engine.interface import Engine


class Kind(Protocol):
    """A module engines_<name>.py: how engines of one kind are made here."""

    def require(self, major: int) -> None:
        """Skip or fail the test where there is none."""

    def make(self, workspace: Workspace, major: int, workspace_id: str) -> Engine:
        """Return an engine on the workspace."""


KINDS: dict[str, Kind] = {"native": engines_native, "docker": engines_docker}
MAJORS = {"native": (15, 16, 17, 18), "docker": (17, 18)}

PASSWORD = "correct horse"
CONFIG = {"shared_buffers": "16MB", "fsync": "off", "log_min_messages": "warning"}
SERVER_FILES = {
    "hba.conf": "host all all 127.0.0.1/32 scram-sha-256\nhost all all 0.0.0.0/0 scram-sha-256\n",
    "ident.conf": "",
    "postgresql.conf": "".join(f"{name} = {value}\n" for name, value in CONFIG.items()),
}


@dataclass
class Site:
    """A workspace with a new data directory, a password role `pgrescue`, and the means to make engines on it."""

    kind: str
    major: int
    workspace: Workspace
    id: str = field(default_factory=lambda: secrets.token_hex(6))

    def engine(self) -> Engine:
        """Return a new engine, as a new process of pgrescue would make it."""
        return KINDS[self.kind].make(self.workspace, self.major, self.id)

    def settings(self, engine: Engine) -> dict[str, str]:
        server = self.workspace.server
        return {
            "config_file": engine.path(server / "postgresql.conf"),
            "hba_file": engine.path(server / "hba.conf"),
            "ident_file": engine.path(server / "ident.conf"),
        }

    def start(self, engine: Engine, port: int | None = None) -> int:
        """Start the server and wait until it accepts connections; return its port."""
        port = port or free_port()
        engine.start(self.settings(engine), port=port)
        connect(port).close()
        return port


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def connect(port: int, *, timeout_s: float = 60) -> psycopg.Connection:
    """Connect as the role with the password, waiting for a server that is starting up."""

    def attempt() -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1",
            port=port,
            user="pgrescue",
            password=PASSWORD,
            dbname="postgres",
            autocommit=True,
            connect_timeout=5,
        )

    return until_returns(attempt, on=psycopg.OperationalError, timeout_s=timeout_s, longest_pause_s=0.2)


def own(path: Path, engine: Engine) -> None:
    if owner := engine.installation.owner:
        subprocess.run(["chown", "-R", str(owner), path], check=True)


def _template(site: Site) -> None:
    """Fill a workspace as the pipeline would: a data directory, pgrescue's own configuration, a role."""
    engine = site.engine()
    workspace = site.workspace
    workspace.pgdata.mkdir(mode=0o700)
    workspace.server.mkdir(mode=0o700)
    for name, content in SERVER_FILES.items():
        (workspace.server / name).write_text(content)
    own(workspace.pgdata, engine)
    own(workspace.server, engine)
    pgdata = engine.path(workspace.pgdata)
    initdb = ["-D", pgdata, "-U", "postgres", "-A", "reject", "--no-sync", "--locale=C", "--encoding=UTF8"]
    engine.run("initdb", initdb).check("initdb")
    sql = workspace.root / "role.sql"
    sql.write_text(f"CREATE ROLE pgrescue SUPERUSER LOGIN PASSWORD '{PASSWORD}';\n")
    own(sql, engine)
    engine.run("postgres", ["--single", "-F", "-D", pgdata, "postgres"], stdin=sql).check("single")
    sql.unlink()
    engine.remove()


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Workspace]:
    """Return the filled workspace of an engine and major, made when first asked for."""
    made: dict[tuple[str, int], Workspace] = {}

    def template(kind: str, major: int) -> Workspace:
        if (kind, major) not in made:
            site = Site(kind, major, Workspace(tmp_path_factory.mktemp(f"{kind}-{major}") / "template"))
            site.workspace.create(shared=True)
            _template(site)
            made[kind, major] = site.workspace
        return made[kind, major]

    return template


@pytest.fixture
def new_site(templates: Callable[[str, int], Workspace], tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Make workspaces; at the end remove what their engines hold."""
    made: list[Site] = []

    def new(kind: str, major: int, root: Path | None = None) -> Site:
        KINDS[kind].require(major)
        template = templates(kind, major)
        workspace = Workspace(root or tmp_path / f"{len(made)} with spaces.pgrescue")
        workspace.create(shared=True)
        for source, target in ((template.pgdata, workspace.pgdata), (template.server, workspace.server)):
            subprocess.run(["cp", "-a", source, target], check=True)
        made.append(Site(kind, major, workspace))
        return made[-1]

    yield new
    for site in made:
        site.engine().remove()


CASES = [
    pytest.param((kind, major), id=f"{kind}-{major}", marks=getattr(pytest.mark, kind))
    for kind, majors in MAJORS.items()
    for major in majors
]


@pytest.fixture(params=CASES)
def site(request: pytest.FixtureRequest, new_site: Callable[..., Site]) -> Site:
    """Return a workspace for every engine and major."""
    kind, major = request.param
    return new_site(kind, major)


@pytest.fixture
def engine(site: Site) -> Engine:
    return site.engine()
