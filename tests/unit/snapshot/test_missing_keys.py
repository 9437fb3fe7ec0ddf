from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pgrescue.snapshot.btree import read_btree
from pgrescue.snapshot.heap import read_heap
from pgrescue.snapshot.index_keys import KeyColumn, decode_keys
from pgrescue.snapshot.index_witness import classify_entries
from pgrescue.snapshot.key_hashes import Attribute, KeyLayout, entry_hashes, fingerprints, row_hashes
from pgrescue.snapshot.missing_keys import missing_keys
from pgrescue.snapshot.relation import RelationFile
from tests.unit.snapshot.relations import workbench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgrescue.snapshot.missing_keys import MissingKeys
    from tests.unit.snapshot.relations import Workbench

INT4, INT8, TEXT, UUID = Attribute(4, "i"), Attribute(8, "d"), Attribute(-1, "i"), Attribute(16, "c")
NUMERIC = TEXT
ID = KeyLayout(key=(INT4,), attributes=(INT4,), columns=(0,))


@pytest.fixture(scope="module")
def bench() -> Iterator[Workbench]:
    with workbench() as bench:
        yield bench


def file(bench: Workbench, name: str) -> RelationFile:
    return RelationFile(bench.file(name))


def kept(bench: Workbench, name: str, path: Path) -> RelationFile:
    shutil.copyfile(bench.file(name), path)
    return RelationFile(path)


def make(bench: Workbench, rows: int) -> None:
    bench.do(
        "DROP TABLE IF EXISTS t",
        "CREATE TABLE t (id int PRIMARY KEY, filling text)",
        f"INSERT INTO t SELECT n, 'x' FROM generate_series(1, {rows}) n",
    )


def ids(found: MissingKeys) -> list[int]:
    return [int(key.values[0] or "") for key in decode_keys(found.raw, [KeyColumn(23, 4, "i")])]


def test_what_an_index_knew_and_does_not_know_now(bench: Workbench, tmp_path: Path) -> None:
    make(bench, 5000)
    old = kept(bench, "t_pkey", tmp_path / "old")
    bench.do("DELETE FROM t WHERE id % 100 = 7", "INSERT INTO t VALUES (6000, '')", "VACUUM t", "REINDEX INDEX t_pkey")
    new = file(bench, "t_pkey")
    found = missing_keys(old, new, ID)
    assert (found.count, ids(found)) == (50, list(range(7, 5000, 100)))
    in_passes = missing_keys(old, new, ID, pass_blocks=3)
    assert (in_passes.count, ids(in_passes)) == (50, ids(found))
    limited = missing_keys(old, new, ID, most_keys=5)
    assert (limited.count, ids(limited)) == (50, ids(found)[:5])
    assert missing_keys(new, new, ID).count == 0


def test_an_index_that_is_empty_now(bench: Workbench, tmp_path: Path) -> None:
    make(bench, 10)
    old = kept(bench, "t_pkey", tmp_path / "old")
    bench.do("TRUNCATE t")
    assert ids(missing_keys(old, file(bench, "t_pkey"), ID)) == list(range(1, 11))


@pytest.mark.parametrize("is_unique", [True, False])
def test_posting_lists_name_each_key_once(bench: Workbench, tmp_path: Path, *, is_unique: bool) -> None:
    make(bench, 3000)
    if not is_unique:
        bench.do(
            "ALTER TABLE t DROP CONSTRAINT t_pkey", "INSERT INTO t SELECT * FROM t", "CREATE INDEX t_pkey ON t (id)"
        )
    old = kept(bench, "t_pkey", tmp_path / "old")
    bench.do("DELETE FROM t WHERE id IN (5, 2500)", "VACUUM t", "REINDEX INDEX t_pkey")
    assert ids(missing_keys(old, file(bench, "t_pkey"), ID)) == [5, 2500]


def test_killed_entries_count_at_the_ends_of_their_pages_only(bench: Workbench, tmp_path: Path) -> None:
    make(bench, 1000)
    bench.do(
        "DELETE FROM t WHERE id BETWEEN 100 AND 900",
        "SET enable_seqscan = off; SET enable_bitmapscan = off",
        "SELECT id FROM t WHERE id BETWEEN 100 AND 900",
        "RESET enable_seqscan; RESET enable_bitmapscan",
    )
    old = kept(bench, "t_pkey", tmp_path / "old")
    chunks = list(read_btree(old))
    assert sum(int(chunk.is_dead.sum()) for chunk in chunks) == 801
    bench.do("VACUUM t", "REINDEX INDEX t_pkey")
    (chunk,) = chunks
    last_of_first_page = int((chunk.index_block == chunk.index_block[0]).sum())
    assert ids(missing_keys(old, file(bench, "t_pkey"), ID)) == [
        number for page in (1, 2) for number in (page * last_of_first_page, page * last_of_first_page + 1)
    ]


def test_deleted_rows_do_not_count_and_their_slots_say_nothing_of_others(bench: Workbench, tmp_path: Path) -> None:
    """Rows 1 to 3 are deleted in the copy, 7 never was committed; of 5 another row has the slot, deleted as well."""
    make(bench, 5)
    bench.do("DELETE FROM t WHERE id = 5")
    with_5 = kept(bench, "t_pkey", tmp_path / "with 5")
    bench.do("VACUUM (TRUNCATE off) t", "INSERT INTO t VALUES (6, 'in the slot of 5')")
    assert bench.ask("SELECT ctid::text FROM t WHERE id = 6") == [("(0,5)",)]
    bench.do("DELETE FROM t WHERE id IN (1, 2, 3, 6)")
    bench.connection.execute("BEGIN; INSERT INTO t VALUES (7, 'never'); ROLLBACK")
    bench.do("CREATE TABLE only_4 (id int PRIMARY KEY)", "INSERT INTO only_4 VALUES (4)")
    without_5, new, heap = file(bench, "t_pkey"), file(bench, "only_4_pkey"), file(bench, "t")
    for old, every, expected in ((with_5, [1, 2, 3, 5], [5]), (without_5, [1, 2, 3, 6, 7], [])):
        deleted = classify_entries(old, heap, *bench.readers(), layout=ID).deleted
        assert ids(missing_keys(old, new, ID)) == every
        assert ids(missing_keys(old, new, ID, deleted=deleted)) == expected


def test_a_row_counts_as_deleted_when_all_of_its_entries_say_so(bench: Workbench) -> None:
    """Row 2 was updated, then deleted; nobody can tell whether it was inserted anew where its first entry leads to."""
    bench.do(
        "DROP TABLE IF EXISTS t",
        "CREATE TABLE t (id int PRIMARY KEY, filling text)",
        "CREATE INDEX ON t (filling)",
        "INSERT INTO t SELECT n, 'x' FROM generate_series(1, 4) n",
        "UPDATE t SET filling = 'moved' WHERE id = 1",
        "UPDATE t SET filling = 'moved' WHERE id = 2",
        "SET enable_indexscan = off; SET enable_bitmapscan = off",  # so that no entry is killed
        "DELETE FROM t WHERE id >= 2 AND id < 4",
        "RESET enable_indexscan; RESET enable_bitmapscan",
    )
    index = file(bench, "t_pkey")
    deleted = classify_entries(index, file(bench, "t"), *bench.readers(), layout=ID).deleted
    assert len(deleted) == 2
    bench.do("CREATE TABLE none (id int PRIMARY KEY)")
    assert ids(missing_keys(index, file(bench, "none_pkey"), ID, deleted=deleted)) == [1, 2, 4]


def test_columns_beside_the_key_and_nulls(bench: Workbench, tmp_path: Path) -> None:
    bench.do(
        "DROP TABLE IF EXISTS i",
        "CREATE TABLE i (id int, b int, c bigint, filling text, UNIQUE (id, c) INCLUDE (b, filling))",
        "INSERT INTO i SELECT nullif(n, 3), nullif(n % 4, 1), n, 'x' FROM generate_series(1, 20) n",
    )
    old = kept(bench, "i_id_c_b_filling_key", tmp_path / "old")
    bench.do("UPDATE i SET b = 9, filling = NULL", "DELETE FROM i WHERE id > 17 OR id IS NULL", "REINDEX TABLE i")
    layout = KeyLayout(key=(INT4, INT8), has_more=True, attributes=(INT4, INT4, INT8), columns=(0, 2))
    assert layout.width == 16
    new = file(bench, "i_id_c_b_filling_key")
    assert ids(missing_keys(old, new, layout)) == [18, 19, 20]


ROWS = {
    "plain": ("id int PRIMARY KEY, v text", "n, 'x'", (INT4,), (INT4,), (0,)),
    "second": ("a smallint, id bigint PRIMARY KEY", "n % 7, n", (INT8,), (Attribute(2, "s"), INT8), (1,)),
    "behind": (
        "a text, b text, id uuid PRIMARY KEY",
        "repeat('x', n % 300), nullif(repeat('y', n % 9), ''), md5(n::text)::uuid",
        (UUID,),
        (TEXT, TEXT, UUID),
        (2,),
    ),
    "text": ("id text PRIMARY KEY", "repeat('k', n % 90) || n", (TEXT,), (TEXT,), (0,)),
    "long": ("id text PRIMARY KEY", "repeat(md5(n::text), 15) || n", (TEXT,), (TEXT,), (0,)),
    "both": (
        "b int, v text, a text, PRIMARY KEY (a, b)",
        "n, repeat('long ', n % 500), 'k' || n",
        (TEXT, INT4),
        (INT4, TEXT, TEXT),
        (2, 0),
    ),
    "numeric": ("v char, id numeric PRIMARY KEY", "'x', n * 1.50", (NUMERIC,), (TEXT, NUMERIC), (1,)),
    "mixed": (
        'a "char", b text, c timestamptz, PRIMARY KEY (a, b, c)',
        "'x', 'k' || n, now()",
        (Attribute(1, "c"), TEXT, INT8),
        (Attribute(1, "c"), TEXT, INT8),
        (0, 1, 2),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_has_the_hash_of_its_entry(bench: Workbench, name: str) -> None:
    columns, values, key, attributes, places = ROWS[name]
    layout = KeyLayout(key=key, attributes=attributes, columns=places)
    bench.do(
        "DROP TABLE IF EXISTS r",
        f"CREATE TABLE r ({columns})",
        f"INSERT INTO r SELECT {values} FROM generate_series(1, 900) n",
    )
    entries = [
        fingerprints(found.hashes, chunk.heap_block[found.places], chunk.heap_offset[found.places])
        for chunk in read_btree(file(bench, "r_pkey"))
        for found in [entry_hashes(chunk, layout)]
    ]
    rows = []
    for part in read_heap(file(bench, "r")):
        known, hashes = row_hashes(part, np.arange(len(part.normal)), layout)
        items = part.normal[known]
        rows.append(fingerprints(hashes, part.blocks[items], part.items.offset[items]))
    assert len(np.unique(np.concatenate(entries))) == 900
    assert set(np.concatenate(rows).tolist()) == set(np.concatenate(entries).tolist())


def test_rows_whose_key_cannot_be_read_have_no_hash(bench: Workbench) -> None:
    bench.do(
        "DROP TABLE IF EXISTS u",
        "CREATE TABLE u (v text, id int)",
        "ALTER TABLE u ALTER v SET STORAGE external",
        "INSERT INTO u VALUES ('x', NULL), (repeat('y', 9000), 2), (NULL, 3)",
        "ALTER TABLE u ADD late int DEFAULT 7",
    )
    (part,) = read_heap(file(bench, "u"))
    everything = np.arange(3)
    for columns, expected in (((1,), [1, 2]), ((0,), [0]), ((2,), [])):
        layout = KeyLayout(key=(INT4,), attributes=(TEXT, INT4, INT4), columns=columns)
        assert row_hashes(part, everything, layout)[0].tolist() == expected
    assert row_hashes(part, everything, KeyLayout(key=(TEXT,)))[0].tolist() == []
    torn = KeyLayout(key=(INT8,), attributes=(INT8, INT8, INT8, INT8, INT8), columns=(4,))
    assert row_hashes(part, everything, torn)[0].tolist() == []
