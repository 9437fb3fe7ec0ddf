"""`pgrescue to-cluster`: the whole content of a database arrives, whatever is in it, and is compared."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from fixtures import Server, fill, stopped_tar
from tests.cli import pgrescue
from tests.conftest import require_engine
from tests.targets import OWNER, contents, new_database, url_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli import Done, Rescue
    from tests.conftest import Rescuer
    from tests.snapshots import Shelf

FIELDS = [
    "schema",
    "outcome",
    "source",
    "database",
    "target",
    "source_version",
    "target_version",
    "compare",
    "tables",
    "steps",
    "findings",
    "seconds",
]


@pytest.fixture(scope="module")
def target() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture(scope="module")
def source() -> Iterator[Server]:
    with Server() as server:
        with server.connect() as connection:
            connection.execute("create database everything")
        with server.connect("everything") as connection:
            connection.execute((Path(__file__).parent / "everything.sql").read_bytes())
            connection.execute("vacuum analyze")
        yield server


def moved(done: Done) -> dict[str, object]:
    """Return the report of a transfer that went well."""
    done.ok()
    report = done.document()
    assert report["outcome"] == "moved"
    assert [one for one in report["tables"] if not one["equal"]] == []
    assert [one for one in report["findings"] if one["severity"] == "error"] == []
    return report


def live(source: Server, database: str, target: Server, into: str, *options: str, user: str = "postgres") -> Done:
    return pgrescue(
        "to-cluster",
        *("--source-url", url_of(source, database), "--target-url", url_of(target, into, user)),
        *("--engine", "native", "--json"),
        *options,
        cwd=source.home,
    )


def schema_of(server: Server, database: str) -> str:
    """Return what pg_dump says of a schema, without what differs from run to run."""
    done = subprocess.run(
        [server.tool("pg_dump"), "--schema-only", "--no-owner", "-d", server.conninfo(database)],
        capture_output=True,
        text=True,
        check=True,
    )
    return re.sub(r"^\\(?:un)?restrict .*$", "", done.stdout, flags=re.MULTILINE)


def nothing_is_left(server: Server, database: str) -> None:
    with server.connect(database) as connection:
        assert connection.execute("select count(*) from pg_namespace where nspname ~ 'pgrescue'").fetchone() == (0,)


def test_one_of_everything_arrives_as_it_was(source: Server, target: Server) -> None:
    database = new_database(target)
    report = moved(live(source, "everything", target, database))
    assert list(report) == FIELDS
    # The transfer commits asynchronously until the very end: then all of it must be on disk.
    target.stop(immediate=True)
    target.start()
    nothing_is_left(target, database)
    assert schema_of(target, database) == schema_of(source, "everything")
    with source.connect("everything") as here, target.connect(database) as there:
        assert contents(there) == contents(here)
        assert len(contents(here)) >= 15
        for query in (
            "select oid, md5(lo_get(oid)), obj_description(oid, 'pg_largeobject') from pg_largeobject_metadata",
            "select count(*), sum(rows) from warehouse.a_second_view",
            "select relname, relispopulated from pg_class where relkind = 'm' order by 1",
        ):
            assert there.execute(query.encode()).fetchall() == here.execute(query.encode()).fetchall()
        # Rows came frozen, so that nobody writes them a second time.
        assert there.execute(
            "select relallvisible * 2 > relpages from pg_class where relname = 'values_of_all_kinds'"
        ).fetchone() == (True,)


def test_a_plain_owner_gets_the_same_data_in_two_at_a_time_and_one(source: Server, target: Server) -> None:
    database = new_database(target)
    report = moved(live(source, "everything", target, database, "--jobs", "1", "--compare", "count", user=OWNER))
    assert report["compare"] == "count"
    with source.connect("everything") as here, target.connect(database) as there:
        assert contents(there) == contents(here)
        owners = there.execute("select distinct pg_get_userbyid(relowner) from pg_class where oid > 16384").fetchall()
        assert owners == [(OWNER,)]


def test_without_a_comparison_it_says_so(source: Server, target: Server) -> None:
    database = new_database(target)
    report = moved(live(source, "everything", target, database, "--compare", "none"))
    assert report["tables"] == []
    assert "compare_skipped" in {one["code"] for one in report["findings"]}  # type: ignore[attr-defined]


def test_a_comparison_that_must_fail(source: Server, target: Server) -> None:
    """The target changes a value as it comes in: only the hash can see it."""
    database = new_database(target)
    with target.connect(database) as connection:
        connection.execute(
            "create function liar() returns event_trigger language plpgsql as $$ begin "
            "if to_regclass('warehouse.dropped') is not null and exists (select from warehouse.dropped) then "
            "update warehouse.dropped set b = 40 where b = 4; end if; end $$; "
            "alter function liar() set search_path = pg_catalog; "
            "create event trigger liar on ddl_command_end when tag in ('CREATE INDEX') execute function liar()"
        )
        # Not the transfer's, and not a user's object that makes the target occupied.
        connection.execute("create extension if not exists plpgsql; alter extension plpgsql add function liar()")
    done = live(source, "everything", target, database, "--jobs", "1")
    assert (done.status, done.document()["outcome"]) == (1, "failed")
    found = [one for one in done.document()["findings"] if one["code"] == "content_differs"]
    assert [one["object"] for one in found] == ["warehouse.dropped"]
    with target.connect(database) as connection:
        connection.execute("drop event trigger liar")
    again = moved(live(source, "everything", target, database, "--jobs", "1"))
    assert "transfer_started_over" in {one["code"] for one in again["findings"]}  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def rescued(shelf: Shelf, shared_rescue: Rescuer, engine_name: str) -> Rescue:
    return shared_rescue(shelf.get("stopped-tar"), "--engine", engine_name)


def test_the_portal_moves_from_a_rescue(rescued: Rescue, target: Server) -> None:
    database = new_database(target)
    done = pgrescue(
        "to-cluster",
        *("-w", rescued.workspace, "--target-url", url_of(target, database, OWNER), "--database", "portal", "--json"),
        *("--after", 'test "$PORTAL__POSTGRES__URL" = "$DATABASE_URL" && echo "$DATABASE_URL" > after.txt'),
        *("--after-env", "PORTAL__POSTGRES__URL"),
        cwd=rescued.workspace.parent,
    )
    report = moved(done)
    assert report["after"] == 0
    with rescued.connect("portal") as here, target.connect(database) as there:
        assert contents(there) == contents(here)
        assert there.execute("select count(*) > 0 from monthly_sales").fetchone() == (True,)
    nothing_is_left(target, database)
    kept = json.loads((rescued.workspace / "transfer.json").read_text())
    assert kept == {name: value for name, value in report.items() if name != "after"}
    with psycopg.connect((rescued.workspace.parent / "after.txt").read_text().strip()) as connection:
        assert connection.info.dbname == database
    assert rescued.password not in done.stdout + done.stderr


def test_the_app_database_must_be_clear(rescued: Rescue, target: Server) -> None:
    done = pgrescue(
        "to-cluster",
        *("-w", rescued.workspace, "--target-url", url_of(target, new_database(target)), "--json"),
        cwd=rescued.workspace.parent,
    )
    assert done.status == 2
    error = done.document()["error"]
    assert "billing, portal" in error["problem"]
    assert "--database" in error["hint"]


def test_a_failing_command_after_it_is_a_failure_and_the_data_stays(rescued: Rescue, target: Server) -> None:
    database = new_database(target)
    options = ("-w", rescued.workspace, "--target-url", url_of(target, database), "--database", "billing")
    done = pgrescue("to-cluster", *options, "--json", "--after", "exit 7", cwd=rescued.workspace.parent)
    assert done.status == 1
    assert (done.document()["outcome"], done.document()["after"]) == ("moved", 7)
    again = pgrescue("to-cluster", *options, "--json", cwd=rescued.workspace.parent).ok()
    assert again.document()["outcome"] == "already-there"


def test_a_server_that_is_down_is_started_first(rescued: Rescue, target: Server) -> None:
    rescued.run("stop").ok()
    database = new_database(target)
    done = pgrescue(
        "to-cluster",
        *(rescued.workspace, "--target-url", url_of(target, database), "--database", "billing", "--json"),
        cwd=rescued.workspace.parent,
    )
    moved(done)
    assert rescued.again().report["verdict"] == rescued.report["verdict"]


@pytest.mark.parametrize(("older", "newer"), [(15, 17), (16, 18), (17, 17)])
def test_a_snapshot_goes_straight_into_a_server_of_a_later_major(
    older: int, newer: int, tmp_path: Path, rescue: Rescuer
) -> None:
    """SOURCE is the snapshot itself: the rescue comes first."""
    require_engine("native", older)
    with Server(major=older) as server:
        fill(server, scale=0.2, databases=("portal",))
        snapshot = stopped_tar(server, tmp_path / "made")
    with Server(major=newer) as other:
        database = new_database(other, owner="portal")
        with other.connect() as connection:
            connection.execute("create role portal_reports")
        workspace = tmp_path / "it.pgrescue"
        done = pgrescue(
            "to-cluster",
            *(snapshot.path, "-w", workspace, "--target-url", url_of(other, database), "--engine", "native", "--json"),
            cwd=tmp_path,
        )
        report = moved(done)
        rescued = rescue(snapshot, "--engine", "native", workspace=workspace)
        assert str(report["source_version"]).startswith(str(older))
        assert "ownership_not_kept" not in {one["code"] for one in report["findings"]}  # type: ignore[attr-defined]
        with rescued.connect("portal") as here, other.connect(database) as there:
            assert contents(there) == contents(here)
            owner = there.execute("select pg_get_userbyid(relowner) from pg_class where relname = 'orders'").fetchone()
            assert owner == ("portal",)
            grants = (
                "select count(*) from pg_class, aclexplode(relacl) as a where a.grantee = 'portal_reports'::regrole"
            )
            assert there.execute(grants.encode()).fetchone() == here.execute(grants.encode()).fetchone()


def test_an_occupied_target_is_refused_before_the_rescue(shelf: Shelf, target: Server, tmp_path: Path) -> None:
    database = new_database(target)
    with target.connect(database) as connection:
        connection.execute("create table mine ()")
    snapshot = shelf.get("stopped-tar")
    done = pgrescue("to-cluster", snapshot.path, "--target-url", url_of(target, database), "--json", cwd=tmp_path)
    assert done.status == 2
    assert "public.mine" in done.document()["error"]["problem"]
    assert list(tmp_path.iterdir()) == []
    shutil.rmtree(tmp_path)
