"""What the checks share: sessions on the server, what a check tells, and which errors of the server mean damage."""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import psycopg

from pgrescue.model import BlockMap, Finding

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

# Sequential scans, because the indexes of the catalogs are among what is checked. As a replica's session, because no
# trigger and no event trigger of the user's may fire (event_triggers is a setting only since 17).
OPTIONS = " ".join(
    f"-c {setting}"
    for setting in (
        "enable_indexscan=off",
        "enable_indexonlyscan=off",
        "enable_bitmapscan=off",
        "max_parallel_workers_per_gather=0",
        "jit=off",
        "session_replication_role=replica",
        "client_encoding=UTF8",
        "search_path=pg_catalog",
        "default_tablespace=",
        "lock_timeout=10s",
    )
)

_LIBRARY = ("could not access file", "could not load library", "could not find function")


class Opener(Protocol):
    """Opens a session with `OPTIONS` on one database, in autocommit mode; raises SessionError where it cannot."""

    def __call__(self, database: str, /) -> AbstractContextManager[Connection]:
        """Give a session for a `with` block."""


@dataclass(frozen=True)
class Progress:
    """Bytes that a check has dealt with since it spoke last."""

    size_bytes: int


Fact: TypeAlias = Finding | BlockMap | Progress


def load_sql(name: str) -> str:
    """Return a query from `sql/`."""
    return (importlib.resources.files(__package__) / "sql" / f"{name}.sql").read_text()


def rows(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    """Return what one of pgrescue's own fixed queries gives."""
    return connection.execute(query.encode()).fetchall()


def words(error: BaseException) -> str:
    """Return the server's message in one line, without the statement that it points into."""
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        detail = f" ({error.diag.message_detail})" if error.diag.message_detail else ""
        return f"{error.diag.message_primary}{detail}".replace("\n", " ")
    return str(error).strip().replace("\n", " ")


def is_damage(error: psycopg.Error) -> bool:
    """Tell whether the server met data that it cannot read, rather than something that it will not do.

    Classes of SQLSTATE: XX internal errors and corruption, 58 system errors, such as a file that is not there.
    """
    state = error.sqlstate or ""
    if state[:2] == "58":
        return not any(text in str(error) for text in _LIBRARY)
    return state[:2] == "XX"


def open_relation(connection: Connection, oid: int) -> None:
    """Have the server open a relation: where its catalogs do not let it, no check can speak of its content."""
    connection.execute("select pg_relation_size(%s::oid::regclass)", [oid])


def listed(items: list[str], *, total: int, shown: int) -> str:
    """Return the first few of `items` in one line, and how many there are besides."""
    more = total - min(len(items), shown)
    return "; ".join(items[:shown]) + (f"; and {more} more" if more > 0 else "")
