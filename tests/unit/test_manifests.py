"""What the manifests of drills promise, and that those who read them would take them."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes_validate  # type: ignore[import-untyped]  # it has no types
import pytest
import yaml

from pgrescue import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
ACTION = ROOT / "action.yml"
COMPOSE = ROOT / "compose"
CRONJOB = COMPOSE / "cronjob.yaml"
# The oldest has every field that the manifest uses; the newest is the newest that the package knows.
KUBERNETES = ("1.27", "1.30", kubernetes_validate.latest_version())

Manifest = dict[str, Any]


def loaded(path: Path) -> Manifest:
    document = yaml.safe_load(path.read_text())
    assert isinstance(document, dict)
    # PyYAML reads YAML 1.1, where the key `on` of a workflow is a boolean.
    return {"on" if name is True else name: value for name, value in document.items()}


def kubernetes_objects() -> dict[str, Manifest]:
    return {document["kind"]: document for document in yaml.safe_load_all(CRONJOB.read_text())}


def schema_check(path: Path, schema: str) -> subprocess.CompletedProcess[str]:
    """Run check-jsonschema with one of the schemas that it brings; no network."""
    reading = ("--data-transform", "gitlab-ci") if schema == "gitlab-ci" else ()
    return subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *reading, str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def without_using(manifest: Manifest) -> None:
    del manifest["runs"]["using"]


def with_a_misspelt_permission(manifest: Manifest) -> None:
    manifest["permissions"] = {"content": "read"}


def with_a_misspelt_when(manifest: Manifest) -> None:
    manifest["drill"]["artifacts"]["when"] = "everytime"


def with_a_misspelt_read_only(manifest: Manifest) -> None:
    manifest["services"]["drill"]["readonly"] = manifest["services"]["drill"].pop("read_only")


@pytest.mark.parametrize(
    ("path", "schema", "spoil"),
    [
        (ACTION, "github-actions", without_using),
        (COMPOSE / "github-workflow.yml", "github-workflows", with_a_misspelt_permission),
        (COMPOSE / "gitlab-drill.yml", "gitlab-ci", with_a_misspelt_when),
        (COMPOSE / "drill.compose.yaml", "compose-spec", with_a_misspelt_read_only),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_schema_of_its_reader_takes_the_manifest_and_no_spoilt_one(
    path: Path, schema: str, spoil: Callable[[Manifest], None], tmp_path: Path
) -> None:
    # GitLab's schema looks into no job whose name begins with a dot.
    manifest = {name.removeprefix(".pgrescue-"): value for name, value in loaded(path).items()}
    checked = tmp_path / path.name
    checked.write_text(yaml.safe_dump(manifest))
    taken = schema_check(checked, schema)
    assert taken.returncode == 0, taken.stdout
    spoil(manifest)
    checked.write_text(yaml.safe_dump(manifest))
    assert schema_check(checked, schema).returncode == 1


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_every_object_and_no_misspelt_field(version: str) -> None:
    objects = kubernetes_objects()
    assert list(objects) == ["ConfigMap", "PersistentVolumeClaim", "NetworkPolicy", "CronJob"]
    for manifest in objects.values():
        kubernetes_validate.validate(manifest, version, strict=True)
    spoilt = copy.deepcopy(objects["CronJob"])
    spoilt["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readOnlyRoot"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="readOnlyRoot"):
        kubernetes_validate.validate(spoilt, version, strict=True)


def test_the_pod_may_do_nothing_but_drill() -> None:
    cron = kubernetes_objects()["CronJob"]["spec"]
    job = cron["jobTemplate"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert cron["concurrencyPolicy"] == "Forbid"
    assert (job["backoffLimit"], pod["restartPolicy"]) == (0, "Never")
    assert job["activeDeadlineSeconds"] > pod["terminationGracePeriodSeconds"] >= 60
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {name for name, mount in mounts.items() if mount.get("readOnly")} == {"drill", "backups"}
    assert {volume["name"] for volume in pod["volumes"]} == set(mounts)


def test_the_pod_is_the_one_that_the_network_policy_is_about() -> None:
    objects = kubernetes_objects()
    labels = objects["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    policy = objects["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policy


def test_the_config_map_is_the_drill_file_of_the_others() -> None:
    modeline, _, text = (COMPOSE / "drill.yaml").read_text().partition("\n")
    assert modeline.startswith("# yaml-language-server")
    assert kubernetes_objects()["ConfigMap"]["data"] == {"drill.yaml": text}


def test_no_expression_is_part_of_a_shell_text() -> None:
    steps = [*loaded(ACTION)["runs"]["steps"], *loaded(COMPOSE / "github-workflow.yml")["jobs"]["drill"]["steps"]]
    texts = [step["run"] for step in steps if "run" in step]
    assert len(texts) == 3
    assert [text for text in texts if "${{" in text] == []


def test_every_input_reaches_the_action_and_the_example_gives_only_those() -> None:
    action = ACTION.read_text()
    names = set(loaded(ACTION)["inputs"])
    assert set(re.findall(r"\$\{\{ inputs\.(\w+) \}\}", action)) == names
    (given,) = [
        step["with"]
        for step in loaded(COMPOSE / "github-workflow.yml")["jobs"]["drill"]["steps"]
        if "pgrescue@" in step.get("uses", "")
    ]
    assert set(given) <= names


@pytest.mark.parametrize("name", ["github-workflow.yml", "gitlab-drill.yml", "cronjob.yaml"])
def test_the_version_is_this_one(name: str) -> None:
    found = set(re.findall(r"pgrescue(?:-drill)?[:@]v?(\d[\w.]*)", (COMPOSE / name).read_text()))
    assert found == {__version__}
