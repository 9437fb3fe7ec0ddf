"""A new, empty server of the rescued one's own version, for rehearsing how the data moves."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING

from psycopg import sql

from pgrescue.engine.choose import reopen
from pgrescue.engine.port import free_port
from pgrescue.errors import RescueError
from pgrescue.files import write_atomically
from pgrescue.ledger import Ledger
from pgrescue.steps.configure import HBA, HBA_RULES
from pgrescue.steps.ownership import hand_over
from pgrescue.transfer.endpoint import Endpoint, speaking_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.engine.interface import Engine
    from pgrescue.transfer.source import Source
    from pgrescue.workspace import Workspace

_ROLE = "pgrescue"
_START_TIMEOUT_S = 60
# It lives for one rehearsal: nothing of it must outlive a power failure.
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
    "shared_buffers": "256MB",
    "maintenance_work_mem": "256MB",
    "max_connections": "100",
    "autovacuum": "off",
    "ssl": "off",
    "logging_collector": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "lc_messages": "C",
}
_DATABASE = """
select pg_catalog.pg_encoding_to_char(encoding), datcollate, datctype, pg_catalog.to_jsonb(d)
  from pg_catalog.pg_database as d where datname = pg_catalog.current_database()
"""


@contextlib.contextmanager
def throwaway(space: Workspace, like: Workspace, source: Source) -> Iterator[Endpoint]:
    """Give an empty database on a new server in `space`, as `source` is: its encoding, its locale.

    The server is run as that of the workspace `like`; whoever made `space` ends it. Raises RescueError.
    """
    model = Ledger.load(like.ledger).state
    space.create(shared=True)
    ledger = Ledger.begin(
        space.ledger, snapshot=like.root, fingerprint="throwaway", major=model.major, engine=model.engine
    )
    engine = reopen(model.engine, model.major, space, ledger.state.workspace_id)
    password = secrets.token_urlsafe(24)
    _initialize(engine, space, password)
    with source.endpoint.connect(purpose="source") as connection, speaking_of("the source could not be looked at"):
        row = connection.execute("select pg_catalog.current_setting('shared_preload_libraries')").fetchone()
        create = _create_database(connection.execute(_DATABASE).fetchone(), source.database)
    hba = engine.path(space.server / HBA)
    settings = {**_SETTINGS, "hba_file": hba, "shared_preload_libraries": str(row[0]) if row else ""}
    port = free_port()
    if port is None:
        raise RescueError("no port is free on 127.0.0.1", hint="The drill needs two.")
    engine.start(settings, port=port)
    server = Endpoint(
        {
            "host": "127.0.0.1",
            "port": str(port),
            "user": _ROLE,
            "password": password,
            "dbname": "postgres",
            "sslmode": "disable",
            "gssencmode": "disable",
        }
    )
    with (
        server.connect(purpose="drill", timeout_s=_START_TIMEOUT_S) as connection,
        speaking_of("the throwaway target could not be made"),
    ):
        if source.database != "postgres":
            connection.execute(create)
    yield server.of_database(source.database)


def _initialize(engine: Engine, space: Workspace, password: str) -> None:
    """Make the data directory; the password goes by a file that only the programs' identity reads."""
    space.server.mkdir(mode=0o700)
    space.pgdata.mkdir(mode=0o700)
    secret = space.server / "password"
    write_atomically(secret, f"{password}\n", durable=False)
    write_atomically(space.server / HBA, HBA_RULES, durable=False)
    hand_over(engine, space.pgdata, space.server, *space.server.iterdir())
    args = ["--pgdata", engine.path(space.pgdata), "--username", _ROLE, "--pwfile", engine.path(secret)]
    args += ["--encoding", "UTF8", "--locale", "C", "--auth", "scram-sha-256", "--no-sync"]
    try:
        done = engine.run("initdb", args)
    finally:
        secret.unlink(missing_ok=True)
    done.check("the throwaway target could not be made", hint="See doctor; or name a target of your own in `transfer`.")


def _create_database(row: tuple[object, ...] | None, name: str) -> sql.Composed:
    """Return the statement for a database with the same encoding and locale (CREATE DATABASE; 15 brought ICU)."""
    assert row is not None  # noqa: S101 - a session is in a database
    encoding, collate, ctype, known = row
    assert isinstance(known, dict)  # noqa: S101 - jsonb of a row
    parts = [
        sql.SQL("create database {} template template0").format(sql.Identifier(name)),
        sql.SQL("encoding {} lc_collate {} lc_ctype {}").format(*map(sql.Literal, (encoding, collate, ctype))),
    ]
    locale = known.get("datlocale") or known.get("daticulocale")
    match known.get("datlocprovider"):
        case "i":
            parts.append(sql.SQL("locale_provider icu icu_locale {}").format(sql.Literal(locale)))
            if rules := known.get("daticurules"):
                parts.append(sql.SQL("icu_rules {}").format(sql.Literal(rules)))
        case "b":
            parts.append(sql.SQL("locale_provider builtin builtin_locale {}").format(sql.Literal(locale)))
        case _:
            pass
    return sql.SQL(" ").join(parts)
