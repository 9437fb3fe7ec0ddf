"""Schemas of which a target cannot take everything: roles, extensions, and what only a superuser may make."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fixtures import Server
from tests.conftest import require_engine
from tests.targets import OWNER
from tests.transfers import World, name_of, run, to_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE = "create table notes (id serial primary key, body text);\ninsert into notes (body) values ('one'), ('two')"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Server() as source, Server() as target, World(source, target) as world:
        run(source, "postgres", "create role sales;\ncreate role staff;\ncreate role reader")
        yield world


@pytest.fixture(scope="module")
def old() -> Iterator[Server]:
    """Run a source of the oldest major, which has extensions that later ones dropped."""
    require_engine("native", 15)
    with Server(major=15) as server:
        yield server


def test_the_owner_who_is_named_must_be_there_and_willing(world: World) -> None:
    source, target = world.origin(TABLE), world.goal()
    world.look(source, target, role="nobody_there").refused("role_missing", "no role nobody_there")
    run(world.target, name_of(target), "create role somebody")
    run(world.target, name_of(target), f"grant create on database {name_of(target)} to somebody")
    run(world.target, name_of(target), "grant create on schema public to somebody")
    world.look(source, target, role="somebody").refused("role_missing", "may not act as it", "GRANT somebody TO")
    run(world.target, "postgres", f"grant somebody to {OWNER} with inherit false, set true")
    world.look(source, target, role="somebody").ready()


def test_roles_are_made_only_by_who_may(world: World) -> None:
    run(world.target, "postgres", "create role plain login")
    source = world.origin(f"{TABLE};\ngrant select on notes to reader")
    assert "ownership_not_kept" in world.look(source, world.empty()).ready().codes
    done = world.look(source, world.goal(user="plain"), roles=True)
    done.refused("role_missing", "reader", "plain may not create any")
    assert "ownership_not_kept" not in world.look(source, world.empty(), roles=True).ready().codes


POLICIES = f"""
{TABLE};
alter table notes enable row level security;
create policy for_everybody on notes for select using (id > 0);
create policy for_sales on notes to sales using (true)
"""


def test_a_policy_for_missing_roles_only_is_left_out(world: World) -> None:
    source = world.origin(POLICIES)
    target = world.goal()
    done = to_cluster(source, target).moved()
    finding = done.finding("objects_left_out")
    assert "for_sales" in finding["object"]
    assert "sales" in finding["detail"]
    with world.target.connect(name_of(target)) as connection:
        assert connection.execute("select polname from pg_policy").fetchall() == [("for_everybody",)]
    assert to_cluster(source, target).codes == ["already_there"]
    assert "objects_left_out" not in world.look(source, world.empty(), roles=True).ready().codes


def test_a_policy_must_not_let_in_others(world: World) -> None:
    run(world.target, "postgres", "create role staff")
    for policy in ("to sales, staff using (true)", "as restrictive to sales using (false)"):
        source = world.origin(f"{TABLE};\ncreate policy theirs on notes {policy}")
        world.look(source, world.empty()).refused("role_missing", "policy", "theirs", "sales")
    world.look(world.origin(f"{TABLE};\ncreate policy theirs on notes to staff"), world.empty()).ready()


def test_extensions_that_are_not_there(world: World, old: Server) -> None:
    source = world.origin(f"{TABLE};\nreset role;\ncreate extension old_snapshot;\ncreate extension hstore", on=old)
    target = world.goal(user="postgres")
    finding = world.look(source, target).refused("extension_unavailable", "does not have it", "Install its package")
    assert finding["object"] == "old_snapshot"
    world.look(source, world.empty(user="postgres", on=old)).ready()


def test_an_extension_in_another_schema(world: World) -> None:
    source = world.origin(f"{TABLE};\ncreate schema kit;\ncreate extension hstore schema kit")
    target = world.goal("create extension hstore")
    world.look(source, target).refused("extension_unavailable", "in the schema kit", "SET SCHEMA kit")
    run(world.target, name_of(target), "create schema kit;\nalter extension hstore set schema kit")
    run(world.target, name_of(target), f"alter schema kit owner to {OWNER}")
    world.look(source, target).ready()


def test_an_extension_of_an_older_version(world: World) -> None:
    source = world.origin(f"{TABLE};\ncreate extension hstore")
    done = world.look(source, world.goal("create extension hstore version '1.4'")).ready()
    finding = done.finding("extension_older")
    assert (finding["severity"], finding["object"]) == ("warning", "hstore")
    assert "gets 1.4" in finding["detail"]
    assert "extension_older" not in world.look(source, world.empty()).ready().codes


KIT = """
reset role;
create schema kit;
create extension pg_stat_statements schema kit;
grant usage on schema kit to sales;
comment on schema kit is 'tools';
set role app_owner
"""


def test_an_extension_that_only_a_superuser_can_create(world: World) -> None:
    source, target = world.origin(f"{KIT};\n{TABLE}"), world.goal()
    finding = world.look(source, target).refused("extension_unavailable", "Only a superuser")
    world.look(source, world.empty(user="postgres")).ready()
    # What is said to be done helps, though the schema is in the target then.
    run(world.target, name_of(target), finding["remedy"].partition(": ")[2].rstrip(".").replace("; ", ";\n"))
    done = to_cluster(source, target).moved()
    assert "ownership_not_kept" in done.codes
    assert to_cluster(source, target).codes == ["already_there"]


def test_what_lies_beside_an_extension_stays_as_it_is(world: World) -> None:
    run(world.target, "postgres", "create role sales")
    source = world.origin(f"{KIT};\n{TABLE}")
    prepared = "create schema kit;\ncreate extension pg_stat_statements schema kit"
    for user in ("postgres", OWNER):
        target = world.goal(prepared, user=user)
        finding = to_cluster(source, target).moved().finding("objects_left_out")
        assert finding["object"] == "privileges on SCHEMA kit"
        with world.target.connect(name_of(target)) as connection:
            assert connection.execute("select nspacl from pg_namespace where nspname = 'kit'").fetchall() == [(None,)]


ONLY_A_SUPERUSER = (
    (
        "the untrusted language c",
        "create function f(cstring) returns integer language c as '$libdir/hstore', 'hstore_in'",
    ),
    ("leakproof", "create function f() returns integer leakproof return 1"),
    (
        "the type internal",
        "create aggregate f (numeric) (sfunc = numeric_avg_accum, stype = internal, finalfunc = numeric_avg)",
    ),
    ("a cast without a function", "create cast (xid as integer) without function"),
    ("operator family", "create operator family f using btree"),
    ("text search template", "create text search template f (lexize = dsimple_lexize)"),
    ("access method", "create access method f type table handler heap_tableam_handler"),
    ("foreign data wrapper", "create foreign data wrapper f"),
)
BASE_TYPE = """
create type f;
create function f_in(cstring) returns f language internal strict immutable as 'textin';
create function f_out(f) returns cstring language internal strict immutable as 'textout';
create type f (input = f_in, output = f_out, like = text);
create table of_f (a f)
"""


def test_what_only_a_superuser_can_make_must_be_made_by_one(world: World) -> None:
    source = world.origin(f"{TABLE};\nreset role")
    for number, (_, statements) in enumerate(ONLY_A_SUPERUSER):
        home = f"create schema s{number};\nset search_path = s{number}, pg_catalog"
        run(world.source, name_of(source), f"{home};\n{statements}")
    finding = world.look(source, world.empty()).refused("superuser_needed", "app_owner is none")
    assert "more" not in finding["object"]
    assert [words for words, _ in ONLY_A_SUPERUSER if words not in finding["object"]] == []
    to_cluster(source, world.goal(user="postgres")).moved()
    source = world.origin(f"reset role;\n{BASE_TYPE}")
    world.look(source, world.empty()).refused("superuser_needed", "type public.f (a base type)")
    # A superuser who acts as somebody else is none.
    run(world.target, "postgres", "create role humble")
    target = world.goal(user="postgres", owner="humble")
    world.look(source, target).ready()
    world.look(source, target, role="humble").refused("superuser_needed", "humble is none")


EXTRAS = f"""
{TABLE};
create publication a_few for table notes;
comment on publication a_few is 'a few';
reset role;
create publication everything for all tables;
comment on publication everything is 'all';
create function watch() returns event_trigger language plpgsql as 'begin end';
create event trigger watcher on ddl_command_start execute function watch();
comment on event trigger watcher is 'watches';
alter function watch owner to app_owner
"""


def test_what_only_a_superuser_can_make_and_the_data_does_without(world: World) -> None:
    source, target = world.origin(EXTRAS), world.goal()
    done = to_cluster(source, target).moved()
    finding = done.finding("objects_left_out")
    assert {"publication everything", "event trigger watcher"} <= set(finding["object"].split(", "))
    assert "publication a_few" not in finding["object"].split(", ")
    # Nor is anything said of whose they were.
    assert "ownership_not_kept" not in done.codes
    with world.target.connect(name_of(target)) as connection:
        assert connection.execute("select evtname from pg_event_trigger").fetchall() == []
        assert connection.execute("select pubname from pg_publication_tables").fetchall() == [("a_few",)]
    whole = world.goal(user="postgres")
    assert "objects_left_out" not in to_cluster(source, whole).moved().codes
    with world.target.connect(name_of(whole)) as connection:
        assert connection.execute("select evtname, obj_description(oid) from pg_event_trigger").fetchall() == [
            ("watcher", "watches")
        ]
        assert connection.execute("select count(*) from pg_publication").fetchone() == (2,)
    schema = world.origin(f"{TABLE};\nreset role;\ncreate publication p for tables in schema public")
    finding = to_cluster(schema, world.goal()).moved().finding("objects_left_out")
    assert finding["object"].startswith("publication tables in schema")


def test_security_labels_need_their_provider(world: World) -> None:
    source, target = world.origin(TABLE, is_own=True), world.goal()
    run(
        world.source,
        name_of(source),
        "insert into pg_seclabel values ('notes'::regclass, 'pg_class'::regclass, 0, 'nobody', 'secret')",
    )
    finding = to_cluster(source, target).moved().finding("objects_left_out")
    assert "notes" in finding["object"]
    assert '"nobody" is not loaded' in finding["detail"]
