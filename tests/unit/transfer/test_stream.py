"""Rows on their way: the same bytes by either reader, errors of either side at once, and never much in memory."""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import pq

from fixtures import Server
from pgrescue.pipeline import Silent
from pgrescue.transfer.endpoint import Endpoint, is_lost
from pgrescue.transfer.load import Progress, copy_in, copy_table
from pgrescue.transfer.marker import make_marker
from pgrescue.transfer.sessions import Pair, reading, streaming, writing
from pgrescue.transfer.sockets import results
from pgrescue.transfer.stream import FastReader, LibpqReader, TargetSpokeError, copy_rows
from pgrescue.transfer.tables import read_tables
from tests.proxy import Accident, Proxy
from tests.targets import url_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pgrescue.transfer.endpoint import Connection
    from pgrescue.transfer.stream import Reader
    from pgrescue.transfer.tables import Table

MIB = 1 << 20
PATIENCE_S = 60
ROWS = 20_000  # of 1 KiB
HUGE_ROWS = 100_000
SHAPES = """
create type mood as enum ('sad', 'glad');
create table plain (id integer, t text, b bytea, f float8, n numeric, at timestamptz, i interval, g mood);
create table "Odd ""Names" ("a b" integer, "c""d" mood[], gone text, "after" xml);
alter table "Odd ""Names" drop column gone;
create table nothing ();
create table empty (id integer);
create table big (id integer, t text);
alter table big alter column t set storage plain;
"""
ROWS_OF = """
insert into plain select n, repeat(chr(64 + n % 60), n % 300) || E'\\t\\\\\\n', decode(md5(n::text), 'hex'), n / 7.0,
       n / 3.0, '2026-01-01'::timestamptz + n * interval '1.5 h', n * interval '1 day 1.000001 s',
       (array['sad', 'glad'])[1 + n % 2]::mood from generate_series(1, 5000) as n;
insert into plain default values;
insert into "Odd ""Names" select n, array['sad', null]::mood[], '<a>ü</a>' from generate_series(1, 10) as n;
insert into nothing select from generate_series(1, 3);
create table waits (id integer);
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Give a server with a source, which nobody changes, and a target; both get the same tables."""
    with Server(settings={"autovacuum": "off", "max_wal_size": "2GB"}) as opened:
        for name in ("source", "target"):
            with opened.connect() as connection:
                connection.execute(f"create database {name}".encode())
        with opened.connect("source") as connection:
            connection.execute(f"{SHAPES}{ROWS_OF}".encode())
            connection.execute(
                f"insert into big select n, repeat('x', 1000) from generate_series(1, {ROWS}) n".encode()
            )
            connection.execute(
                "create view huge as select n as id, repeat('x', 1000) as t"
                f"  from generate_series(1, {HUGE_ROWS}) as n".encode()
            )
        yield opened


@dataclass(frozen=True)
class Ends:
    """Both ends of a transfer: as workers have them, and sessions of an onlooker."""

    pair: Pair
    here: Connection
    there: Connection

    def table(self, name: str) -> Table:
        (found,) = [table for table in read_tables(self.here) if table.name == name]
        return found

    def copy(
        self,
        name: str,
        where: str | None = None,
        *,
        of: str | None = None,
        on_bytes: Callable[[int], None] = lambda _: None,
        listens: bool = True,
    ) -> int:
        """Copy a table, or the view `of` in its place."""
        table = self.table(name)
        with self.pair.target.transaction():
            return copy_rows(
                self.pair.reader,
                self.pair.target,
                dataclasses.replace(table, name=of or name),
                psycopg.sql.SQL(where) if where else None,
                into=copy_in(table, freezes=False),
                on_bytes=on_bytes,
                listens=listens,
            )

    def count(self, name: str) -> int:
        query = psycopg.sql.SQL("select count(*) from {}").format(psycopg.sql.Identifier("public", name))
        return int(self.there.execute(query).fetchall()[0][0])


@contextlib.contextmanager
def opened_ends(server: Server, kind: str, source_url: str, target_url: str) -> Iterator[Ends]:
    with server.connect("target") as connection:
        connection.execute("drop schema public cascade; drop schema if exists pgrescue_transfer cascade")
        connection.execute(f"create schema public; {SHAPES}".encode())
    source, target = Endpoint.parse(source_url, "--source-url"), Endpoint.parse(target_url, "--target-url")
    with (
        reading(source, encoding="UTF8", snapshot=None) as first,
        Endpoint.parse(url_of(server, "source"), "--url").connect() as here,
        Endpoint.parse(url_of(server, "target"), "--url").connect() as there,
        writing(target, encoding="UTF8", role=None, purpose="test") as writer,
    ):
        (snapshot,) = first.execute("select pg_catalog.pg_export_snapshot()").fetchall()[0]
        with reading(source, encoding="UTF8", snapshot=snapshot) as reader:
            if kind == "libpq":
                yield Ends(Pair(reader, LibpqReader(reader, snapshot), writer), here, there)
                return
            with streaming(source, reader, encoding="UTF8", snapshot=snapshot) as fast:
                assert isinstance(fast, FastReader)
                yield Ends(Pair(reader, fast, writer), here, there)


@pytest.fixture(params=["fast", "libpq"])
def ends(server: Server, request: pytest.FixtureRequest) -> Iterator[Ends]:
    with opened_ends(server, request.param, url_of(server, "source"), url_of(server, "target")) as opened:
        yield opened


def everything(reader: Reader, table: Table, where: Any = None) -> bytes:
    parts: list[bytes] = []
    reader.copy_out(table, where, parts.append)
    return b"".join(parts)


def check_usable(ends: Ends) -> None:
    """Assert that both sessions go on, and that the source is read as of the same moment."""
    ends.there.execute("truncate public.plain")
    assert ends.copy("plain") == 5001
    assert ends.count("plain") == 5001
    assert ends.pair.source.execute("select count(*) from public.plain").fetchall() == [(5001,)]


def test_both_readers_give_the_same_bytes(server: Server) -> None:
    source = Endpoint.parse(url_of(server, "source"), "--url")
    forms: set[tuple[bool, bool]] = set()
    with reading(source, encoding="UTF8", snapshot=None) as first:
        (snapshot,) = first.execute("select pg_catalog.pg_export_snapshot()").fetchall()[0]
        slow = LibpqReader(first)
        with streaming(source, first, encoding="UTF8", snapshot=snapshot) as fast:
            for table in read_tables(first):
                for where in (None, psycopg.sql.SQL("true"), psycopg.sql.SQL("false")):
                    given = everything(fast, table, where)
                    assert given == everything(slow, table, where), table.label
                    forms.add((table.is_plain, given.startswith(b"PGCOPY")))
            assert isinstance(fast, FastReader)
    assert forms == {(True, True), (False, False)}


def test_all_kinds_of_tables_arrive(ends: Ends) -> None:
    for table in read_tables(ends.here):
        if table.name in {"big", "waits"}:
            continue
        query = (
            f"select md5(coalesce(string_agg(t::text, ' ' order by t::text), '')) from {table.identifier.as_string()} t"
        )
        rows = ends.copy(table.name)
        assert rows == ends.count(table.name)
        assert ends.here.execute(query.encode()).fetchall() == ends.there.execute(query.encode()).fetchall()


def test_an_error_of_the_target_is_met_long_before_the_last_row(ends: Ends) -> None:
    ends.there.execute("alter table public.big add constraint never check (id < 0)")
    sent = [0]

    def count(size_bytes: int) -> None:
        sent[0] += size_bytes

    with pytest.raises(psycopg.errors.CheckViolation, match="never"):
        ends.copy("big", on_bytes=count)
    assert sent[0] < 4 * MIB
    check_usable(ends)


def test_an_error_of_the_target_is_met_while_it_lets_the_source_wait(ends: Ends) -> None:
    """The message comes while this side waits for room, and libpq would read it without a word."""
    ends.there.execute(
        "create function public.late() returns trigger language plpgsql as $$ begin"
        " if new.id = 2000 then perform pg_catalog.pg_sleep(0.3); raise 'too late'; end if; return new; end $$;"
        "create trigger late before insert on public.big for each row execute function public.late()"
    )
    sent = [0]

    def count(size_bytes: int) -> None:
        sent[0] += size_bytes

    with pytest.raises(psycopg.errors.RaiseException, match="too late"):
        ends.copy("big", on_bytes=count)
    assert sent[0] < 4 * MIB
    check_usable(ends)


def test_an_error_of_the_source_leaves_both_usable(ends: Ends) -> None:
    """A division by zero late in the rows: most of them are in the target by then."""
    with pytest.raises(psycopg.errors.DivisionByZero):
        ends.copy("big", f"1 / (id - {ROWS - 10}) is not null")
    assert ends.count("big") == 0
    check_usable(ends)


@pytest.mark.parametrize("pattern", ["copy%stdout%", "copy%stdin%"])
def test_a_cancel_leaves_both_usable(ends: Ends, pattern: str) -> None:
    def cancel(_: int) -> None:
        ends.here.execute(
            "select pg_catalog.pg_cancel_backend(pid) from pg_catalog.pg_stat_activity where lower(query) like %s",
            [pattern],
        )

    with pytest.raises(psycopg.errors.QueryCanceled):
        ends.copy("big", on_bytes=cancel)
    assert ends.count("big") == 0
    check_usable(ends)


def test_a_statement_that_the_source_refuses_leaves_both_usable(ends: Ends) -> None:
    with pytest.raises(psycopg.errors.UndefinedColumn):
        ends.copy("big", "no_such_column > 1")
    check_usable(ends)


def test_a_statement_that_the_target_refuses_leaves_both_usable(ends: Ends) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable):
        ends.copy("waits")
    check_usable(ends)


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_server_that_ends_the_session_is_lost(ends: Ends, side: str) -> None:
    pattern = {"source": "copy%stdout%", "target": "copy%stdin%"}[side]

    def end(_: int) -> None:
        ends.here.execute(
            "select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity where lower(query) like %s",
            [pattern],
        )

    with pytest.raises(psycopg.Error) as caught:
        ends.copy("big", on_bytes=end)
    assert is_lost(caught.value)
    assert ends.count("big") == 0


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:  # noqa: PTH123 - not a file to be read at leisure
        return int(file.read().split()[1]) * resource.getpagesize()


def test_a_slow_target_slows_the_source_and_fills_no_memory(ends: Ends) -> None:
    """The target stands still in the first row, until nothing more goes out; and it keeps none of them."""
    ends.there.execute(
        "create table public.gate (); create function public.wait() returns trigger language plpgsql as $$ begin"
        " if new.id = 1 then lock table public.gate in share mode; end if; return null; end $$;"
        "create trigger wait before insert on public.big for each row execute function public.wait()"
    )
    sent, most, beats = [0], [0], [0]
    is_over = threading.Event()

    def count(size_bytes: int) -> None:
        sent[0] += size_bytes

    def watch() -> None:
        while not is_over.wait(0.01):
            most[0] = max(most[0], resident_bytes())
            beats[0] += 1

    ends.copy("big", of="big")
    before = resident_bytes()
    with Endpoint.parse(url_of_other(ends), "--url").connect() as guard:
        guard.execute("begin; lock table public.gate in exclusive mode")
        copying = threading.Thread(target=lambda: ends.copy("big", "true", of="huge", on_bytes=count))
        watching = threading.Thread(target=watch)
        watching.start()
        copying.start()
        while not guard.execute("select from pg_catalog.pg_locks where not granted").fetchall():
            time.sleep(0.01)
        standing = -1
        while standing != sent[0]:
            standing = sent[0]
            time.sleep(0.5)
        guard.execute("commit")
    copying.join(PATIENCE_S)
    is_over.set()
    watching.join()
    assert standing < 10 * MIB
    assert sent[0] > 95 * MIB
    assert most[0] - before < 30 * MIB
    # No call of libpq kept the other threads from running.
    assert beats[0] > 20


def url_of_other(ends: Ends) -> str:
    info = ends.there.info
    return f"host={info.host} user={info.user} dbname={info.dbname}"


@contextlib.contextmanager
def other_threads_run() -> Iterator[None]:
    """Assert that a thread can run while the block waits for a server."""
    beats, is_over = [0], threading.Event()

    def beat() -> None:
        while not is_over.wait(0.01):
            beats[0] += 1

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        yield
    finally:
        is_over.set()
        beating.join()
    assert beats[0] > 5


def test_nobody_waits_in_a_way_that_stops_all_others(ends: Ends) -> None:
    """libpq does, since psycopg calls it with the interpreter's lock: for what comes, for what goes, and for an end."""
    ends.there.execute(
        "create function public.linger() returns trigger language plpgsql as $$ begin"
        " perform pg_catalog.pg_sleep(0.3); return null; end $$;"
        "create trigger linger after insert on public.big for each statement execute function public.linger()"
    )
    with other_threads_run():
        ends.copy("big", "id < 3")
    with other_threads_run():
        ends.copy("plain", "id < 1000 or id = 1000 and pg_catalog.pg_sleep(0.3) is not null")
    with other_threads_run():
        ends.here.pgconn.send_query(b"select pg_catalog.pg_sleep(0.3)")
        assert [result.status for result in results(ends.here.pgconn)] == [pq.ExecStatus.TUPLES_OK]


WARNS = (
    "create table public.said (n integer);"
    "create function public.warn() returns trigger language plpgsql as $$ begin"
    " if new.id % 5000 = 1 then raise warning 'row %', new.id; end if; return new; end $$;"
    "create trigger warn before insert on public.big for each row execute function public.warn()"
)


def test_a_target_that_speaks_makes_it_begin_again(ends: Ends) -> None:
    ends.there.execute(WARNS.encode())
    with pytest.raises(TargetSpokeError):
        ends.copy("big")
    assert ends.count("big") == 0
    assert ends.copy("big", listens=False) == ROWS
    check_usable(ends)


def test_a_table_that_always_makes_the_target_speak_is_moved_nevertheless(ends: Ends) -> None:
    """Once more, and at last without listening; each time from the first row."""
    ends.there.execute(WARNS.encode())
    ends.there.execute("set client_min_messages = error")
    make_marker(ends.there, "source", "state", "options")
    said: list[int] = []
    ends.pair.target.add_notice_handler(lambda notice: said.append(int((notice.message_primary or "row 0").split()[1])))
    copy_table(ends.pair, ends.table("big"), Progress(Silent(), size_bytes=1, tables=1, indexes=0))
    assert ends.count("big") == ROWS
    assert said.count(1) > 1
    assert said[-1] == ROWS - 4999
    # The table is the work of the very transaction that marked it.
    assert ends.there.execute(
        "select d.task, d.rows, d.xid = c.xmin::text::bigint from pgrescue_transfer.done as d, pg_catalog.pg_class as c"
        " where c.oid = 'public.big'::pg_catalog.regclass"
    ).fetchall() == [("data:public.big", ROWS, True)]


@pytest.mark.parametrize(
    ("side", "accident"),
    [
        ("source", Accident.CUT),
        ("source", Accident.VANISH),
        ("target", Accident.CUT),
        ("target", Accident.VANISH),
        ("target", Accident.HANG),
    ],
)
def test_a_network_that_goes_ends_it(server: Server, side: str, accident: Accident) -> None:
    """Where TCP notices: of a source that hangs nothing is sent to, and only the pulse tells (test_pulse.py)."""
    quick = "keepalives_idle=1&keepalives_interval=1&keepalives_count=1&tcp_user_timeout=1000"
    with Proxy(server.socket_dir) as proxy:

        def url(name: str, *, by_proxy: bool) -> str:
            if by_proxy:
                return f"postgresql://postgres@127.0.0.1:{proxy.port}/{name}?{quick}"
            return url_of(server, name)

        urls = url("source", by_proxy=side == "source"), url("target", by_proxy=side == "target")
        with opened_ends(server, "fast", *urls) as ends:
            happened: list[None] = []

            def happen(_: int) -> None:
                if not happened:
                    happened.append(None)
                    proxy.happen(accident)

            with pytest.raises(psycopg.Error) as caught:
                ends.copy("big", on_bytes=happen)
            assert is_lost(caught.value)
            assert ends.pair.target.closed == (side == "target")


def test_where_the_fast_reader_cannot_log_in_libpq_reads(server: Server) -> None:
    """Such as by a certificate, or where there is room for one session only."""
    with server.connect() as connection:
        connection.execute("create role narrow login connection limit 1; grant pg_read_all_data to narrow")
    source = Endpoint.parse(url_of(server, "source", "narrow"), "--url")
    with (
        reading(source, encoding="UTF8", snapshot=None) as first,
        streaming(source, first, encoding="UTF8", snapshot=None) as reader,
    ):
        assert isinstance(reader, LibpqReader)
        table = next(table for table in read_tables(first) if table.name == "plain")
        assert everything(reader, table).startswith(b"PGCOPY")
