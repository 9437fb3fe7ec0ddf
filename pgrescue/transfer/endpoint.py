"""A database that can be connected to: what the user gave, without ever showing its password."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg import conninfo

from pgrescue.errors import RescueError, UsageError
from pgrescue.retry import until_returns
from pgrescue.transfer.sockets import KEEPALIVES, Sessions
from pgrescue.verify.target import words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType
    from typing import TypeAlias

    Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

APPLICATION = "pgrescue"
_CONNECT_TIMEOUT_S = 10
_DEADLINE_S = 30
_PATIENCE_S = 60.0
_SECRETS = frozenset(
    {"password", "sslpassword", "passfile", "oauth_client_secret", "scram_client_key", "scram_server_key"}
)
_CROWDED = ("too many", "remaining connection")
# The server's own refusals that time may change; every other FATAL is final.
_PASSING = (
    *_CROWDED,
    "starting up",
    "in recovery mode",
    "not yet accepting",
    "shutting down",
    "terminating connection",
)
_FINAL = ("no password supplied", "certificate", "SSL", "invalid ", "unsupported")
_CUT_SHORT = ("SSL SYSCALL error", "unexpected eof", "SSL connection has been closed unexpectedly")
_SCHEMES = ("postgresql://", "postgres://")
_SETTINGS = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "search_path": "",
    "client_min_messages": "warning",
    "jit": "off",
}


class ConnectionLostError(RescueError):
    """A server ended a connection in the middle of the work, or the network did."""


class _PassingError(Exception):
    """A connection could not be made now, and perhaps can be a little later."""


@dataclass(frozen=True)
class Endpoint:
    """Where a database is and how to log in to it, as libpq's parameters; what is not given, libpq finds itself."""

    parameters: Mapping[str, str] = field(repr=False)
    sessions: Sessions = field(default_factory=Sessions, repr=False, compare=False)

    @classmethod
    def parse(cls, text: str, option: str) -> Endpoint:
        """Read a URL or a connection string of libpq; raise UsageError, which does not repeat it, for others."""
        hint = "Such as postgresql://user@host:5432/database; the password may come from PGPASSWORD or ~/.pgpass."
        if not text.strip():
            raise UsageError(f"{option} is empty", hint=hint)
        try:
            given = conninfo.conninfo_to_dict(text)
        except psycopg.ProgrammingError:
            # libpq's words would repeat the text, and with it the password.
            raise UsageError(f"{option} is neither a URL nor a connection string", hint=hint) from None
        parameters = {name: str(value) for name, value in given.items() if value is not None}
        if text.startswith(_SCHEMES):
            _check_marks(text, parameters, option)
        return cls(parameters)

    @property
    def database(self) -> str | None:
        """The database that was named."""
        return self.parameters.get("dbname")

    def of_database(self, name: str) -> Endpoint:
        """Return another database of the same server."""
        return Endpoint({**self.parameters, "dbname": name}, self.sessions)

    @property
    def shown(self) -> str:
        """The connection string without its secrets."""
        return conninfo.make_conninfo(
            **{name: value for name, value in self.parameters.items() if name not in _SECRETS}
        )

    @property
    def deadline_s(self) -> float:
        """How long a connection is tried for, all attempts together: libpq's connect_timeout where one was given."""
        given = self.parameters.get("connect_timeout", "")
        return float(given) if given.isdigit() and int(given) else _DEADLINE_S

    @property
    def patience_s(self) -> float:
        """How long its server may be silent when it is asked: a minute, or what tcp_user_timeout says of it."""
        told_ms = self.parameters.get("tcp_user_timeout", "")
        return int(told_ms) / 1000 if told_ms.isdigit() and int(told_ms) else _PATIENCE_S

    def connect(self, *, purpose: str = "", timeout_s: float | None = None, settles: bool = True) -> Connection:
        """Open a session in autocommit mode; `purpose` becomes part of its application_name.

        Its settings are neutral ones where it `settles`. Only errors of the connection itself are tried again, for
        `timeout_s` or the endpoint's own deadline. Raises RescueError with the server's or libpq's words.
        """
        timeout_s = self.deadline_s if timeout_s is None else timeout_s
        try:
            connection = until_returns(
                lambda: self._attempt(purpose, settles=settles),
                on=_PassingError,
                timeout_s=timeout_s,
                longest_pause_s=2,
            )
        except _PassingError as error:
            hint = "Check host, port and network from this machine (psql with the same URL), then run it again."
            if any(part in str(error) for part in _CROWDED):
                hint = "End sessions that nobody needs, or allow more of them; --jobs 1 needs the fewest."
            raise RescueError(
                f"{self.shown} cannot be reached, tried for {timeout_s:g} s: {error}", hint=hint
            ) from error.__cause__
        self.sessions.add(connection)
        return connection

    def _attempt(self, purpose: str, *, settles: bool) -> Connection:
        name = f"{APPLICATION} {purpose}".strip()
        parameters: dict[str, Any] = {"connect_timeout": str(_CONNECT_TIMEOUT_S), **KEEPALIVES, **self.parameters}
        try:
            # psycopg would take text for bytes in a database without an encoding.
            given = {**parameters, "application_name": name, "client_encoding": "UTF8"}
            connection = _Session.connect("", **given, autocommit=True)
        except psycopg.OperationalError as error:
            said = _without_secrets(str(error).strip(), self.parameters)
            if _is_final(said):
                raise RescueError(
                    f"{self.shown} lets nobody in: {said}", hint="Check user, password and database of the URL."
                ) from None
            raise _PassingError(said) from None
        try:
            if settles:
                settle(connection)
        except psycopg.Error as error:
            connection.close()
            if is_lost(error):
                raise _PassingError(words(error)) from None
            raise as_problem(f"the settings of a session on {self.shown} cannot be made", error) from error
        return connection

    def url(self, connection: Connection) -> str:
        """Return a URL with the password that `connection` was made with: for the environment of a program only."""
        info, user, password = connection.info, "", ""
        if info.user:
            user = quote(info.user, safe="")
        if info.password:
            password = f":{quote(info.password, safe='')}"
        host, port = info.host, info.port
        options = {
            name: value
            for name, value in self.parameters.items()
            if name.startswith("ssl") or name in {"channel_binding", "target_session_attrs"}
        }
        if host.startswith("/"):
            options["host"], place = host, f":{port}"
        else:
            place = f"[{quote(host, safe=':')}]:{port}" if ":" in host else f"{quote(host, safe='')}:{port}"
        # A plus sign is no space to libpq.
        query = f"?{urlencode(options, quote_via=quote, safe='')}" if options else ""
        return f"postgresql://{user}{password}@{place}/{quote(info.dbname, safe='')}{query}"


class _Session(psycopg.Connection[tuple["Any", ...]]):
    """A session that ends with its block, and asks no server whether it may: what is not committed is undone there."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def _check_marks(text: str, parameters: Mapping[str, str], option: str) -> None:
    """Raise UsageError where a / or @ of a password was taken for a mark between a URL's parts.

    libpq would take the rest of the password for a host, port or database, and name it in its errors.
    """
    if "@" in parameters.get("host", "")[1:] or ("@" in parameters.get("dbname", "") and "%40" not in text):
        raise UsageError(
            f"{option} has an @ where none can be", hint="In a password write %40 for @, and %2F for a slash."
        )
    if not (parameters.get("port", "").replace(",", "") or "0").isdigit():
        raise UsageError(
            f"{option} has a port that is no number", hint="In a password write %40 for @, and %2F for a slash."
        )


def _is_final(said: str) -> bool:
    """Tell whether trying again cannot help: the server refuses, or libpq cannot do what is asked of it."""
    if "FATAL:" in said:
        return not any(part in said for part in _PASSING)
    return any(part in said for part in _FINAL) and not any(part in said for part in _CUT_SHORT)


def settle(connection: Connection) -> None:
    """Give a session pgrescue's settings: roles and databases may have odd ones. Raises psycopg.Error.

    Not by libpq's `options`, which poolers refuse.
    """
    set_all(connection, _SETTINGS)


def set_all(connection: Connection, settings: Mapping[str, str]) -> None:
    """Set for the session what this server knows of the settings, and lets this role set; raises psycopg.Error."""
    try:
        _set(connection, settings)
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidParameterValue):
        # One by one: some systems have no way to do what a setting asks for, and some services keep them to themselves.
        for name, value in settings.items():
            with contextlib.suppress(psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidParameterValue):
                _set(connection, {name: value})


def _set(connection: Connection, settings: Mapping[str, str]) -> None:
    connection.execute(
        "select pg_catalog.set_config(name, value, false) from unnest(%s::text[], %s::text[]) as wanted (name, value) "
        "where exists (select from pg_catalog.pg_settings as known where lower(known.name) = wanted.name)",
        [list(settings), list(settings.values())],
    )


@contextlib.contextmanager
def speaking_of(what: str) -> Iterator[None]:
    """Turn a database error of the block into a RescueError that says what was being done, and to what."""
    try:
        yield
    except psycopg.Error as error:
        raise as_problem(what, error) from error


def as_problem(what: str, error: psycopg.Error) -> RescueError:
    """Return the error that a user can act on: a lost connection, or the server's own words."""
    if is_lost(error):
        return ConnectionLostError(
            f"{what}: the connection was lost ({said(error)})",
            hint="Nothing is lost. When server and network are there again, run the same command: it carries on.",
        )
    return RescueError(f"{what}: {said(error)}")


def is_external(error: psycopg.Error) -> bool:
    """Tell whether an error is not about the object or row at hand: the server lacks room, or somebody broke it off.

    Classes 53 and 57 of SQLSTATE, or a lost connection.
    """
    return is_lost(error) or (error.sqlstate or "").startswith(("53", "57"))


def is_lost(error: psycopg.Error) -> bool:
    """Tell whether the connection is gone rather than a statement refused.

    Class 57P is the server's own shutdown or a crash; without an SQLSTATE, libpq itself speaks.
    """
    if error.sqlstate is not None:
        return error.sqlstate.startswith(("57P", "08"))
    # psycopg's own refusals have other classes; what libpq says in place of a result has the plainest one.
    return isinstance(error, psycopg.OperationalError) or type(error) is psycopg.DatabaseError


def said(error: BaseException) -> str:
    """Return the server's message in one line, with the place in a COPY and without the row itself."""
    context = error.diag.context if isinstance(error, psycopg.Error) else None
    place = context.partition(': "')[0] if context and context.startswith("COPY ") else ""
    return f"{words(error)} [{place}]" if place else words(error)


def _without_secrets(text: str, parameters: Mapping[str, str]) -> str:
    for name in _SECRETS:
        if value := parameters.get(name):
            text = text.replace(value, "***")
    return text
