"""Copies of a busy server, on every major and engine: what must be there, what may be lost, what must be told."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from fixtures import Snapshot, broken_promises, order_versions, read_acks
from tests.cli import pgrescue
from tests.contract import engines_docker, engines_native
from tests.e2e.agreement import disagreements, write_everywhere

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli import Rescue
    from tests.conftest import Rescuer
    from tests.snapshots import Shelf

_ENGINES = {"docker": engines_docker, "native": engines_native}


@dataclass(frozen=True)
class Case:
    """A major on an engine, with the options that name it.

    Everything is checked natively; the server's checks do not depend on the engine, and those of Docker are fewer.
    """

    major: int
    engine: str
    options: tuple[str, ...]

    @property
    def most_checks(self) -> tuple[str, str]:
        return ("--verify", "full" if self.engine == "native" else "fast")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((major, engine), marks=getattr(pytest.mark, engine), id=f"{major}-{engine}")
        for major in (15, 16, 17, 18)
        for engine in _ENGINES
    ],
)
def case(request: pytest.FixtureRequest) -> Case:
    major, engine = request.param
    _ENGINES[engine].require(major, contrib=True)
    return Case(major, engine, _ENGINES[engine].options(major))


@pytest.fixture(scope="module")
def with_wal(case: Case, shelf: Shelf, shared_rescue: Rescuer) -> Rescue:
    snapshot = shelf.get("hot-barman", case.major)
    wal = snapshot.directory.parent / "hot-wal"
    return shared_rescue(snapshot, *case.options, "--wal", str(wal), *case.most_checks)


@pytest.fixture(scope="module")
def without_wal(case: Case, shelf: Shelf, shared_rescue: Rescuer, with_wal: Rescue) -> Rescue:  # noqa: ARG001 - its order
    return shared_rescue(shelf.get("hot-barman", case.major), *case.options, *case.most_checks)


def _versions(rescued: Rescue) -> dict[str, int]:
    with rescued.connect("portal") as connection:
        return order_versions(connection)


def _told(rescued: Rescue, table: str = "public.orders") -> set[str]:
    """Return the keys of all rows that the manifest does not vouch for."""
    manifest = json.loads((rescued.workspace / "manifest.json").read_text())
    return {
        str(row["key"]["id"])
        for entry in manifest["tables"]
        if entry["database"] == "portal" and entry["table"] == table
        for kind in ("set_aside", "brought_back", "lost", "perhaps_lost", "undecided")
        for row in entry[kind]
    }


def test_with_wal_every_acknowledged_commit_is_there(with_wal: Rescue) -> None:
    assert with_wal.report["verdict"] == "consistent"
    assert with_wal.report["strategy"] == "archive"
    acks = [ack for ack in read_acks(with_wal.snapshot.directory / "acks.jsonl") if ack.acknowledged]
    expected: dict[str, int | None] = {}
    for ack in acks:
        expected[ack.ref] = None if ack.op == "delete" else ack.version
    assert _versions(with_wal) == {ref: version for ref, version in expected.items() if version is not None}
    assert [finding for finding in with_wal.report["findings"] if finding["severity"] != "info"] == []
    for fact in with_wal.snapshot.expected:
        assert with_wal.one(fact.query, fact.database) == fact.value, fact.label


def test_without_wal_nothing_is_missing_in_silence(with_wal: Rescue, without_wal: Rescue) -> None:
    """An order that was acknowledged before the backup is there once, or its key is in the manifest."""
    assert without_wal.report["verdict"] == "best-effort", without_wal.codes
    assert without_wal.report["strategy"] == "reset"
    acks = read_acks(without_wal.snapshot.directory / "acks.jsonl")
    with with_wal.connect("portal") as connection:
        keys = {str(ref): str(key) for ref, key in connection.execute("select client_ref, id from orders").fetchall()}
    told = _told(without_wal)
    silent = [broken for broken in broken_promises(acks, _versions(without_wal)) if keys.get(broken[:36]) not in told]
    assert silent == []
    assert (
        without_wal.one(
            "select count(*) - count(distinct client_ref) from orders where client_ref is not null", "portal"
        )
        == 0
    )


def test_without_wal_heap_and_indexes_agree_and_writes_work(without_wal: Rescue) -> None:
    with without_wal.connect("portal") as connection:
        assert disagreements(connection) == []
        write_everywhere(connection)
        assert disagreements(connection) == []


def test_a_tar_of_a_running_server(case: Case, shelf: Shelf, rescue: Rescuer) -> None:
    """Without a checkpoint before it, rows that never reached a file cannot be named; what is there must be sound."""
    rescued = rescue(shelf.get("hot-tar", case.major), *case.options, "--verify", "fast")
    assert rescued.report["verdict"] == "best-effort", rescued.report["findings"]
    with rescued.connect("portal") as connection:
        assert disagreements(connection) == []
        write_everywhere(connection)


def test_a_tar_with_wal_that_ends_too_early_is_never_consistent(
    case: Case, shelf: Shelf, rescue: Rescuer, tmp_path: Path
) -> None:
    """A replay was given up, or could not begin: pg_control, copied last, may name a checkpoint behind the WAL."""
    if case.engine == "docker":
        return  # nothing in it depends on the engine
    rescued = rescue(shelf.get("hot-tar-wal", case.major), *case.options, "--verify", "fast")
    assert rescued.report["strategy"] == "reset"
    assert rescued.report["verdict"] == "best-effort", rescued.report["findings"]
    if "strategy_failed" not in rescued.codes:
        document = pgrescue("inspect", rescued.snapshot.path, "--json", cwd=tmp_path).ok().document()
        assert [option["possible"] for option in document["strategies"] if option["name"] == "crash"] == [False]


def test_the_plain_recipe_fails_on_the_same_file(case: Case, shelf: Shelf, rescue: Rescuer) -> None:
    """The control: without it, a load that tears nothing apart would let all tests above pass."""
    if case.engine == "docker":
        return  # as above
    plain = ("--strategy", "reset", "--plain-reset", "--no-repair", "--verify", "full")
    rescued = rescue(shelf.get("hot-barman", case.major), *case.options, *plain)
    assert rescued.report["verdict"] in {"damaged", "failed"}


def test_the_snapshots_are_torn(shelf: Shelf, case: Case) -> None:
    """Some commits were acknowledged before, and some during the copy."""
    snapshot: Snapshot = shelf.get("hot-barman", case.major)
    before = {ack.before_backup for ack in read_acks(snapshot.directory / "acks.jsonl")}
    assert before == {True, False}
