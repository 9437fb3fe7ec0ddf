"""Questions to the recovered databases: one value, a number of rows, how new the newest row is."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Any, assert_never

import psycopg
from psycopg import pq, sql

from pgrescue.drill.duration import shown as shown_duration
from pgrescue.drill.expectation import IncomparableError
from pgrescue.drill.judgement import AHEAD
from pgrescue.drill.record import Answer
from pgrescue.drill.scenario import Freshness, FreshnessCheck, RowCount, RowsCheck, SqlCheck
from pgrescue.drill.values import shown
from pgrescue.drilled import NewestCommit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pgrescue.transfer.endpoint import Connection, Endpoint

Asked = SqlCheck | RowsCheck | FreshnessCheck

_KINDS = {"r": "table", "p": "table", "m": "materialized view", "v": "view", "f": "foreign table"}
# A session of pgrescue's role does not have what the app's sessions get from their database.
_SEARCH_PATH = """
select substr(setting, 13) from pg_catalog.pg_db_role_setting as s, unnest(s.setconfig) as setting
 where s.setdatabase = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
   and s.setrole = 0 and setting like 'search\\_path=%'
"""
# A name is what the catalog has, with or without its schema; else what SQL makes of it, quotes and all.
_RELATION = """
select c.oid, n.nspname, c.relname, c.relkind::text
  from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
 where c.oid = coalesce(
       pg_catalog.to_regclass(pg_catalog.quote_ident(%(name)s)),
       case when pg_catalog.strpos(%(name)s, '.') > 0 then pg_catalog.to_regclass(
            pg_catalog.quote_ident(pg_catalog.split_part(%(name)s, '.', 1)) || '.' ||
            pg_catalog.quote_ident(pg_catalog.substr(%(name)s, pg_catalog.strpos(%(name)s, '.') + 1))) end,
       pg_catalog.to_regclass(%(name)s))
"""
_COLUMN = """
select pg_catalog.format_type(coalesce(nullif(t.typbasetype, 0), t.oid), null)
  from pg_catalog.pg_attribute as a join pg_catalog.pg_type as t on t.oid = a.atttypid
 where a.attrelid = %s and a.attname = %s and a.attnum > 0 and not a.attisdropped
"""
_ONE_VALUE = "one row with one value is expected"
_UNREADABLE = "the value is of a kind or size that cannot be read here"
_FUTURE = "A time in the future says nothing about how fresh the data is."
_TIMES = ("date", "timestamp without time zone", "timestamp with time zone")


class NoAnswerError(Exception):
    """A question could not be asked, or its answer is none; the text says why, without any row's content."""


@dataclass(frozen=True)
class Relation:
    """A table, or something like one, as the catalog knows it."""

    oid: int
    schema: str
    name: str
    kind: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        """The same for a statement."""
        return sql.Identifier(self.schema, self.name)


@dataclass(frozen=True)
class Circumstances:
    """What questions need besides a database: when the drill began, and how many rows there were the last time."""

    now: datetime
    last_rows: Mapping[str, int]


@dataclass(frozen=True)
class Found:
    """An answer, and what else the drill keeps of it: numbers of rows by `database table`, the newest row's time."""

    answer: Answer
    rows: tuple[str, int] | None = None
    newest: datetime | None = None


def ask(check: Asked, endpoint: Endpoint, circumstances: Circumstances) -> Found:
    """Ask one question in a read-only transaction of its own; never raises for what the database says."""
    database = endpoint.database or ""
    try:
        with _session(endpoint, check.timeout) as connection:
            match check:
                case SqlCheck():
                    return Found(_value(check, connection))
                case RowsCheck():
                    return _rows(check, connection, database, circumstances.last_rows)
                case FreshnessCheck():
                    return _freshness(check.freshness, connection, circumstances.now)
                case _:
                    assert_never(check)
    except NoAnswerError as error:
        return Found(Answer.unknown(str(error)))
    except psycopg.Error as error:
        return Found(Answer.unknown(why(error, check.timeout)))


def why(error: psycopg.Error, timeout: timedelta) -> str:
    """Say why a statement failed while it ran, in none of the server's words: these may quote a row.

    Many do (`invalid input syntax … "x"`), also those that seem to be about names (`'x'::regclass`).
    """
    state = error.sqlstate or ""
    if isinstance(error, psycopg.errors.QueryCanceled):
        return f"it did not end within {shown_duration(timeout)}"
    if isinstance(error, psycopg.OperationalError) and (not state or state.startswith("57P")):
        return "the connection to the server was lost"
    return f"the server refused it: {type(error).__name__}" + (f" (SQLSTATE {state})" if state else "")


@contextlib.contextmanager
def _session(endpoint: Endpoint, timeout: timedelta) -> Iterator[Connection]:
    with endpoint.connect(purpose="drill", settles=False) as connection:
        connection.execute(
            "select pg_catalog.set_config('statement_timeout', %s, false)",
            [f"{max(1, round(timeout.total_seconds() * 1000))}ms"],
        )
        for (path,) in connection.execute(_SEARCH_PATH).fetchall():
            connection.execute("select pg_catalog.set_config('search_path', %s, false)", [path])
        # psycopg reads times in this form alone.
        connection.execute(
            "select pg_catalog.set_config('datestyle', 'ISO', false), "
            "pg_catalog.set_config('intervalstyle', 'postgres', false)"
        )
        connection.read_only = True
        with connection.transaction(force_rollback=True):
            yield connection


def _value(check: SqlCheck, connection: Connection) -> Answer:
    value, is_column = _one(check.sql, connection)
    seen = shown(value, is_column=is_column)
    try:
        holds = check.expect.judge(value)
    except IncomparableError as error:
        return Answer.unknown(f"it cannot be compared: {error}", seen=seen)
    return Answer.passed(seen) if holds else Answer.failed(seen)


def _one(statement: str, connection: Connection) -> tuple[Any, bool]:
    """Return the one value of a query, and whether it is a column's own; raise NoAnswerError for any other result."""
    asked = statement.encode()
    is_column = _described(asked, connection)
    try:
        # Row by row: whoever forgot the aggregate may have asked for a table that is larger than the memory.
        rows = connection.cursor().stream(asked)
        found = list(itertools.islice(rows, 2))
        del rows  # ends the query
    except psycopg.DataError as error:
        if error.sqlstate is None:
            raise NoAnswerError(_UNREADABLE) from error
        raise
    except (ValueError, ArithmeticError, RuntimeError) as error:
        raise NoAnswerError(_UNREADABLE) from error
    if len(found) != 1:
        raise NoAnswerError(f"the query gives {'several rows' if found else 'no row'}; {_ONE_VALUE}")
    return found[0][0], is_column


def _described(statement: bytes, connection: Connection) -> bool:
    """Have the server read a query, but not run it, and tell whether its one column is a table's own.

    Raises NoAnswerError for what is no query: COMMIT would end the transaction that is read only, and COPY writes files
    in any. What the server says here is about the statement alone, for it has looked at no row.
    """
    server = connection.pgconn
    result = server.prepare(b"", statement)
    if result.status != pq.ExecStatus.COMMAND_OK:
        error = psycopg.errors.error_from_result(result)
        if error.sqlstate is None or not error.diag.message_primary or isinstance(error, psycopg.OperationalError):
            raise error
        if "multiple commands" in error.diag.message_primary:
            raise NoAnswerError("the SQL is several statements; one query is expected")
        raise NoAnswerError(f"the server refused it: {error.diag.message_primary} (SQLSTATE {error.sqlstate})")
    described = server.describe_prepared(b"")
    if described.nfields == 0:
        raise NoAnswerError("the SQL gives no rows at all; a query is expected")
    if described.nfields > 1:
        raise NoAnswerError(f"the query gives {described.nfields} columns; {_ONE_VALUE}")
    return described.ftable(0) != 0


def relation(connection: Connection, table: str) -> Relation | None:
    """Find a table by its name, with or without its schema; None where there is none.

    The name is taken as it is spelled; where that finds nothing, as SQL would.
    """
    try:
        found = connection.execute(_RELATION, {"name": table}).fetchone()
    except (psycopg.errors.InvalidName, psycopg.errors.SyntaxError, psycopg.errors.FeatureNotSupported):
        # Before 16, what can be no name is an error.
        return None
    if found is None or found[3] not in _KINDS:
        return None
    oid, schema, name, kind = found
    return Relation(oid, schema, name, _KINDS[kind])


def _rows(check: RowsCheck, connection: Connection, database: str, last: Mapping[str, int]) -> Found:
    table = relation(connection, check.rows.table)
    if table is None:
        return Found(Answer.failed("no such table", f"The database {database} has no table {check.rows.table}."))
    row = connection.execute(sql.SQL("select count(*) from {}").format(table.identifier)).fetchone()
    assert row is not None  # noqa: S101 - an aggregate without groups
    count = int(row[0])
    key = f"{database} {table}"
    return Found(_judged(check.rows, count, last.get(key)), (key, count))


def _judged(asked: RowCount, count: int, before: int | None) -> Answer:
    """Compare a number of rows with all that is asked of it."""
    seen = f"{count:,} rows"
    missed = []
    if asked.min is not None and count < asked.min:
        missed.append(f"{asked.min - count:,} fewer than {asked.min:,}")
    if asked.max is not None and count > asked.max:
        missed.append(f"{count - asked.max:,} more than {asked.max:,}")
    if asked.max_loss is not None and before is not None:
        seen += f", {before:,} the last time"
        if (before - count) * 100 > Fraction(str(asked.max_loss)) * before:
            missed.append(f"{before - count:,} fewer than the last time")
    if missed:
        return Answer.failed(seen, f"{'; '.join(missed)}.")
    if asked.max_loss is not None and before is None:
        return Answer.unknown(
            "the history knows no earlier run to compare with; the number is kept for the next one", seen=seen
        )
    return Answer.passed(seen)


def _freshness(asked: Freshness, connection: Connection, now: datetime) -> Found:
    table = relation(connection, asked.table)
    if table is None:
        return Found(Answer.failed("no such table", f"There is no table {asked.table}."))
    kind = connection.execute(_COLUMN, [table.oid, asked.column]).fetchone()
    if kind is None:
        return Found(Answer.failed("no such column", f"The table {table} has no column {asked.column}."))
    if kind[0] not in _TIMES:
        raise NoAnswerError(f"the column {asked.column} is of type {kind[0]}; a date or timestamp is expected")
    try:
        connection.execute("select pg_catalog.set_config('timezone', %s, true)", [asked.zone])
    except psycopg.errors.InvalidParameterValue as error:
        raise NoAnswerError(f"the server knows no time zone {asked.zone}") from error
    # Infinite times are the absence of one, and later than everything else. As a number: Python's years end at 9999.
    row = connection.execute(
        sql.SQL(
            "select extract(epoch from max({0})::pg_catalog.timestamptz)::pg_catalog.float8 from {1} "
            "where pg_catalog.isfinite({0})"
        ).format(sql.Identifier(asked.column), table.identifier)
    ).fetchone()
    if row is None or row[0] is None:
        return Found(Answer.failed("no row with a time", f"The table {table} has no time in {asked.column}."))
    return _aged(row[0], asked.max_age, now)


def _aged(newest_s: float, max_age: timedelta, now: datetime) -> Found:
    """Judge how old the newest row is, whose time is given in seconds since 1970."""
    too_old = f"Older than {shown_duration(max_age)}."
    try:
        newest = datetime.fromtimestamp(newest_s, UTC)
    except (ValueError, OverflowError):
        if newest_s > 0:
            return Found(Answer.failed("a time after the year 9999", _FUTURE))
        return Found(Answer.failed("a time before the year 1", too_old))
    age = now - newest
    seen = f"{newest:%Y-%m-%d %H:%M:%S} UTC, {shown_age(age)}"
    if age < -AHEAD:
        return Found(Answer.failed(seen, _FUTURE))
    if age > max_age:
        return Found(Answer.failed(seen, too_old), newest=newest)
    return Found(Answer.passed(seen), newest=newest)


def shown_age(age: timedelta) -> str:
    """Return an age in words."""
    whole = timedelta(seconds=round(age.total_seconds()))
    if whole < timedelta():
        return f"{shown_duration(-whole)} in the future"
    return f"{shown_duration(whole)} old" if whole else "just now"


def newest_of(found: list[tuple[str, datetime]], now: datetime) -> NewestCommit | None:
    """Return the newest row that freshness questions saw, as a stand-in for the newest commit."""
    if not found:
        return None
    name, time = max(found, key=lambda item: item[1])
    return NewestCommit(time, (now - time).total_seconds(), f"the newest row: {name}")
