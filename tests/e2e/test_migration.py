"""`pgrescue migration`: the file, applied to a database of the same schema, makes its content that of the source."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from fixtures import Server
from fixtures.binaries import find_bindir
from pgrescue.transfer import migration_dump
from pgrescue.transfer.compare import CompareLevel, content_query, read_content
from pgrescue.transfer.endpoint import Endpoint
from pgrescue.transfer.large_objects import digest
from pgrescue.transfer.sessions import reading
from pgrescue.transfer.tables import read_sequences, read_tables
from tests.cli import pgrescue
from tests.contract import engines_native
from tests.unit.cli.conftest import pgrescue as in_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli import Rescue
    from tests.conftest import Rescuer
    from tests.snapshots import Shelf

ODD = Path(__file__).with_name("odd.sql").read_bytes()
BOOKKEEPING = {"public._prisma_migrations", "public.migrations"}
FIELDS = {"schema", "migration", "source", "database", "tables", "size_bytes", "findings", "seconds"}


@dataclass(frozen=True)
class Place:
    """A server, by a connection string without a database, and where its psql and pg_dump are."""

    conninfo: str
    bindir: Path

    def of(self, database: str, user: str | None = None) -> str:
        return psycopg.conninfo.make_conninfo(self.conninfo, dbname=database, **({"user": user} if user else {}))

    def connect(self, database: str) -> psycopg.Connection:
        return psycopg.connect(self.of(database), autocommit=True)

    def ask(self, database: str, query: str) -> Any:
        with self.connect(database) as connection:
            row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]

    def schema(self, database: str) -> str:
        """Return the schema as pg_dump tells it, without its random marks."""
        told = self._run("pg_dump", "--schema-only", "--dbname", self.of(database)).stdout
        return re.sub(r"^\\(un)?restrict .*$", "", told, flags=re.MULTILINE)

    def same_schema(self, database: str, name: str, *, owner: str) -> None:
        """Make an empty database with the schema of another one."""
        with self.connect("postgres") as connection:
            connection.execute(f'CREATE DATABASE "{name}" OWNER {owner}'.encode())
        self._run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", self.of(name), text=self.schema(database))

    def apply(self, file: Path, database: str, *options: str, user: str | None = None) -> None:
        self._run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", *options, "-f", str(file), self.of(database, user))

    def _run(self, program: str, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        done = subprocess.run(
            [self.bindir / program, *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            env={**env, "PGCLIENTENCODING": "UTF8"},
        )
        assert done.returncode == 0, done.stderr
        return done

    def different(self, one: str, other: str) -> set[str]:
        """Return the tables whose rows are not the same in two databases, and sequences that stand elsewhere."""
        endpoints = [Endpoint.parse(self.of(name), "-") for name in (one, other)]
        with (
            reading(endpoints[0], encoding="UTF8", snapshot=None) as here,
            reading(endpoints[1], encoding="UTF8", snapshot=None) as there,
        ):
            # Where a row of an enum's hash lies depends on the enum's number in this database.
            tables = [table for table in read_tables(here) if not table.name.startswith("by_mood_")]
            assert {table.label for table in tables} == {
                table.label for table in read_tables(there) if not table.name.startswith("by_mood_")
            }
            found = set()
            for table in tables:
                statement = content_query(table, CompareLevel.HASH)
                if read_content(here, statement) != read_content(there, statement):
                    found.add(table.label)
            found |= {one.label for one in set(read_sequences(here)) ^ set(read_sequences(there))}
            return found | ({"large objects"} if digest(here) != digest(there) else set())


def codes(document: dict[str, Any]) -> dict[str, str]:
    """Return the findings' objects by their codes."""
    return {finding["code"]: finding["object"] for finding in document["findings"]}


# --- a rescued portal, over both engines


@pytest.fixture(scope="module")
def rescued(shelf: Shelf, shared_rescue: Rescuer, engine_name: str) -> Rescue:
    found = shared_rescue(shelf.get("stopped-tar"), "--engine", engine_name)
    found.done.ok()
    return found


@pytest.fixture(scope="module")
def portal(rescued: Rescue) -> Place:
    place = Place(rescued.url, find_bindir(17))
    place.same_schema("portal", "target", owner="portal")
    return place


def test_the_rows_of_a_rescued_database_arrive_all_and_alike_however_often(
    rescued: Rescue, portal: Place, tmp_path: Path
) -> None:
    home = rescued.workspace.parent
    arguments = ("restore", "--database", "portal", "--out", tmp_path / "db", "--json")
    document = pgrescue("migration", *arguments, cwd=home).ok().document()
    assert set(document) == FIELDS
    file = tmp_path / "db" / "restore" / "migration.sql"
    assert document["migration"] == str(file)
    assert document["database"] == "portal"
    assert document["size_bytes"] == file.stat().st_size
    rows = {table["name"]: table["rows"] for table in document["tables"]}
    assert rows["public.orders"] == portal.ask("portal", "SELECT count(*) FROM orders") > 0
    assert set(codes(document)) == {"foreign_keys_made_anew", "large_objects_by_number", "views_to_refresh"}

    text = file.read_text()
    first = next(line for line in text.splitlines() if line and not line.startswith("--"))
    assert first.startswith("TRUNCATE TABLE")
    assert first.endswith(" CASCADE;")
    assert '"public"."events"' in first
    assert "events_2026_01" not in first
    assert not re.search(r"^(SET|COPY|\\)|set_config", text, re.MULTILINE)
    assert "INSERT INTO public.users (id, email, name, " in text
    assert rescued.password not in text + json.dumps(document)

    schema = portal.schema("target")
    assert portal.different("portal", "target") >= {"public.orders", "public.users_id_seq", "large objects"}
    for _ in range(2):
        portal.apply(file, "target", "-1")
        assert portal.different("portal", "target") == set()
    assert portal.schema("target") == schema
    assert portal.ask("target", "SELECT string_agg(display, '' ORDER BY id) FROM users") == portal.ask(
        "portal", "SELECT string_agg(display, '' ORDER BY id) FROM users"
    )
    assert [path.name for path in file.parent.iterdir()] == ["migration.sql"]
    assert not [path for path in rescued.workspace.iterdir() if "dump" in path.name]

    before = file.read_bytes()
    again = pgrescue("migration", *arguments, cwd=home)
    assert again.status == 2
    assert "not overwritten" in again.document()["error"]["problem"]
    assert file.read_bytes() == before


def test_rows_that_refer_to_nothing_do_not_keep_the_others_out(rescued: Rescue, portal: Place, tmp_path: Path) -> None:
    with portal.connect("postgres") as connection:
        connection.execute("CREATE DATABASE dangling TEMPLATE portal")
    with portal.connect("dangling") as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("DELETE FROM accounts WHERE id IN (SELECT min(account_id) FROM ledger)")
    done = in_process("migration", "x", rescued.workspace, "--database", "dangling", "--out", tmp_path, "--json")
    assert done.status == 0, done.stdout
    assert codes(done.document())["constraint_not_valid"] == "public.ledger.ledger_account_id_fkey"
    portal.same_schema("dangling", "mended", owner="portal")
    for _ in range(2):
        portal.apply(tmp_path / "x" / "migration.sql", "mended", "-1")
    assert portal.different("dangling", "mended") == set()
    assert portal.ask("mended", "SELECT string_agg(conname, ',') FROM pg_constraint WHERE NOT convalidated") == (
        "ledger_account_id_fkey"
    )


def test_what_cannot_be_meant_or_must_not_be_believed_writes_nothing(rescued: Rescue, tmp_path: Path) -> None:
    def refused(*options: str) -> tuple[int, str]:
        done = in_process("migration", "x", rescued.workspace, "--out", tmp_path / "db", "--json", *options)
        error = done.document()["error"]
        return done.status, f"{error['problem']} {error['hint']}"

    status, said = refused()
    assert (status, "several databases" in said, "--database" in said) == (2, True, True)
    report = rescued.workspace / "report.json"
    kept = report.read_bytes()
    report.write_text(json.dumps({**json.loads(kept), "verdict": "damaged"}))
    try:
        status, said = refused("--database", "portal")
    finally:
        report.write_bytes(kept)
    assert (status, "--salvage" in said) == (1, True)
    assert list(tmp_path.iterdir()) == []


# --- a live server with everything that is odd


@dataclass(frozen=True)
class Odd:
    """A live server with the database `odd`, and an empty one with its schema, `target`."""

    place: Place
    home: Path

    def migrate(self, name: str, *arguments: str) -> dict[str, Any]:
        """Run the command in this process: starting one takes longer than the rest."""
        source = ("--source-url", self.place.of("odd"), "--engine", "native")
        done = in_process("migration", name, *source, "--out", self.home, "--json", *arguments)
        assert done.status == 0, done.stdout + done.stderr
        document = done.document()
        assert isinstance(document, dict)
        return document

    def file(self, name: str) -> Path:
        return self.home / name / "migration.sql"


@contextlib.contextmanager
def odd_server(major: int, home: Path) -> Iterator[Odd]:
    engines_native.require(major)
    with Server(major=major) as server:
        place = Place(server.conninfo(), find_bindir(major))
        with server.connect() as connection:
            connection.execute("CREATE ROLE app LOGIN")
            connection.execute("CREATE DATABASE odd OWNER app")
        with server.connect("odd") as connection:
            connection.execute("ALTER SCHEMA public OWNER TO app")
            connection.execute("CREATE FOREIGN DATA WRAPPER nothing")
            connection.execute("CREATE SERVER elsewhere FOREIGN DATA WRAPPER nothing")
            connection.execute("GRANT USAGE ON FOREIGN SERVER elsewhere TO app")
        with server.connect("odd", user="app") as connection:
            connection.execute(ODD)
        place.same_schema("odd", "target", owner="app")
        yield Odd(place, home)


@pytest.fixture(scope="module", params=[pytest.param(18, marks=pytest.mark.native, id="18")])
def odd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Odd]:
    with odd_server(request.param, tmp_path_factory.mktemp("odd")) as found:
        yield found


def stain(place: Place) -> None:
    """Put rows into the target that must be gone afterwards, and one into what is not the migration's to empty."""
    with place.connect("target") as connection:
        connection.execute("INSERT INTO zz_parents VALUES (4711, 'of the target')")
        connection.execute("INSERT INTO late VALUES (4711, 4711)")
        connection.execute("INSERT INTO birds VALUES ('dodo', 2)")
        connection.execute("INSERT INTO sales.regions VALUES (1)")
        connection.execute("INSERT INTO sales.fish VALUES ('cod', 3)")
        connection.execute("INSERT INTO sales.visits VALUES (5, NULL)")
        connection.execute("INSERT INTO _prisma_migrations (migration_name) VALUES ('of the target')")


def test_everything_odd_arrives_as_it_is_by_the_hand_of_the_owner(odd: Odd) -> None:
    check_everything(odd)


@pytest.mark.native
def test_everything_odd_arrives_from_an_older_major_too(tmp_path: Path) -> None:
    with odd_server(15, tmp_path) as odd:
        check_everything(odd)


def check_everything(odd: Odd) -> None:
    place, file = odd.place, odd.file("all")
    document = odd.migrate("all")
    found = codes(document)
    assert set(found["bookkeeping_left_out"].split(", ")) == BOOKKEEPING
    assert found["migration_empties_more"] == "sales.remarks, sales.visits"
    assert found["migration_refers_to_more"] == "sales.regions"
    assert found["migration_leaves_out"] == "public.far, public.mixed_far"
    assert found["views_to_refresh"] == '"public"."counted", "public"."Counted again"'
    assert found["migration_needs_setting"] == "odd"
    assert found["large_objects_by_number"] == "large objects"
    assert set(found["foreign_keys_made_anew"].split(", ")) == {
        "public.b_uses_parts.b_uses_parts_part_fkey",
        "public.chickens.from an egg",
        "public.eggs.laid",
        "public.late.late_parent_fkey",
        "public.orphans.orphans_parent_fkey",
        "public.parts.parts_kind_fkey",
        "public.staff.staff_boss_fkey",
    }
    assert "constraint_not_valid" not in found
    assert not {table["name"] for table in document["tables"]} & BOOKKEEPING

    stain(place)
    schema = place.schema("target")
    # Without a transaction it may end anywhere, such as before the foreign keys are there again.
    cut = odd.home / "cut.sql"
    cut.write_bytes(file.read_bytes().rpartition(b"\nSELECT pg_catalog.setval")[0])
    place.apply(cut, "target", user="app")
    assert place.schema("target") != schema
    # Bookkeeping is the target's own; what the TRUNCATE reaches is empty; the rest of `sales` is not in the file.
    others = {"public._prisma_migrations", "public._prisma_migrations_id_seq", "public.migrations"}
    others |= {"public.migrations_id_seq", "sales.visits", "sales.migrations", "sales.fish"}
    for options in (["-1"], ["-1"], []):
        place.apply(file, "target", *options, user="app")
        assert place.different("odd", "target") == others
        assert place.schema("target") == schema == place.schema("odd")
    assert place.ask("target", "SELECT count(*) FROM sales.visits") == 0
    assert place.ask("target", "SELECT count(*) FROM sales.fish") == 1
    assert place.ask("target", "SELECT migration_name FROM _prisma_migrations") == "of the target"
    for query in (
        """SELECT string_agg(doubled, '|' ORDER BY id) FROM "Odd ""Values""; --\"""",
        "SELECT string_agg(t::text, '|' ORDER BY number) FROM by_mood AS t",
        "SELECT obj_description(oid) FROM pg_constraint WHERE conname = 'laid'",
        "SELECT sum(one) FROM only_generated",
    ):
        assert place.ask("target", query) == place.ask("odd", query) is not None


def test_single_tables_are_taken_where_they_are_named(odd: Odd) -> None:
    place = odd.place
    document = odd.migrate("some", "--table", "shops", "--table", "sales.regions", "--table", "parts_2")
    assert [table["name"] for table in document["tables"]] == [
        *("public.parts_2_high", "public.parts_2_low", "public.shops", "sales.regions")
    ]
    text = odd.file("some").read_text()
    assert "setval('sales.numbers', 701, true)" in text
    assert "lo_from_bytea" not in text
    place.same_schema("odd", "some", owner="app")
    with place.connect("some") as connection:
        connection.execute("INSERT INTO z_kinds VALUES (1), (2)")
        connection.execute("INSERT INTO parts VALUES (4, 1), (101, 1)")
    for _ in range(2):
        place.apply(odd.file("some"), "some", "-1", user="app")
    for table in ("shops", "sales.regions", "parts_2"):
        query = f"SELECT string_agg(t::text, '|' ORDER BY id) FROM {table} AS t"
        assert place.ask("some", query) == place.ask("odd", query)
    assert place.ask("some", "SELECT count(*) FROM parts_1") == 1


def test_all_schemas_and_bookkeeping_are_taken_when_asked_for_and_long_rows_have_statements_of_their_own(
    odd: Odd, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if 1000 bytes were much: a real table of that kind takes too long to make.
    monkeypatch.setattr(migration_dump, "_MOST_BYTES", 1000)
    found = codes(odd.migrate("both", "--schema", "public", "--schema", "sales", "--with-bookkeeping"))
    assert not {"bookkeeping_left_out", "migration_empties_more", "migration_refers_to_more"} & set(found)
    assert "public.z_of_wide.z_of_wide_id_fkey" in found["foreign_keys_made_anew"]
    text = odd.file("both").read_text()
    assert text.count("INSERT INTO public.wide ") == 4
    assert text.count("INSERT INTO public.zz_parents ") == 3
    assert text.index("INSERT INTO public.wide ") > text.index("INSERT INTO public.z_of_wide ")
    odd.place.same_schema("odd", "both", owner="app")
    odd.place.apply(odd.file("both"), "both", "-1", user="app")
    assert odd.place.different("odd", "both") == set()


@contextlib.contextmanager
def busy(place: Place, database: str, statement: bytes) -> Iterator[list[int]]:
    """Commit a statement again and again while the block runs; yield how often, as a list of one number."""
    done, over = [0], threading.Event()

    def work() -> None:
        with place.connect(database) as connection:
            while not over.is_set():
                connection.execute(statement)
                done[0] += 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield done
    finally:
        over.set()
        worker.join()


def test_a_busy_server_is_written_as_of_one_moment_and_kept_out_of_git(odd: Odd, tmp_path: Path) -> None:
    place, repository = odd.place, tmp_path / "repo"
    (repository / ".git").mkdir(parents=True)
    (repository / ".gitignore").write_bytes(b"node_modules\r\n/dist")
    with place.connect("postgres") as connection:
        connection.execute("CREATE DATABASE busy")
    with place.connect("busy") as connection:
        connection.execute("CREATE TABLE ones (id bigserial); CREATE TABLE others (id bigserial)")
    place.same_schema("busy", "quiet", owner="app")
    both = b"INSERT INTO ones DEFAULT VALUES; INSERT INTO others DEFAULT VALUES"
    source = ("--source-url", place.of("busy"), "--engine", "native")
    with busy(place, "busy", both) as count:
        while count[0] < 10:
            time.sleep(0.01)
        before = count[0]
        done = in_process("migration", "now", *source, "--out", repository / "db", "--sensitive", "--json")
        assert count[0] > before + 10
    assert done.status == 0, done.stdout
    place.apply(repository / "db" / "now" / "migration.sql", "quiet", "-1")
    rows = {table["name"]: table["rows"] for table in done.document()["tables"]}
    for table in ("ones", "others"):
        assert place.ask("quiet", f"SELECT count(*) FROM {table}") == rows["public.ones"] == rows["public.others"]
        assert place.ask("quiet", f"SELECT nextval('{table}_id_seq')") > rows["public.ones"]
    assert (repository / ".gitignore").read_bytes() == b"node_modules\r\n/dist\r\n/db/now/"
