"""The action and the job template run the drill that they are given, as GitHub and GitLab run them."""

from __future__ import annotations

import signal
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.e2e.ci_places import (
    FAILING,
    IMAGE,
    PASSING,
    ROOT,
    SAMPLE,
    UNVERIFIED,
    Action,
    outcome_of,
    require_image,
    run,
    wait_for_a_server,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli import Done

# Everything that a shell could take for more than a name.
HOSTILE = 'it\'s "$(touch pwned)" `touch pwned`; touch pwned & $HOME *.yaml'


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return RUNNER_TEMP of a job whose first step has been run: the program with all that it needs."""
    temp = tmp_path_factory.mktemp("runner")
    action = Action(temp, temp)
    done = action.end(action.start(action.steps()[0], {"file": "drill.yaml"}))
    assert done.status == 0, done.stdout
    return temp


@pytest.fixture
def action(installed: Path, tmp_path: Path) -> Action:
    return Action(tmp_path, installed)


def drilled(action: Action, text: str, *, name: str = "drill.yaml", **inputs: str) -> Done:
    """Run the steps after the installation on a drill file in the checkout."""
    (action.workspace / name).write_text(text.format(snapshot=SAMPLE))
    (step,) = action.steps()[1:]
    return action.end(action.start(step, {"file": name, **inputs}))


def test_a_passing_drill(action: Action) -> None:
    done = drilled(action, PASSING, name=f"{HOSTILE}.yaml", options="--jobs=2\n\n--only=it holds\n", reports=HOSTILE)
    assert done.status == 0, done.stdout
    assert action.outputs == {"outcome": "passed", "report": f"{HOSTILE}/drill.html"}
    assert (action.workspace / action.outputs["report"]).read_text().startswith("<!DOCTYPE html>")
    assert outcome_of(action.workspace / HOSTILE) == "passed"
    assert "it holds" in action.summary
    assert {path.name for path in action.workspace.iterdir()} == {
        f"{HOSTILE}.yaml",
        f"{HOSTILE}.history.jsonl",
        HOSTILE,
    }


@pytest.mark.parametrize(
    ("text", "status", "outcome"),
    [(FAILING, 1, "failed"), (UNVERIFIED, 4, "could-not-verify"), ("version: 2\n", 2, "usage")],
    ids=["failed", "could-not-verify", "usage"],
)
def test_a_drill_that_does_not_pass(action: Action, text: str, status: int, outcome: str) -> None:
    done = drilled(action, text)
    assert done.status == status, done.stdout
    assert action.outputs == {"outcome": outcome, "report": "drill-reports/drill.html"}
    assert (outcome == "usage") or outcome_of(action.workspace / "drill-reports") == outcome


def test_a_cancelled_job_clears_away(action: Action) -> None:
    """GitHub's runner signals the shell alone, not what it started."""
    (action.workspace / "drill.yaml").write_text(PASSING.format(snapshot=SAMPLE))
    (step,) = action.steps()[1:]
    shell = action.start(step, {"file": "drill.yaml"})
    wait_for_a_server(action.workspace)
    shell.send_signal(signal.SIGINT)
    done = action.end(shell)
    assert done.status == 130, done.stdout
    assert action.outputs["outcome"] == "interrupted"
    assert list(action.workspace.glob("*.drill")) == []


def in_gitlab(checkout: Path, text: str) -> Done:
    """Run the template's script in its image: the runner writes the lines to the stdin of a shell."""
    checkout.chmod(0o777)
    (checkout / "drill.yaml").write_text(text.format(snapshot="/sample/data.tar.gz"))
    template = yaml.safe_load((ROOT / "compose" / "gitlab-drill.yml").read_text())[".pgrescue-drill"]
    variables = [f"--env={name}={value}" for name, value in template["variables"].items()]
    return run(
        *("docker", "run", "--rm", "--interactive", "--network=none", "--entrypoint=sh", *variables),
        *(f"--volume={checkout}:/builds", f"--volume={SAMPLE.parent}:/sample:ro", "--workdir=/builds", IMAGE),
        said="\n".join(["set -e", *template["script"], ""]),
    )


@pytest.mark.docker
@pytest.mark.parametrize(("text", "status"), [(PASSING, 0), (FAILING, 1)], ids=["passed", "failed"])
def test_the_job_of_gitlab_leaves_what_its_artifacts_are_made_of(tmp_path: Path, text: str, status: int) -> None:
    require_image()
    done = in_gitlab(tmp_path, text)
    assert done.status == status, done.stdout + done.stderr
    template = yaml.safe_load((ROOT / "compose" / "gitlab-drill.yml").read_text())[".pgrescue-drill"]
    junit = ET.parse(tmp_path / template["artifacts"]["reports"]["junit"]).getroot()
    assert (int(junit.get("failures", "-1")) > 0) == (status == 1)
    (cached,) = template["cache"]["paths"]
    assert [path.name for path in (tmp_path / cached).iterdir()] == ["history.jsonl"]
    (reports,) = template["artifacts"]["paths"]
    assert outcome_of(tmp_path / reports) == ("passed" if status == 0 else "failed")
