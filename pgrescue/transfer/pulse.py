"""Whether a server is still there: TCP alone does not tell, where a tunnel or a proxy stands between."""

from __future__ import annotations

import contextlib
import select
import threading
import time
from typing import TYPE_CHECKING

import psycopg

from pgrescue.transfer.endpoint import ConnectionLostError
from pgrescue.transfer.sockets import cut

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.transfer.endpoint import Connection, Endpoint

_ASKS_EVERY_S = 10


class Pulse:
    """Asks a server now and then; once it stays silent, all sessions of its endpoint are cut.

    Where the connection that asks is refused or lost, nobody is asked any more: so are the others, then.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        """Open the connection that asks; raises RescueError."""
        self.is_silent = False
        self._endpoint = endpoint
        self._patience_s = endpoint.patience_s
        self._over = threading.Event()
        self._connection: Connection = endpoint.connect(purpose="pulse")
        self._thread = threading.Thread(target=self._ask, name="pgrescue pulse", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; returns at once."""
        self._over.set()
        cut(self._connection)
        self._thread.join()
        self._connection.close()

    def _ask(self) -> None:
        with contextlib.suppress(psycopg.Error):
            while not self._over.wait(min(_ASKS_EVERY_S, self._patience_s / 4)):
                if not self._answers():
                    self.is_silent = True
                    self._endpoint.sessions.cut()
                    return

    def _answers(self) -> bool:
        """Tell whether the server answers in time; raises psycopg.Error where the connection is gone."""
        asking = self._connection.pgconn
        asking.send_query(b"select 1")
        ear = select.poll()
        ear.register(asking.socket, select.POLLIN)
        deadline = time.monotonic() + self._patience_s
        while True:
            while asking.flush() or asking.is_busy():
                if not ear.poll(max(deadline - time.monotonic(), 0) * 1000):
                    return False
                asking.consume_input()
            if asking.get_result() is None:
                return True


@contextlib.contextmanager
def watching(endpoint: Endpoint) -> Iterator[None]:
    """Keep the block from waiting for a server that does not answer any more: raises ConnectionLostError then."""
    pulse = Pulse(endpoint)
    try:
        yield
    except Exception as error:
        if pulse.is_silent:
            raise ConnectionLostError(
                f"{endpoint.shown} has not answered for {endpoint.patience_s:g} s; the connection was given up",
                hint="Nothing is lost. When server and network are there again, run the same command: it carries on.",
            ) from error
        raise
    finally:
        pulse.stop()
