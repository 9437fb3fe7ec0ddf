"""Taking a rehearsal back: the target is as it was, or nothing of it is dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fixtures import Server
from pgrescue.engine.choose import EngineRequest
from pgrescue.errors import RescueError
from pgrescue.model import EngineName, TransferOutcome
from pgrescue.pipeline import Silent
from pgrescue.transfer.endpoint import Endpoint
from pgrescue.transfer.facts import user_objects
from pgrescue.transfer.marker import SCHEMA, make_marker, read_marker
from pgrescue.transfer.site import TransferPlan
from pgrescue.transfer.source import live
from pgrescue.transfer.transfer import transfer
from pgrescue.transfer.undo import require_no_other, undo
from tests.targets import new_database, url_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.model import TransferReport
    from pgrescue.transfer.endpoint import Connection

SOURCE = "portal"
# What a service puts into every new database, and what its owner may have there.
BEFORE = """
create extension hstore;
create publication of_the_service;
alter default privileges for role postgres in schema public grant insert on tables to pg_monitor;
comment on schema public is 'home'
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    settings = {"autovacuum": "off", "wal_level": "logical", "max_prepared_transactions": "2"}
    with Server(settings=settings) as opened:
        with opened.connect() as connection:
            connection.execute(f"create database {SOURCE}".encode())
        with opened.connect(SOURCE) as connection:
            connection.execute("create extension hstore; create table of_rows (id int primary key, t text)")
            connection.execute("insert into of_rows select g, 'row ' || g from generate_series(1, 5000) as g")
            connection.execute('create schema app; create table app."Odd ""name" (id serial primary key)')
            connection.execute("create view app.seen as select * from of_rows; select lo_from_bytea(0, 'large')")
            connection.execute(
                "create function app.f() returns int language sql as 'select 1'; create type m as enum ()"
            )
            connection.execute(
                "create materialized view kept as select count(*) from of_rows; grant select on kept to public"
            )
        yield opened


@pytest.fixture
def endpoint(server: Server) -> Endpoint:
    name = new_database(server, owner="postgres")
    with server.connect(name) as connection:
        connection.execute(BEFORE.encode())
    return Endpoint.parse(url_of(server, name), "--url")


def moved(server: Server, endpoint: Endpoint, *, keeps_mark: bool = True) -> TransferReport:
    source = Endpoint.parse(url_of(server, SOURCE), "--source-url")
    with live(source, EngineRequest(EngineName.NATIVE), Silent()) as opened:
        return transfer(opened, endpoint, TransferPlan(jobs=2, keeps_mark=keeps_mark), Silent())


def inventory(endpoint: Endpoint) -> dict[str, object]:
    """Return everything in the database that is not the server's own."""
    with endpoint.connect() as target:
        return {
            "objects": sorted(f"{one} {one.oid} {one.made_by}" for one in user_objects(target)),
            "relations": _all(target, "select relname, relacl::text from pg_class where oid >= 16384 order by 1"),
            "types": _all(target, "select typname from pg_type where oid >= 16384 order by 1"),
            "routines": _all(target, "select proname from pg_proc where oid >= 16384 order by 1"),
            "schemas": _all(target, "select nspname, nspacl::text from pg_namespace order by 1"),
            "privileges": _all(target, "select defaclobjtype, defaclacl::text from pg_default_acl"),
            "large objects": _all(target, "select oid from pg_largeobject_metadata"),
            "statistics": _all(target, "select count(*) from pg_statistic where starelid >= 16384"),
            "comments": _all(target, "select description from pg_description where objoid >= 2200 order by 1"),
        }


def _all(target: Connection, query: str) -> list[tuple[object, ...]]:
    return target.execute(query.encode()).fetchall()


def test_a_rehearsal_leaves_the_target_as_it_was(server: Server, endpoint: Endpoint) -> None:
    before = inventory(endpoint)
    report = moved(server, endpoint)
    assert report.outcome is TransferOutcome.MOVED
    assert sum(table.rows for table in report.tables) == 5_000
    assert inventory(endpoint) != before
    assert undo(endpoint) is True
    assert inventory(endpoint) == before
    assert undo(endpoint) is False
    assert moved(server, endpoint).outcome is TransferOutcome.MOVED
    assert undo(endpoint) is True
    assert inventory(endpoint) == before


def test_without_a_mark_nothing_is_dropped(server: Server, endpoint: Endpoint) -> None:
    with server.connect(endpoint.database or "") as connection:
        connection.execute("create table mine (id int); insert into mine values (7)")
    before = inventory(endpoint)
    assert undo(endpoint) is False
    require_no_other(endpoint)
    assert inventory(endpoint) == before


@pytest.mark.parametrize(
    "statement",
    [
        "create table of_somebody_else (id int)",
        "create view public.of_somebody_else as select * from public.of_rows",
        "alter table public.of_rows add column of_somebody_else int",
        "create schema of_somebody_else",
        "select lo_from_bytea(0, 'theirs')",
    ],
)
def test_where_somebody_else_was_at_work_nothing_is_dropped(server: Server, endpoint: Endpoint, statement: str) -> None:
    moved(server, endpoint)
    with server.connect(endpoint.database or "") as connection:
        connection.execute(statement.encode())
    before = inventory(endpoint)
    for _ in range(2):
        with pytest.raises(RescueError, match="did not make, or that were changed since") as caught:
            undo(endpoint)
        assert "Nothing was dropped" in caught.value.hint
        assert inventory(endpoint) == before


def test_an_unfinished_transfer_that_is_no_rehearsal_is_left_alone(endpoint: Endpoint) -> None:
    """A drill that is pointed at it by mistake would take somebody's night of work back."""
    with endpoint.connect() as target:
        make_marker(target, "source", "state", TransferPlan(jobs=2).options)
    before = inventory(endpoint)
    for refuses in (require_no_other, undo):
        with pytest.raises(RescueError, match="which is no rehearsal"):
            refuses(endpoint)
    assert inventory(endpoint) == before


@pytest.mark.parametrize(
    "plan", [TransferPlan(jobs=1, keeps_mark=True), TransferPlan(2, role="rehearsal", keeps_mark=True)]
)
def test_what_a_killed_rehearsal_left_is_taken_back(endpoint: Endpoint, plan: TransferPlan) -> None:
    before = inventory(endpoint)
    with endpoint.connect() as target:
        make_marker(target, "source", "state", plan.options)
    require_no_other(endpoint)
    assert undo(endpoint) is True
    assert inventory(endpoint) == before


def test_a_role_called_rehearsal_makes_no_rehearsal(endpoint: Endpoint) -> None:
    with endpoint.connect() as target:
        make_marker(target, "source", "state", TransferPlan(2, role="rehearsal").options)
    with pytest.raises(RescueError, match="which is no rehearsal"):
        undo(endpoint)


def test_a_transfer_that_keeps_no_mark_leaves_nothing_to_undo(server: Server, endpoint: Endpoint) -> None:
    assert moved(server, endpoint, keeps_mark=False).outcome is TransferOutcome.MOVED
    with endpoint.connect() as target:
        assert read_marker(target) is None
    before = inventory(endpoint)
    assert undo(endpoint) is False
    assert inventory(endpoint) == before


def test_a_target_that_is_gone_is_told(server: Server) -> None:
    gone = Endpoint.parse(url_of(server, "never_was"), "--url")
    with pytest.raises(RescueError, match="does not exist"):
        undo(gone)


def test_a_mark_of_another_program_is_told_and_stays(server: Server, endpoint: Endpoint) -> None:
    with server.connect(endpoint.database or "") as connection:
        connection.execute(f"create schema {SCHEMA}".encode())
    before = inventory(endpoint)
    with pytest.raises(RescueError, match="no transfer of this version made"):
        undo(endpoint)
    assert inventory(endpoint) == before
