"""The image of drills: any user, a read-only root, signals; as Compose and as Kubernetes run it."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.e2e.ci_places import (
    FAILING,
    HARDENED,
    IMAGE,
    PASSING,
    ROOT,
    UNVERIFIED,
    Desk,
    make_desk,
    mounts,
    outcome_of,
    require_compose,
    require_image,
    run,
    wait_for_a_server,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli import Done

pytestmark = pytest.mark.docker

DRILL = ("drill", "run", "--work-dir=/scratch", "--reports=/reports", "--history=/history/h.jsonl", "/drill/drill.yaml")


@pytest.fixture(autouse=True)
def _image() -> None:
    require_image()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return make_desk(tmp_path)


@pytest.fixture
def name() -> Iterator[str]:
    """Return the name of a container, or of Compose's project, that is gone at the end of the test."""
    chosen = f"pgrescue-test-{uuid.uuid4().hex[:12]}"
    yield chosen
    run("docker", "rm", "--force", "--volumes", chosen)


def in_container(desk: Desk, *options: str, command: tuple[str, ...] = DRILL) -> Done:
    return run("docker", "run", "--rm", *HARDENED, *mounts(desk), *options, IMAGE, *command)


@pytest.mark.parametrize("user", ["1000660000:0", "77:77"], ids=["huge", "small"])
def test_a_drill_passes_as_any_user_on_a_read_only_root(desk: Desk, user: str) -> None:
    desk.drill_file(PASSING)
    done = in_container(desk, f"--user={user}")
    assert done.status == 0, done.stdout + done.stderr
    assert outcome_of(desk.reports) == "passed"
    assert len((desk.history / "h.jsonl").read_text().splitlines()) == 1
    assert {(path.stat().st_uid, path.stat().st_gid) for path in desk.reports.iterdir()} == {
        tuple(map(int, user.split(":")))
    }
    assert desk.left() == []


@pytest.mark.parametrize(
    ("text", "status", "outcome"),
    [(FAILING, 1, "failed"), (UNVERIFIED, 4, "could-not-verify")],
    ids=["failed", "could-not-verify"],
)
def test_the_exit_status_of_the_container_is_that_of_the_drill(
    desk: Desk, text: str, status: int, outcome: str
) -> None:
    desk.drill_file(text)
    done = in_container(desk)
    assert done.status == status, done.stdout + done.stderr
    assert outcome_of(desk.reports) == outcome
    assert desk.left() == []


def test_the_image_can_do_what_it_is_hardened_against(desk: Desk) -> None:
    """The control: the root file system is read-only by the option, and the scratch directory is not."""
    desk.drill_file(PASSING)
    touch = "--entrypoint=touch"
    assert in_container(desk, touch, command=("/scratch/x",)).status == 0
    assert "Read-only file system" in in_container(desk, touch, command=("/opt/x",)).stderr
    assert "Read-only file system" in in_container(desk, touch, command=("/backups/x",)).stderr


def test_without_a_place_for_an_account_the_reason_is_told(desk: Desk) -> None:
    desk.drill_file(PASSING)
    done = run("docker", "run", "--rm", "--read-only", "--network=none", "--user=4000", *mounts(desk), IMAGE, *DRILL)
    assert done.status == 4, done.stdout + done.stderr
    assert "user id 4000 gets no account" in done.stderr
    assert "4000 has no account" in done.stdout + done.stderr


@pytest.mark.parametrize(
    "stop", [("kill", "--signal=TERM"), ("kill", "--signal=INT"), ("stop", "--time=60")], ids=" ".join
)
def test_a_signal_ends_the_drill_and_leaves_nothing(desk: Desk, name: str, stop: tuple[str, ...]) -> None:
    desk.drill_file(PASSING)
    # Without --init: pgrescue is process 1, whose signals have no default action.
    with subprocess.Popen(
        ["docker", "run", "--name", name, *HARDENED, *mounts(desk), IMAGE, *DRILL],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as drill:
        wait_for_a_server(desk.scratch)
        begun = time.monotonic()
        run("docker", *stop, name).ok()
        said, _ = drill.communicate(timeout=60)
        took = time.monotonic() - begun
    assert drill.returncode == 130, said
    assert took < 15
    assert desk.left() == []


class Composed:
    """A project of the Compose file."""

    def __init__(self, name: str, desk: Desk) -> None:
        self._command = [
            require_compose(),
            "--project-name",
            name,
            "--file",
            str(ROOT / "compose" / "drill.compose.yaml"),
        ]
        self._name = name
        self._desk = desk

    def __call__(self, *arguments: str, **env: str) -> Done:
        return run(*self._command, *arguments, env={"DRILL_BACKUPS": str(self._desk.backups), **env})

    def read(self, volume: str, file: str) -> str:
        source = f"--volume={self._name}_{volume}:/it:ro"
        return run("docker", "run", "--rm", "--entrypoint=cat", source, IMAGE, f"/it/{file}").ok().stdout


@pytest.fixture
def composed(name: str, desk: Desk) -> Iterator[Composed]:
    project = Composed(name, desk)
    yield project
    project("down", "--volumes", "--remove-orphans").ok()


def test_compose_runs_the_drill_that_is_shipped_and_one_that_fails(composed: Composed, desk: Desk) -> None:
    passed = composed("run", "--rm", "-T", "drill", DRILL_USER="4000:4000")
    assert passed.status == 0, passed.stdout + passed.stderr
    assert json.loads(composed.read("reports", "drill.json"))["outcome"] == "passed"
    assert "nightly" in composed.read("reports", "drill.prom")

    failed = composed("run", "--rm", "-T", "drill", DRILL_FILE=str(desk.drill_file(FAILING)), DRILL_USER="4000:4000")
    assert failed.status == 1, failed.stdout + failed.stderr
    assert json.loads(composed.read("reports", "drill.json"))["outcome"] == "failed"
    assert len(composed.read("history", "drill.history.jsonl").splitlines()) == 2


def options_of(pod: dict[str, Any]) -> Iterator[str]:
    """Yield docker's options for the security of a pod with one container."""
    (container,) = pod["containers"]
    whole, own = pod["securityContext"], container["securityContext"]
    yield f"--user={whole['runAsUser']}:{whole['runAsGroup']}"
    yield from (f"--cap-drop={name}" for name in own["capabilities"]["drop"])
    if own["readOnlyRootFilesystem"]:
        yield "--read-only"
    if not own["allowPrivilegeEscalation"]:
        yield "--security-opt=no-new-privileges"
    yield f"--memory={container['resources']['limits']['memory'].removesuffix('i').lower()}"


def test_the_pod_of_kubernetes_passes_the_drill_of_its_config_map(desk: Desk, tmp_path: Path) -> None:
    objects = {each["kind"]: each for each in yaml.safe_load_all((ROOT / "compose" / "cronjob.yaml").read_text())}
    pod = objects["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    drill = tmp_path / "drill"
    drill.mkdir()
    for name, text in objects["ConfigMap"]["data"].items():
        (drill / name).write_text(text)
    places = {"drill": drill, "backups": desk.backups, "history": desk.history, "scratch": desk.scratch}
    shown = [
        f"--tmpfs={mount['mountPath']}:size=64m"
        if mount["name"] == "tmp"
        else f"--volume={places[mount['name']]}:{mount['mountPath']}{':ro' if mount.get('readOnly') else ''}"
        for mount in container["volumeMounts"]
    ]
    done = run("docker", "run", "--rm", "--network=none", *options_of(pod), *shown, IMAGE, *container["args"])
    assert done.status == 0, done.stdout + done.stderr
    assert outcome_of(desk.history / "reports") == "passed"
    assert len((desk.history / "drill.history.jsonl").read_text().splitlines()) == 1
    assert desk.left() == []
