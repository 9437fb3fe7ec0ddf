"""Poolers before a target: one that shares sessions is found, and left as it was; one that does not is no hindrance."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg
import pytest

from fixtures import Server
from tests.e2e.pooler import Pooler, find_pooler
from tests.targets import OWNER, contents
from tests.transfers import World, name_of, to_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLES = """
create table notes (id serial primary key, body text);
insert into notes (body) select n::text from generate_series(1, 1000) as n;
create table others (id integer primary key);
create table more (id integer primary key references others)
"""
USERS = (OWNER, "postgres")
POOLED = 4


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    find_pooler()
    with Server() as source, Server() as target, World(source, target) as world:
        yield world


@pytest.mark.parametrize("order", [0, 1])
def test_a_pooler_that_shares_sessions_is_found(world: World, order: int) -> None:
    """It gives those that were used last, or those that were used first, and has some that rest."""
    source, database = world.origin(TABLES), name_of(world.goal())
    settings = f"server_round_robin = {order}\ndefault_pool_size = {POOLED + 4}"
    with Pooler(world.target, mode="transaction", users=USERS, settings=settings) as pooler:
        url = pooler.url(database, OWNER)
        for resting in (0, 2, POOLED):
            settings_of_all(url, resting)
            done = to_cluster(source, url, "--jobs", "1")
            done.refused("target_behind_pooler", "pool_mode = session")
        # Who comes next finds the sessions without our settings and locks.
        assert settings_of_all(url, POOLED) == {('"$user", public', "notice", 0)}


def test_a_pooler_with_one_session_is_found(world: World) -> None:
    """Whoever asks it for a second one waits."""
    source, database = world.origin(TABLES), name_of(world.goal())
    settings = "default_pool_size = 1\nquery_wait_timeout = 3"
    with Pooler(world.target, mode="transaction", users=USERS, settings=settings) as pooler:
        to_cluster(source, pooler.url(database, OWNER)).refused("target_behind_pooler")


def settings_of_all(url: str, count: int) -> set[tuple[str, str, int]]:
    """Have the pooler open as many sessions, and return what is set in them."""
    found = set()
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(psycopg.connect(url))
            row = connection.execute(
                "select current_setting('search_path'), current_setting('client_min_messages'), "
                "(select count(*) from pg_locks where pid = pg_backend_pid() and locktype = 'advisory')"
            ).fetchone()
            assert row is not None
            found.add(row)
    return found


def test_a_source_behind_one_is_refused(world: World) -> None:
    source = name_of(world.origin(TABLES))
    with Pooler(world.source, mode="transaction", users=USERS) as pooler:
        url = pooler.url(source, "postgres")
        done = to_cluster(url, world.goal())
        assert done.status == 2
        assert "behind --source-url is a pooler" in done.document["error"]["problem"]
        assert settings_of_all(url, POOLED) == {('"$user", public', "notice", 0)}


def test_everything_works_through_a_pooler_that_shares_none(world: World) -> None:
    source, target = name_of(world.origin(TABLES)), name_of(world.goal())
    with (
        Pooler(world.source, mode="session", users=USERS) as before,
        Pooler(world.target, mode="session", users=USERS) as after,
    ):
        urls = before.url(source, "postgres"), after.url(target, OWNER)
        world.look(*urls).ready()
        to_cluster(*urls, "--jobs", "2").moved()
        assert to_cluster(*urls).codes == ["already_there"]
        # It has cleaned up behind itself.
        assert settings_of_all(urls[1], POOLED) == {('"$user", public', "notice", 0)}
    with world.source.connect(source) as here, world.target.connect(target) as there:
        assert contents(here) == contents(there)


def test_a_pool_that_is_too_small_is_told(world: World) -> None:
    source, target = world.origin(TABLES), name_of(world.goal())
    settings = "default_pool_size = 3\nquery_wait_timeout = 2"
    with Pooler(world.target, mode="session", users=USERS, settings=settings) as pooler:
        done = to_cluster(source, pooler.url(target, OWNER), "--jobs", "2")
        done.refused("target_sessions_short", "gave 3", "query_wait_timeout")
