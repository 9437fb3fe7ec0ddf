"""A server that does not answer any more is given up, one that is merely slow is not."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from fixtures import Server
from pgrescue.transfer.endpoint import ConnectionLostError, Endpoint
from pgrescue.transfer.pulse import watching
from pgrescue.transfer.sessions import reading, streaming
from pgrescue.transfer.stream import FastReader
from pgrescue.transfer.tables import read_tables
from tests.proxy import Accident, Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 0.5


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as opened:
        with opened.connect() as connection:
            connection.execute(
                "create table big as select n, repeat('x', 1000) as t from generate_series(1, 20000) as n"
            )
        yield opened


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.socket_dir) as opened:
        yield opened


@pytest.fixture
def endpoint(proxy: Proxy) -> Endpoint:
    url = f"postgresql://postgres:geheim@127.0.0.1:{proxy.port}/postgres?tcp_user_timeout={PATIENCE_S * 1000:.0f}"
    return Endpoint.parse(url, "--url")


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    yield
    assert "pgrescue pulse" not in {thread.name for thread in threading.enumerate()}


def wait_in_vain(connection: psycopg.Connection) -> None:
    with pytest.raises(psycopg.Error):
        connection.execute("select pg_sleep(100)")


def pulses(server: Server) -> list[int]:
    with server.connect() as connection:
        return [
            row[0]
            for row in connection.execute(
                "select pid from pg_stat_activity where application_name = 'pgrescue pulse' order by pid"
            )
        ]


@pytest.mark.parametrize("accident", [Accident.HANG, Accident.VANISH])
def test_who_waits_for_a_silent_server_is_told_so(accident: Accident, proxy: Proxy, endpoint: Endpoint) -> None:
    with (  # noqa: PT012 - the accident is part of it
        pytest.raises(ConnectionLostError, match=r"has not answered for 0\.5 s") as caught,
        watching(endpoint),
        endpoint.connect() as connection,
        endpoint.of_database("postgres").connect() as other,
    ):
        waiting = threading.Thread(target=wait_in_vain, args=(other,))
        waiting.start()
        threading.Timer(0.1, proxy.happen, [accident]).start()
        try:
            connection.execute("select pg_sleep(100)")
        finally:
            waiting.join()
    assert f"port={proxy.port}" in caught.value.problem
    assert "run the same command" in caught.value.hint
    assert "geheim" not in caught.value.problem


def test_a_fast_reader_is_told_too(proxy: Proxy, endpoint: Endpoint) -> None:
    """Nothing is sent to a source while it is read, so no time limit of TCP ends."""
    with (  # noqa: PT012 - the accident is part of it
        pytest.raises(ConnectionLostError, match="has not answered"),
        watching(endpoint),
        reading(endpoint, encoding="UTF8", snapshot=None) as session,
        streaming(endpoint, session, encoding="UTF8", snapshot=None) as reader,
    ):
        assert isinstance(reader, FastReader)
        (table,) = read_tables(session)

        def take(_: bytes) -> None:
            if not proxy.wait(0):
                proxy.happen(Accident.HANG)

        reader.copy_out(table, None, take)


def test_a_slow_server_is_waited_for(endpoint: Endpoint) -> None:
    with watching(endpoint), endpoint.connect() as connection:
        connection.execute(f"select pg_sleep({PATIENCE_S * 1.5})")
        assert connection.execute("select 1").fetchall() == [(1,)]


def test_errors_of_the_work_are_none_of_its_business(endpoint: Endpoint) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero), watching(endpoint), endpoint.connect() as connection:
        connection.execute("select 1 / 0")
    with pytest.raises(KeyboardInterrupt), watching(endpoint):
        raise KeyboardInterrupt


def test_where_only_the_asking_session_is_ended_the_work_goes_on(server: Server, endpoint: Endpoint) -> None:
    with watching(endpoint), endpoint.connect() as connection:
        (pid,) = pulses(server)
        connection.execute("select pg_terminate_backend(%s)", [pid])
        time.sleep(PATIENCE_S)
        assert connection.execute("select 1").fetchall() == [(1,)]


def test_nothing_is_left_of_it(server: Server, endpoint: Endpoint) -> None:
    with watching(endpoint):
        assert len(pulses(server)) == 1
    deadline = time.monotonic() + 20
    while pulses(server) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert pulses(server) == []
