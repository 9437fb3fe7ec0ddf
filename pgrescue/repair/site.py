"""Where the repair works: sessions on the copy's databases whose plans trust no index."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import sql

from pgrescue.steps.connection import SessionError, session

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgrescue.run import Run

Connection = psycopg.Connection[tuple[Any, ...]]

# Triggers, rules and foreign keys do not fire in the role of a replica, those apart that are marked ALWAYS or REPLICA
# (quarantine.py switches these off). The server itself was started with ignore_system_indexes on (step.py).
_QUIET = "-c session_replication_role=replica -c client_min_messages=error -c jit=off -c client_encoding=UTF8"
_HEAP_ONLY = "-c enable_indexscan=off -c enable_indexonlyscan=off -c enable_bitmapscan=off"
_CATALOGS = f"{_QUIET} -c ignore_system_indexes=on -c allow_system_table_mods=on"
_TABLES = f"{_QUIET} -c ignore_system_indexes=off"

FAILURES = (psycopg.Error, SessionError, UnicodeError)
"""What the work in a session raises: its own errors inside of the block, a SessionError at its end."""


@dataclass(frozen=True)
class Site:
    """The running server of a rescue, and its major version."""

    run: Run
    port: int

    @property
    def major(self) -> int:
        """The server's major version."""
        return self.run.snapshot.chosen.major

    @contextlib.contextmanager
    def catalogs(self, database: str = "template1") -> Iterator[Connection]:
        """Open a session that reads the catalogs without their indexes, and may change them."""
        with session(self.run.workspace, self.port, database, options=_CATALOGS) as connection:
            yield connection

    @contextlib.contextmanager
    def heaps(self, database: str) -> Iterator[Connection]:
        """Open a session whose queries read the tables of users without their indexes."""
        with session(self.run.workspace, self.port, database, options=f"{_TABLES} {_HEAP_ONLY}") as connection:
            yield connection

    @contextlib.contextmanager
    def indexed(self, database: str) -> Iterator[Connection]:
        """Open a session that uses indexes: for when they are rebuilt."""
        with session(self.run.workspace, self.port, database, options=_TABLES) as connection:
            yield connection


def said(error: BaseException) -> str:
    """Return the server's words in one line, without those about where in a statement."""
    text = str(error).strip()
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        text = error.diag.message_primary
        if error.diag.message_detail:
            text += f" ({error.diag.message_detail})"
    return text.replace("\n", " ")


def raw(text: str) -> sql.SQL:
    """Take over SQL that the server itself wrote, such as the definition of an index.

    It may hold a percent sign: a statement with such a part has literals in it, never parameters.
    """
    return sql.SQL(text)


def query(name: str) -> LiteralString:
    """Return one of the longer queries, which lie in sql/."""
    return resources.files("pgrescue.repair").joinpath("sql", f"{name}.sql").read_text()


def tid_array(tids: Sequence[str]) -> sql.Composed:
    """Return tids as `(block,item)` as a literal array for the server."""
    return sql.SQL("{}::pg_catalog.tid[]").format(sql.Literal("{" + ",".join(f'"{tid}"' for tid in tids) + "}"))


def find_operators(connection: Connection, schemas: Sequence[str]) -> None:
    """Let the session find the operators of types that lie in these schemas, as extensions do, besides its own path."""
    path = sql.SQL(", ").join(sql.Identifier(name) for name in dict.fromkeys(("pg_catalog", *schemas, "public")))
    connection.execute(sql.SQL("set search_path = {}").format(path))
