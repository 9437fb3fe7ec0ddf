"""The native engine for the contract suite: whether it can be had here, and how one is made."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

import pytest

from pgrescue.engine.native import NativeEngine, find_native
from pgrescue.errors import EngineError

if TYPE_CHECKING:
    from pgrescue.workspace import Workspace


@cache
def missing(major: int) -> str | None:
    """Say why this machine has no PostgreSQL of this major, or return None."""
    try:
        find_native(major)
    except EngineError as error:
        return error.problem
    return None


def require(major: int) -> None:
    """Skip the test where the engine cannot be had; fail it where PGRESCUE_REQUIRE_ENGINES names native."""
    if reason := missing(major):
        if "native" in os.environ.get("PGRESCUE_REQUIRE_ENGINES", "").split(","):
            pytest.fail(reason)
        pytest.skip(reason)


def make(workspace: Workspace, major: int, workspace_id: str) -> NativeEngine:  # noqa: ARG001 - one shape for all
    """Return an engine on a workspace, which need not hold anything."""
    require(major)
    return NativeEngine(find_native(major, pgdata=workspace.pgdata), workspace)
