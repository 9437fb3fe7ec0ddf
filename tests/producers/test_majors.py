"""The other majors of PostgreSQL: fewer snapshots, the same promises."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from fixtures import FixtureError
from fixtures.binaries import find_bindir
from tests.cli import check_report
from tests.conftest import require_engine
from tests.producers import facts

if TYPE_CHECKING:
    from tests.conftest import Rescuer
    from tests.snapshots import Shelf

# tests/e2e/test_hot_snapshots.py resets on every major and engine, and proves more than this.
NATIVE = [
    *((major, name) for major in (15, 16, 18) for name in ("stopped-tar", "running-wal-last")),
    (18, "basebackup-none"),
]
DOCKER = [(15, "running-wal-last"), (16, "stopped-tar"), (18, "stopped-tar"), (18, "running-wal-last")]
CASES = [
    *(pytest.param("native", *case, marks=pytest.mark.native) for case in NATIVE),
    *(pytest.param("docker", *case, marks=pytest.mark.docker) for case in DOCKER),
]
OUTCOMES = {
    "stopped-tar": ("clean", "consistent"),
    "basebackup-none": ("reset", "best-effort"),
    "running-wal-last": ("crash", "best-effort"),
}


def require(engine: str, major: int) -> tuple[str, ...]:
    """Skip or fail where this machine cannot; return the options that name the engine."""
    try:
        bindir = find_bindir(major)
    except FixtureError as error:
        if engine in os.environ.get("PGRESCUE_REQUIRE_ENGINES", "").split(","):
            raise
        pytest.skip(error.problem)
    if (engine, major) == ("native", 16):
        return ("--engine", engine, "--bindir", str(bindir))
    require_engine(engine, major)
    return ("--engine", engine)


@pytest.mark.parametrize(("engine", "major", "name"), CASES)
def test_strategies_and_verdicts_are_the_same(
    shelf: Shelf, rescue: Rescuer, engine: str, major: int, name: str
) -> None:
    options = require(engine, major)
    strategy, verdict = OUTCOMES[name]
    snapshot = shelf.get(name, major)
    rescued = rescue(snapshot, *options)
    rescued.done.ok()
    check_report(rescued.report)
    report = rescued.report
    assert (report["engine"], report["strategy"], report["verdict"]) == (engine, strategy, verdict)
    assert int(rescued.one("SELECT current_setting('server_version_num')")) // 10000 == major
    assert rescued.one("SELECT system_identifier::text FROM pg_control_system()") == snapshot.system_identifier
    if strategy == "reset":
        assert facts.missed(rescued, facts.untouched(snapshot)) == []
        assert facts.wrongly_recovered(facts.settled(snapshot), facts.versions(rescued)) == []
    else:
        assert facts.missed(rescued, snapshot.expected) == []
        assert facts.kept_promises(rescued) == []
    with rescued.connect("portal") as connection:
        connection.execute("INSERT INTO order_audit (order_id, op) VALUES (1, 'test')")
        connection.execute("CHECKPOINT")
