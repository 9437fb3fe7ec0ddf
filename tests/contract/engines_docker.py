"""The docker engine for the contract suite: whether it can be had here, and how one is made."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

import pytest

from pgrescue.engine.docker import DockerEngine, default_image, docker_unavailable, find_docker, image_is_present
from pgrescue.pipeline import Silent

if TYPE_CHECKING:
    from pgrescue.workspace import Workspace


def options(major: int) -> tuple[str, ...]:  # noqa: ARG001 - one shape for all
    """Return the options of `pgrescue local` for this engine and major."""
    return ("--engine", "docker")


@cache
def missing(major: int) -> str | None:
    """Say why this machine cannot run the docker engine with this major, or return None."""
    if reason := docker_unavailable():
        return reason
    return None if image_is_present(default_image(major)) else f"Docker has no image {default_image(major)}"


def require(major: int, *, contrib: bool = False) -> None:  # noqa: ARG001 - every image of postgres has contrib
    """Skip the test where the engine cannot be had; fail it where PGRESCUE_REQUIRE_ENGINES names docker."""
    if reason := missing(major):
        if "docker" in os.environ.get("PGRESCUE_REQUIRE_ENGINES", "").split(","):
            pytest.fail(reason)
        pytest.skip(reason)


def make(workspace: Workspace, major: int, workspace_id: str) -> DockerEngine:
    """Return an engine on a workspace, which need not hold anything."""
    require(major)
    found = find_docker(major, image=None, may_pull=False, observer=Silent(), pgdata=workspace.pgdata)
    return DockerEngine(found, workspace, workspace_id)
