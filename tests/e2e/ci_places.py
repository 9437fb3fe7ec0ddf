"""Where drills run: the steps of a composite action as GitHub runs them, and the image on a Docker engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from pgrescue.engine.docker import docker_unavailable
from tests import cli

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "fixtures" / "sample" / "data.tar.gz"
IMAGE = "pgrescue-drill:latest"
TIMEOUT_S = 300
_EXPRESSION = re.compile(r"\$\{\{\s*([\w.]+)\s*\}\}")

PASSING = """\
version: 1
name: it holds
snapshot: {snapshot}
engine: native
require: best-effort
checks:
  - rows: {{table: public.orders, min: 1}}
"""
FAILING = PASSING.replace("it holds", "it does not").replace("min: 1", "min: 1000000")
UNVERIFIED = PASSING.replace("it holds", "nobody knows").replace("{snapshot}", "{snapshot}.gone")
"""Drill files about the sample; `snapshot` is left to be filled in."""


def run(
    *arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None, said: str = ""
) -> cli.Done:
    """Run a program to its end."""
    done = subprocess.run(
        list(map(str, arguments)),
        env=cli.environment(env),
        cwd=cwd,
        input=said,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return cli.Done(done.returncode, done.stdout, done.stderr)


def outcome_of(directory: Path) -> str:
    """Return what drill.json in a directory of reports says."""
    document = json.loads((directory / "drill.json").read_text())
    assert isinstance(document, dict)
    return str(document["outcome"])


def wait_for_a_server(below: Path) -> None:
    """Return when a server of a drill has its lock file: from now on there is something to end."""
    deadline = time.monotonic() + 60
    # Not by rglob, which cannot bear that directories go meanwhile.
    while not any("postmaster.pid" in files for _, _, files in os.walk(below)):
        assert time.monotonic() < deadline, f"no server below {below}"
        time.sleep(0.02)


def open_to_all(directory: Path) -> Path:
    """Make a directory that every user id can write to."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o1777)
    return directory


@dataclass
class Action:
    """The action in a job of its own: `workspace` is the checkout, `temp` lives as long as the job."""

    workspace: Path
    temp: Path
    outputs: dict[str, str] = field(default_factory=dict)
    summary: str = ""

    def steps(self) -> list[dict[str, Any]]:
        manifest = yaml.safe_load((ROOT / "action.yml").read_text())
        return list(manifest["runs"]["steps"])

    def start(self, step: Mapping[str, Any], inputs: Mapping[str, str]) -> subprocess.Popen[str]:
        """Start one step: `shell: bash` is this command line, and the text of `run` is a file, unchanged."""
        assert step["shell"] == "bash"
        script = self.temp / f"{uuid.uuid4()}.sh"
        script.write_text(step["run"])
        context = {**self._defaults(), **{f"inputs.{name}": value for name, value in inputs.items()}}
        given = {name: _EXPRESSION.sub(lambda found: context[found[1]], text) for name, text in step["env"].items()}
        for name in ("output", "summary"):
            (self.temp / name).write_text("")
        return subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", script],
            cwd=self.workspace,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=cli.environment(
                {
                    **given,
                    "GITHUB_ACTIONS": "true",
                    "GITHUB_OUTPUT": str(self.temp / "output"),
                    "GITHUB_STEP_SUMMARY": str(self.temp / "summary"),
                    "RUNNER_TEMP": str(self.temp),
                }
            ),
        )

    def end(self, step: subprocess.Popen[str]) -> cli.Done:
        """Wait for a step, and take what it left in the files that GitHub gave it."""
        said, _ = step.communicate(timeout=TIMEOUT_S)
        self.outputs = dict(line.split("=", 1) for line in (self.temp / "output").read_text().splitlines())
        self.summary = (self.temp / "summary").read_text()
        return cli.Done(step.returncode, said, "")

    def _defaults(self) -> dict[str, str]:
        inputs = yaml.safe_load((ROOT / "action.yml").read_text())["inputs"]
        defaults = {f"inputs.{name}": about["default"] for name, about in inputs.items() if "default" in about}
        return {**defaults, "github.action_path": str(ROOT)}


@cache
def _missing() -> str | None:
    if reason := docker_unavailable():
        return reason
    if shutil.which("docker") is None:
        return "there is no docker command"
    if os.geteuid() == 0 and shutil.which("debootstrap"):
        # At once over where the image of this very program is there, as in CI.
        built = run(ROOT / "compose" / "drill" / "build.sh")
        return None if built.status == 0 else f"compose/drill/build.sh failed: {built.stderr}"
    there = run("docker", "image", "inspect", IMAGE)
    return None if there.status == 0 else f"Docker has no image {IMAGE}, and only root can build it here"


def require_image() -> None:
    """Have the image of this very program; skip or fail the test as those of the docker engine."""
    if reason := _missing():
        if "docker" in os.environ.get("PGRESCUE_REQUIRE_ENGINES", "").split(","):
            pytest.fail(reason)
        pytest.skip(reason)


def require_compose() -> str:
    """Return Compose's program; skip or fail the test without one."""
    found = shutil.which("docker-compose")
    if found is None:
        if "docker" in os.environ.get("PGRESCUE_REQUIRE_ENGINES", "").split(","):
            pytest.fail("docker-compose is not installed")
        pytest.skip("docker-compose is not installed")
    return found


@dataclass(frozen=True)
class Desk:
    """Directories of this machine for one container: what it reads, and what it may write."""

    root: Path

    @property
    def scratch(self) -> Path:
        return self.root / "scratch"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def history(self) -> Path:
        return self.root / "history"

    @property
    def backups(self) -> Path:
        return self.root / "backups"

    def drill_file(self, text: str) -> Path:
        """Write a drill file whose snapshot is the sample in /backups."""
        file = self.root / "drill.yaml"
        file.write_text(text.format(snapshot="/backups/20261122T082807/data.tar.gz"))
        return file

    def left(self) -> list[Path]:
        """Return what lies in the scratch directory."""
        return sorted(self.scratch.rglob("*"))


def make_desk(root: Path) -> Desk:
    """Make the directories, with the sample as the only backup."""
    desk = Desk(root)
    for directory in (desk.scratch, desk.reports, desk.history):
        open_to_all(directory)
    backup = desk.backups / "20261122T082807"
    backup.mkdir(parents=True)
    shutil.copy(SAMPLE, backup)
    for path in (desk.backups, backup):
        path.chmod(0o755)
    (backup / SAMPLE.name).chmod(0o644)
    return desk


HARDENED = (
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--network=none",
    "--tmpfs=/tmp:size=64m",
)


def mounts(desk: Desk) -> Iterator[str]:
    """Yield the options that show the desk to a container."""
    yield f"--volume={desk.backups}:/backups:ro"
    yield f"--volume={desk.root / 'drill.yaml'}:/drill/drill.yaml:ro"
    for name in ("scratch", "reports", "history"):
        yield f"--volume={desk.root / name}:/{name}"
