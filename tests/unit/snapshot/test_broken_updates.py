from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pgrescue.model import Lsn
from pgrescue.snapshot.broken_updates import BrokenUpdate, broken_updates
from pgrescue.snapshot.heap import SlotState
from tests.unit.snapshot.relations import BLOCK, MAJORS, healthy, workbench, written

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgrescue.snapshot.relation import RelationFile
    from tests.unit.snapshot.relations import Workbench


@pytest.fixture(scope="module", params=(15, 18))
def bench(request: pytest.FixtureRequest) -> Iterator[Workbench]:
    with workbench(request.param) as bench:
        yield bench


def find(bench: Workbench, relation: RelationFile, reset_lsn: Lsn | None = None) -> list[BrokenUpdate]:
    return broken_updates(relation, *bench.readers(), reset_lsn=reset_lsn)


def make(bench: Workbench, rows: int = 10) -> None:
    """Make a table of which one page holds four rows, so that an update goes to another page."""
    bench.do(
        "DROP TABLE IF EXISTS t",
        "CREATE TABLE t (id int PRIMARY KEY, filling text)",
        "ALTER TABLE t ALTER filling SET STORAGE plain",
        f"INSERT INTO t SELECT n, repeat('x', 1900) FROM generate_series(1, {rows}) n",
    )


def place(bench: Workbench, row: int) -> tuple[int, int]:
    ((place,),) = bench.ask(f"SELECT ctid::text FROM t WHERE id = {row}")
    block, offset = place.strip("()").split(",")
    return int(block), int(offset)


def xids(bench: Workbench, row: int) -> int:
    return int(bench.ask(f"SELECT xmin::text FROM t WHERE id = {row}")[0][0])


@pytest.mark.parametrize("major", MAJORS)
def test_a_healthy_database_has_none(major: int) -> None:
    sample = healthy(major)
    status, multixacts = sample.readers()
    indexes = set(sample.indexes)
    for name, relation in sample.files.items():
        if name not in indexes and relation.path.stat().st_size:
            assert broken_updates(relation, status, multixacts) == [], name


def test_a_page_past_the_end_a_zero_one_and_an_older_one(bench: Workbench, tmp_path: Path) -> None:
    make(bench)
    inserter, before = xids(bench, 1), bench.pages("t")
    bench.do("UPDATE t SET filling = repeat('y', 1900) WHERE id = 1")
    after, new = bench.pages("t"), place(bench, 1)
    assert (len(before), len(after), new) == (3, 3, (2, 3))
    expected = BrokenUpdate(0, 1, inserter, xids(bench, 1), 2, 3, SlotState.PAST_LINE_POINTERS, is_certain=True)
    assert find(bench, written(tmp_path / "1", [*after[:2], before[2]])) == [expected]
    cut = replace(expected, successor_state=SlotState.PAST_END)
    assert find(bench, written(tmp_path / "1", after[:2])) == [cut]
    zero = replace(expected, successor_state=SlotState.ZERO_PAGE)
    assert find(bench, written(tmp_path / "1", [*after[:2], bytes(BLOCK)])) == [zero]
    assert find(bench, written(tmp_path / "1", after)) == []
    assert find(bench, written(tmp_path / "1", before)) == []
    assert find(bench, written(tmp_path / "1", [before[0], *after[1:]])) == []


def test_hints_change_nothing(bench: Workbench, tmp_path: Path) -> None:
    make(bench)
    bench.do("UPDATE t SET filling = repeat('y', 1900) WHERE id < 4")
    plain = find(bench, written(tmp_path / "1", bench.pages("t")[:2]))
    bench.do("SET enable_indexscan = off", "SELECT count(*) FROM t WHERE id > 0", "SELECT count(*) FROM t")
    hinted = written(tmp_path / "2", bench.pages("t")[:2])
    assert [item.offset for item in plain] == [1, 2, 3]
    assert find(bench, hinted) in (plain, [])  # A scan may prune the old versions.


def test_a_slot_of_another_row(bench: Workbench, tmp_path: Path) -> None:
    make(bench, 12)
    before = bench.pages("t")
    bench.do(
        "DELETE FROM t WHERE id = 9", "VACUUM (TRUNCATE off) t", "UPDATE t SET filling = repeat('y', 1900) WHERE id = 1"
    )
    after = bench.pages("t")
    assert place(bench, 1) == (2, 1)
    (found,) = find(bench, written(tmp_path / "1", [after[0], *before[1:]]))
    assert (found.block, found.offset, found.successor_state) == (0, 1, SlotState.NORMAL)
    assert find(bench, written(tmp_path / "1", after)) == []


def test_a_version_that_vacuum_removed_is_no_loss(bench: Workbench, tmp_path: Path) -> None:
    make(bench)
    bench.do("UPDATE t SET filling = repeat('y', 1900) WHERE id = 1")
    between = bench.pages("t")
    bench.do("DELETE FROM t WHERE id = 1", "VACUUM (TRUNCATE off) t")
    after = bench.pages("t")
    assert find(bench, written(tmp_path / "1", [between[0], *after[1:]])) == []
    assert find(bench, written(tmp_path / "1", after)) == []


def test_a_version_that_was_pruned_to_a_dead_slot_is_no_loss(bench: Workbench, tmp_path: Path) -> None:
    make(bench)
    bench.do("UPDATE t SET filling = repeat('y', 1900) WHERE id = 1")
    between = bench.pages("t")
    bench.do("DELETE FROM t WHERE id = 1", "VACUUM (INDEX_CLEANUP off) t")
    assert find(bench, written(tmp_path / "1", [between[0], *bench.pages("t")[1:]])) == []


def test_what_is_no_lost_update(bench: Workbench, tmp_path: Path) -> None:
    make(bench)
    bench.connection.execute("BEGIN")
    bench.connection.execute("UPDATE t SET filling = repeat('y', 1900) WHERE id = 1")
    bench.connection.execute("ROLLBACK")
    bench.do("DELETE FROM t WHERE id = 2", "SELECT FROM t WHERE id = 3 FOR UPDATE")
    with bench.server.connect() as other, bench.server.connect() as third:
        for connection in (bench.connection, other, third):
            connection.execute("BEGIN")
        for connection in (bench.connection, other):
            connection.execute("SELECT FROM t WHERE id = 4 FOR KEY SHARE")
        third.execute("SELECT FROM t WHERE id = 4 FOR NO KEY UPDATE")
        for connection in (bench.connection, other, third):
            connection.execute("COMMIT")
        bench.do("CHECKPOINT")
    assert find(bench, written(tmp_path / "1", bench.pages("t")[:1])) == []


def test_an_updater_among_lockers(bench: Workbench, tmp_path: Path) -> None:
    make(bench)
    with bench.server.connect() as other, bench.server.connect() as third:
        for row, end in ((2, "ROLLBACK"), (1, "COMMIT")):
            for connection in (bench.connection, other, third):
                connection.execute("BEGIN")
            for connection in (bench.connection, other):
                connection.execute(f"SELECT FROM t WHERE id = {row} FOR KEY SHARE")
            third.execute(f"UPDATE t SET filling = repeat('y', 1900) WHERE id = {row}")
            bench.connection.execute("COMMIT")
            other.execute("COMMIT")
            third.execute(end)
    bench.do("CHECKPOINT")
    (found,) = find(bench, written(tmp_path / "1", bench.pages("t")[:2]))
    assert (found.block, found.offset, found.updater) == (0, 1, xids(bench, 1))


def test_an_update_in_a_subtransaction(bench: Workbench, tmp_path: Path) -> None:
    make(bench)
    for statement in (
        "BEGIN",
        "SAVEPOINT a",
        "UPDATE t SET filling = repeat('y', 1900) WHERE id = 1",
        "RELEASE a",
        "SAVEPOINT b",
        "UPDATE t SET filling = repeat('y', 1900) WHERE id = 2",
        "ROLLBACK TO b",
        "COMMIT",
    ):
        bench.connection.execute(statement)
    bench.do("CHECKPOINT")
    found = find(bench, written(tmp_path / "1", bench.pages("t")[:2]))
    assert [(item.block, item.offset) for item in found] == [(0, 1)]


def test_a_row_that_went_to_another_partition(bench: Workbench, tmp_path: Path) -> None:
    bench.do(
        "CREATE TABLE parted (id int, place int) PARTITION BY LIST (place)",
        "CREATE TABLE first PARTITION OF parted FOR VALUES IN (1)",
        "CREATE TABLE second PARTITION OF parted FOR VALUES IN (2)",
        "INSERT INTO parted VALUES (1, 1)",
        "UPDATE parted SET place = 2",
    )
    assert find(bench, written(tmp_path / "1", bench.pages("first"))) == []
    bench.do("DROP TABLE parted")


def test_pages_that_were_written_to_after_the_reset(bench: Workbench, tmp_path: Path) -> None:
    make(bench)
    before = bench.pages("t")
    bench.do("UPDATE t SET filling = repeat('y', 1900) WHERE id = 1")
    relation = written(tmp_path / "1", [*bench.pages("t")[:2], before[2]])
    ((lsn,),) = bench.ask("SELECT pg_current_wal_lsn()::text")
    assert [item.is_certain for item in find(bench, relation, reset_lsn=Lsn.parse(lsn))] == [True]
    assert [item.is_certain for item in find(bench, relation, reset_lsn=Lsn(1))] == [False]


def test_many_of_them_in_several_batches(bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgrescue.snapshot.broken_updates._BATCH", 10)
    monkeypatch.setattr("pgrescue.snapshot.relation._CHUNK_BYTES", 2 * BLOCK)
    make(bench, 100)
    bench.do("UPDATE t SET filling = repeat('y', 1900) WHERE id <= 60")
    relation = written(tmp_path / "1", bench.pages("t")[:25])
    found = find(bench, relation)
    assert [(item.block, item.offset) for item in found] == [(n // 4, n % 4 + 1) for n in range(60)]


def test_an_unlogged_table_has_no_order_of_pages(bench: Workbench, tmp_path: Path) -> None:
    bench.do(
        "CREATE UNLOGGED TABLE u (id int, filling text)",
        "INSERT INTO u SELECT n, repeat('x', 1900) FROM generate_series(1, 10) n",
    )
    bench.restart()
    old = bench.pages("u")
    bench.do("UPDATE u SET filling = repeat('y', 1900) WHERE id = 1")
    bench.restart()
    new = bench.pages("u")
    assert find(bench, written(tmp_path / "1", [*new[:2], old[2]])) == []
