"""Whether an address gives a transfer the sessions that it needs, each of them to itself."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from pgrescue.errors import RescueError, UsageError
from pgrescue.transfer.endpoint import said, settle, speaking_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.transfer.endpoint import Connection, Endpoint

FEW = 3
"""As many sessions as show a pooler's work."""

_PATIENCE_S = 2


@dataclass(frozen=True)
class Sessions:
    """What came of the wish for sessions at the same time.

    `are_shared` tells of a pooler that gives each transaction another session of the server's. `refusal` has the
    words with which the address refused one more, where fewer were `opened` than `wanted`.
    """

    wanted: int
    opened: int
    are_shared: bool
    refusal: str = ""


def try_sessions(endpoint: Endpoint, wanted: int) -> Sessions:
    """Open sessions, at least FEW of them, and close them again; raises RescueError where not even one can be had.

    A pooler that takes turns gives the first another session of the server's each time. With one that does not, the
    others, which stay in a transaction, come to hold the first one's sooner or later. Nothing is set in them: behind a
    pooler it would stay, and reach other clients.
    """
    wanted = max(wanted, FEW)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(endpoint.connect(purpose="preflight", settles=False))
        own = _pid(first)
        if _pid(first) != own:
            return Sessions(wanted, 1, are_shared=True)
        for opened in range(1, wanted):
            try:
                other = endpoint.connect(purpose="preflight", timeout_s=_PATIENCE_S, settles=False)
                stack.enter_context(other)
                other.execute("begin")
                taken = _pid(other)
            except RescueError as error:
                return Sessions(wanted, opened, are_shared=False, refusal=error.problem.rpartition("FATAL:")[2].strip())
            except psycopg.Error as error:
                return Sessions(wanted, opened, are_shared=False, refusal=said(error))
            if taken == own:
                return Sessions(wanted, opened, are_shared=True)
        return Sessions(wanted, wanted, are_shared=_pid(first) != own)


def _pid(connection: Connection) -> int:
    row = connection.execute("select pg_catalog.pg_backend_pid()").fetchone()
    assert row is not None  # noqa: S101 - a select without a table
    return int(row[0])


def refuse_shared(endpoint: Endpoint, option: str) -> None:
    """Raise UsageError where a pooler gives each transaction another session."""
    with speaking_of(f"{option} could not be looked at"):
        sessions = try_sessions(endpoint, FEW)
    if sessions.are_shared:
        raise UsageError(
            f"behind {option} is a pooler that gives each transaction another session",
            hint="Name the server itself, or a pool with pool_mode = session.",
        )


@contextlib.contextmanager
def passing(endpoint: Endpoint) -> Iterator[Connection]:
    """Give a session in a transaction that is rolled back at the end: nothing that was set in it outlives it."""
    with endpoint.connect(purpose="preflight", settles=False) as connection:
        connection.execute("begin")
        try:
            settle(connection)
            yield connection
        finally:
            with contextlib.suppress(psycopg.Error):
                connection.execute("rollback")
