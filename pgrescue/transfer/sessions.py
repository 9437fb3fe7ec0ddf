"""The sessions of a transfer: readers of one snapshot of the source, and writers tuned for loading."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from psycopg.adapt import Loader

from pgrescue.transfer.endpoint import set_all, speaking_of
from pgrescue.transfer.sockets import cut
from pgrescue.transfer.stream import FastReader, LibpqReader, beginning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg.abc import Buffer

    from pgrescue.transfer.endpoint import Connection, Endpoint
    from pgrescue.transfer.stream import Reader

# The values' text must be the same on both sides, and exact.
_TEXT_FORMS = {
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "xmloption": "content",
    "lc_monetary": "C",
    "row_security": "off",
}
# A server that misses its client ends the work for it, and frees its locks: the next run waits for them.
_ATTENTIVE = {
    "client_connection_check_interval": "10s",
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "6",
}
_LOADING = {
    # The marker's removal at the very end is committed synchronously, and everything before it with it.
    "synchronous_commit": "off",
    "check_function_bodies": "off",
    "default_tablespace": "",
    "default_table_access_method": "heap",
    "lock_timeout": "10min",
}
# Index builds sort in it: what fits needs no files. Up to half of shared_buffers, which is set by a server's memory.
_MEMORY = """
select pg_catalog.set_config('maintenance_work_mem', greatest(
           (select setting::bigint from pg_catalog.pg_settings where name = 'maintenance_work_mem'),
           least((select setting::bigint * 4 from pg_catalog.pg_settings where name = 'shared_buffers'),
                 1048576))::text || 'kB', false)
"""


class _TextLoader(Loader):
    """Reads text as UTF-8, for which psycopg gives bytes where client_encoding is SQL_ASCII."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode(errors="surrogateescape")


def _read_text(connection: Connection, encoding: str) -> None:
    if encoding == "SQL_ASCII":
        for name in ("name", "text"):
            connection.adapters.register_loader(name, _TextLoader)


@dataclass(frozen=True, eq=False)
class Pair:
    """A worker's sessions: `source` and `reader` read the transfer's snapshot, `target` commits each statement."""

    source: Connection
    reader: Reader
    target: Connection

    @property
    def converts(self) -> bool:
        """Tell whether text has another encoding in the target."""
        here, there = (side.info.parameter_status("server_encoding") for side in (self.source, self.target))
        return here != there

    def cancel(self) -> None:
        """Cancel what they are doing; a session whose server cannot be asked to is cut."""
        self.reader.cancel()
        for connection in (self.source, self.target):
            try:
                connection.cancel_safe(timeout=5)
            except (psycopg.Error, OSError):
                cut(connection)


@contextlib.contextmanager
def reading(endpoint: Endpoint, *, encoding: str, snapshot: str | None) -> Iterator[Connection]:
    """Give a session in a transaction that reads the source as of `snapshot`, or as of now where it is None."""
    with endpoint.connect(purpose="source") as connection:
        with speaking_of("the source could not be looked at"):
            set_all(connection, {**_TEXT_FORMS, **_ATTENTIVE, "client_encoding": encoding})
            _read_text(connection, encoding)
            connection.execute(beginning(snapshot).encode())
        yield connection


@contextlib.contextmanager
def streaming(endpoint: Endpoint, source: Connection, *, encoding: str, snapshot: str | None) -> Iterator[Reader]:
    """Give the fastest reader of rows that the way to the source allows; `source` is a session of `reading`."""
    fast: FastReader | None = None
    if not source.pgconn.ssl_in_use:
        # It knows fewer ways to log in than libpq, and the server may have no room for one more.
        with contextlib.suppress(psycopg.Error):
            fast = FastReader(source, snapshot, encoding)
    if fast is None:
        yield LibpqReader(source, snapshot)
        return
    endpoint.sessions.add(fast)
    try:
        yield fast
    finally:
        fast.close()


@contextlib.contextmanager
def writing(endpoint: Endpoint, *, encoding: str, role: str | None, purpose: str) -> Iterator[Connection]:
    """Give a session on the target that is tuned for loading, and acts as `role` where one is named."""
    with endpoint.connect(purpose=purpose) as connection:
        with speaking_of("the target could not be prepared"):
            if role is not None:
                connection.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
            set_all(connection, {**_TEXT_FORMS, **_LOADING, **_ATTENTIVE, "client_encoding": encoding})
            _read_text(connection, encoding)
            connection.execute(_MEMORY)
        yield connection
