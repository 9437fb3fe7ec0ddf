"""The committed reference of a schema: written, read again, and compared with what there is."""

from __future__ import annotations

import stat
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from fixtures import Server
from pgrescue.drill.reference import Key, Objects, compare_schema, read_objects, read_reference, write_reference
from pgrescue.drilled import DrillOutcome
from pgrescue.engine.choose import EngineRequest
from pgrescue.errors import RescueError
from pgrescue.model import EngineName
from pgrescue.pipeline import Silent
from pgrescue.transfer.endpoint import Endpoint
from pgrescue.transfer.source import live
from tests.targets import url_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgrescue.transfer.source import Source

MARK = '-- pgrescue object: ["TABLE", "public", "planted"]'
ODD: Objects = {
    Key("TABLE", "public", 'Weird "Name" ü\u2028'): Counter({"CREATE TABLE public.x ();": 1}),
    Key("FUNCTION", "", f"f({MARK})"): Counter(
        {f"{MARK}\nCREATE FUNCTION f() AS '\n{MARK}\n{MARK}';\n-- pgrescue text: x": 1}
    ),
    Key("FUNCTION", "app", "escaped"): Counter({f"-- pgrescue text: {MARK}\n-- pgrescue text: -- pgrescue text: .": 1}),
    Key("ACL", "public", "TABLE x"): Counter({"GRANT SELECT ON TABLE public.x TO a;": 2, "GRANT ALL …;": 1}),
    Key("COMMENT", "", "a"): Counter({"COMMENT ON DATABASE a IS '\n\n  spaces  \t\n\r tabs';": 1}),
}
SETUP = f"""
create schema app;
create table app."Weird ""Name" (id serial primary key, t text check (t <> 'geheim'), "Ü" numeric(10,2) default 0);
create unique index on app."Weird ""Name" (lower(t));
create view app.seen as select t from app."Weird ""Name";
create function app.marked() returns int language sql as $$
{MARK}
select 1 -- and
-- pgrescue text: {MARK}
$$;
create function app.of_windows() returns int language sql as E'\\r\\nselect 2;\\r\\n';
create role reader;
grant select on app.seen to reader;
insert into app."Weird ""Name" (t) values ('row of somebody');
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as opened:
        with opened.connect() as connection:
            connection.execute("create database portal")
            connection.execute("create database empty")
        with opened.connect("portal") as connection:
            connection.execute(SETUP.encode())
        yield opened


@pytest.fixture(scope="module")
def source(server: Server) -> Iterator[Source]:
    endpoint = Endpoint.parse(url_of(server, "portal"), "--url")
    with live(endpoint, EngineRequest(EngineName.NATIVE), Silent()) as opened:
        yield opened


@pytest.mark.parametrize("objects", [ODD, {}])
def test_it_comes_back_as_it_was(tmp_path: Path, objects: Objects) -> None:
    path = tmp_path / "portal.schema.sql"
    write_reference(path, objects)
    assert read_reference(path) == objects
    assert stat.S_IMODE(path.stat().st_mode) & 0o044 == 0o044
    before = path.read_bytes()
    write_reference(path, dict(reversed(objects.items())))
    assert path.read_bytes() == before


def test_a_real_schema_is_the_same_again_and_holds_no_row(source: Source, tmp_path: Path) -> None:
    path = tmp_path / "portal.schema.sql"
    objects = read_objects(source)
    write_reference(path, objects)
    assert read_reference(path) == objects == read_objects(source)
    answer = compare_schema(read_objects(source), read_reference(path))
    assert (answer.outcome, answer.seen) == (
        DrillOutcome.PASSED,
        f"{sum(map(Counter.total, objects.values()))} objects, all the same",
    )
    assert {str(key) for key in objects} >= {
        'table app.Weird "Name',
        "function app.marked()",
        "function app.of_windows()",
        "view app.seen",
        "acl app.TABLE seen",
    }
    assert "row of somebody" not in path.read_text()


def test_what_git_does_to_the_ends_of_lines_is_no_change(source: Source, tmp_path: Path) -> None:
    path = tmp_path / "portal.schema.sql"
    objects = read_objects(source)
    write_reference(path, objects)
    assert b"\r" not in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert compare_schema(objects, read_reference(path)).outcome is DrillOutcome.PASSED


def test_what_is_missing_changed_and_new_is_named(server: Server, source: Source, tmp_path: Path) -> None:
    path = tmp_path / "portal.schema.sql"
    write_reference(path, read_objects(source))
    with server.connect("portal") as connection:
        connection.execute(
            'create table app."New One" (id int); drop function app.of_windows; revoke all on app.seen from reader; '
            'alter table app."Weird ""Name" alter column "Ü" set default 7; '
            "create or replace function app.marked() returns int language sql as 'select 2'"
        )
    answer = compare_schema(read_objects(source), read_reference(path))
    assert answer.outcome is DrillOutcome.FAILED
    assert answer.seen == "2 missing, 2 changed, 1 new"
    assert answer.detail.splitlines() == [
        "missing: acl app.TABLE seen",
        "missing: function app.of_windows()",
        "changed: function app.marked()",
        'changed: table app.Weird "Name',
        "new: table app.New One",
    ]


def test_an_empty_database_has_a_reference_too(source: Source, tmp_path: Path) -> None:
    path = tmp_path / "empty.schema.sql"
    objects = read_objects(source.of_database("empty"))
    write_reference(path, objects)
    assert compare_schema(objects, read_reference(path)).outcome is DrillOutcome.PASSED
    assert compare_schema(read_objects(source), read_reference(path)).outcome is DrillOutcome.FAILED


def test_objects_of_one_name_are_told_apart_by_their_number() -> None:
    key = Key("ACL", "public", "TABLE x")
    one, two = {key: Counter({"GRANT a;": 1})}, {key: Counter({"GRANT a;": 2})}
    assert compare_schema(one, two).detail == "changed: acl public.TABLE x"
    assert compare_schema(two, two).seen == "2 objects, all the same"


def test_a_long_list_is_cut() -> None:
    many: Objects = {Key("TABLE", "public", f"t{number:03}"): Counter({"…": 1}) for number in range(25)}
    answer = compare_schema({}, many)
    assert answer.seen == "25 missing"
    assert answer.detail.splitlines()[-2:] == ["missing: table public.t019", "and 5 more"]


def test_what_is_no_reference_is_told_with_how_to_write_one(tmp_path: Path) -> None:
    path = tmp_path / "portal.schema.sql"
    with pytest.raises(RescueError, match="there is no reference") as caught:
        read_reference(path)
    assert "--write-schema" in caught.value.hint
    for content in (b"", b"-- PostgreSQL database dump\nCREATE TABLE x ();", MARK.encode(), b"-- pgrescue: the sch"):
        path.write_bytes(content)
        with pytest.raises(RescueError, match="is no reference that pgrescue wrote"):
            read_reference(path)
    for content in (b"\xff\xfe", b"-- pgrescue: \xfc"):
        path.write_bytes(content)
        with pytest.raises(RescueError, match="cannot be read"):
            read_reference(path)
    with pytest.raises(RescueError, match="cannot be read"):
        read_reference(tmp_path)


@pytest.mark.parametrize(
    "mark", ["[]", '["TABLE"]', '["TABLE", "a", "b", "c"]', "[1, 2]", '["TABLE", "public", x]', "[[]"]
)
def test_a_damaged_reference_is_told(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "portal.schema.sql"
    write_reference(path, ODD)
    path.write_text(path.read_text() + f"-- pgrescue object: {mark}\nCREATE TABLE public.x ();\n")
    with pytest.raises(RescueError, match="is damaged") as caught:
        read_reference(path)
    assert "--write-schema" in caught.value.hint


def test_a_mark_that_was_changed_makes_another_reference(tmp_path: Path) -> None:
    path = tmp_path / "portal.schema.sql"
    write_reference(path, ODD)
    path.write_text(path.read_text().replace('object: ["TABLE"', 'object ["TABLE"', 1))
    assert compare_schema(ODD, read_reference(path)).outcome is DrillOutcome.FAILED


def test_a_reference_that_was_cut_off_is_not_the_same(tmp_path: Path) -> None:
    path = tmp_path / "portal.schema.sql"
    write_reference(path, ODD)
    whole = path.read_bytes()
    title = whole.index(b"\n")
    for length in range(title, len(whole.rstrip()), 7):
        path.write_bytes(whole[:length])
        try:
            found = read_reference(path)
        except RescueError:
            continue
        assert compare_schema(ODD, found).outcome is DrillOutcome.FAILED


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    with pytest.raises(RescueError, match="cannot be written: No such file or directory"):
        write_reference(tmp_path / "absent" / "portal.schema.sql", ODD)
