"""Endpoints: what a URL says, what is never shown of it, and which refusals are worth another try."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import traceback
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import error_from_result

from fixtures import Server
from fixtures.server import TRUST_HBA
from pgrescue.errors import RescueError, UsageError
from pgrescue.transfer.endpoint import ConnectionLostError, Endpoint, as_problem, is_external, is_lost, speaking_of
from pgrescue.transfer.sockets import cut
from tests.proxy import Accident, Proxy
from tests.targets import url_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ODD = "o d/d@:%?#+ü"
SECRET = "geh/eim@:%?#+ß"
SECRET_IN_URL = "geh%2Feim%40%3A%25%3F%23%2B%C3%9F"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Give a server that asks two of its roles for a password."""
    with Server() as opened:
        with opened.connect() as connection:
            for role in ("guarded", ODD):
                connection.execute(
                    sql.SQL("create role {} login password {}").format(sql.Identifier(role), sql.Literal(SECRET))
                )
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(ODD)))
            hba = f'local all guarded scram-sha-256\nlocal all "{ODD}" scram-sha-256\n{TRUST_HBA}'
            (opened.pgdata / "pg_hba.conf").write_text(hba)
            connection.execute("select pg_reload_conf()")
        yield opened


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.socket_dir) as opened:
        yield opened


def endpoint_of(proxy: Proxy, user: str = "postgres", password: str = "", database: str = "postgres") -> Endpoint:
    word = f":{password}" if password else ""
    return Endpoint.parse(f"postgresql://{user}{word}@127.0.0.1:{proxy.port}/{database}", "--url")


def whoami(connection: psycopg.Connection) -> tuple[str, str]:
    row = connection.execute("select current_user::text, current_database()::text").fetchone()
    assert row is not None
    return row[0], row[1]


BAD = [
    "geheim",
    "user=app password='geheim",
    "password=geheim dbname",
    "host=db geheim=1",
    "postgresql://app:geheim%zz@db/app",
    "postgresql://app:geheim@db/app?geheim=1",
    "postgresql://app:geheim@db:5432:geheim/app?=",
    # A part of the password would be host, port or database.
    "postgresql://app:x@geheim@db/app",
    "postgres://app:x/geheim@db/app",
    "postgresql://app:12/geheim@db/app",
    "postgresql://app:geheim/y@db/app",
    "postgresql://app:x@y/geheim@db/app",
    "postgresql://app:geheim/y?z@db/app",
]


@pytest.mark.parametrize("text", BAD)
def test_what_cannot_be_read_is_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Endpoint.parse(text, "--target-url")
    told = "".join([*traceback.format_exception(caught.value), caught.value.hint])
    assert "--target-url" in caught.value.problem
    assert "geheim" not in told


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_text_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--target-url is empty"):
        Endpoint.parse(text, "--target-url")


GOOD = {
    "postgresql://app:geheim@db:5433/shop": {"user": "app", "host": "db", "port": "5433", "dbname": "shop"},
    "postgres://app@db:5432,spare:5433/shop": {
        "user": "app",
        "host": "db,spare",
        "port": "5432,5433",
        "dbname": "shop",
    },
    "postgresql:///shop?host=/run/a%20b&password=geheim": {"host": "/run/a b", "dbname": "shop"},
    "postgresql://app:g%40h%2F@[::1]/a%40b": {"user": "app", "host": "::1", "dbname": "a@b"},
    "postgresql://app:a:b?c@db/shop?sslmode=require&sslpassword=geheim": {
        "user": "app",
        "host": "db",
        "dbname": "shop",
        "sslmode": "require",
    },
    "host=@abstract user=app password='ge heim' dbname=a@b": {"host": "@abstract", "user": "app", "dbname": "a@b"},
    "service=shop passfile=/geheim scram_client_key=geheim": {"service": "shop"},
}


@pytest.mark.parametrize("text", GOOD)
def test_everything_but_secrets_is_shown(text: str) -> None:
    endpoint = Endpoint.parse(text, "--target-url")
    assert psycopg.conninfo.conninfo_to_dict(endpoint.shown) == GOOD[text]
    other = endpoint.of_database("other")
    assert (other.database, other.sessions) == ("other", endpoint.sessions)
    assert "geheim" not in f"{endpoint.shown} {endpoint!r} {other.shown} {other!r}"
    assert endpoint == Endpoint.parse(text, "--source-url")


@pytest.mark.parametrize("way", ["URL", "PGPASSWORD", "pgpass"])
def test_the_password_is_found_and_given_on(
    way: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "PGPASSWORD":
        monkeypatch.setenv("PGPASSWORD", SECRET)
    elif way == "pgpass":
        escaped = SECRET.replace("\\", "\\\\").replace(":", "\\:")
        (tmp_path / "pgpass").write_text(f"*:*:*:guarded:{escaped}\n")
        (tmp_path / "pgpass").chmod(0o600)
        monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    endpoint = endpoint_of(proxy, "guarded", SECRET_IN_URL if way == "URL" else "")
    with endpoint.connect() as connection:
        url = endpoint.url(connection)
    assert SECRET not in endpoint.shown
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.delenv("PGPASSFILE", raising=False)
    with psycopg.connect(url) as connection:
        assert whoami(connection) == ("guarded", "postgres")


def test_urls_lead_back_whatever_is_in_them(server: Server, proxy: Proxy, tmp_path: Path) -> None:
    place = tmp_path / "so+me pl%ace&x=y"
    place.symlink_to(server.socket_dir)
    parameters = {"user": ODD, "password": SECRET, "dbname": ODD, "sslmode": "prefer", "sslrootcert": "/a +b&c=d"}
    for host in ({"host": "127.0.0.1", "port": str(proxy.port)}, {"host": str(place)}):
        endpoint = Endpoint({**parameters, **host})
        with endpoint.connect() as connection:
            url = endpoint.url(connection)
        with psycopg.connect(url) as connection:
            assert whoami(connection) == (ODD, ODD)
        assert psycopg.conninfo.conninfo_to_dict(url)["sslrootcert"] == "/a +b&c=d"
        assert Endpoint.parse(url, "--url").parameters["host"] == host["host"]


def test_urls_of_addresses_with_colons(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(Proxy(server.socket_dir, "::1"))
        except OSError:
            pytest.skip("this machine has no IPv6")
        endpoint = Endpoint({"host": "::1", "port": str(opened.port), "user": "postgres", "dbname": "postgres"})
        with endpoint.connect() as connection:
            url = endpoint.url(connection)
        assert url.startswith(f"postgresql://postgres@[::1]:{opened.port}/postgres")
        with psycopg.connect(url) as connection:
            assert whoami(connection) == ("postgres", "postgres")


FINAL = {
    "a wrong password": ("guarded", "falsch", "postgres", "password authentication failed"),
    "no password": ("guarded", "", "postgres", "no password supplied"),
    "an unknown role": ("nobody", "", "postgres", 'role "nobody" does not exist'),
    "an unknown database": ("postgres", "", "nowhere", 'database "nowhere" does not exist'),
    "a closed database": ("postgres", "", "template0", "not currently accepting connections"),
}


@pytest.mark.parametrize("case", FINAL)
def test_a_final_refusal_is_not_tried_again(case: str, proxy: Proxy) -> None:
    user, password, database, said = FINAL[case]
    with pytest.raises(RescueError, match="lets nobody in") as caught:
        endpoint_of(proxy, user, password, database).connect()
    assert said in caught.value.problem
    assert "user, password and database" in caught.value.hint
    assert "falsch" not in "".join(traceback.format_exception(caught.value))
    # libpq comes a second time with a password that it did not think of before.
    assert proxy.connections <= 2


def test_what_libpq_cannot_do_is_not_tried_again(proxy: Proxy) -> None:
    for options in ("sslmode=require", "sslmode=nonsense"):
        with pytest.raises(RescueError, match="lets nobody in"):
            Endpoint.parse(f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres?{options}", "--url").connect()
    assert proxy.connections <= 1


def test_a_port_that_nobody_listens_on_is_tried_until_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    endpoint = Endpoint.parse(f"postgresql://postgres:geheim@127.0.0.1:{port}/postgres", "--url")
    with pytest.raises(RescueError, match=r"cannot be reached, tried for 0\.3 s: .*refused") as caught:
        endpoint.connect(timeout_s=0.3)
    assert "network" in caught.value.hint
    assert "geheim" not in "".join(traceback.format_exception(caught.value))


def test_a_network_that_comes_back_is_waited_for(proxy: Proxy) -> None:
    proxy.happen(Accident.CUT)
    threading.Timer(0.3, proxy.mend).start()
    with endpoint_of(proxy).connect() as connection:
        assert whoami(connection) == ("postgres", "postgres")
    assert proxy.connections > 1


def test_a_connection_that_is_lost_at_once_is_one_that_was_not_made(proxy: Proxy) -> None:
    """The settings are the first words of a session: where they are not heard, nothing is lost."""
    endpoint = endpoint_of(proxy)
    with endpoint.connect(settles=False):
        greeting = proxy.sent_bytes
    proxy.plan(Accident.CUT, after_bytes=greeting + 10)
    with pytest.raises(RescueError, match="cannot be reached"):
        endpoint.connect(timeout_s=0.2)
    proxy.mend()
    proxy.plan(Accident.CUT, after_bytes=greeting + 10)
    threading.Timer(0.3, proxy.mend).start()
    with endpoint.connect() as connection:
        assert whoami(connection) == ("postgres", "postgres")


def test_a_server_without_room_says_what_to_do(server: Server) -> None:
    with server.connect() as connection:
        connection.execute("create role one login connection limit 1")
    endpoint = Endpoint.parse(url_of(server, "postgres", "one"), "--url")
    with endpoint.connect(), pytest.raises(RescueError, match="too many connections") as caught:
        endpoint.connect(timeout_s=0.2)
    assert "--jobs" in caught.value.hint
    with endpoint.connect():
        pass


def test_odd_settings_of_a_role_do_not_reach_a_session(server: Server) -> None:
    odd = {
        "statement_timeout": "1min",
        "search_path": "elsewhere",
        "lock_timeout": "1s",
        "client_min_messages": "debug1",
    }
    with server.connect() as connection:
        connection.execute("create role odd login")
        for name, value in odd.items():
            connection.execute(f"alter role odd set {name} = '{value}'".encode())
    with Endpoint.parse(url_of(server, "postgres", "odd"), "--url").connect(purpose="test") as connection:
        found = {name: connection.execute(f"show {name}".encode()).fetchall()[0][0] for name in odd}
        assert found == {
            "statement_timeout": "0",
            "search_path": "",
            "lock_timeout": "0",
            "client_min_messages": "warning",
        }
        assert connection.execute("show application_name").fetchall() == [("pgrescue test",)]


def test_silence_is_borne_for_a_minute_or_as_the_url_says() -> None:
    assert Endpoint.parse("postgresql://db/app", "--url").patience_s == 60
    assert Endpoint.parse("postgresql://db/app?tcp_user_timeout=2500", "--url").patience_s == 2.5
    assert Endpoint.parse("postgresql://db/app?tcp_user_timeout=0", "--url").patience_s == 60


def test_parameters_of_the_url_win(proxy: Proxy) -> None:
    url = f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres"
    with Endpoint.parse(f"{url}?keepalives_idle=7&tcp_user_timeout=2500", "--url").connect() as connection:
        told = connection.info.get_parameters()
        with socket.socket(fileno=os.dup(connection.fileno())) as its:
            assert its.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
            assert its.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == int(told["keepalives_interval"])
            assert its.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2500
            assert its.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def test_errors_of_the_server_are_told_apart(server: Server) -> None:
    endpoint = Endpoint.parse(url_of(server, "postgres"), "--url")
    with endpoint.connect() as other, endpoint.connect() as connection:
        with pytest.raises(psycopg.Error) as refused:
            connection.execute("select 1 / 0")
        with pytest.raises(psycopg.Error) as cancelled:
            connection.execute("do $$ begin raise query_canceled; end $$")
        other.execute("select pg_terminate_backend(%s)", [connection.info.backend_pid])
        with pytest.raises(psycopg.Error) as ended:
            connection.execute("select 1")
        with pytest.raises(psycopg.Error) as closed:
            connection.execute("select 1")
    found = [(is_lost(one.value), is_external(one.value)) for one in (refused, cancelled, ended, closed)]
    assert found == [(False, False), (False, True), (True, True), (True, True)]
    with endpoint.connect() as connection:
        with pytest.raises(psycopg.ProgrammingError) as wrong:
            connection.execute("set jit = off").fetchone()
        cut(connection)
        silent = error_from_result(connection.pgconn.exec_(b"select 1"))
    assert not is_lost(wrong.value)
    assert is_lost(silent)
    assert as_problem("the rows stay", refused.value).problem == "the rows stay: division by zero"
    lost = as_problem("the rows stay", ended.value)
    assert isinstance(lost, ConnectionLostError)
    assert "the connection was lost" in lost.problem
    assert "run the same command" in lost.hint
    with pytest.raises(RescueError, match=r"^all is well: division by zero$"), speaking_of("all is well"):
        raise refused.value


def test_a_server_that_starts_up_is_waited_for(server: Server) -> None:
    """It asks an archive for WAL first, which takes a while. The last test: it leaves the server without passwords."""
    server.stop()
    with (server.pgdata / "postgresql.auto.conf").open("a") as settings:
        settings.write("restore_command = 'sleep 0.1; false'\n")
    server._write(server.pgdata / "recovery.signal", "")
    starting = threading.Thread(target=server.start)
    starting.start()
    try:
        with Endpoint.parse(url_of(server, "postgres"), "--url").connect() as connection:
            assert whoami(connection) == ("postgres", "postgres")
    finally:
        starting.join()
    assert "FATAL:  the database system is starting up" in server.log.read_text()
