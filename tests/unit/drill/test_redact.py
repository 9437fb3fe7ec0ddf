"""Taking rows out of a server's messages: of every one that this server can be brought to utter."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from fixtures import Server
from pgrescue.drill.redact import without_rows
from pgrescue.repair.site import said as said_by_repair
from pgrescue.transfer.endpoint import said
from pgrescue.verify.target import words

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = "geheim"
# Values hold what stands around values, too. 471147 stands for them where only numbers can be.
VALUES = (
    MARK,
    f'ge"{MARK}" is {MARK}',
    f"{MARK}) ({MARK}",
    f"{MARK}) already exists. {MARK}",
    f"{MARK}).) {MARK}",
    f"{MARK}\n{MARK}\t{MARK}\n\n{MARK}",
    f'{{{MARK}", "x": {MARK}',
)
SETUP = """
create table keyed (t text primary key);
create table two (a int, "B b" text, unique (a, "B b"));
create table parent (t text primary key);
create table child (t text constraint child_fk references parent);
create table doubled (t text);
create table checked (id int not null, t text check (length(t) < 0));
create table excluded (t text, exclude using hash (t with =));
create table ranged (r int4range, exclude using gist (r with &&));
create table parted (t text) partition by list (t);
create table parted_a partition of parted for values in ('a');
create view seen as select t from doubled where t = 'a' with check option;
create table narrow (t varchar(3), n int, j jsonb);
create type mood as enum ('glad');
create type pair as (a int, b text);
create domain strict as text check (length(value) < 0);
create function fill() returns void language plpgsql as $$
begin
    insert into checked (t) select t from doubled;
end $$;
"""
# What is done with a value, which also stands twice in `doubled`, and which names the message is to keep.
CASES = [
    ("insert into keyed values ({0}), ({0})", "keyed_pkey", "(t)"),
    ("insert into two values (1, {0}), (1, {0})", "two_a_B b_key", 'Key (a, "B b")'),
    ("create unique index doubled_idx on doubled (upper(t))", "doubled_idx", "upper(t)"),
    ("insert into child values ({0})", "child_fk", 'not present in table "parent"'),
    ("insert into parent values ({0}); insert into child values ({0}); delete from parent", "child_fk", '"child"'),
    ("insert into checked values (1, {0})", 'relation "checked"', "checked_t_check"),
    ("insert into checked (t) values ({0})", 'column "id"', 'relation "checked"'),
    ("select fill()", 'column "id"', 'relation "checked"'),
    ("insert into excluded values ({0}), ({0})", "excluded_t_excl", "conflicts with existing key (t)"),
    ("alter table doubled add constraint twice exclude using hash (t with =)", "twice", "conflicts with key (t)"),
    ("insert into ranged values ('[471147,471149)'), ('[471148,471150)')", "ranged_r_excl", "existing key (r)"),
    ("insert into parted values ({0})", 'relation "parted"', "Partition key"),
    ("insert into parted_a values ({0})", 'relation "parted_a"', "partition constraint"),
    ("insert into seen values ({0})", 'view "seen"', "check option"),
    ("insert into narrow (t) values ({0} || '   x')", "character varying(3)", "too long"),
    ("select t::mood from doubled", "enum mood", ""),
    ("select t::pair from doubled", "malformed record literal", ""),
    ("select t::strict from doubled", "strict", "strict_check"),
    ("select ('{{' || t)::text[] from doubled", "malformed array literal", ""),
    ("select t::int4range from doubled", "malformed range literal", ""),
    ("select ('''' || t)::tsvector from doubled", "tsvector", ""),
    ("select t::json from doubled", "type json", ""),
    ("select ('{{\"a\" ' || t)::jsonb from doubled", "type json", ""),
    ("select ('[1, \"\\' || t)::jsonb from doubled", "type json", ""),
    ("select ('$ ' || t)::jsonpath from doubled", "jsonpath", ""),
    ("select now() at time zone t from doubled", "time zone", "not recognized"),
    ("select to_date(t, 'Month') from doubled", "invalid value", ""),
    ("select decode(t, 'hex') from doubled", "hexadecimal", ""),
    ("select '1e999471147'::text::float8", "double precision", "out of range"),
    ("select '99999999471147'::text::int", "type integer", "out of range"),
    ("select '2020-13-471147'::text::date", "out of range", ""),
    ("select convert_from(convert_to('\u00fc' || t, 'LATIN1'), 'UTF8') from doubled", 'encoding "UTF8"', ""),
    *((f"select t::{name} from doubled", "", "") for name in ("integer", "numeric", "float8", "boolean", "uuid")),
    *((f"select t::{name} from doubled", "", "") for name in ("timestamptz", "interval", "inet", "point", "bit(8)")),
]

QUOTES_NOTHING = {"character varying(3)", "strict"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(settings={"log_statement": "all", "log_duration": "on", "lc_messages": "C"}) as opened:
        with opened.connect() as connection:
            connection.execute(SETUP.encode())
        yield opened


@pytest.fixture
def connection(server: Server) -> Iterator[psycopg.Connection]:
    with contextlib.closing(server.connect()) as opened:
        yield opened


def refused(connection: psycopg.Connection, statement: str, value: str) -> psycopg.Error:
    """Provoke an error with a value, and return it; nothing of it stays."""
    query = sql.SQL(statement).format(sql.Literal(value)).as_string(connection).encode()
    with connection.transaction(force_rollback=True):
        connection.execute(sql.SQL("insert into doubled values ({0}), ({0})").format(sql.Literal(value)))
        with pytest.raises(psycopg.Error) as caught:
            connection.execute(query)
    return caught.value


def spoken(error: psycopg.Error) -> tuple[str, ...]:
    """Return all forms in which findings and problems have a server's words."""
    return (
        words(error),
        said(error),
        said_by_repair(error),
        f"{words(error)}.",
        f"The rows stay: {words(error)}; and 3 more.",
        f"The index was not built: {said(error)}\nLook at it.",
    )


@pytest.mark.parametrize(("statement", "first", "second"), CASES)
def test_values_are_gone_and_names_stay(
    connection: psycopg.Connection, statement: str, first: str, second: str
) -> None:
    is_quoted = False
    for value in VALUES:
        for text in spoken(refused(connection, statement, value)):
            found = without_rows(text)
            assert MARK not in found.lower()
            assert "471147" not in found
            assert first in found
            assert second in found
            assert "Look at it." not in text or found.endswith("\nLook at it.")
            is_quoted |= found != text
    assert is_quoted or first in QUOTES_NOTHING


@pytest.mark.parametrize(("column", "row"), [("n", "abc\t{}\t{{}}"), ("j", "abc\t1\t{}"), ("t", "{}\t1\t{{}}")])
def test_the_place_in_a_copy_is_without_the_row(connection: psycopg.Connection, column: str, row: str) -> None:
    with pytest.raises(psycopg.Error) as caught, connection.cursor().copy("copy narrow from stdin") as copy:
        copy.write(row.format(MARK) + "\n")
    error = caught.value
    assert error.diag.context is not None
    assert MARK in error.diag.context
    for text in (*spoken(error), f"{words(error)} ({error.diag.context})", str(error)):
        assert MARK not in without_rows(text)
    if column != "j":
        assert without_rows(said(error)).endswith(f"[COPY narrow, line 1, column {column}]")


def test_the_log_keeps_what_went_wrong_and_no_row(server: Server, connection: psycopg.Connection) -> None:
    """Also with every statement in it, and each parameter."""
    begin = server.log.stat().st_size
    for statement, _, _ in CASES:
        for value in VALUES:
            refused(connection, statement, value)
    connection.execute("select length(%s::text), length(%s::text)", [MARK, f"x\n{MARK}"])
    with contextlib.suppress(psycopg.Error), connection.cursor().copy("copy narrow from stdin") as copy:
        copy.write(f"abc\t{MARK}\t{{}}\n")
    log = server.log.read_text()[begin:]
    assert log.count(MARK) > 1_000
    assert "DETAIL:  " in log
    assert "CONTEXT:  " in log
    for text in (log, "".join(f"  {line}" for line in log.splitlines(keepends=True))):
        found = without_rows(text)
        assert MARK not in found
        assert "471147" not in found
        for name in ("keyed_pkey", "child_fk", "checked_t_check", "parted_a", "excluded_t_excl", '"seen"'):
            assert name in found
        assert len(found.splitlines()) >= len(CASES) * len(VALUES)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "The index public.t_idx is not sound.\nREINDEX INDEX public.t_idx;\n",
        'relation "orders" does not exist',
        'syntax error at or near "selct"',
        'could not open file "base/5/16384": No such file or directory',
        "invalid page in block 7 of relation base/5/16384",
        "missing chunk number 0 for toast value 16401 in pg_toast_16391",
        'item order invariant violated for index "t_idx" (Lower index tid=(1,2) (points to heap tid=(0,1)))',
        'permission denied for table "orders"',
        'database "portal" is not currently accepting connections',
        "[7] LOG:  redo starts at 0/2000028\n[7] FATAL:  could not locate a valid checkpoint record at 0/2000028",
        'connection to server at "127.0.0.1", port 5432 failed: Connection refused\n\tIs the server running?',
    ],
)
def test_what_quotes_no_row_stays_as_it_is(text: str) -> None:
    assert without_rows(text) == text


@pytest.mark.parametrize(
    "text",
    [f'invalid input syntax for type integer: "{MARK}', f"Key (t)=({MARK}", f"Failing row contains (1, {MARK}"],
)
def test_a_message_that_was_cut_off_hides_the_rest(text: str) -> None:
    assert MARK not in without_rows(text)


@pytest.mark.parametrize(
    "part", ["Key (a)=(b) ", "Key (", 'value "x" ', "row contains (a", ': "x', "\n\t", "byte sequence "]
)
def test_endless_text_takes_no_endless_time(part: str) -> None:
    begun = time.monotonic()
    without_rows(part * 200_000)
    assert time.monotonic() - begun < 5
