"""Step: the running server was asked whether it is what it should be."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgrescue.errors import ServerError
from pgrescue.files import write_atomically
from pgrescue.model import Database, Finding, PgVersion, Severity
from pgrescue.pipeline import Observer, Unit
from pgrescue.steps.connection import SessionError, session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    import psycopg

    from pgrescue.run import Run
    from pgrescue.workspace import Workspace

_HEALTHY = "Look at the server's log (pgrescue logs), and at the other findings."

# Read by sequential scans, so that a broken index of the catalogs does not hide a row of them.
_CATALOG_READ = """
select (select count(*) from pg_catalog.pg_class),
       (select count(*) from pg_catalog.pg_attribute),
       (select count(*) from pg_catalog.pg_proc),
       (select count(*) from pg_catalog.pg_type)
"""
_DATABASES = """
select datname, datallowconn, case when datallowconn then pg_catalog.pg_database_size(oid) end
  from pg_catalog.pg_database
 order by datname
"""


_PREPARED = "select gid, owner::text, database::text, prepared from pg_catalog.pg_prepared_xacts order by gid"


@dataclass(frozen=True)
class Health:
    """What the check found; `server_started` says of which start of the server it speaks."""

    server_started: str
    version: PgVersion
    databases: tuple[Database, ...]
    findings: tuple[Finding, ...]

    @classmethod
    def load(cls, workspace: Workspace) -> Health:
        """Read what the last check wrote."""
        document: dict[str, Any] = json.loads(workspace.health.read_text())
        return cls(
            document["server_started"],
            PgVersion(**document["version"]),
            tuple(Database(**database) for database in document["databases"]),
            tuple(Finding.from_document(found) for found in document["findings"]),
        )


class HealthCheck:
    """The runbook's sixth step, which there is `SELECT 1`; that proves nothing (reset.md)."""

    name = "health-check"
    title = "Check that the server is healthy"

    def holds(self, run: Run) -> bool:
        """Tell whether this start of the server was checked already."""
        if not run.workspace.health.exists():
            return False
        port = run.engine.status().port
        if port is None:
            return False
        try:
            with session(run.workspace, port) as connection:
                return Health.load(run.workspace).server_started == _server_started(connection)
        except SessionError:
            return False

    def apply(self, run: Run, observer: Observer) -> None:
        """Check, and write down what was found."""
        port = run.engine.status().port
        if port is None:
            raise ServerError("the server ended before it could be checked", hint="Run the same command again.")
        try:
            with session(run.workspace, port) as connection:
                databases, findings = _check(run, port, connection, observer)
                version = PgVersion.parse(connection.execute("show server_version").fetchall()[0][0])
                health = Health(_server_started(connection), version, databases, findings)
        except SessionError as error:
            raise ServerError(
                f"the server runs, and fails the simplest questions: {error}",
                hint="Its shared catalogs are damaged. Look at its log: pgrescue logs",
            ) from error
        write_atomically(run.workspace.health, json.dumps(dataclasses.asdict(health), indent=1) + "\n")

    def findings(self, run: Run) -> tuple[Finding, ...]:
        """Return what the check found."""
        return Health.load(run.workspace).findings


def _server_started(connection: psycopg.Connection[Any]) -> str:
    started: datetime = connection.execute("select pg_catalog.pg_postmaster_start_time()").fetchall()[0][0]
    return started.isoformat()


def _check(
    run: Run, port: int, connection: psycopg.Connection[Any], observer: Observer
) -> tuple[tuple[Database, ...], tuple[Finding, ...]]:
    findings = [*_identity(run, connection), *_recovery(connection)]
    rows: list[tuple[str, bool, int | None]] = connection.execute(_DATABASES).fetchall()
    databases = tuple(Database(name, size) for name, _, size in rows if size is not None)
    for number, database in enumerate(databases, start=1):
        findings += _catalogs(run.workspace, port, database.name)
        observer.advanced(number, len(databases), Unit.ITEMS)
    findings += _prepared(connection)
    findings += _closed(name for name, allowed, _ in rows if not allowed)
    findings += _checkpoint(run.workspace, port)
    return databases, tuple(findings)


def _identity(run: Run, connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    found = int(connection.execute("select system_identifier from pg_catalog.pg_control_system()").fetchall()[0][0])
    expected = run.snapshot.chosen.control.system_identifier
    # The function gives a signed bigint, pg_control holds 64 bits without a sign.
    if found % (1 << 64) != expected:
        yield Finding(
            "other_system",
            Severity.ERROR,
            "server",
            f"The server's system identifier is {found}, the snapshot's is {expected}.",
            "This is not the copy. Remove the workspace (pgrescue rm) and begin again.",
        )


def _recovery(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    if connection.execute("select pg_catalog.pg_is_in_recovery()").fetchall()[0][0]:
        yield Finding(
            "in_recovery", Severity.ERROR, "server", "The server is still in recovery and takes no writes.", _HEALTHY
        )


def _catalogs(workspace: Workspace, port: int, database: str) -> Iterator[Finding]:
    try:
        with session(workspace, port, database) as connection:
            connection.execute(
                "set enable_indexscan = off; set enable_indexonlyscan = off; set enable_bitmapscan = off"
            )
            connection.execute(_CATALOG_READ)
    except SessionError as error:
        yield Finding(
            "database_unreadable",
            Severity.ERROR,
            database,
            f"Its catalogs cannot be read: {error}",
            _HEALTHY,
        )


def _prepared(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    for gid, owner, database, prepared in connection.execute(_PREPARED).fetchall():
        yield Finding(
            "prepared_transaction",
            Severity.WARNING,
            f"{gid} ({database})",
            f"The transaction was prepared by {owner} at {prepared:%Y-%m-%d %H:%M:%S%z} for two-phase commit. It "
            "survived, its changes are not visible, and it keeps its locks.",
            f"Ask its transaction manager, then, in {database}: COMMIT PREPARED '{gid}' or ROLLBACK PREPARED '{gid}'.",
        )


def _closed(names: Iterator[str]) -> Iterator[Finding]:
    for name in names:
        if name != "template0":
            yield Finding(
                "database_closed",
                Severity.WARNING,
                name,
                "The database takes no connections (datallowconn is false), so that nothing of it was checked.",
                f'To open it: ALTER DATABASE "{name}" ALLOW_CONNECTIONS true',
            )


def _checkpoint(workspace: Workspace, port: int) -> Iterator[Finding]:
    try:
        with session(workspace, port) as connection:
            connection.execute("checkpoint")
    except SessionError as error:
        yield Finding(
            "checkpoint_failed",
            Severity.ERROR,
            "server",
            f"CHECKPOINT failed, so that the server cannot keep what is written to it: {error}",
            "A page newer than the WAL does that: rescue again with --strategy reset.",
        )
