"""The sockets of sessions: how they notice a network that is gone, and how to make them stop waiting for it."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import weakref
from typing import TYPE_CHECKING, Protocol

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from psycopg import pq

# libpq's names. A peer that answers no probe is given up after 45 s. The last one bounds how long sent bytes may stay
# unacknowledged, but also how long a living server may be too busy to read (tcp(7), TCP_USER_TIMEOUT): it is generous.
KEEPALIVES = {
    "keepalives": "1",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "6",
    "tcp_user_timeout": "300000",
}
_OPTIONS = {
    "keepalives_idle": "TCP_KEEPIDLE",
    "keepalives_interval": "TCP_KEEPINTVL",
    "keepalives_count": "TCP_KEEPCNT",
    "tcp_user_timeout": "TCP_USER_TIMEOUT",
}


# libpq's own waiting keeps every other thread from running: psycopg calls it with the interpreter's lock, but for
# PQexec. So nothing here lets it wait.


def await_words(connection: pq.abc.PGconn) -> None:
    """Wait until the server says something, and take it in; raises psycopg.Error where the connection is gone."""
    ear = select.poll()
    ear.register(connection.socket, select.POLLIN)
    while connection.flush():
        ear.modify(connection.socket, select.POLLIN | select.POLLOUT)
        if ear.poll()[0][1] & ~select.POLLOUT:
            break
    ear.modify(connection.socket, select.POLLIN)
    ear.poll()
    connection.consume_input()


def results(connection: pq.abc.PGconn) -> Iterator[pq.abc.PGresult]:
    """Yield the results of what was sent, as they come; raises psycopg.Error where the connection is gone."""
    while True:
        while connection.is_busy():
            await_words(connection)
        result = connection.get_result()
        if result is None:
            return
        yield result


class HasSocket(Protocol):
    """A session, by the number of its socket."""

    def fileno(self) -> int:
        """Return it; raises OSError or psycopg.Error once the session is closed."""


def keep_alive(connected: socket.socket, parameters: Mapping[str, str]) -> None:
    """Do for a socket what libpq does with these parameters for its own; on a Unix socket there is nothing to do."""
    if connected.family not in {socket.AF_INET, socket.AF_INET6} or parameters.get("keepalives") == "0":
        return
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, option in _OPTIONS.items():
        number, value = getattr(socket, option, None), int(parameters.get(name, 0))
        if number is not None and value > 0:
            connected.setsockopt(socket.IPPROTO_TCP, number, value)


def cut(session: HasSocket) -> None:
    """Make whatever waits for the session's server fail at once, in whichever thread; nothing else can use it then."""
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(session.fileno())) as its:
        its.shutdown(socket.SHUT_RDWR)


class Sessions:
    """The open sessions of an endpoint, as long as somebody else holds them; any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: weakref.WeakSet[HasSocket] = weakref.WeakSet()

    def add(self, session: HasSocket) -> None:
        """Count a session."""
        with self._lock:
            self._sessions.add(session)

    def cut(self) -> None:
        """Cut all of them."""
        with self._lock:
            sessions = list(self._sessions)
        for session in sessions:
            cut(session)
