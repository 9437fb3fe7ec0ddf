from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from pgrescue.snapshot.heap import SlotState
from pgrescue.snapshot.index_keys import KeyColumn, decode_keys
from pgrescue.snapshot.index_witness import EntryClass, Witness, classify_entries, dangling_entries
from pgrescue.snapshot.relation import RelationFile
from tests.unit.snapshot.relations import BLOCK, MAJORS, healthy, readers, workbench, written

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgrescue.snapshot.index_witness import WitnessEntry
    from tests.unit.snapshot.relations import Workbench

INT4 = [KeyColumn(23, 4, "i")]
LOST = (EntryClass.UNDECIDED, EntryClass.SUPERSEDED, EntryClass.NOWHERE, EntryClass.UNREADABLE)


@pytest.fixture(scope="module", params=(15, 17))
def bench(request: pytest.FixtureRequest) -> Iterator[Workbench]:
    with workbench(request.param) as bench:
        yield bench


@pytest.mark.parametrize("major", MAJORS)
def test_no_entry_of_a_healthy_database_dangles(major: int) -> None:
    sample = healthy(major)
    assert len(sample.indexes) > 100
    total = 0
    for index, table in sample.indexes.items():
        found = dangling_entries(sample.files[index], sample.files[table])
        assert (found.count, found.examples) == (0, ()), index
        total += found.entries
    assert total > 20_000


@pytest.mark.parametrize("major", MAJORS)
def test_a_healthy_database_lacks_nothing(major: int) -> None:
    sample = healthy(major)
    gone = 0
    for index, table in sample.indexes.items():
        if table in sample.tables:
            witness = classify_entries(sample.files[index], sample.files[table], *sample.readers())
            assert [witness.counts[item] for item in LOST] == [0, 0, 0, 0], index
            assert witness.counts[EntryClass.LIVE] == sample.tables[table], index
            assert witness.is_complete
            gone += witness.counts[EntryClass.DELETED] + witness.counts[EntryClass.ABORTED]
    assert gone > 1000


def make(bench: Workbench, rows: int = 10) -> None:
    """Make a table of which one page holds four rows, so that an update goes to another page."""
    bench.do(
        "DROP TABLE IF EXISTS t",
        "CREATE TABLE t (id int PRIMARY KEY, filling text)",
        "ALTER TABLE t ALTER filling SET STORAGE plain",
        f"INSERT INTO t SELECT n, repeat('x', 1900) FROM generate_series(1, {rows}) n",
    )


def judge(bench: Workbench, table: RelationFile, **options: int) -> Witness:
    return classify_entries(RelationFile(bench.file("t_pkey")), table, *bench.readers(), **options)  # type: ignore[arg-type]


def ids(entries: tuple[WitnessEntry, ...]) -> list[str | None]:
    return [key.values[0] for key in decode_keys([entry.raw for entry in entries], INT4)]


def test_rows_that_came_after_their_page_was_copied(bench: Workbench, tmp_path: Path) -> None:
    make(bench)
    before = bench.pages("t")
    bench.do("INSERT INTO t SELECT n, repeat('x', 1900) FROM generate_series(11, 20) n")
    for pages, state in ((before, SlotState.PAST_END), ([*before, bytes(BLOCK)], SlotState.ZERO_PAGE)):
        table = written(tmp_path / "1", pages)
        witness = judge(bench, table)
        lost = witness.of(EntryClass.NOWHERE)
        assert ids(lost) == [str(number) for number in range(11, 21)]
        assert [entry.slot for entry in lost[:3]] == [SlotState.PAST_LINE_POINTERS] * 2 + [state]
        assert all(entry.index_is_newer for entry in lost)
        assert (witness.counts[EntryClass.LIVE], witness.is_complete) == (10, True)
        found = dangling_entries(RelationFile(bench.file("t_pkey")), table, most_examples=3)
        assert (found.count, found.entries, found.examples) == (10, 20, lost[:3])


def test_rows_that_vacuum_removed_while_the_index_is_older(bench: Workbench, tmp_path: Path) -> None:
    make(bench)
    bench.do("DELETE FROM t WHERE id = 2")
    index = written(tmp_path / "index", bench.pages("t_pkey"))
    bench.do("VACUUM (TRUNCATE off) t")
    witness = classify_entries(index, RelationFile(bench.file("t")), *bench.readers())
    (entry,) = witness.of(EntryClass.NOWHERE)
    assert (entry.slot, entry.index_is_newer, ids((entry,))) == (SlotState.UNUSED, False, ["2"])


def test_dead_slots(bench: Workbench) -> None:
    make(bench)
    bench.do("DELETE FROM t WHERE id = 2", "VACUUM (INDEX_CLEANUP off, TRUNCATE off) t")
    witness = judge(bench, RelationFile(bench.file("t")))
    assert ids(witness.of(EntryClass.DEAD)) == ["2"]
    assert [entry.slot for entry in witness.entries] == [SlotState.DEAD]
    assert witness.counts[EntryClass.LIVE] == 9


def test_deleted_and_aborted_rows_are_only_counted(bench: Workbench) -> None:
    make(bench)
    bench.connection.execute("BEGIN; INSERT INTO t VALUES (50, ''), (51, ''); ROLLBACK")
    bench.do("DELETE FROM t WHERE id = 2")
    witness = judge(bench, RelationFile(bench.file("t")))
    assert witness.entries == ()
    counts = {EntryClass.LIVE: 9, EntryClass.DELETED: 1, EntryClass.ABORTED: 2}
    assert {item: count for item, count in witness.counts.items() if count} == counts


def keep_transactions(bench: Workbench, tmp_path: Path) -> Path:
    """Copy what the server knows of transactions at this instant."""
    root = tmp_path / "earlier"
    for name in ("pg_xact", "pg_multixact", "global"):
        shutil.copytree(bench.server.pgdata / name, root / name)
    return root


def test_rows_of_which_pg_xact_knows_no_end(bench: Workbench, tmp_path: Path) -> None:
    make(bench)
    earlier = keep_transactions(bench, tmp_path)
    bench.do("INSERT INTO t VALUES (77, '')", "UPDATE t SET filling = 'short' WHERE id = 9")
    table, index = RelationFile(bench.file("t")), RelationFile(bench.file("t_pkey"))
    witness = classify_entries(index, table, *readers(earlier))
    assert ids(witness.of(EntryClass.UNDECIDED)) == ["77"]
    assert witness.counts[EntryClass.LIVE] == 10
    assert classify_entries(index, table, *bench.readers()).entries == ()


def test_the_hint_that_a_server_sets_on_undecided_rows_does_not_hide_them(bench: Workbench, tmp_path: Path) -> None:
    make(bench)
    earlier = keep_transactions(bench, tmp_path)
    bench.do("INSERT INTO t VALUES (77, '')")
    pages = bench.pages("t")
    page = bytearray(pages[2])
    position = int.from_bytes(page[24 + 8 : 24 + 12], "little") & 0x7FFF
    page[position + 21] = page[position + 21] & ~0x03 | 0x02  # HEAP_XMIN_INVALID
    table = written(tmp_path / "1", [*pages[:2], bytes(page)])
    witness = classify_entries(RelationFile(bench.file("t_pkey")), table, *readers(earlier))
    assert ids(witness.of(EntryClass.UNDECIDED)) == ["77"]


def test_a_row_whose_newest_version_is_lost(bench: Workbench, tmp_path: Path) -> None:
    make(bench)
    bench.do("UPDATE t SET filling = repeat('y', 1900) WHERE id IN (1, 3)")
    witness = judge(bench, written(tmp_path / "1", bench.pages("t")[:2]))
    assert ids(witness.of(EntryClass.SUPERSEDED)) == ["1", "3"]
    assert ids(witness.of(EntryClass.NOWHERE)) == ["1", "3", "9", "10"]
    assert judge(bench, RelationFile(bench.file("t"))).entries == ()


def test_a_hot_chain_that_ends_in_a_lost_version(bench: Workbench, tmp_path: Path) -> None:
    bench.do(
        "DROP TABLE IF EXISTS t",
        "CREATE TABLE t (id int PRIMARY KEY, filling text)",
        "ALTER TABLE t ALTER filling SET STORAGE plain",
        "INSERT INTO t VALUES (1, 'a'), (2, 'a'), (3, repeat('x', 3000))",
        "UPDATE t SET filling = 'b' WHERE id < 3",
        "UPDATE t SET filling = 'c' WHERE id < 3",
        "UPDATE t SET filling = repeat('y', 7000) WHERE id = 2",
    )
    pages = bench.pages("t")
    assert len(pages) == 2
    witness = judge(bench, written(tmp_path / "1", pages[:1]))
    assert ids(witness.of(EntryClass.SUPERSEDED)) == ["2"]
    assert witness.counts[EntryClass.LIVE] == 2
    assert ids(witness.of(EntryClass.NOWHERE)) == ["2"]
    bench.do("SELECT * FROM t", "VACUUM t")
    pruned = judge(bench, RelationFile(bench.file("t")))
    assert pruned.counts[EntryClass.LIVE] == 3
    assert pruned.entries == ()


def test_an_entry_that_leads_to_another_rows_heap_only_version(bench: Workbench, tmp_path: Path) -> None:
    bench.do(
        "DROP TABLE IF EXISTS t",
        "CREATE TABLE t (id int PRIMARY KEY, filling text)",
        "INSERT INTO t VALUES (1, 'a'), (2, 'a')",
    )
    bench.do("UPDATE t SET filling = 'b' WHERE id = 1")
    heap = written(tmp_path / "heap", bench.pages("t"))
    bench.do(
        "DROP TABLE t",
        "CREATE TABLE t (id int PRIMARY KEY, filling text)",
        "INSERT INTO t VALUES (1, 'a'), (2, 'a'), (3, 'c')",
    )
    witness = judge(bench, heap)
    assert ids(witness.of(EntryClass.NOWHERE)) == ["3"]
    assert witness.entries[0].slot == SlotState.NORMAL
    assert witness.counts[EntryClass.LIVE] == 2


def test_killed_entries_are_left_out(bench: Workbench) -> None:
    make(bench, 200)
    bench.do(
        "DELETE FROM t WHERE id BETWEEN 10 AND 20",
        "SET enable_seqscan = off; SET enable_bitmapscan = off",
        "SELECT id FROM t WHERE id BETWEEN 10 AND 20",
        "SELECT id FROM t WHERE id BETWEEN 10 AND 20",
    )
    witness = judge(bench, RelationFile(bench.file("t")))
    assert (witness.killed, witness.counts[EntryClass.LIVE], witness.entries) == (11, 189, ())


def test_an_unsound_page(bench: Workbench, tmp_path: Path) -> None:
    make(bench)
    pages = bench.pages("t")
    table = written(tmp_path / "1", [pages[0], b"\xff" * BLOCK, pages[2]])
    assert judge(bench, table).counts[EntryClass.UNREADABLE] == 4
    assert dangling_entries(RelationFile(bench.file("t_pkey")), table).count == 0


def test_ranges_of_the_table_and_a_limit(bench: Workbench, tmp_path: Path) -> None:
    make(bench, 100)
    before = bench.pages("t")
    bench.do("UPDATE t SET filling = repeat('y', 1900) WHERE id % 3 = 0")
    table = written(tmp_path / "1", bench.pages("t")[: len(before)])
    whole = judge(bench, table)
    ranges = judge(bench, table, range_bytes=3 * BLOCK)
    assert (ranges.counts, ranges.killed, ranges.index_pages) == (whole.counts, whole.killed, whole.index_pages)
    assert sorted(ranges.entries, key=repr) == sorted(whole.entries, key=repr)
    assert whole.counts[EntryClass.NOWHERE] == 33
    limited = judge(bench, table, most_entries=5)
    assert (limited.counts, len(limited.entries), limited.is_complete) == (whole.counts, 5, False)
    found = dangling_entries(RelationFile(bench.file("t_pkey")), table, range_bytes=3 * BLOCK)
    assert (found.count, found.entries, len(found.examples)) == (33, 133, 10)


def test_other_keys(bench: Workbench, tmp_path: Path) -> None:
    bench.do(
        "DROP TABLE IF EXISTS o",
        "CREATE TABLE o (code text, version int, key uuid UNIQUE, PRIMARY KEY (code, version))",
        "INSERT INTO o SELECT 'code ' || n, n, md5(n::text)::uuid FROM generate_series(1, 500) n",
    )
    before = bench.pages("o")
    bench.do("INSERT INTO o SELECT 'later ' || n, -n, md5(n::text)::uuid FROM generate_series(501, 900) n")
    table = written(tmp_path / "1", before)
    expected = {tuple(row) for row in bench.ask("SELECT code, version::text FROM o WHERE version < 0")}
    lost = classify_entries(RelationFile(bench.file("o_pkey")), table, *bench.readers()).of(EntryClass.NOWHERE)
    keys = decode_keys([entry.raw for entry in lost], [KeyColumn(25, -1, "i"), KeyColumn(23, 4, "i")])
    assert {key.values for key in keys} == expected
    lost = classify_entries(RelationFile(bench.file("o_key_key")), table, *bench.readers()).of(EntryClass.NOWHERE)
    uuids = {key.values for key in decode_keys([entry.raw for entry in lost], [KeyColumn(2950, 16, "c")])}
    assert uuids == {tuple(row) for row in bench.ask("SELECT key::text FROM o WHERE version < 0")}


def test_a_row_of_a_posting_list(bench: Workbench, tmp_path: Path) -> None:
    bench.do(
        "DROP TABLE IF EXISTS p",
        "CREATE TABLE p (kind int)",
        "CREATE INDEX p_kind ON p (kind)",
        "INSERT INTO p SELECT n % 2 FROM generate_series(1, 3000) n",
    )
    pages = bench.pages("p")
    table = written(tmp_path / "1", pages[:-1])
    rows = bench.ask(f"SELECT count(*) FROM p WHERE ctid >= '({len(pages) - 1},0)'")[0][0]
    found = dangling_entries(RelationFile(bench.file("p_kind")), table)
    assert (found.count, found.entries) == (rows, 3000)
    assert {key.values for key in decode_keys([item.raw for item in found.examples], INT4)} <= {("0",), ("1",)}
