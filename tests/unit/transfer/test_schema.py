"""What pg_dump says is taken apart into entries, whatever stands in them."""

from __future__ import annotations

import pytest

from pgrescue.errors import RescueError
from pgrescue.transfer.schema import parse_schema

TOP = "--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\n\n-- Dumped from database version 17.10\n\nSET x = 0;\n\n"
BOTTOM = "\n\n-- Completed on 2026-11-26 12:00:00 UTC\n\n--\n-- PostgreSQL dump complete\n--\n\n\\unrestrict abc\n\n"


def entry(number: int, name: str, kind: str, sql: str, *, depends: str = "", owner: str = "app") -> str:
    told = f"-- Dependencies: {depends}\n" if depends else ""
    return (
        f"--\n-- TOC entry {number} (class 1259 OID {number + 100})\n{told}"
        f"-- Name: {name}; Type: {kind}; Schema: public; Owner: {owner}\n--\n\n{sql}\n\n\n"
    )


def test_entries_before_and_after_the_data() -> None:
    schema = parse_schema(
        TOP
        + entry(1, "t", "TABLE", "CREATE TABLE public.t (a integer);\n\n\nALTER TABLE public.t OWNER TO app;")
        + entry(2, "COLUMN t.a", "COMMENT", "COMMENT ON COLUMN public.t.a IS 'x';", depends="1")
        + entry(3, "t t_pkey", "CONSTRAINT", "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY (a);")
        + entry(4, "TABLE t", "ACL", "GRANT SELECT ON TABLE public.t TO reader;", depends="1 3")
        + BOTTOM
    )
    assert [one.name for one in schema.before] == ["t", "COLUMN t.a"]
    assert [(one.name, one.type, one.depends) for one in schema.after] == [
        ("t t_pkey", "CONSTRAINT", ()),
        ("TABLE t", "ACL", (1, 3)),
    ]
    first = schema.before[0]
    assert (first.number, first.class_oid, first.oid, first.schema, first.owner) == (1, 1259, 101, "public", "app")
    assert first.sql.endswith("ALTER TABLE public.t OWNER TO app;")
    assert schema.after[-1].sql == "GRANT SELECT ON TABLE public.t TO reader;"
    assert str(first) == "table public.t"


FAKE = entry(9, "fake", "TABLE", "CREATE TABLE fake ();")


@pytest.mark.parametrize(
    "quoted",
    [
        f"$_$\n{FAKE}$_$",
        f"$body$ ' {FAKE} $_$ $body$",
        f"'it''s\n{FAKE}'",
        f"E'a\\'\n{FAKE}\\\\'",
        f'"odd ""name\n{FAKE}"',
        f"/* a comment\n{FAKE}*/ 1",
    ],
)
def test_a_dump_within_quotes_is_no_entry(quoted: str) -> None:
    sql = f"CREATE FUNCTION public.f() RETURNS text LANGUAGE sql AS {quoted};"
    schema = parse_schema(
        TOP + entry(1, "f()", "FUNCTION", sql) + entry(2, "t", "TABLE", "CREATE TABLE t ();") + BOTTOM
    )
    assert [one.name for one in schema.entries] == ["f()", "t"]
    assert schema.before[0].sql == sql


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE a$b$c (x integer);",
        "COMMENT ON TABLE t IS 'ends in a backslash \\';",
        "-- it's a comment\nCREATE TABLE t ();",
        'CREATE VIEW v AS SELECT 1 AS "$x$";',
    ],
)
def test_what_only_looks_like_a_quote_hides_nothing(sql: str) -> None:
    schema = parse_schema(
        TOP + entry(1, "first", "TABLE", sql) + entry(2, "second", "TABLE", "CREATE TABLE b ();") + BOTTOM
    )
    assert [one.name for one in schema.entries] == ["first", "second"]


def test_an_access_method_goes_with_the_tables_that_have_it() -> None:
    heap = "SET default_table_access_method = heap;\n"
    other = "SET default_table_access_method = columnar;\n"
    schema = parse_schema(
        TOP
        + "SET default_tablespace = '';\n\n"
        + heap
        + "\n"
        + entry(1, "a", "TABLE", "CREATE TABLE a ();\n\n\n" + other)
        + entry(2, "b", "TABLE", "CREATE TABLE b ();\n\n\n" + heap)
        + entry(3, "c", "TABLE", "CREATE TABLE c ();")
        + BOTTOM
    )
    assert [one.sql for one in schema.before] == [
        "CREATE TABLE a ();",
        "SET LOCAL default_table_access_method = columnar;\nCREATE TABLE b ();",
        "CREATE TABLE c ();",
    ]


def test_an_entry_that_only_comments_does_nothing() -> None:
    schema = parse_schema(
        TOP + entry(1, "public", "SCHEMA", "-- *not* creating schema, since initdb creates it") + BOTTOM
    )
    assert schema.before[0].sql == ""


def test_keys_and_fingerprints_follow_the_text() -> None:
    def of(sql: str) -> str:
        schema = parse_schema(TOP + entry(1, "a", "TABLE", sql) + BOTTOM)
        return schema.fingerprint + schema.before[0].key

    assert of("CREATE TABLE a ();") == of("CREATE TABLE a ();")
    assert of("CREATE TABLE a ();") != of("CREATE TABLE a (b integer);")


def test_a_dump_that_is_not_understood_is_refused() -> None:
    with pytest.raises(RescueError, match="not understood"):
        parse_schema(TOP + "CREATE TABLE t ();")
    assert parse_schema(TOP + BOTTOM).entries == ()
