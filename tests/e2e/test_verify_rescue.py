"""The checks as part of a rescue: what they find reaches the report, the verdict and the next run."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from fixtures import Server, fill, stopped_copy
from tests.conftest import require_engine

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures import Snapshot
    from tests.conftest import Rescuer


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    with Server(checksums=False) as server:
        fill(server, scale=0.1, databases=("portal",))
        return stopped_copy(server, tmp_path_factory.mktemp("healthy") / "copy")


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Return a copy in which one table has lost its second half."""
    with Server(checksums=False) as server:
        fill(server, scale=0.1, databases=("portal",))
        with server.connect("portal") as connection:
            (path,) = connection.execute("SELECT pg_relation_filepath('orders')").fetchall()[0]
        snapshot = stopped_copy(server, tmp_path_factory.mktemp("torn") / "copy")
    os.truncate(snapshot.path / path, 8192)
    return snapshot


@pytest.mark.native
def test_a_healthy_copy_is_consistent_at_every_level(healthy: Snapshot, rescue: Rescuer) -> None:
    require_engine("native")
    rescued = rescue(healthy, "--engine", "native", "--verify", "none")
    assert "checks_skipped" in rescued.codes
    for level in ("fast", "full"):
        rescued = rescued.again("--engine", "native", "--verify", level)
        assert set(rescued.codes) <= {"config_blanked", "files_set_aside"}
        assert rescued.report["verdict"] == "consistent"
        assert {"name": "verify", "outcome": "done"}.items() <= verify_step(rescued.report["steps"]).items()
        assert level_of(rescued.workspace) == level
    # What was checked in full need not be checked again in a hurry.
    rescued = rescued.again("--engine", "native", "--verify", "fast")
    assert verify_step(rescued.report["steps"])["outcome"] == "held"
    assert level_of(rescued.workspace) == "full"
    assert rescued.one("SELECT count(*) FROM pg_namespace WHERE nspname ~ '^pgrescue'", "portal") == 0


def verify_step(steps: list[dict[str, object]]) -> dict[str, object]:
    (step,) = [step for step in steps if step["name"] == "verify"]
    return step


def level_of(workspace: Path) -> str:
    return str(json.loads((workspace / "verified.json").read_text())["level"])


def test_a_table_that_lost_its_end_is_found(torn: Snapshot, rescue: Rescuer, engine_name: str) -> None:
    rescued = rescue(torn, "--engine", engine_name, "--verify", "fast")
    assert rescued.report["verdict"] == "damaged"
    lost = {
        item["object"]: item["rows"] for item in rescued.report["findings"] if item["code"] == "index_points_nowhere"
    }
    assert lost["portal.public.orders_pkey"] > 0
    assert all(name.startswith("portal.public.orders_") for name in lost)
