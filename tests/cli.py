"""pgrescue as its users run it: a program of its own, without a terminal."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg

from tests.forkserver import fork_server

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fixtures import Snapshot

TIMEOUT_S = 120
REPORT_FIELDS: Mapping[str, type | tuple[type, ...]] = {
    "schema": int,
    "verdict": str,
    "strategy": str,
    "engine": str,
    "version": str,
    "system_identifier": str,
    "workspace": str,
    "url": (str, type(None)),
    "databases": list,
    "recovered_to": dict,
    "steps": list,
    "findings": list,
    "seconds": float,
}
OUTCOMES = {"done", "held", "skipped", "failed"}
SEVERITIES = {"info", "warning", "error"}


@dataclass(frozen=True)
class Done:
    """How a command ended and what it wrote."""

    status: int
    stdout: str
    stderr: str

    def document(self) -> dict[str, Any]:
        """Return the one JSON object on stdout."""
        assert self.stdout, f"status {self.status}, nothing on stdout\n{self.stderr}"
        document = json.loads(self.stdout)
        assert isinstance(document, dict)
        return document

    def ok(self) -> Done:
        assert self.status == 0, f"status {self.status}\n{self.stdout}\n{self.stderr}"
        return self


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without what steers libpq."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("PG")}, **(extra or {})}


def pgrescue(*arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> Done:
    """Run one command to its end; it has no stdin and no terminal."""
    done = fork_server().run(list(map(str, arguments)), cwd=cwd, env=environment(env), timeout_s=TIMEOUT_S)
    return Done(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Rescue:
    """A rescue that ended: what `local --json` printed, where it happened, and the command's whole output."""

    snapshot: Snapshot
    workspace: Path
    done: Done
    report: dict[str, Any]

    @property
    def url(self) -> str:
        return str(self.report["url"])

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    @property
    def password(self) -> str:
        return urlsplit(self.url).password or ""

    @property
    def codes(self) -> list[str]:
        return [finding["code"] for finding in self.report["findings"]]

    def finding(self, code: str) -> dict[str, Any]:
        """Return the only finding with this code."""
        (found,) = [finding for finding in self.report["findings"] if finding["code"] == code]
        assert isinstance(found, dict)
        return found

    def run(self, command: str, *arguments: str) -> Done:
        """Run another command on the workspace."""
        return pgrescue(command, "-w", self.workspace, *arguments, cwd=self.workspace.parent)

    def again(self, *options: str) -> Rescue:
        """Run `local` again on the same workspace, with the same snapshot."""
        return local(self.snapshot, self.workspace, *options)

    def connect(self, database: str = "postgres", **options: Any) -> psycopg.Connection:
        """Connect with the printed URL; `options` replace parts of it."""
        return psycopg.connect(
            **{"conninfo": self.url, "dbname": database, "autocommit": True, "connect_timeout": 10, **options}
        )

    def one(self, query: str, database: str = "postgres") -> Any:
        """Return the one value that a query gives."""
        with self.connect(database) as connection:
            row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


def local(snapshot: Snapshot, workspace: Path, *options: str) -> Rescue:
    """Run `pgrescue local --json` on a snapshot, without the checks unless `options` ask for them.

    They take as long as all the rest, and most tests are about the rest.
    """
    checks = () if "--verify" in options else ("--verify", "none")
    done = pgrescue("local", snapshot.path, "-w", workspace, "--json", *checks, *options, cwd=workspace.parent)
    return Rescue(snapshot, workspace, done, done.document())


def check_report(report: dict[str, Any]) -> None:
    """Assert that a report has exactly the fields of DESIGN.md, each of its type."""
    assert list(report) == list(REPORT_FIELDS)
    wrong = {name: report[name] for name, kind in REPORT_FIELDS.items() if not isinstance(report[name], kind)}
    assert wrong == {}
    assert report["schema"] == 1
    assert re.fullmatch(r"\d+\.\d+", report["version"])
    assert re.fullmatch(r"\d+", report["system_identifier"])
    assert all(set(item) == {"name", "size_bytes"} and item["size_bytes"] > 0 for item in report["databases"])
    assert set(report["recovered_to"]) == {"lsn", "time"}
    assert all(set(step) == {"name", "outcome", "seconds"} for step in report["steps"])
    assert {step["outcome"] for step in report["steps"]} <= OUTCOMES
    assert all(isinstance(step["seconds"], float | int) for step in report["steps"])
    fields = {"code", "severity", "object", "detail", "remedy", "rows"}
    assert all(set(finding) == fields for finding in report["findings"])
    assert {finding["severity"] for finding in report["findings"]} <= SEVERITIES
    assert all(isinstance(finding["rows"], int | None) for finding in report["findings"])
