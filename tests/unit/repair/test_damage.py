"""One server, torn apart in many ways at once; what its repair makes of each."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from fixtures import Server
from pgrescue.model import Severity
from pgrescue.pipeline import Silent
from pgrescue.repair import bring_back, catalogs, foreign_keys, reindex
from pgrescue.repair.notes import Notes
from pgrescue.repair.quarantine import Quarantine
from pgrescue.repair.step import Repair
from tests.unit.repair.patients import Patient, Torn, admit, codes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgrescue.model import Finding
    from pgrescue.repair.site import Connection

LONG = "n" * 63
PAD = "repeat('x', 700)"  # ten rows to a page: 25 rows fill pages 0 and 1, and half of page 2
FILL = f"select n, 'old', {PAD} from generate_series(1, 25) n"
FILL_PAIRS = (
    "select ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, 'b%' || n, 'old',"
    f" {PAD} from generate_series(1, 25) n"
)


@dataclass(frozen=True)
class Case:
    """A table, what is done to it after its file was kept, and which pages of the kept file replace the new ones."""

    name: str
    before: str
    after: str
    old: tuple[int, ...]
    cut: int | None = None
    """How many pages are left of the file."""


def plain(name: str, after: str, *old: int, columns: str = "id int primary key, v text, pad text", **more: Any) -> Case:
    before = f"create table {name} ({columns}); insert into {name} {FILL}"
    return Case(name, before, after, old, **more)


UPDATE = "update {} set v = 'new' where id = 1"
QUOTED = 'odd."Ta ""b"" le"'
CASES = (
    plain("twice", UPDATE.format("twice"), 0),
    plain("again", "delete from again where id = 1; insert into again values (1, 'new', '')", 0),
    plain("gone", "insert into gone values (26, 'new', ''), (27, 'new', '')", 2),
    plain("deleted", "insert into deleted values (26, 'new', ''); delete from deleted where id = 26", 2),
    plain("back", UPDATE.format("back"), 2),
    plain("taken", f"delete from taken where id = 25; vacuum taken; insert into taken values (26, 'new', {PAD})", 2),
    plain("kept", f"{UPDATE.format('kept')}; update kept set v = 'newest' where id = 1", 0),
    Case(
        "hot",
        f"create table hot (id int primary key, v text, pad text); insert into hot {FILL}",
        "update hot set v = 'second' where id = 21; update hot set v = 'third' where id = 21;"
        f"insert into hot select n, 'fill', {PAD} from generate_series(26, 29) n; checkpoint;"
        "update hot set v = 'fourth', pad = repeat('y', 1900) where id = 21",
        (),
        cut=3,
    ),
    Case(
        "part",
        "create table part (id int, v text, pad text, primary key (id)) partition by range (id);"
        "create table part_1 partition of part for values from (0) to (1000);"
        f"insert into part {FILL}",
        UPDATE.format("part"),
        (0,),
    ),
    Case(
        "partial",
        f"create table partial (id int, v text, pad text); insert into partial {FILL};"
        "create unique index partial_key on partial ((id % 1000), lower(pad)) where v <> 'none'",
        UPDATE.format("partial"),
        (0,),
    ),
    Case(
        "nulls",
        "create table nulls (id int, v text, pad text, unique nulls not distinct (id));"
        f"insert into nulls select nullif(n, 1), 'old', {PAD} from generate_series(1, 25) n",
        "update nulls set v = 'new' where id is null",
        (0,),
    ),
    Case(
        "many_nulls",
        "create table many_nulls (id int unique, v text, pad text);"
        f"insert into many_nulls select nullif(nullif(n, 3), 4), 'old', {PAD} from generate_series(1, 25) n",
        UPDATE.format("many_nulls"),
        (0,),
    ),
    Case(
        "composite",
        "create table composite (a uuid, b text, v text, pad text, primary key (a, b));"
        f"insert into composite {FILL_PAIRS}",
        "insert into composite values ('00000000-0000-0000-0000-000000000099', 'b%99', 'new', '');"
        "update composite set v = 'new' where b = 'b%1'",
        (0,),
    ),
    Case(
        "lost_pair",
        "create table lost_pair (a uuid, b text, v text, pad text, primary key (a, b));"
        f"insert into lost_pair {FILL_PAIRS}",
        "insert into lost_pair values ('00000000-0000-0000-0000-000000000099', 'b%99', 'new', '')",
        (2,),
    ),
    Case(
        "guarded",
        "create table guarded (id int generated always as identity, v text, pad text,"
        " loud text generated always as (upper(v)) stored, unique (id)) ;"
        f"insert into guarded (v, pad) select 'old', {PAD} from generate_series(1, 25);"
        "create function refuse() returns trigger language plpgsql as $$ begin raise 'refused'; end $$;"
        "create rule no_delete as on delete to guarded do instead nothing;"
        "alter table guarded enable always rule no_delete;"
        "create rule no_insert as on insert to guarded do instead nothing;"
        "alter table guarded enable always rule no_insert;"
        "create trigger refuse before insert or delete on guarded for each row execute function refuse();"
        "alter table guarded enable always trigger refuse;"
        "alter table guarded enable row level security, force row level security",
        "update guarded set v = 'new' where id in (1, 2)",
        (0,),
    ),
    Case(
        "guarded_back",
        "create table guarded_back (like guarded including all);"
        f"insert into guarded_back (v, pad) select 'old', {PAD} from generate_series(1, 25);"
        "create rule no_insert as on insert to guarded_back do instead nothing;"
        "alter table guarded_back enable always rule no_insert;"
        "create trigger refuse before insert or delete on guarded_back for each row execute function refuse();"
        "alter table guarded_back enable always trigger refuse",
        "update guarded_back set v = 'new' where id = 1",
        (2,),
    ),
    Case(
        QUOTED,
        f'create schema odd; create table {QUOTED} ("I d" int primary key, "{LONG}" text, pad text);'
        f"insert into {QUOTED} {FILL}",
        f'update {QUOTED} set "{LONG}" = \'new\' where "I d" = 1',
        (0,),
    ),
    plain(LONG, UPDATE.format(LONG), 0),
    Case(
        "addresses",
        "create extension citext; create table addresses (mail citext primary key, v text, pad text);"
        f"insert into addresses select 'User' || n || '@example.org', 'old', {PAD} from generate_series(1, 25) n",
        "update addresses set mail = 'USER1@EXAMPLE.ORG', v = 'new' where mail = 'user1@example.org';"
        "insert into addresses values ('New@example.org', 'new', '')",
        (0,),
    ),
    Case(
        "colors",
        "create type color as enum ('red', 'green', 'blue'); create domain level as int check (value > 0);"
        "create table colors (c color, l level not null, pad text, primary key (c, l));"
        f"insert into colors select 'red', n, {PAD} from generate_series(1, 25) n",
        "insert into colors values ('blue', 7, '')",
        (2,),
    ),
    Case(
        "booked",
        f"create table booked (during int4range, v text, pad text, exclude using gist (during with &&));"
        f"insert into booked select int4range(n * 10, n * 10 + 5), 'old', {PAD} from generate_series(1, 25) n",
        "update booked set during = int4range(10, 16) where during = int4range(10, 15)",
        (0,),
    ),
    Case(
        "parents",
        f"create table parents (id serial primary key, v text, pad text); insert into parents {FILL};"
        "create table children (id int primary key, parent int references parents);"
        "insert into children values (1, 1), (2, null)",
        "insert into parents values (99, 'new', ''); insert into children values (3, 99)",
        (2,),
    ),
    Case(
        "keyless",
        f"create table keyless (id int, v text, pad text); insert into keyless {FILL}",
        UPDATE.format("keyless"),
        (2,),
    ),
)
ORDINARY = {case.name: case for case in CASES}


@dataclass
class Ward:
    """The patient after its repair."""

    patient: Patient
    findings: list[Finding]
    pgdata: Path
    """The data directory as it was torn."""

    @property
    def codes(self) -> dict[tuple[str, str], int | None]:
        return codes(self.findings)

    def about(self, code: str) -> list[tuple[str, int | None]]:
        return [(finding.object, finding.rows) for finding in self.findings if finding.code == code]


def run_script(server: Server, text: str, database: str = "postgres") -> None:
    with server.connect(database) as connection:
        for statement in split(text):
            connection.execute(statement.encode())


def split(script: str) -> list[str]:
    """Split a script at its semicolons, those within dollar quotes excepted."""
    return [part for part in re.split(r";(?=(?:[^$]|\$\$[^$]*\$\$)*\Z)", script) if part.strip()]


def inverted(server: Server, torn: Torn) -> Path:
    """Let a transaction with a lower id write over what one with a higher id wrote; keep the page in between."""
    run_script(server, f"create table inverted (id int primary key, v text, pad text); insert into inverted {FILL}")
    with server.connect() as early, server.connect() as late:
        early.autocommit = False
        early.execute("select pg_current_xact_id()")
        late.execute("update inverted set v = 'by the higher id', pad = pad where id = 21")
        torn.keep(path := torn.path("inverted"))
        early.execute(f"insert into inverted select n, 'fill', {PAD} from generate_series(26, 60) n".encode())
        early.execute("update inverted set v = 'by the lower id', pad = repeat('y', 1900) where id = 21")
        early.commit()
    return path


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    with Server(settings={"autovacuum": "off", "checkpoint_timeout": "1h"}) as server:
        torn = Torn(server)
        for case in CASES:
            run_script(server, case.before)
        run_script(
            server,
            "create table toasted (id int primary key, v text, w text);"
            "alter table toasted alter v set storage external;"
            "insert into toasted select n, repeat('a', 100000), 'w' || n from generate_series(1, 3) n;"
            "create table counted (id bigserial primary key); insert into counted select from generate_series(1, 5);"
            "create table falling (id int generated by default as identity (increment -1)); "
            "create unlogged table fleeting (id int primary key); insert into fleeting values (1);"
            "create materialized view seen as select 1 as a; create materialized view broken as select 2 as a;"
            "create materialized view empty as select 3 as a with no data;"
            "create database other; vacuum twice; analyze",
        )
        files = {case.name: torn.path("part_1" if case.name == "part" else case.name) for case in CASES}
        with server.connect() as connection:
            row = connection.execute("select reltoastrelid::regclass::text from pg_class where relname = 'toasted'")
            toast = torn.path(str(row.fetchall()[0][0]))
        files |= {"toast": toast, "counter": torn.path("counted_id_seq"), "statistics": torn.path("pg_statistic")}
        files |= {"seen": torn.path("broken"), "falling": torn.path("falling_id_seq")}
        files |= {"relname": torn.path("pg_class_relname_nsp_index", "other")}
        torn.keep(*files.values())
        for case in CASES:
            run_script(server, case.after)
        run_script(
            server,
            "insert into toasted values (4, repeat('b', 100000), 'w4'); insert into counted select from"
            " generate_series(1, 40); insert into falling select from generate_series(1, 40);"
            "insert into twice select n, 'x', '' from generate_series(100, 5000) n; analyze twice; delete from twice"
            # Published tables without a key refuse updates and deletions, those of the repair too.
            " where id >= 100; analyze; create publication everything for all tables; checkpoint",
        )
        between = inverted(server, torn)
        server.stop()
        torn.put_back(between, blocks=[2])
        for case in CASES:
            torn.put_back(files[case.name], blocks=case.old)
            if case.cut is not None:
                with files[case.name].open("r+b") as file:
                    file.truncate(case.cut * 8192)
        for name in ("toast", "counter", "falling"):
            torn.put_back(files[name])
        torn.put_back(files["statistics"], blocks=[0, 1, 2])
        files["seen"].unlink()
        files["relname"].write_bytes(b"\0" * 16384)
        pgdata = tmp_path_factory.mktemp("torn") / "pgdata"
        shutil.copytree(server.pgdata, pgdata)
    patient = admit(pgdata, tmp_path_factory.mktemp("ward"))
    try:
        yield Ward(patient, patient.repair(), pgdata)
    finally:
        patient.run.engine.remove()


def test_nothing_is_left_undone(ward: Ward) -> None:
    errors = [finding for finding in ward.findings if finding.severity is Severity.ERROR]
    assert {(finding.code, finding.object) for finding in errors} == {
        ("index_not_rebuilt", "postgres.public.booked_during_excl")
    }, errors


@pytest.mark.parametrize(
    "name", ["twice", "again", "part_1", "partial", "nulls", "many_nulls", LONG, "kept", "inverted"]
)
def test_of_two_rows_with_one_key_the_newest_stays_and_the_other_is_kept_whole(ward: Ward, name: str) -> None:
    where, new, old = {
        "nulls": ("id is null", "new", "old"),
        "kept": ("id = 1", "newest", "old"),
        "inverted": ("id = 21", "by the lower id", "by the higher id"),
    }.get(name, ("id = 1", "new", "old"))
    if name == "inverted":
        assert ward.patient.query(f"select v from inverted where {where}") == [(new,)]
        return
    assert ward.patient.query(f"select v from {name} where {where}") == [(new,)]
    place = f'pgrescue_quarantine."public.{name}"' if name != LONG else None
    if place is None:
        ((found,),) = ward.patient.query("select relname from pg_class where relname like 'public.nnn%'")
        assert len(found) == 63
        assert found.rpartition(".")[2].isdigit()
        place = f'pgrescue_quarantine."{found}"'
    rows = ward.patient.query(
        f"select v, length(pad), pgrescue_ctid is not null, pgrescue_xmin > 0, pgrescue_reason from {place}"
    )
    assert [row[:4] for row in rows] == [(old, 700, True, True)]
    assert "older version" in rows[0][4]
    assert ward.codes["duplicates_set_aside", f"postgres.public.{name}"] == 1
    (told,) = ward.patient.rows(f"public.{name}", "set_aside")
    assert set(told) == {"ctid", "xmin", "key", "reason"}
    assert told["key"] == ({"id": "1"} if name not in {"partial", "nulls"} else told["key"])


def test_rows_beside_the_torn_ones_are_all_there_and_nulls_are_no_duplicates(ward: Ward) -> None:
    assert ward.patient.query("select count(*), count(distinct id) from twice") == [(25, 25)]
    assert ward.patient.query("select count(*), count(id) from many_nulls") == [(25, 23)]
    assert ward.patient.one("select count(*) from part") == 25


def test_composite_keys_with_a_percent_sign(ward: Ward) -> None:
    assert ward.patient.query("select v from composite where b = 'b%1'") == [("new",)]
    (told,) = ward.patient.rows("public.composite", "set_aside")
    assert told["key"] == {"a": "00000000-0000-0000-0000-000000000001", "b": "b%1"}
    (lost,) = ward.patient.rows("public.lost_pair", "lost")
    assert lost["key"] == {"a": "00000000-0000-0000-0000-000000000099", "b": "b%99"}


def test_odd_names_are_no_obstacle(ward: Ward) -> None:
    assert ward.patient.query(f'select "{LONG}" from {QUOTED} where "I d" = 1') == [("new",)]
    assert ward.patient.query(f'select "{LONG}" from pgrescue_quarantine."odd.Ta ""b"" le"') == [("old",)]


def test_what_guards_a_table_neither_fires_nor_changes(ward: Ward) -> None:
    assert ward.patient.query("select id, v, loud from guarded where id < 3 order by id") == [
        (1, "new", "NEW"),
        (2, "new", "NEW"),
    ]
    assert ward.patient.query('select id, v, loud from pgrescue_quarantine."public.guarded" order by id') == [
        (1, "old", "OLD"),
        (2, "old", "OLD"),
    ]
    assert ward.patient.query("select id, v, loud from guarded_back where id = 1") == [(1, "old", "OLD")]
    for table, rules in (("guarded", 2), ("guarded_back", 1)):
        states = ward.patient.query(
            f"select ev_enabled::text from pg_rewrite where ev_class = '{table}'::regclass union all"
            f" select tgenabled::text from pg_trigger where tgrelid = '{table}'::regclass"
        )
        assert states == [("A",)] * (rules + 1)
        assert ward.patient.one(f"select relreplident::text from pg_class where relname = '{table}'") == "d"
    assert ward.patient.query("select relrowsecurity, relforcerowsecurity from pg_class where relname = 'guarded'") == [
        (True, True)
    ]


def test_case_does_not_tell_citext_keys_apart(ward: Ward) -> None:
    assert ward.patient.query("select mail::text, v from addresses where mail = 'user1@example.org'") == [
        ("USER1@EXAMPLE.ORG", "new")
    ]
    assert ward.codes["duplicates_set_aside", "postgres.public.addresses"] == 1
    assert ward.patient.rows("public.addresses", "lost") == []


def test_lost_rows_are_named_by_their_key(ward: Ward) -> None:
    assert [row["key"] for row in ward.patient.rows("public.gone", "lost")] == [{"id": "26"}, {"id": "27"}]
    assert ward.codes["rows_lost", "postgres.public.gone"] == 2
    assert [row["key"] for row in ward.patient.rows("public.colors", "lost")] == [{"c": "blue", "l": "7"}]
    assert ("rows_lost", "postgres.public.twice") not in ward.codes


def test_a_lost_row_is_named_when_another_one_is_where_its_index_leads_to(ward: Ward) -> None:
    """Row 26 had the place of row 25, which the copy of the table, being older, still has."""
    assert ward.patient.one("select count(*) from taken where id = 25") == 1
    assert [row["key"] for row in ward.patient.rows("public.taken", "perhaps_lost")] == [{"id": "26"}]
    assert ward.codes["rows_perhaps_lost", "postgres.public.taken"] == 1


@pytest.mark.parametrize(("name", "id_", "version"), [("back", 1, "old"), ("hot", 21, "third")])
def test_an_older_version_comes_back_where_the_newest_was_lost(ward: Ward, name: str, id_: int, version: str) -> None:
    assert ward.patient.query(f"select v from {name} where id = {id_}") == [(version,)]
    assert ward.codes["rows_brought_back", f"postgres.public.{name}"] == 1
    assert [row["key"] for row in ward.patient.rows(f"public.{name}", "brought_back")] == [{"id": str(id_)}]
    assert ward.patient.one(f'select count(*) from pgrescue_quarantine."public.{name}"') == 0
    assert ward.patient.rows(f"public.{name}", "lost") == []


def test_without_a_key_an_older_version_is_only_told(ward: Ward) -> None:
    assert ward.codes["rows_uncertain", "postgres.public.keyless"] == 1
    assert len(ward.patient.rows("public.keyless", "uncertain")) == 1
    (told,) = [finding for finding in ward.findings if finding.code == "tables_without_key"]
    assert "public.keyless" in told.detail
    assert "public.partial" in told.detail
    assert "public.twice" not in told.detail


def test_a_row_without_its_large_value_is_set_aside_with_the_rest_of_it(ward: Ward) -> None:
    assert ward.patient.query("select id, length(v) from toasted order by id") == [(1, 10**5), (2, 10**5), (3, 10**5)]
    rows = ward.patient.query('select id, v, w, pgrescue_reason from pgrescue_quarantine."public.toasted"')
    assert [row[:3] for row in rows] == [(4, None, "w4")]
    assert "v: " in rows[0][3]
    assert "missing chunk" in rows[0][3]
    assert ward.codes["rows_unreadable_set_aside", "postgres.public.toasted"] == 1


def test_rows_that_exclude_one_another_are_told(ward: Ward) -> None:
    assert ("constraint_violated", "postgres.public.booked_during_excl") in ward.codes


def test_children_without_a_parent_are_told_and_stay(ward: Ward) -> None:
    assert ward.codes["foreign_key_dangling", "children_parent_fkey on postgres.public.children"] == 1
    (told,) = ward.patient.manifest["foreign_keys"]
    assert told["rows"] == 1
    assert told["examples"][0]["key"] == {"parent": "99"}
    assert ward.patient.one("select count(*) from children") == 3


def test_sequences_are_ahead_of_their_columns(ward: Ward) -> None:
    assert ward.patient.one("select last_value from counted_id_seq") == 45
    assert ward.patient.one("select nextval('falling_id_seq')") == -41
    assert ward.about("sequence_moved") == [
        ("postgres.public.counted_id_seq", None),
        ("postgres.public.falling_id_seq", None),
        ("postgres.public.parents_id_seq", None),
    ]


def test_a_number_that_only_a_lost_rows_children_still_have_is_not_given_out_again(ward: Ward) -> None:
    """The parent 99 is lost, its child is not: a new parent 99 would get that child."""
    assert ward.patient.one("select count(*) from parents where id = 99") == 0
    assert ward.patient.one("select last_value from parents_id_seq") == 99


def test_unlogged_tables_are_empty_and_work(ward: Ward) -> None:
    assert ward.patient.one("select count(*) from fleeting") == 0
    (told,) = [finding for finding in ward.findings if finding.code == "unlogged_truncated"]
    assert "public.fleeting" in told.detail
    ward.patient.one("with new as (insert into fleeting values (7) returning id) select id from new")
    assert ward.patient.one("select id from fleeting where id = 7", options="-c enable_seqscan=off") == 7


def test_a_materialized_view_without_its_file_is_told(ward: Ward) -> None:
    assert ward.about("materialized_view_broken") == [("postgres.public.broken", None)]
    assert ward.patient.one("select a from seen") == 1


def test_catalog_rows_that_were_there_twice_are_removed_and_written_down(ward: Ward) -> None:
    told = ward.codes["catalog_duplicates_removed", "postgres"]
    assert told is not None
    assert told == len([row for row in ward.patient.manifest["catalog_rows_removed"] if row["database"] == "postgres"])
    assert (
        ward.patient.query(
            "select 1 from pg_statistic group by starelid, staattnum, stainherit having count(*) > 1",
            options="-c enable_indexscan=off",
        )
        == []
    )


def test_a_database_whose_catalogs_had_no_index_lets_everybody_in(ward: Ward) -> None:
    assert ward.patient.one("select count(*) from pg_class where relname = 'pg_class'", "other") == 1


def test_every_index_agrees_with_its_table(ward: Ward) -> None:
    with ward.patient.connect() as connection:
        connection.execute("create extension if not exists amcheck")
        names = connection.execute(
            "select i.indexrelid::regclass::text, i.indisunique from pg_index i join pg_class c on c.oid = i.indexrelid"
            " join pg_am a on a.oid = c.relam where a.amname = 'btree' and i.indisvalid and c.relkind = 'i'"
            " and c.relpersistence = 'p'"
        ).fetchall()
        for name, is_unique in names:
            connection.execute("select bt_index_check(%s::regclass, true, %s)", (name, is_unique))
        tables = connection.execute(
            "select c.oid::regclass::text from pg_class c where c.relkind in ('r', 't') and c.relpersistence = 'p'"
        ).fetchall()
        damaged = [
            (table, row)
            for (table,) in tables
            for row in connection.execute("select * from verify_heapam(%s::regclass)", (table,)).fetchall()
        ]
    assert damaged == []


def test_no_tool_is_left_behind(ward: Ward) -> None:
    assert ward.patient.query("select extname from pg_extension where extname = 'pg_surgery'") == []
    assert ward.patient.query("select 1 from pg_namespace where nspname = 'pgrescue_tools'") == []


def test_counts_agree_with_the_manifest(ward: Ward) -> None:
    of = {
        "rows_lost": "lost",
        "rows_brought_back": "brought_back",
        "rows_perhaps_lost": "perhaps_lost",
        "rows_undecided": "undecided",
        "rows_uncertain": "uncertain",
    }
    for finding in ward.findings:
        if finding.code in of:
            database, _, table = finding.object.partition(".")
            assert len(ward.patient.rows(table, of[finding.code], database)) == finding.rows, finding


def test_a_second_repair_finds_the_same(ward: Ward) -> None:
    again = ward.patient.repair()
    assert [finding.detail for finding in again if finding not in ward.findings] == []
    assert codes(again) == ward.codes


@dataclass(frozen=True)
class Point:
    """Where a repair ends: at which call of which function, before it begins or after it has ended."""

    owner: object
    name: str
    call: int = 1
    after: bool = False


@pytest.mark.parametrize(
    "point",
    [
        Point(catalogs, "_remove"),
        Point(bring_back, "_take"),
        Point(bring_back, "_move", call=2, after=True),
        Point(Quarantine, "keep", call=9, after=True),
        Point(bring_back, "restore", call=8, after=True),
        Point(Notes, "keep_old_key", call=4, after=True),
        Point(Notes, "add_missing", call=5),
        Point(foreign_keys, "check"),
    ],
    ids=lambda point: point.name,
)
def test_a_repair_that_was_interrupted_is_carried_on(
    ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: Point
) -> None:
    patient = admit(ward.pgdata, tmp_path)
    try:
        with monkeypatch.context() as patch:
            interrupt(patch, point)
            with pytest.raises(KeyboardInterrupt):
                Repair().apply(patient.run, Silent())
        assert not Repair().holds(patient.run)
        again = patient.repair()
        assert [finding for finding in again if finding not in ward.findings] == []
        assert codes(again) == ward.codes
        assert patient.manifest == ward.patient.manifest
    finally:
        patient.run.engine.remove()


def interrupt(monkeypatch: pytest.MonkeyPatch, point: Point) -> None:
    """End the repair there as Ctrl-C does."""
    original = getattr(point.owner, point.name)
    calls = itertools.count(1)

    def interrupted(*args: Any, **options: Any) -> Any:
        is_it = next(calls) == point.call
        if is_it and not point.after:
            raise KeyboardInterrupt
        result = original(*args, **options)
        if is_it:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(point.owner, point.name, interrupted)


def test_a_backend_that_crashes_costs_nothing(ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL ends all sessions then, and recovers; what they were at is done again."""
    patient = admit(ward.pgdata, tmp_path)
    original = reindex.rebuild
    calls = itertools.count(1)

    def rebuild(connection: Connection, *args: Any) -> None:
        if next(calls) == 5:
            os.kill(connection.info.backend_pid, signal.SIGKILL)
        original(connection, *args)

    monkeypatch.setattr(reindex, "rebuild", rebuild)
    try:
        again = patient.repair()
        assert next(calls) > len(CASES) + 5
        assert [finding for finding in again if finding not in ward.findings] == []
        assert patient.manifest == ward.patient.manifest
    finally:
        patient.run.engine.remove()
