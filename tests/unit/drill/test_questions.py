"""Questions to a database: what they see, what is shown of it, and what never is."""

from __future__ import annotations

import resource
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql

from fixtures import Server
from pgrescue.drill.questions import Circumstances, Found, ask, newest_of, shown_age
from pgrescue.drill.scenario import FreshnessCheck, RowsCheck, SqlCheck
from pgrescue.drilled import DrillOutcome
from pgrescue.transfer.endpoint import Endpoint
from tests.targets import url_of

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSED, FAILED, UNVERIFIED = DrillOutcome.PASSED, DrillOutcome.FAILED, DrillOutcome.UNVERIFIED
SECRET = "geheim"
NUMBER = 471_147
NOW = datetime(2026, 11, 22, 8, 15, tzinfo=UTC)
APP, RAW = "app", "raw"
SETUP = f"""
create schema app;
create schema "Dotted.schema";
create table app.people (id int primary key, secret text, amount numeric, born date, seen timestamptz, open boolean,
    span interval, doc jsonb, raw bytea, tags text[], key uuid, "end" time, mood text);
insert into app.people values (1, '{SECRET}', {NUMBER}, '1947-11-04', '2026-11-22 08:00Z', true, '5 min',
    '{{"a": "{SECRET}"}}', '{SECRET}', '{{{SECRET}}}', '11111111-2222-3333-4444-555555555555', '04:07:11', null);
create table app.orders (id int);
insert into app.orders select generate_series(1, 900);
create table app."Orders" (id int);
insert into app."Orders" values (1), (2);
create table app."Weird ""Name" (id int);
insert into app."Weird ""Name" values (1), (2), (3);
create table app."a.b" (id int);
insert into app."a.b" values (1), (2), (3), (4);
create table "Dotted.schema"."x.y" (id int);
create table public.outside (id int);
create view app.few as select * from app.orders where id <= 7;
create materialized view app.kept as select * from app.orders where id <= 5;
create index orders_idx on app.orders (id);
create table app.parts (id int) partition by range (id);
create table app.parts_1 partition of app.parts for values from (0) to (100);
create table app.parts_2 partition of app.parts for values from (100) to (200);
insert into app.parts select generate_series(50, 149);
create type app.mood as enum ('glad');
create domain app.moment as timestamptz;
create table app.times (none timestamptz, exact timestamptz, local timestamp(3), day date, ends timestamptz,
    future timestamptz, distant timestamptz, ancient timestamptz, "Mixed Case" app.moment, moody text);
insert into app.times values
    (null, '2026-11-22 08:00Z', '2026-11-22 09:00', '2026-11-22', '2026-11-22 07:00Z', '2026-11-22 08:25Z',
     '20000-01-01 00:00Z', '0044-03-15 00:00Z BC', '2026-11-22 08:14:59.75Z', 'x'),
    (null, '2026-11-20 08:00Z', '2026-11-20 09:00', '2026-11-20', 'infinity', '2026-11-20 08:00Z',
     '2026-01-01 00:00Z', '-infinity', null, 'y');
create table app.empty (at timestamptz);
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Give a server whose database has the app's search_path, which the role that asks has not."""
    with Server(settings={"track_activities": "on"}) as opened:
        with opened.connect() as connection:
            connection.execute(f"create database {APP}".encode())
            connection.execute(f"create database {RAW} encoding 'SQL_ASCII' template template0".encode())
            connection.execute(f"alter database {APP} set search_path = app, public".encode())
            connection.execute(f"alter database {APP} set datestyle = 'German'".encode())
            connection.execute(f"alter database {APP} set intervalstyle = 'iso_8601'".encode())
            connection.execute("create role asking superuser login")
            connection.execute("alter role asking set search_path = public")
        with opened.connect(APP) as connection:
            connection.execute(SETUP.encode())
        yield opened


@pytest.fixture
def endpoint(server: Server) -> Endpoint:
    return Endpoint.parse(url_of(server, APP, "asking"), "--url")


def value(endpoint: Endpoint, statement: str, expect: str = "== 0", timeout: str = "1 min") -> Found:
    return ask(SqlCheck(sql=statement, expect=expect, timeout=timeout), endpoint, Circumstances(NOW, {}))  # type: ignore[arg-type]


def rows(endpoint: Endpoint, table: str, last: dict[str, int] | None = None, **limits: Any) -> Found:
    check = RowsCheck.model_validate({"rows": {"table": table, **limits}})
    return ask(check, endpoint, Circumstances(NOW, last or {}))


def freshness(endpoint: Endpoint, column: str, table: str = "times", max_age: str = "1 h", zone: str = "UTC") -> Found:
    asked = {"table": table, "column": column, "max_age": max_age, "zone": zone}
    return ask(FreshnessCheck.model_validate({"freshness": asked}), endpoint, Circumstances(NOW, {}))


def said(found: Found) -> str:
    return f"{found.answer.seen}\n{found.answer.detail}"


@pytest.mark.parametrize(
    ("statement", "expect", "outcome", "seen"),
    [
        ("select count(*) from orders", "== 900", PASSED, "900"),
        ("select count(*) * 10 from orders", "> 9000", FAILED, "9,000"),
        ("select avg(id) from orders", "== 450.5", PASSED, "450.5000000000000000"),
        ("select 0.1::float8", "== 0.1", PASSED, "0.1"),
        ("select 'NaN'::float8", "!= 1", PASSED, "nan"),
        ("select sum(id) > 10 from orders", "== true", PASSED, "true"),
        ("select null::int", "== null", PASSED, "NULL"),
        ("select max(id) from orders where id < 0", ">= 0", FAILED, "NULL"),
        ("select max(seen) from people", ">= 2026-11-22 08:00+00:00", PASSED, "2026-11-22 08:00:00+00:00"),
        ("select max(born) from people", "< 1947-01-01", FAILED, "1947-11-04"),
        ("select max(span) from people", "<= 5 min", PASSED, "5 min"),
        ("select 100 % 7", "== 2", PASSED, "2"),
        ("select count(*) from orders where id::text like '%0'", "== 90", PASSED, "90"),
        ("select count(*) from orders where '%s %(x)s' <> ''", "== 900", PASSED, "900"),
        ("with all_of as (select * from orders) select count(*) from all_of;", "== 900", PASSED, "900"),
        ("values (1)", "== 1", PASSED, "1"),
        ("select 10::numeric ^ 3000", "> 1", PASSED, "1.000000e+3000"),
        ("-- how many?\nselect count(*)\nfrom few", "== 7", PASSED, "7"),
    ],
)
def test_what_a_query_computes_is_compared_and_shown(
    endpoint: Endpoint, statement: str, expect: str, outcome: DrillOutcome, seen: str
) -> None:
    found = value(endpoint, statement, expect)
    assert (found.answer.outcome, found.answer.seen) == (outcome, seen)


HIDDEN = [
    ("select secret from people", f"== '{SECRET}'", "a text of 6 characters (not shown)"),
    ("select max(secret) from people", f"== '{SECRET}'", "a text of 6 characters (not shown)"),
    ("select amount from people", f"== {NUMBER}", "a number (a column's own value: not shown)"),
    (
        "select x from (select amount as x from people) as y",
        f"== {NUMBER}",
        "a number (a column's own value: not shown)",
    ),
    ("with y as (select amount from people) table y", f"== {NUMBER}", "a number (a column's own value: not shown)"),
    ("select id from people", "== 1", "a number (a column's own value: not shown)"),
    ("select born from people", "== 1947-11-04", "a date or time (a column's own value: not shown)"),
    ("select seen from people", ">= 2026-01-01 00:00Z", "a time (a column's own value: not shown)"),
    ("select open from people", "== true", "a truth value (a column's own value: not shown)"),
    ("select span from people", "== 5 min", "a duration (a column's own value: not shown)"),
    ("select key from people", "== '11111111-2222-3333-4444-555555555555'", "a value of type UUID (not shown)"),
    ("select doc from people", "!= null", "a value of type dict (not shown)"),
    ("select raw from people", "!= null", "a value of type bytes (not shown)"),
    ("select tags from people", "!= null", "a value of type list (not shown)"),
    ("select people from people", "!= null", None),
    ("select mood from people", "== null", "NULL"),
    ('select "end" from people', "!= null", "a date or time (a column's own value: not shown)"),
]


@pytest.mark.parametrize(("statement", "expect", "seen"), HIDDEN)
def test_what_stands_in_a_row_is_compared_and_not_shown(
    endpoint: Endpoint, statement: str, expect: str, seen: str | None
) -> None:
    found = value(endpoint, statement, expect)
    assert found.answer.outcome is PASSED
    assert seen is None or found.answer.seen == seen
    check_hides(found)


@pytest.mark.parametrize("statement", [case[0] for case in HIDDEN])
def test_what_cannot_be_compared_is_not_shown_either(endpoint: Endpoint, statement: str) -> None:
    kinds = ("== 'x'", "== 9 min")
    answers = [value(endpoint, statement, expect) for expect in kinds]
    assert UNVERIFIED in {found.answer.outcome for found in answers} or statement == "select mood from people"
    for found in answers:
        check_hides(found)


def check_hides(found: Found) -> None:
    for secret in (SECRET, str(NUMBER), f"{NUMBER:,}", "1947", "1111"):
        assert secret not in said(found)


@pytest.mark.parametrize(
    ("statement", "detail"),
    [
        ("select id from orders order by id", "the query gives several rows; one row with one value is expected"),
        ("select id from orders where id < 0", "the query gives no row; one row with one value is expected"),
        ("select 1, 2", "the query gives 2 columns; one row with one value is expected"),
        ("table people", "the query gives 13 columns; one row with one value is expected"),
        ("select", "the SQL gives no rows at all; a query is expected"),
        ("-- nothing", "the SQL gives no rows at all; a query is expected"),
        ("select 1; select 2", "the SQL is several statements; one query is expected"),
        ("selct 1", 'the server refused it: syntax error at or near "selct" (SQLSTATE 42601)'),
        ("select * from absent", 'the server refused it: relation "absent" does not exist (SQLSTATE 42P01)'),
        ("select missing from people", 'the server refused it: column "missing" does not exist (SQLSTATE 42703)'),
        ("select 'abc'::int", 'the server refused it: invalid input syntax for type integer: "abc" (SQLSTATE 22P02)'),
        ("select 'infinity'::timestamptz", "the value is of a kind or size that cannot be read here"),
        ("select '300000 years'::interval * 300", "the value is of a kind or size that cannot be read here"),
        (
            "select (repeat('[', 3000) || repeat(']', 3000))::json",
            "the value is of a kind or size that cannot be read here",
        ),
        ("select 'x'", "it cannot be compared: a text cannot be compared with a number"),
        ("select pg_terminate_backend(pg_backend_pid())", "the connection to the server was lost"),
    ],
)
def test_what_is_no_answer_says_why(endpoint: Endpoint, statement: str, detail: str) -> None:
    found = value(endpoint, statement)
    assert (found.answer.outcome, found.answer.detail) == (UNVERIFIED, detail)


@pytest.mark.parametrize(
    "statement",
    [
        "select secret::int from people",
        "select secret::mood from people",
        "select secret::uuid from people",
        "select secret::jsonb from people",
        "select secret::regclass from people",
        "select secret::regtype from people",
        "select secret::regrole from people",
        "select secret::regconfig from people",
        "select (secret || ' &')::tsquery from people",
        "select ('$.' || secret || ' x')::jsonpath from people",
        "select query_to_xml(secret, true, true, '') from people",
        "select has_table_privilege(secret, 'select') from people",
        "select current_setting(secret) from people",
        "select amount::int2 from people",
        "select (amount::text || '999999')::int from people",
        "select 1 / (amount - amount) from people",
        "select to_date(secret, 'YYYY') from people",
        "select now() at time zone secret from people",
        "select convert_from(decode(md5(secret), 'hex'), 'UTF8') from people",
        "select cast(doc ->> 'a' as numeric) from people",
        "select ('{' || secret)::text[] from people",
        "select amount from people union all select secret::int from people",
    ],
)
def test_an_error_that_quotes_a_row_is_told_without_its_words(endpoint: Endpoint, statement: str) -> None:
    found = value(endpoint, statement)
    assert found.answer.outcome is UNVERIFIED
    assert "SQLSTATE" in found.answer.detail
    check_hides(found)


@pytest.mark.parametrize(
    "statement",
    [
        "insert into people (id) values (99)",
        "insert into people (id) values (99) returning id",
        "with new as (insert into people (id) values (99) returning id) select count(*) from new",
        "update people set secret = '' returning id",
        "truncate people",
        "drop table people",
        "create table made (id int)",
        "create temp table made (id int)",
        "select 99 as id into made",
        "select lo_create(0)",
        "select pg_notify('a', 'b'), 1",
        "explain analyze insert into people (id) values (99)",
        "commit",
        "commit; insert into people (id) values (99)",
        "select 1; commit; insert into people (id) values (99)",
        "rollback; begin; insert into people (id) values (99); commit",
        "set transaction read write; insert into people (id) values (99)",
        "select set_config('transaction_read_only', 'off', true)",
        "do $$ begin commit; insert into app.people (id) values (99); end $$",
        "copy people (id) from stdin",
        "copy people to stdout",
        "copy people to program 'cat > {place}'",
        "copy people to '{place}'",
        "vacuum people",
    ],
)
def test_nothing_is_written(endpoint: Endpoint, server: Server, statement: str) -> None:
    place = server.home / "run" / "written"
    before = _state(server)
    found = value(endpoint, statement.format(place=place), "== 99")
    assert found.answer.outcome is UNVERIFIED
    assert _state(server) == before
    assert not place.exists()


def _state(server: Server) -> object:
    with server.connect(APP) as connection:
        return connection.execute(
            "select (select array_agg(p::text) from app.people p), (select count(*) from pg_largeobject_metadata), "
            "(select array_agg(relname order by relname) from pg_class where relnamespace > 16384 or relkind = 'r')"
        ).fetchall()


def test_nothing_of_a_session_is_left_for_the_next_question(endpoint: Endpoint) -> None:
    value(endpoint, "select set_config('search_path', 'public', false)")
    assert value(endpoint, "select count(*) from orders", "== 900").answer.outcome is PASSED


def test_a_question_that_takes_too_long_is_ended(endpoint: Endpoint, server: Server) -> None:
    found = value(endpoint, "select count(pg_sleep(60))", timeout="0.2 s")
    assert (found.answer.outcome, found.answer.detail) == (UNVERIFIED, "it did not end within 0.2 s")
    with server.connect() as connection:
        left = connection.execute(
            "select count(*) from pg_stat_activity where application_name like 'pgrescue%' and query like '%sleep%'"
        ).fetchone()
    assert left == (0,)


def test_a_forgotten_aggregate_does_not_fill_the_memory(endpoint: Endpoint) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = value(endpoint, "select repeat('x', 1000) from generate_series(1, 300000)")
    assert found.answer.detail.startswith("the query gives several rows")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB; all of it has 300 MB


def test_bytes_that_are_no_text_are_no_crash(server: Server) -> None:
    """A database without an encoding may hold anything."""
    raw = Endpoint.parse(url_of(server, RAW), "--url")
    found = value(raw, r"select E'\xfc' || ''")
    assert found.answer.detail == "the server refused it: CharacterNotInRepertoire (SQLSTATE 22021)"


def test_the_databases_own_search_path_is_used(endpoint: Endpoint) -> None:
    assert value(endpoint, "select count(*) from orders", "== 900").answer.outcome is PASSED
    assert value(endpoint, "select current_user = 'asking'", "== true").answer.outcome is PASSED
    other = endpoint.of_database("postgres")
    assert "does not exist" in value(other, "select count(*) from orders").answer.detail
    assert (
        value(other, "select count(*) from current_schemas(false) as s where 'public' = any (s)", "== 1").answer.seen
        == "1"
    )


@pytest.mark.parametrize(
    ("table", "count", "key"),
    [
        ("orders", 900, "app app.orders"),
        ("app.orders", 900, "app app.orders"),
        ("ORDERS", 900, "app app.orders"),
        ("Orders", 2, "app app.Orders"),
        ('"Orders"', 2, "app app.Orders"),
        ('app."Orders"', 2, "app app.Orders"),
        ("app.Orders", 2, "app app.Orders"),
        ('Weird "Name', 3, 'app app.Weird "Name'),
        ('"Weird ""Name"', 3, 'app app.Weird "Name'),
        ('app.Weird "Name', 3, 'app app.Weird "Name'),
        ("a.b", 4, "app app.a.b"),
        ("app.a.b", 4, "app app.a.b"),
        ('app."a.b"', 4, "app app.a.b"),
        ('"Dotted.schema"."x.y"', 0, "app Dotted.schema.x.y"),
        ("outside", 0, "app public.outside"),
        ("few", 7, "app app.few"),
        ("kept", 5, "app app.kept"),
        ("parts", 100, "app app.parts"),
    ],
)
def test_tables_are_found_as_they_are_spelled_and_as_sql_would(
    endpoint: Endpoint, table: str, count: int, key: str
) -> None:
    found = rows(endpoint, table, min=0)
    assert found.rows == (key, count)
    assert (found.answer.outcome, found.answer.seen) == (PASSED, f"{count:,} rows")


@pytest.mark.parametrize(
    "table",
    [
        "absent",
        "public.orders",
        "orders_idx",
        "app.pg_class.x",
        "a.b.c.d.e",
        "app..orders",
        '"',
        "mood",
        "1; drop table orders",
    ],
)
def test_what_is_no_table_is_missing(endpoint: Endpoint, table: str) -> None:
    for found in (rows(endpoint, table, min=0), freshness(endpoint, "at", table)):
        assert (found.answer.outcome, found.answer.seen) == (FAILED, "no such table")
        assert table in found.answer.detail
        assert found.rows is None


@pytest.mark.parametrize(
    ("limits", "last", "outcome", "seen", "detail"),
    [
        ({"min": 900, "max": 900}, None, PASSED, "900 rows", ""),
        ({"min": 901}, None, FAILED, "900 rows", "1 fewer than 901."),
        ({"min": 2_000}, None, FAILED, "900 rows", "1,100 fewer than 2,000."),
        ({"max": 899}, None, FAILED, "900 rows", "1 more than 899."),
        ({"max_loss": "10 %"}, 1_000, PASSED, "900 rows, 1,000 the last time", ""),
        ({"max_loss": "10 %"}, 1_001, FAILED, "900 rows, 1,001 the last time", "101 fewer than the last time."),
        ({"max_loss": "0 %"}, 900, PASSED, "900 rows, 900 the last time", ""),
        ({"max_loss": "0 %"}, 901, FAILED, "900 rows, 901 the last time", "1 fewer than the last time."),
        ({"max_loss": "0 %"}, 0, PASSED, "900 rows, 0 the last time", ""),
        ({"max_loss": "5 %"}, 12, PASSED, "900 rows, 12 the last time", ""),
        ({"min": 1}, 9_000, PASSED, "900 rows", ""),
        (
            {"min": 901, "max_loss": "5 %"},
            1_000,
            FAILED,
            "900 rows, 1,000 the last time",
            "1 fewer than 901; 100 fewer than the last time.",
        ),
        ({"min": 901, "max_loss": "5 %"}, None, FAILED, "900 rows", "1 fewer than 901."),
    ],
)
def test_numbers_of_rows(  # noqa: PLR0917 - a table of cases
    endpoint: Endpoint, limits: dict[str, Any], last: int | None, outcome: DrillOutcome, seen: str, detail: str
) -> None:
    found = rows(endpoint, "orders", {} if last is None else {"app app.orders": last}, **limits)
    assert (found.answer.outcome, found.answer.seen, found.answer.detail) == (outcome, seen, detail)


def test_a_loss_is_compared_exactly(endpoint: Endpoint) -> None:
    """In binary fractions, 25 rows less 72 % are 7.000000000000001."""
    found = [rows(endpoint, "few", {"app app.few": before}, max_loss="72 %") for before in (25, 26)]
    assert [one.answer.outcome for one in found] == [PASSED, FAILED]


def test_the_first_run_cannot_tell_a_loss_and_keeps_the_number(endpoint: Endpoint) -> None:
    found = rows(endpoint, "orders", {"app app.few": 1}, max_loss="5 %")
    assert found.answer.outcome is UNVERIFIED
    assert "the history knows no earlier run" in found.answer.detail
    assert found.rows == ("app app.orders", 900)


@pytest.mark.parametrize(
    ("column", "zone", "outcome", "seen", "detail"),
    [
        ("exact", "UTC", PASSED, "2026-11-22 08:00:00 UTC, 15 min old", ""),
        ("exact", "Asia/Tokyo", PASSED, "2026-11-22 08:00:00 UTC, 15 min old", ""),
        ("local", "Europe/Berlin", PASSED, "2026-11-22 08:00:00 UTC, 15 min old", ""),
        ("local", "America/New_York", FAILED, "2026-11-22 14:00:00 UTC, 5 h 45 min in the future", "in the future"),
        ("day", "UTC", FAILED, "2026-11-22 00:00:00 UTC, 8 h 15 min old", "Older than 1 h."),
        ("day", "Asia/Tokyo", FAILED, "2026-11-21 15:00:00 UTC, 17 h 15 min old", "Older than 1 h."),
        ("ends", "UTC", FAILED, "2026-11-22 07:00:00 UTC, 1 h 15 min old", "Older than 1 h."),
        ("future", "UTC", FAILED, "2026-11-22 08:25:00 UTC, 10 min in the future", "says nothing"),
        ("distant", "UTC", FAILED, "a time after the year 9999", "says nothing"),
        ("ancient", "UTC", FAILED, "a time before the year 1", "Older than 1 h."),
        ("Mixed Case", "UTC", PASSED, "2026-11-22 08:14:59 UTC, just now", ""),
        ("none", "UTC", FAILED, "no row with a time", "has no time in none"),
        ("absent", "UTC", FAILED, "no such column", "app.times has no column absent"),
        ("ctid", "UTC", FAILED, "no such column", "app.times has no column ctid"),
        ("moody", "UTC", UNVERIFIED, "nothing", "of type text; a date or timestamp is expected"),
        ("exact", "Nowhere", UNVERIFIED, "nothing", "the server knows no time zone Nowhere"),
    ],
)
def test_how_old_the_newest_row_is(  # noqa: PLR0917 - a table of cases
    endpoint: Endpoint, column: str, zone: str, outcome: DrillOutcome, seen: str, detail: str
) -> None:
    check = FreshnessCheck.model_validate({"freshness": {"table": "times", "column": column, "max_age": "1 h"}})
    # Which zones there are, the server says, not the drill file's reader.
    asked = check.model_copy(update={"freshness": check.freshness.model_copy(update={"zone": zone})})
    found = ask(asked, endpoint, Circumstances(NOW, {}))
    assert (found.answer.outcome, found.answer.seen) == (outcome, seen)
    assert detail in found.answer.detail
    is_time = outcome is not UNVERIFIED and seen.startswith("2026") and "future" not in seen
    assert (found.newest is not None) is is_time


def test_an_empty_table_is_not_fresh(endpoint: Endpoint) -> None:
    found = freshness(endpoint, "at", "empty")
    assert (found.answer.outcome, found.answer.seen) == (FAILED, "no row with a time")


def test_clocks_may_differ_a_little() -> None:
    assert shown_age(timedelta(seconds=-90)) == "1 min 30 s in the future"
    assert shown_age(timedelta(milliseconds=-400)) == "just now"
    assert shown_age(timedelta(days=2, seconds=1)) == "2 d 1 s old"


def test_the_newest_of_several_rows_stands_in_for_the_newest_commit() -> None:
    assert newest_of([], NOW) is None
    found = newest_of([("a", NOW - timedelta(hours=2)), ("b", NOW - timedelta(hours=1))], NOW)
    assert found is not None
    assert (found.time, found.age_seconds, found.source) == (NOW - timedelta(hours=1), 3600.0, "the newest row: b")


def test_a_server_that_lets_nobody_in_is_told(server: Server) -> None:
    with server.connect() as connection:
        connection.execute("create table if not exists people (secret text)")
        connection.execute(sql.SQL("insert into people values ({})").format(sql.Literal(SECRET)))
        connection.execute("create role weak login")
    weak = Endpoint.parse(url_of(server, "postgres", "weak"), "--url")
    found = value(weak, "select count(*) from public.people")
    assert (found.answer.outcome, found.answer.detail) == (
        UNVERIFIED,
        "the server refused it: InsufficientPrivilege (SQLSTATE 42501)",
    )
