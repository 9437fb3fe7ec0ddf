"""Copies that were taken apart on purpose, and the steps of a reset on them, with real servers on both sides."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from pgrescue.engine.choose import bind
from pgrescue.engine.native_find import find_native
from pgrescue.model import Finding, StrategyName
from pgrescue.pipeline import Silent, Step
from pgrescue.repair.forget_maps import ForgetMaps
from pgrescue.repair.step import Repair
from pgrescue.run import Run
from pgrescue.snapshot.contents import read_snapshot
from pgrescue.steps.access import ROLE, Access, read_password
from pgrescue.steps.blank_config import BlankConfig
from pgrescue.steps.configure import Configure
from pgrescue.steps.recreate_directories import RecreateDirectories
from pgrescue.steps.remove_backup_label import RemoveBackupLabel
from pgrescue.steps.reset_wal import ResetWal
from pgrescue.steps.start import Start
from pgrescue.steps.unpack import Unpack
from pgrescue.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from fixtures import Server

PREPARE: tuple[Step[Run], ...] = (
    Unpack(),
    RecreateDirectories(),
    RemoveBackupLabel(),
    BlankConfig(),
    ResetWal(),
    ForgetMaps(),
    Configure(),
    Access(),
)


@dataclass(frozen=True)
class Patient:
    """A copy in a workspace; `repair` may be called again."""

    run: Run

    def repair(self) -> list[Finding]:
        step = Repair()
        step.apply(self.run, Silent())
        assert step.holds(self.run)
        return list(step.findings(self.run))

    @property
    def manifest(self) -> dict[str, Any]:
        manifest = json.loads(self.run.workspace.manifest.read_text())
        assert isinstance(manifest, dict)
        return manifest

    def rows(self, table: str, fate: str, database: str = "postgres") -> list[dict[str, Any]]:
        """Return what the manifest has of a table's rows."""
        found = [item for item in self.manifest["tables"] if (item["database"], item["table"]) == (database, table)]
        return [row for item in found for row in item[fate]]

    @contextlib.contextmanager
    def connect(self, database: str = "postgres", options: str = "") -> Iterator[psycopg.Connection]:
        """Connect as the role pgrescue; the server is started where it does not run."""
        Start().apply(self.run, Silent())
        with psycopg.connect(
            host="127.0.0.1",
            port=self.run.port,
            user=ROLE,
            password=read_password(self.run.workspace),
            dbname=database,
            autocommit=True,
            options=options,
        ) as connection:
            yield connection

    def query(self, text: str, database: str = "postgres", options: str = "") -> list[tuple[Any, ...]]:
        with self.connect(database, options) as connection:
            return connection.execute(text.encode()).fetchall()

    def one(self, text: str, database: str = "postgres", options: str = "") -> Any:
        ((value,),) = self.query(text, database, options)
        return value


def admit(pgdata: Path, root: Path, *, major: int = 17, steps: Sequence[Step[Run]] = PREPARE) -> Patient:
    """Take a data directory, or a tar of one, through the steps of a reset that come before its repair."""
    workspace = Workspace(root / "it.pgrescue")
    snapshot = read_snapshot(pgdata)
    installation = find_native(major)
    workspace.create(shared=installation.owner is not None)
    engine = bind(installation, workspace, "0123456789ab")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    run = Run(snapshot, workspace, engine, StrategyName.RESET, port)
    for step in steps:
        if not step.holds(run):
            step.apply(run, Silent())
        assert step.holds(run), step.name
    return Patient(run)


class Torn:
    """Puts files of one instant into a data directory of another one; the server must not run."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._kept = server.home / "kept"

    def path(self, relation: str, database: str = "postgres") -> Path:
        """Return the first file of a relation of the running server."""
        with self._server.connect(database) as connection:
            row = connection.execute("select pg_relation_filepath(%s::regclass)", (relation,)).fetchone()
        assert row is not None
        return self._server.pgdata / str(row[0])

    def keep(self, *files: Path) -> None:
        """Copy files as they are now, after a checkpoint."""
        with self._server.connect() as connection:
            connection.execute("checkpoint")
        self._kept.mkdir(exist_ok=True)
        for file in files:
            shutil.copy2(file, self._kept / file.name)

    def put_back(self, file: Path, *, blocks: Sequence[int] | None = None) -> None:
        """Give a file the content that was kept, or only some of its blocks."""
        assert not self._server.running
        old = (self._kept / file.name).read_bytes()
        if blocks is None:
            file.write_bytes(old)
            return
        with file.open("r+b") as target:
            for block in blocks:
                target.seek(block * 8192)
                target.write(old[block * 8192 : (block + 1) * 8192])


def codes(findings: Sequence[Finding]) -> dict[tuple[str, str], int | None]:
    """Return the rows of each finding, by code and object."""
    return {(finding.code, finding.object): finding.rows for finding in findings}
