"""Restore drills as CI runs them, and what must be left of them: nothing."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from tests.cli import pgrescue
from tests.e2e.accidents import processes_in

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WORK, REPORTS = "work", "reports"
FILES = ("drill.json", "junit.xml", "drill.md", "drill.html", "drill.prom")


@dataclass(frozen=True)
class Drilled:
    """A `pgrescue drill` that ended: where it ran, its exit status, its document, and everything that it wrote."""

    root: Path
    status: int
    document: dict[str, Any]
    said: str

    def only(self) -> dict[str, Any]:
        """Return the only drill."""
        (drill,) = self.document["drills"]
        assert isinstance(drill, dict)
        return drill

    def named(self, name: str) -> dict[str, Any]:
        """Return the drill with a name."""
        (drill,) = [drill for drill in self.document["drills"] if drill["name"] == name]
        assert isinstance(drill, dict)
        return drill

    def answers(self) -> dict[str, str]:
        """Return what each assertion of the only drill came to, by its name."""
        return {one["name"]: one["outcome"] for one in self.only()["assertions"]}

    def assertion(self, kind: str) -> dict[str, Any]:
        """Return the only assertion of a kind."""
        (found,) = [one for one in self.only()["assertions"] if one["kind"] == kind]
        assert isinstance(found, dict)
        return found

    def came_to(self, outcome: str) -> Drilled:
        """Assert how it ended: in the document, and by its exit status."""
        expected = {"passed": 0, "failed": 1, "could-not-verify": 4}[outcome]
        assert (self.document.get("outcome"), self.status) == (outcome, expected), self.said
        return self

    def report(self, name: str) -> str:
        """Return the text of one of the report files."""
        return (self.root / REPORTS / name).read_text()


def write_drill(root: Path, content: Mapping[str, Any], name: str = "drill.yaml") -> Path:
    """Write a drill file."""
    path = root / name
    path.write_text(yaml.safe_dump({"version": 1, **content}, sort_keys=False))
    return path


def command(file: Path, *options: str) -> list[str]:
    """Return the arguments of a drill whose reports and work stay beside its file."""
    root = file.parent
    places = ["--work-dir", str(root / WORK), "--reports", str(root / REPORTS)]
    return ["drill", str(file), "--json", *places, *options]


def drill(file: Path, *options: str, env: Mapping[str, str] | None = None) -> Drilled:
    """Run a drill file to its end."""
    done = pgrescue(*command(file, *options), cwd=file.parent, env={"GITHUB_STEP_SUMMARY": "", **(env or {})})
    document = json.loads(done.stdout) if done.stdout else {}
    return Drilled(file.parent, done.status, document, done.stdout + done.stderr)


def check_nothing_left(root: Path) -> None:
    """Assert that nothing runs any more that a drill in `root` started, and that its copies are gone."""
    work = root / WORK
    assert not work.exists() or list(work.iterdir()) == []
    assert processes_in(work) == []
    listed = subprocess.run(
        ["docker", "ps", "-a", "--format", '{{.Label "io.pgrescue.workspace"}}'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in listed.stdout.split() if line.startswith(str(root))] == []
