"""Where the data comes from: a rescued server or any live one, and which of its databases is the app's."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgrescue.engine.choose import EngineRequest, bind, choose_engine
from pgrescue.errors import EngineError, RescueError, ServerError, UsageError
from pgrescue.files import write_atomically
from pgrescue.model import Verdict
from pgrescue.steps.access import ROLE, read_password
from pgrescue.steps.connection import HOST
from pgrescue.steps.ownership import hand_over
from pgrescue.transfer.endpoint import Endpoint, speaking_of
from pgrescue.transfer.pooling import refuse_shared
from pgrescue.transfer.sockets import KEEPALIVES
from pgrescue.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgrescue.command import Completed
    from pgrescue.engine.choose import Found
    from pgrescue.engine.interface import Engine
    from pgrescue.pipeline import Observer
    from pgrescue.transfer.endpoint import Connection

MAINTENANCE = ("postgres", "rdsadmin", "azure_maintenance", "azure_sys", "cloudsqladmin", "_dodb", "defaultdb")
NEWEST_MAJOR = 18
_USER_TABLES = """
select count(*) from pg_catalog.pg_class as c
 where c.relkind in ('r', 'p', 'f', 'm', 'v') and c.relnamespace not in (
       select oid from pg_catalog.pg_namespace where nspname = 'information_schema' or nspname like 'pg\\_%')
   and not exists (select from pg_catalog.pg_depend as d
                    where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid
                      and d.deptype = 'e')
"""


@dataclass(frozen=True)
class Source:
    """A database to read, and the engine whose pg_dump reads its schema.

    `verdict` is what its rescue came to, None where nobody knows. `is_rescued` tells a workspace's own server from a
    live one, which goes on working. `scratch` is a directory that the engine's programs see, `pgdata` the server's data
    directory, where it is a workspace's.
    """

    endpoint: Endpoint
    engine: Engine
    scratch: Path
    is_rescued: bool
    verdict: Verdict | None = None
    pgdata: Path | None = None

    @property
    def database(self) -> str:
        """The app database."""
        return self.endpoint.database or ""

    @property
    def described(self) -> str:
        """Words for the user."""
        return f"the rescued database {self.database!r}" if self.is_rescued else f"the database {self.endpoint.shown}"

    def of_database(self, name: str) -> Source:
        """Return the same server with another database chosen."""
        return dataclasses.replace(self, endpoint=self.endpoint.of_database(name))

    def pg_dump(self, args: Sequence[str], connection: Connection) -> Completed:
        """Run the engine's pg_dump on the database; its password goes by a file that only the engine's owner reads.

        `connection` is a session on the same database: it knows the password that libpq found. Raises RescueError.
        """
        passfile = self.scratch / "pgpass.dump"
        password = (connection.info.password or "").replace("\\", "\\\\").replace(":", "\\:")
        write_atomically(passfile, f"*:*:*:*:{password}\n", durable=False)
        try:
            hand_over(self.engine, passfile)
            done = self.engine.run(
                "pg_dump",
                [*args, "--no-password", "--dbname", self._dump_conninfo()],
                env={"PGPASSFILE": self.engine.path(passfile)},
                online=not self.is_rescued,
            )
        finally:
            passfile.unlink(missing_ok=True)
        return done.check(
            f"pg_dump could not read {self.described}",
            hint="" if self.is_rescued else "The role needs SELECT on everything that it dumps.",
        )

    def _dump_conninfo(self) -> str:
        return Endpoint({**KEEPALIVES, **self.endpoint.parameters, "application_name": "pgrescue pg_dump"}).shown


@contextlib.contextmanager
def rescued(workspace: Workspace, engine: Engine) -> Iterator[Source]:
    """Give the running server of a workspace as a source; its database is not chosen yet."""
    port = engine.status().port
    if port is None:
        raise ServerError(
            f"the server of {workspace.root} does not run", hint="Start it: pgrescue local with the same snapshot."
        )
    parameters = {
        "host": HOST,
        "port": str(port),
        "user": ROLE,
        "password": read_password(workspace),
        "sslmode": "disable",
        "gssencmode": "disable",
    }
    yield Source(
        Endpoint(parameters),
        engine,
        workspace.root,
        is_rescued=True,
        verdict=_verdict(workspace),
        pgdata=workspace.pgdata,
    )


def _verdict(workspace: Workspace) -> Verdict | None:
    try:
        return Verdict(json.loads(workspace.report.read_text())["verdict"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def live(endpoint: Endpoint, request: EngineRequest, observer: Observer) -> Iterator[Source]:
    """Give any server that runs as a source, with an engine whose pg_dump is not older than it.

    Raises UsageError, before anything is set in any session, behind a pooler that shares them.
    """
    refuse_shared(endpoint, "--source-url")
    with endpoint.connect(purpose="source") as connection:
        major = connection.info.server_version // 10000
        database = connection.info.dbname
    with tempfile.TemporaryDirectory(prefix="pgrescue-") as directory:
        root = Path(directory)
        # The identity that runs PostgreSQL's programs passes through it to its password file.
        root.chmod(0o711)
        workspace = Workspace(root)
        engine = bind(_programs(request, major, observer), workspace, root.name)
        try:
            yield Source(endpoint.of_database(database), engine, root, is_rescued=False)
        finally:
            engine.remove()


def _programs(request: EngineRequest, major: int, observer: Observer) -> Found:
    """Return the programs of the server's own major, or of the next that can be had: pg_dump reads older servers."""
    first: EngineError | None = None
    for candidate in range(major, max(NEWEST_MAJOR, major) + 1):
        try:
            return choose_engine(request, candidate, observer=observer).found
        except EngineError as error:
            first = first or error
    assert first is not None  # noqa: S101 - the range is never empty
    raise first


def choose_database(source: Source, wanted: str | None) -> Source:
    """Return the source with the app database chosen: the one that was asked for, else the only one that can be meant.

    That is the only one that is no template, no maintenance database, and not empty. Raises UsageError, with the
    candidates, where it is not clear.
    """
    start = source if source.endpoint.database else source.of_database("template1")
    with start.endpoint.connect(purpose="source") as connection, speaking_of("the databases cannot be listed"):
        names = [
            str(name)
            for (name,) in connection.execute(
                "select datname from pg_catalog.pg_database where datallowconn and not datistemplate order by datname"
            )
        ]
    if wanted is not None:
        if wanted not in names:
            raise UsageError(f"there is no database {wanted!r}", hint=f"There are: {', '.join(names)}.")
        return source.of_database(wanted)
    if not source.is_rescued and source.endpoint.database:
        return source
    candidates = [name for name in names if name not in MAINTENANCE and _has_tables(source.of_database(name))]
    if not candidates:
        candidates = [name for name in names if _has_tables(source.of_database(name))]
    match candidates:
        case [only]:
            return source.of_database(only)
        case []:
            raise UsageError("no database holds any table", hint="Name one with --database if it is meant anyway.")
        case _:
            raise UsageError(
                f"several databases could be the app's: {', '.join(candidates)}", hint="Choose one with --database."
            )


def _has_tables(source: Source) -> bool:
    try:
        with source.endpoint.connect(purpose="source") as connection, speaking_of("its tables cannot be counted"):
            row = connection.execute(_USER_TABLES.encode()).fetchone()
            return row is not None and row[0] > 0
    except RescueError:
        # It may be damaged, or closed: whoever means it names it.
        return True
