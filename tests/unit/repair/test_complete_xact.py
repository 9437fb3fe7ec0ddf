"""pg_xact that was copied before the tables: the commits that rows know of are recorded, and its end can be read."""

from __future__ import annotations

import dataclasses
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fixtures import Server
from pgrescue.pipeline import Silent
from pgrescue.repair.complete_xact import CompleteXact
from pgrescue.snapshot.transaction_status import TransactionStatus, XidStatus
from tests.unit.builders import make_run

if TYPE_CHECKING:
    from pathlib import Path

    from pgrescue.run import Run


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, int]:
    """Return a data directory whose pg_xact is older than its tables, and a commit and an abort that it lacks."""
    root = tmp_path_factory.mktemp("torn")
    with Server(major=17) as server:
        with server.connect() as connection:
            connection.execute("create table t (id int primary key, v int)")
            connection.execute("insert into t select n, 0 from generate_series(1, 100) n")
            connection.execute("checkpoint")
        shutil.copytree(server.pgdata / "pg_xact", root / "older")
        with server.connect() as connection:
            connection.execute("update t set v = 1 where id < 50")
            (updated,) = connection.execute("select xmin::text::int from t where id = 1").fetchone() or (0,)
            with connection.transaction(force_rollback=True):
                connection.execute("update t set v = 2 where id = 60")
                (aborted,) = connection.execute("select xmin::text::int from t where id = 60").fetchone() or (0,)
            connection.execute("select count(*) from t")
            connection.execute("checkpoint")
        server.stop()
        shutil.copytree(server.pgdata, root / "pgdata")
    shutil.copytree(root / "older", root / "pgdata" / "pg_xact", dirs_exist_ok=True)
    return root / "pgdata", updated, aborted


def run_on(pgdata: Path, root: Path) -> Run:
    run = make_run(root)
    shutil.rmtree(run.workspace.pgdata)
    shutil.copytree(pgdata, run.workspace.pgdata)
    return run


def test_what_rows_know_is_recorded(torn: tuple[Path, int, int], tmp_path: Path) -> None:
    pgdata, updated, aborted = torn
    run = run_on(pgdata, tmp_path)
    assert not CompleteXact().holds(run)
    CompleteXact().apply(run, Silent())
    assert CompleteXact().holds(run)
    status = TransactionStatus(run.workspace.pgdata).of(np.array([updated, aborted], dtype=np.uint32))
    assert status.tolist() == [XidStatus.COMMITTED, XidStatus.UNKNOWN]
    [found] = CompleteXact().findings(run)
    assert found.code == "commits_completed"
    file = run.workspace.pgdata / "pg_xact" / "0000"
    assert file.stat().st_size == 32 * 8192
    assert (run.workspace.removed / "pg_xact" / "0000").read_bytes() == (pgdata / "pg_xact" / "0000").read_bytes()


def test_where_pg_xact_knows_everything_nothing_is_told(torn: tuple[Path, int, int], tmp_path: Path) -> None:
    run = run_on(torn[0], tmp_path / "first")
    CompleteXact().apply(run, Silent())
    again = run_on(run.workspace.pgdata, tmp_path / "second")
    CompleteXact().apply(again, Silent())
    assert CompleteXact().findings(again) == ()
    kept, now = (workspace / "pg_xact" / "0000" for workspace in (again.workspace.removed, again.workspace.pgdata))
    assert kept.read_bytes() == now.read_bytes()


@pytest.mark.parametrize("field", ["repairs", "computes_reset"])
def test_the_runbooks_reset_leaves_it_alone(field: str, tmp_path: Path) -> None:
    run = dataclasses.replace(make_run(tmp_path), **{field: False})  # type: ignore[arg-type]  # both are bool
    assert CompleteXact().holds(run)
    assert CompleteXact().findings(run) == ()
