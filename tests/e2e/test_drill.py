"""Drills that pass, that fail and that cannot verify, on real snapshots and both engines."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import pytest
from junitparser import Error, Failure, JUnitXml

from fixtures import ObjectStore, Server, fill, stopped_copy, stopped_tar
from tests.cli import pgrescue
from tests.drilling import FILES, REPORTS, WORK, check_nothing_left, drill, write_drill
from tests.e2e import inputs
from tests.targets import OWNER, contents, new_database, url_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fixtures import Snapshot
    from tests.drilling import Drilled
    from tests.snapshots import Shelf

SAMPLE = str(inputs.SAMPLE)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Return the tar of a small server that was shut down: its best verdict is `consistent`."""
    with Server() as server:
        fill(server, scale=0.1, databases=("portal",))
        return stopped_tar(server, tmp_path_factory.mktemp("small") / "tar")


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Return a copy in which a table has lost all but its first page."""
    with Server(checksums=False) as server:
        fill(server, scale=0.1, databases=("portal",))
        with server.connect("portal") as connection:
            (path,) = connection.execute("SELECT pg_relation_filepath('orders')").fetchall()[0]
        snapshot = stopped_copy(server, tmp_path_factory.mktemp("cut") / "copy")
    os.truncate(snapshot.path / path, 8192)
    time.sleep(2)  # so that its newest commit is older than a budget of a second
    return snapshot


@pytest.fixture(scope="module")
def passed(shelf: Shelf, engine_name: str, tmp_path_factory: pytest.TempPathFactory) -> Drilled:
    """Return a drill of a busy server's backup with its WAL, which asks everything that can be asked, run twice."""
    snapshot = shelf.get("archived-barman")
    root = tmp_path_factory.mktemp("passed")
    file = write_drill(
        root,
        {
            "name": "portal nightly",
            "snapshot": str(snapshot.path),
            "engine": engine_name,
            "require": "consistent",
            "rto_budget": "10 min",
            "rpo_budget": "1 d",
            "checks": [
                {"verify": "fast"},
                {"database": "portal", "sql": "select count(*) from orders", "expect": ">= 100"},
                {"database": "portal", "rows": {"table": "orders", "min": 100, "max_loss": "1 %"}},
                {
                    "database": "portal",
                    "freshness": {"table": "orders", "column": "updated_at", "max_age": "1 d"},
                },
                {"database": "portal", "schema": "portal.schema.sql"},
            ],
            "transfer": {"target": "throwaway", "database": "portal"},
            "after": {
                "command": 'printf %s "$APP_DB" > url && test "$APP_DB" = "$DATABASE_URL" && pwd > where',
                "env": "APP_DB",
                "database": "portal",
            },
        },
    )
    first = drill(file, "--write-schema", "--only", "portal nightly")
    first.came_to("could-not-verify")
    assert {name for name, outcome in first.answers().items() if outcome != "passed"} == {
        "orders: at least 100 rows, at most 1 % fewer rows than last time",
        "schema as in portal.schema.sql",
    }, first.said
    return drill(file)


def test_a_backup_with_its_wal_passes_everything_that_is_asked(passed: Drilled) -> None:
    passed.came_to("passed")
    found = passed.only()
    assert set(passed.answers().values()) == {"passed"}
    assert [one["kind"] for one in found["assertions"]] == [
        "verify",
        "require",
        "rto_budget",
        "rpo_budget",
        "sql",
        "rows",
        "freshness",
        "schema",
        "transfer",
        "after",
    ]
    assert found["rescue"]["verdict"] == "consistent"
    assert 0 < found["recovery_seconds"] < found["seconds"]
    assert found["newest_commit"]["source"] == "the WAL"
    assert len(found["past"]) == 1
    assert found["rows"]["portal public.orders"] >= 100
    assert all(one["seen"] for one in found["assertions"])
    check_nothing_left(passed.root)


def test_the_command_after_it_finds_the_database_and_its_own_directory(passed: Drilled) -> None:
    url = (passed.root / "url").read_text()
    assert url.startswith("postgresql://pgrescue:")
    assert urlsplit(url).path == "/portal"
    assert (passed.root / "where").read_text().strip() == str(passed.root)
    password = url.split("@")[0].rpartition(":")[2]
    assert len(password) > 20
    assert [name for name in FILES if password in passed.report(name)] == []
    assert password not in passed.said


def test_every_report_is_written_and_says_the_same(passed: Drilled) -> None:
    assert sorted(path.name for path in (passed.root / REPORTS).iterdir()) == sorted(FILES)
    assert json.loads(passed.report("drill.json")) == passed.document
    assert 'pgrescue_drill_outcome{drill="portal nightly",outcome="passed"} 1' in passed.report("drill.prom")
    assert 'failures="0"' in passed.report("junit.xml")
    assert "passed" in passed.report("drill.md")
    assert "portal nightly" in passed.report("drill.html")


@pytest.fixture(scope="module")
def failed(cut: Snapshot, engine_name: str, tmp_path_factory: pytest.TempPathFactory) -> Drilled:
    """Return a drill of a damaged backup, whose questions try to make it quote its rows."""
    file = write_drill(
        tmp_path_factory.mktemp("failed"),
        {
            "name": "damaged",
            "snapshot": str(cut.path),
            "engine": engine_name,
            "require": "best-effort",
            "rto_budget": "1 s",
            "rpo_budget": "1 s",
            "checks": [
                {"name": "too few", "sql": "select count(*) from users", "expect": "< 0"},
                {"name": "a text", "sql": "select max(email) from users", "expect": "== 'nobody'"},
                {"name": "a text as number", "sql": "select max(email)::text::int from users", "expect": "== 1"},
                {"name": "a column", "sql": "select id from users order by id limit 1", "expect": "== 123456"},
                {"name": "lost", "rows": {"table": "orders", "min": 1_000_000}},
                {"name": "gone", "rows": {"table": "no_such_table", "min": 1}},
                {"name": "stale", "freshness": {"table": "users", "column": "created_at", "max_age": "1 s"}},
                {"name": "writes", "sql": "delete from users returning 1", "expect": "== 1"},
                {"name": "no database", "database": "nowhere", "sql": "select 1", "expect": "== 1"},
            ],
            "after": "exit 3",
        },
    )
    return drill(file)


def test_a_damaged_backup_fails_and_every_assertion_says_what_it_saw(failed: Drilled) -> None:
    failed.came_to("failed")
    assert failed.answers() == {
        "the recovered copy is sound": "failed",
        "verdict": "failed",
        "recovery time": "failed",
        "age of the newest commit": "failed",
        "too few": "failed",
        "a text": "failed",
        "a text as number": "could-not-verify",
        "a column": "failed",
        "lost": "failed",
        "gone": "failed",
        "stale": "failed",
        "writes": "could-not-verify",
        "no database": "failed",
        "exit 3": "failed",
    }
    assert "damaged" in failed.assertion("require")["seen"]
    assert failed.assertion("after")["seen"] == "exit status 3"
    assert "index_points_nowhere (portal.public.orders_pkey)" in failed.assertion("verify")["detail"]
    check_nothing_left(failed.root)


def test_no_report_quotes_a_row(failed: Drilled) -> None:
    text = failed.said + "".join(failed.report(name) for name in FILES)
    assert "@example" not in text
    assert '"seen": "a number (a column\'s own value: not shown)"' in text
    assert "a text of" in text


def test_the_junit_report_counts_what_the_document_says(failed: Drilled) -> None:
    (suite,) = list(JUnitXml.fromstring(failed.report("junit.xml").encode()))
    outcomes = [one["outcome"] for one in failed.only()["assertions"]]
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (
        len(outcomes),
        outcomes.count("failed"),
        outcomes.count("could-not-verify"),
        0,
    )
    results = [type(result) for case in suite for result in case.result]
    assert (results.count(Failure), results.count(Error)) == (suite.failures, suite.errors)


# What a machine may lack, each with a drill file that shows it, and words of the report.
LACKS: dict[str, tuple[dict[str, Any], str]] = {
    "no image": ({"engine": "docker", "image": "pgrescue-test.invalid/nothing:1"}, "image"),
    "no server programs": ({"engine": "native", "bindir": "/nonexistent"}, "not found"),
    "no snapshot": ({"snapshot": "backups/*/data.tar"}, "backups"),
    "no WAL": ({"wal": "/nonexistent/wals"}, "wals"),
    "no such strategy here": ({"strategy": "archive"}, "not possible"),
}


@pytest.mark.parametrize("lack", LACKS)
def test_what_the_machine_lacks_is_no_verdict_on_the_backup(lack: str, tmp_path: Path) -> None:
    changes, words = LACKS[lack]
    content = {"name": lack, "snapshot": SAMPLE, "require": "best-effort", "rto_budget": "1 h", **changes}
    done = drill(write_drill(tmp_path, content)).came_to("could-not-verify")
    assert set(done.answers().values()) == {"could-not-verify"}
    assert words in done.only()["problem"]
    assert done.only()["rescue"] is None
    check_nothing_left(tmp_path)


@pytest.mark.native
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_is_no_verdict_on_the_backup(tmp_path: Path) -> None:
    work = tmp_path / WORK
    work.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", work], check=True)
    try:
        file = write_drill(tmp_path, {"name": "no room", "snapshot": SAMPLE, "engine": "native", "rto_budget": "1 h"})
        done = drill(file).came_to("could-not-verify")
        assert "room" in done.only()["problem"] or "full" in done.only()["problem"]
        check_nothing_left(tmp_path)
    finally:
        subprocess.run(["umount", work], check=True)


@pytest.mark.native
def test_a_backup_that_is_cut_short_fails(small: Snapshot, tmp_path: Path) -> None:
    short = tmp_path / "data.tar"
    shutil.copyfile(small.path, short)
    os.truncate(short, short.stat().st_size // 2)
    content = {
        "name": "short",
        "snapshot": "data.tar",
        "engine": "native",
        "require": "best-effort",
        "rto_budget": "1 h",
    }
    done = drill(write_drill(tmp_path, content)).came_to("failed")
    assert done.assertion("verify")["outcome"] == "failed"
    assert "truncated" in done.assertion("require")["detail"]
    assert done.assertion("rto_budget")["outcome"] == "could-not-verify"
    check_nothing_left(tmp_path)


@pytest.mark.native
def test_a_lesser_verdict_than_required_fails_and_says_what_is_missing(tmp_path: Path) -> None:
    content = {
        "name": "without WAL",
        "snapshot": SAMPLE,
        "engine": "native",
        "require": "consistent",
        "rpo_budget": "1 d",
        "transfer": {"target_url_env": "NOT_SET"},
    }
    done = drill(write_drill(tmp_path, content)).came_to("failed")
    assert done.assertion("verify")["outcome"] == "passed"
    assert done.assertion("require")["seen"] == "best-effort, strategy reset"
    assert "`wal`" in done.assertion("require")["detail"]
    assert done.assertion("rpo_budget")["outcome"] == "could-not-verify"


# What the checks say of the copy that was cut.
CUT_CODES = ("index_points_nowhere", "check_not_run")


@pytest.mark.native
def test_findings_are_ignored_only_until_their_day(cut: Snapshot, tmp_path: Path) -> None:
    def ignoring(day: str) -> dict[str, Any]:
        rules = [{"code": code, "reason": "known, OPS-1", "until": day} for code in CUT_CODES]
        return {
            "name": f"until {day}",
            "snapshot": str(cut.path),
            "engine": "native",
            "require": "consistent",
            "ignore": rules,
        }

    now = drill(write_drill(tmp_path, ignoring("2999-01-01"))).came_to("passed")
    assert {one["reason"] for one in now.only()["ignored"]} == {"known, OPS-1"}
    assert now.assertion("require")["seen"] == "consistent, strategy clean (damaged with the ignored findings)"
    late = drill(write_drill(tmp_path, ignoring("2020-01-01"))).came_to("failed")
    assert late.only()["ignored"] == []
    assert any("has ended on 2020-01-01" in note for note in late.document["notes"])


@pytest.mark.native
def test_a_changed_schema_is_named(small: Snapshot, tmp_path: Path) -> None:
    content = {
        "name": "schema",
        "snapshot": str(small.path),
        "engine": "native",
        "checks": [{"schema": "portal.schema.sql"}],
    }
    file = write_drill(tmp_path, content)
    reference = tmp_path / "portal.schema.sql"
    assert "--write-schema" in drill(file).came_to("could-not-verify").assertion("schema")["detail"]
    drill(file, "--write-schema").came_to("could-not-verify")
    text = reference.read_text()
    assert "CREATE TABLE public.orders" in text
    reference.write_text(text.replace("remark text", "remark varchar(80)").replace("public.slug(", "public.slog("))
    changed = drill(file).came_to("failed").assertion("schema")
    assert "changed: table public.orders" in changed["detail"]
    check_nothing_left(tmp_path)


@pytest.mark.native
def test_rows_that_went_missing_since_the_last_time(small: Snapshot, tmp_path: Path) -> None:
    check = {"rows": {"table": "orders", "max_loss": "5 %"}}
    file = write_drill(tmp_path, {"name": "rows", "snapshot": str(small.path), "engine": "native", "checks": [check]})
    first = drill(file, "--keep").came_to("could-not-verify")
    # What is kept runs on; a later drill leaves it alone.
    kept = f"{first.only()['kept']}/rescue.pgrescue"
    history = tmp_path / "drill.history.jsonl"
    line = json.loads(history.read_text())
    before = line["rows"]["portal public.orders"]
    line["rows"]["portal public.orders"] = before * 3
    history.write_text(json.dumps(line) + '\n{"torn\n')
    done = drill(file).came_to("failed")
    assert f"{before:,} rows, {before * 3:,} the last time" == done.assertion("rows")["seen"]
    assert any("orders" in words for words in done.only()["regressions"])
    assert [note for note in done.document["notes"] if note.endswith("passed over: 1")]
    assert json.loads(pgrescue("status", "-w", kept, "--json", cwd=tmp_path).ok().stdout)["state"] == "running"
    pgrescue("rm", "--yes", "-w", kept, cwd=tmp_path).ok()
    shutil.rmtree(first.only()["kept"])
    check_nothing_left(tmp_path)


@pytest.fixture(scope="module")
def target() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.mark.native
def test_a_given_target_is_filled_compared_and_emptied(small: Snapshot, target: Server, tmp_path: Path) -> None:
    database = new_database(target)
    content = {
        "name": "given target",
        "snapshot": str(small.path),
        "engine": "native",
        "transfer": {"target_url_env": "GIVEN_TARGET", "role": OWNER},
    }
    file = write_drill(tmp_path, content)
    env = {"GIVEN_TARGET": url_of(target, database, OWNER)}
    done = drill(file, env=env).came_to("passed")
    assert "tables" in done.assertion("transfer")["seen"]
    with target.connect(database) as connection:
        assert contents(connection) == {}
        assert connection.execute("select to_regnamespace('pgrescue_transfer')").fetchall() == [(None,)]
        connection.execute("create table mine as select 1 as one")
    occupied = drill(file, env=env).came_to("could-not-verify")
    assert "holds objects already: table public.mine" in occupied.assertion("transfer")["detail"]
    assert occupied.assertion("verify")["outcome"] == "passed"
    with target.connect(database) as connection:
        assert connection.execute("select one from mine").fetchall() == [(1,)]


@pytest.mark.native
def test_what_failed_is_kept_where_that_is_asked_for(small: Snapshot, tmp_path: Path) -> None:
    def asking(expect: str) -> Path:
        check = {"sql": "select 1", "expect": expect}
        return write_drill(
            tmp_path, {"name": "kept", "snapshot": str(small.path), "engine": "native", "checks": [check]}
        )

    drill(asking("== 1"), "--keep-on-failure").came_to("passed")
    check_nothing_left(tmp_path)
    failed = drill(asking("== 2"), "--keep-on-failure").came_to("failed")
    workspace = f"{failed.only()['kept']}/rescue.pgrescue"
    assert json.loads(pgrescue("status", "-w", workspace, "--json", cwd=tmp_path).ok().stdout)["state"] == "running"
    pgrescue("rm", "--yes", "-w", workspace, cwd=tmp_path).ok()
    shutil.rmtree(failed.only()["kept"])
    check_nothing_left(tmp_path)


class _Hook(BaseHTTPRequestHandler):
    """Keeps what it is told."""

    heard: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.heard.append(json.loads(body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def hook() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hook?token=s3cret"
        server.shutdown()


@pytest.mark.native
def test_as_ci_runs_it_from_a_bucket_with_a_summary_and_webhooks(small: Snapshot, hook: str, tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "name": "from a bucket",
        "snapshot": "PLACE",
        "engine": "native",
        "require": "consistent",
        "notify": [
            {"url_env": "HOOK", "on": ["passed"]},
            {"url_env": "SILENT", "on": ["failed"]},
            {"url_env": "NOT_SET", "on": ["passed"]},
        ],
    }
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    with ObjectStore() as store, small.path.open("rb") as file:
        store._client().put_object(Bucket=store.bucket, Key="backups/portal/data.tar", Body=file)
        content["snapshot"] = {"newest": f"s3://{store.bucket}/backups/portal"}
        env = {
            "AWS_ENDPOINT_URL": store.endpoint_url,
            "AWS_ACCESS_KEY_ID": "fixture",
            "AWS_SECRET_ACCESS_KEY": "k3y-of-the-store",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
            "GITHUB_STEP_SUMMARY": str(summary),
            "HOOK": hook,
            "SILENT": hook.replace("token", "silent"),
        }
        done = drill(write_drill(tmp_path, content), env=env).came_to("passed")
    assert [told["outcome"] for told in _Hook.heard] == ["passed"]
    assert _Hook.heard[0]["id"] == done.document["id"]
    (note,) = done.document["notes"]
    assert "NOT_SET" in note
    assert "backups/portal/data.tar" in done.only()["chosen_because"]
    assert summary.read_text().startswith("before\n")
    assert "from a bucket" in summary.read_text()
    text = done.said + "".join(done.report(name) for name in FILES) + summary.read_text()
    assert [secret for secret in ("s3cret", "k3y-of-the-store") if secret in text] == []
    check_nothing_left(tmp_path)
