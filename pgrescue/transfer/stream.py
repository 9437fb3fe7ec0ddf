"""Rows from one server to another, as they come: no file, and no second copy in memory."""

from __future__ import annotations

import asyncio
import contextlib
import select
from typing import TYPE_CHECKING, Protocol

import asyncpg
import psycopg
from psycopg import pq, sql
from psycopg.errors import error_from_result

from pgrescue.transfer.sockets import await_words, keep_alive, results

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Iterator

    from pgrescue.transfer.endpoint import Connection
    from pgrescue.transfer.tables import Table

_CHUNK_BYTES = 128 << 10
# What a socket takes at once when it says that it has room, in the system's smallest buffers too: see _await_room.
_PIECE_BYTES = 16 << 10
_WITHOUT_WAITING = 1
_INTERRUPTED = "interrupted by pgrescue"


class TargetSpokeError(Exception):
    """The target said something in the middle of a COPY, and it was no error: what was sent is void, begin again."""


class Reader(Protocol):
    """A session on the source that hands out the rows of COPY … TO STDOUT."""

    def copy_out(self, table: Table, where: sql.Composable | None, take: Callable[[bytes], None]) -> None:
        """Read a table's rows, or those that `where` is true of, and give them to `take` in pieces of any size.

        Raises psycopg.Error where the source refuses or is lost, and whatever `take` raises; a session that is not lost
        can be used again afterwards.
        """

    def cancel(self) -> None:
        """Make a `copy_out` under way fail soon; any thread may call."""


def copy_rows(
    reader: Reader,
    target: Connection,
    table: Table,
    where: sql.Composable | None,
    *,
    into: sql.Composable,
    on_bytes: Callable[[int], None],
    listens: bool = True,
) -> int:
    """Run COPY … TO STDOUT on the source and the statement `into` on the target, and hand the rows over.

    `on_bytes` is told how many bytes went over since it was told last. Without `listens`, an error of the target is met
    only when all rows are sent, and TargetSpokeError never. Returns the number of rows that the target took. Raises
    psycopg.Error of whichever server refused; a transaction that was open in the target has then failed.
    """
    writer = target.pgconn
    _expect(target, writer.exec_(into.as_bytes(target)), pq.ExecStatus.COPY_IN)
    ear = select.poll()
    ear.register(writer.socket, select.POLLIN | select.POLLOUT)

    def take(data: bytes) -> None:
        whole = memoryview(data)
        for first in range(0, len(whole), _PIECE_BYTES):
            _await_room(target, ear, listens=listens)
            writer.put_copy_data(whole[first : first + _PIECE_BYTES])
        on_bytes(len(data))

    try:
        reader.copy_out(table, where, take)
    except BaseException:
        _give_up(target)
        raise
    writer.put_copy_end()
    return _results(target)


def _await_room(target: Connection, ear: select.poll, *, listens: bool) -> None:
    """Wait until the target takes more: so it slows the source down, instead of filling this process's memory.

    What the target says must not go unnoticed to libpq's buffer: libpq reads when it finds no room to send.
    """
    while True:
        events = ear.poll()[0][1]
        # After an error the target takes the rest of the table and throws it away: hear it at once.
        if events & ~select.POLLOUT:
            if listens:
                _hear(target)
            target.pgconn.consume_input()
            target.pgconn.is_busy()
        if events & select.POLLOUT:
            return


def _hear(target: Connection) -> None:
    """Raise the target's error, or TargetSpokeError where it has none."""
    target.pgconn.put_copy_end(_INTERRUPTED.encode())
    try:
        _results(target)
    except psycopg.errors.QueryCanceled as error:
        if _INTERRUPTED not in str(error):
            raise
    raise TargetSpokeError


def _expect(connection: Connection, result: pq.abc.PGresult, status: pq.ExecStatus) -> None:
    if result.status != status:
        raise error_from_result(result, encoding=connection.info.encoding)


def _results(connection: Connection) -> int:
    """Take the end of a statement, and return the number of its rows; raise its error where it broke off."""
    rows, error = 0, None
    for result in results(connection.pgconn):
        if result.status == pq.ExecStatus.COMMAND_OK:
            rows = result.command_tuples or 0
        else:
            error = error or error_from_result(result, encoding=connection.info.encoding)
    if error is not None:
        raise error
    return rows


def _give_up(target: Connection) -> None:
    """Break the target's COPY off, where it is still in one."""
    if target.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
        with contextlib.suppress(psycopg.Error):
            target.pgconn.put_copy_end(_INTERRUPTED.encode())
            _results(target)


def beginning(snapshot: str | None) -> str:
    """Return the statements that begin to read a source as of a snapshot, or as of now."""
    own = f"; set transaction snapshot '{snapshot}'" if snapshot is not None else ""
    return f"begin isolation level repeatable read read only{own}"


class LibpqReader:
    """Reads by libpq, over any connection that it can make; each row costs two calls here."""

    def __init__(self, source: Connection, snapshot: str | None = None) -> None:
        """Read in the session `source`, and after an error again as of `snapshot`; without it the caller sees to it."""
        self._source = source
        self._snapshot = snapshot

    def copy_out(self, table: Table, where: sql.Composable | None, take: Callable[[bytes], None]) -> None:
        """Read rows; see Reader."""
        conn = self._source.pgconn
        statement = sql.SQL("copy ({}) to stdout{}").format(
            table.rows(where), sql.SQL(" (format binary)" if table.is_plain else "")
        )
        try:
            _expect(self._source, conn.exec_(statement.as_bytes(self._source)), pq.ExecStatus.COPY_OUT)
            parts: list[memoryview] = []
            size, length = 0, 0
            while length >= 0:
                length, data = conn.get_copy_data(_WITHOUT_WAITING)
                if length > 0:
                    parts.append(data)
                    size += length
                if parts and (length <= 0 or size >= _CHUNK_BYTES):
                    take(b"".join(parts))
                    parts.clear()
                    size = 0
                if length == 0:
                    await_words(conn)
            _results(self._source)
        except BaseException:
            self._abandon()
            raise

    def cancel(self) -> None:
        """Ask the server to."""
        with contextlib.suppress(psycopg.Error, OSError):
            self._source.cancel_safe(timeout=5)

    def _abandon(self) -> None:
        """End a COPY that nobody reads any more, and read on; where that fails, the session is closed."""
        conn = self._source.pgconn
        try:
            if conn.transaction_status == pq.TransactionStatus.ACTIVE:
                self._source.cancel_safe(timeout=10)
                with contextlib.suppress(psycopg.errors.QueryCanceled):
                    while (length := conn.get_copy_data(_WITHOUT_WAITING)[0]) >= 0:
                        if length == 0:
                            await_words(conn)
                    _results(self._source)
            if self._snapshot is not None:
                conn.exec_(b"rollback")
                _expect(self._source, conn.exec_(beginning(self._snapshot).encode()), pq.ExecStatus.COMMAND_OK)
        except psycopg.Error:
            self._source.close()


class _Session(asyncpg.Connection):  # type: ignore[misc]  # it has no types
    """A session whose socket can be had."""

    @property
    def wire(self) -> socket.socket:
        its: socket.socket = self._transport.get_extra_info("socket")
        return its


class FastReader:
    """Reads by asyncpg, which takes a whole buffer of rows at once: a quarter of the processor time of libpq's way.

    It belongs to the thread that made it. Only for connections without TLS: those to a rescued server have none.
    """

    def __init__(self, source: Connection, snapshot: str | None, encoding: str) -> None:
        """Open a second session beside `source`, with its user and password, that reads the same snapshot.

        Raises psycopg.Error where it cannot be had; libpq knows more ways to log in.
        """
        self._source, self._snapshot, self._encoding = source.info, snapshot, encoding
        self._parameters = source.info.get_parameters()
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[str] | None = None
        self._session: _Session | None = None
        try:
            with _as_psycopg():
                self._loop.run_until_complete(self._open())
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the number of its socket."""
        session = self._session
        if session is None:
            raise OSError("the session is closed")
        return session.wire.fileno()

    def copy_out(self, table: Table, where: sql.Composable | None, take: Callable[[bytes], None]) -> None:
        """Read rows; see Reader."""

        async def sink(data: bytes) -> None:
            take(data)

        with _as_psycopg():
            try:
                if self._session is None:
                    self._loop.run_until_complete(self._open())
                self._task = self._loop.create_task(self._copying(table, where, sink))
                self._loop.run_until_complete(self._task)
            except BaseException:
                self._abandon()
                raise
            finally:
                self._task = None

    def cancel(self) -> None:
        """Cancel what the loop is waiting for."""
        task = self._task
        if task is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(task.cancel)

    def close(self) -> None:
        """End the session."""
        session = self._session
        if session is not None:
            with contextlib.suppress(Exception):
                self._loop.run_until_complete(session.close(timeout=5))
        self._abandon()
        self._loop.close()

    async def _open(self) -> None:
        info = self._source
        self._session = session = await asyncpg.connect(
            host=info.host or info.hostaddr,
            port=info.port,
            user=info.user,
            password=info.password or None,
            database=info.dbname,
            ssl=False,
            timeout=30,
            server_settings={"application_name": "pgrescue source"},
            connection_class=_Session,
        )
        keep_alive(session.wire, self._parameters)
        await session.execute(f"set client_encoding = '{self._encoding}'")
        await session.execute(
            "set search_path = ''; set statement_timeout = 0; set idle_in_transaction_session_timeout = 0; "
            "set row_security = off; set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; "
            "set extra_float_digits = 3; set bytea_output = 'hex'; set timezone = 'UTC'; set xmloption = content; "
            "set lc_monetary = 'C'"
        )
        await session.execute(beginning(self._snapshot))

    async def _copying(
        self, table: Table, where: sql.Composable | None, sink: Callable[[bytes], Awaitable[None]]
    ) -> str:
        options = {"output": sink, "format": "binary" if table.is_plain else "text"}
        assert self._session is not None  # noqa: S101 - for mypy
        if where is None and table.condition is None and table.columns and not table.leaves:
            done: str = await self._session.copy_from_table(
                table.name, schema_name=table.schema, columns=table.columns, **options
            )
        else:
            done = await self._session.copy_from_query(table.rows(where).as_string(None), **options)
        return done

    def _abandon(self) -> None:
        """Leave the session as it is: the next copy opens another, which needs no words with this one's server."""
        session, self._session = self._session, None
        if session is not None:
            session.terminate()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        if left:
            self._loop.run_until_complete(asyncio.wait(left, timeout=5))


@contextlib.contextmanager
def _as_psycopg() -> Iterator[None]:
    """Turn asyncpg's errors into those of psycopg with the same SQLSTATE."""
    try:
        yield
    except asyncpg.PostgresError as error:
        kind = psycopg.OperationalError
        with contextlib.suppress(KeyError):
            kind = psycopg.errors.lookup(error.sqlstate or "")  # type: ignore[assignment]
        raise kind(str(error)) from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError) as error:
        raise psycopg.OperationalError(str(error) or "the connection was lost") from error
    except asyncio.CancelledError as error:
        raise psycopg.errors.QueryCanceled("the work was cancelled") from error
