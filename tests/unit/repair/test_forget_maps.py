"""Maps of another instant, and unlogged tables, before the server first starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fixtures import Server
from pgrescue.pipeline import Silent
from pgrescue.repair.forget_maps import ForgetMaps, database_directories
from tests.unit.builders import make_run
from tests.unit.repair.patients import PREPARE, Torn, admit

if TYPE_CHECKING:
    from pathlib import Path

    from pgrescue.run import Run

COUNT = "select count(*) from seen where id > 0"
BY_INDEX = "-c enable_seqscan=off -c enable_bitmapscan=off"


def test_a_visibility_map_of_another_instant_does_not_show_rows_that_are_gone(tmp_path: Path) -> None:
    with Server(settings={"autovacuum": "off"}) as server:
        torn = Torn(server)
        with server.connect() as connection:
            connection.execute("create unlogged table fleeting (id int primary key)")
            connection.execute("insert into fleeting values (1)")
            connection.execute("create table seen (id int primary key, pad text)")
            connection.execute("insert into seen select n, repeat('x', 500) from generate_series(1, 1000) n")
            connection.execute("vacuum seen")
            heap, fleeting = torn.path("seen"), torn.path("fleeting")
            vm = heap.with_name(f"{heap.name}_vm")
            torn.keep(vm)
            connection.execute("delete from seen where id <= 300")
            connection.execute("checkpoint")
        with server.stopped():
            torn.put_back(vm)
        with server.connect() as connection:
            connection.execute("set enable_seqscan = off")
            connection.execute("set enable_bitmapscan = off")
            assert connection.execute(COUNT.encode()).fetchall() == [(1000,)]
        server.stop()
        with_maps = tuple(step for step in PREPARE if not isinstance(step, ForgetMaps))
        patient = admit(server.pgdata, tmp_path, steps=with_maps)
        other = admit(server.pgdata, tmp_path / "other")
        try:
            assert patient.one(COUNT, options=BY_INDEX) == 1000
            assert other.one(COUNT, options=BY_INDEX) == 700
            assert other.one("select count(*) from fleeting") == 0
            assert patient.one("select count(*) from fleeting") == 1
        finally:
            patient.run.engine.remove()
            other.run.engine.remove()
        workspace = other.run.workspace
        kept = workspace.removed / vm.relative_to(server.pgdata)
        assert kept.read_bytes() == vm.read_bytes()
        assert (workspace.removed / fleeting.relative_to(server.pgdata)).stat().st_size == 8192


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = make_run(tmp_path)
    for directory in ("base/5", "global", "pg_tblspc/77/PG_17_202406281/5"):
        (run.workspace.pgdata / directory).mkdir(parents=True)
    return run


def put(run: Run, **files: str) -> None:
    for name, text in files.items():
        (run.workspace.pgdata / name.replace("__", "/").replace("dot", ".")).write_text(text)


def tree(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


FILES = {
    "base__5__16384": "heap",
    "base__5__16384_vm": "vm",
    "base__5__16384_fsm": "fsm",
    "base__5__16384_fsmdot1": "fsm 1",
    "base__5__16390": "unlogged",
    "base__5__16390dot1": "unlogged 1",
    "base__5__16390_init": "init",
    "global__1262": "databases",
    "global__1262_vm": "vm of databases",
    "pg_tblspc__77__PG_17_202406281__5__16400_fsm": "fsm elsewhere",
    "base__5__PG_VERSION": "17",
}
LEFT = {
    "base/5/16384": "heap",
    "base/5/16390": "init",
    "base/5/16390_init": "init",
    "base/5/PG_VERSION": "17",
    "global/1262": "databases",
}
TAKEN = {
    "base/5/16384_fsm": "fsm",
    "base/5/16384_fsm.1": "fsm 1",
    "base/5/16384_vm": "vm",
    "base/5/16390": "unlogged",
    "base/5/16390.1": "unlogged 1",
    "global/1262_vm": "vm of databases",
    "pg_tblspc/77/PG_17_202406281/5/16400_fsm": "fsm elsewhere",
}


def test_what_is_taken_away_is_kept_under_its_path(run: Run) -> None:
    put(run, **FILES)
    step = ForgetMaps()
    assert not step.holds(run)
    step.apply(run, Silent())
    assert step.holds(run)
    assert tree(run.workspace.pgdata) == LEFT
    assert tree(run.workspace.removed) == {**TAKEN, "maps-forgotten": ""}
    assert step.findings(run) == ()


@pytest.mark.parametrize("done", range(len(TAKEN)))
def test_an_attempt_that_was_killed_is_carried_on(run: Run, done: int) -> None:
    put(run, **FILES)
    for name in list(TAKEN)[:done]:
        target = run.workspace.removed / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (run.workspace.pgdata / name).rename(target)
    ForgetMaps().apply(run, Silent())
    assert tree(run.workspace.pgdata) == LEFT
    assert tree(run.workspace.removed) == {**TAKEN, "maps-forgotten": ""}


def test_an_init_fork_that_was_copied_already_is_copied_again(run: Run) -> None:
    put(run, **FILES)
    ForgetMaps().apply(run, Silent())
    (run.workspace.removed / "maps-forgotten").unlink()
    ForgetMaps().apply(run, Silent())
    assert tree(run.workspace.pgdata) == LEFT
    assert tree(run.workspace.removed) == {**TAKEN, "maps-forgotten": ""}


def test_every_directory_with_relations_is_looked_into(run: Run) -> None:
    found = [str(path.relative_to(run.workspace.pgdata)) for path in database_directories(run.workspace.pgdata)]
    assert found == ["global", "base/5", "pg_tblspc/77/PG_17_202406281/5"]
