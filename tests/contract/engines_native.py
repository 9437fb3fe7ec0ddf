"""The native engine for the contract suite: whether it can be had here, and how one is made."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

import pytest

from fixtures import FixtureError
from fixtures.binaries import contrib_missing, find_bindir
from pgrescue.engine.native import NativeEngine, find_native
from pgrescue.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

    from pgrescue.workspace import Workspace


def bindir(major: int) -> Path | None:
    """Return the programs that tests name with --bindir; None for a major that pgrescue finds with contrib by itself.

    It finds 16 too, in a wheel without contrib.
    """
    if major != 16:
        return None
    try:
        return find_bindir(major)
    except FixtureError:
        return None


def options(major: int) -> tuple[str, ...]:
    """Return the options of `pgrescue local` for this engine and major."""
    named = bindir(major)
    return ("--engine", "native", *(("--bindir", str(named)) if named else ()))


@cache
def missing(major: int) -> str | None:
    """Say why this machine has no PostgreSQL of this major, or return None."""
    try:
        find_native(major, bindir=bindir(major))
    except EngineError as error:
        return error.problem
    return None


def require(major: int, *, contrib: bool = False) -> None:
    """Skip the test where the engine cannot be had; fail it where PGRESCUE_REQUIRE_ENGINES names native.

    `contrib`: with amcheck, pageinspect and pg_surgery.
    """
    if reason := missing(major) or (contrib_missing(major) if contrib else None):
        if "native" in os.environ.get("PGRESCUE_REQUIRE_ENGINES", "").split(","):
            pytest.fail(reason)
        pytest.skip(reason)


def make(workspace: Workspace, major: int, workspace_id: str) -> NativeEngine:  # noqa: ARG001 - one shape for all
    """Return an engine on a workspace, which need not hold anything."""
    require(major)
    return NativeEngine(find_native(major, bindir=bindir(major), pgdata=workspace.pgdata), workspace)
