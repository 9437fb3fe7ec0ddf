from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

from pgrescue.errors import SnapshotError
from pgrescue.snapshot.btree import PageCounts, read_btree
from pgrescue.snapshot.index_keys import Key, KeyColumn, decode_keys
from pgrescue.snapshot.relation import RelationFile
from tests.unit.snapshot.relations import BLOCK, MAJORS, healthy, workbench, written

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.snapshot.relations import Workbench

INDEXES = ("customer_pkey", "visit_pkey", "visit_kind", "document_pkey", "document_key_key")


@pytest.fixture(scope="module")
def bench() -> Iterator[Workbench]:
    with workbench() as bench:
        yield bench


def read_all(relation: RelationFile) -> tuple[list[tuple[Any, ...]], PageCounts]:
    """Return (block, item, is dead, its rows, bytes of the key) of every item, and what was counted."""
    items: dict[tuple[int, int], tuple[bool, list[str], str]] = {}
    counts = PageCounts()
    for chunk in read_btree(relation):
        counts += chunk.counts
        for at, raw in enumerate(chunk.raw(range(len(chunk)))):
            key = (int(chunk.index_block[at]), int(chunk.item[at]))
            items.setdefault(key, (bool(chunk.is_dead[at]), [], raw[8:].hex(" ")))
            items[key][1].append(f"({chunk.heap_block[at]},{chunk.heap_offset[at]})")
    return [(*key, *value) for key, value in items.items()], counts


@pytest.mark.parametrize("major", MAJORS)
@pytest.mark.parametrize("index", INDEXES)
def test_every_item_is_as_pageinspect_says(major: int, index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = healthy(major)
    if not sample.btree:
        pytest.skip(f"PostgreSQL {major} here has no pageinspect")
    monkeypatch.setattr("pgrescue.snapshot.relation._CHUNK_BYTES", 5 * BLOCK)
    found, counts = read_all(sample.files[index])
    # pageinspect shows a posting list's bytes behind the key, to which the reader does not count them.
    expected = [
        (block, item, dead, tids, data if len(tids) == 1 else data[: len(key[4])])
        for (block, item, dead, tids, data), key in zip(sample.btree[index], found, strict=True)
    ]
    assert found == expected
    assert counts.leaves == len({row[0] for row in found})
    assert counts.leaves + counts.others == sample.files[index].block_count()
    assert (counts.zero, counts.unsound, counts.broken_items) == (0, 0, 0)


@pytest.mark.parametrize("major", MAJORS)
def test_posting_lists_are_among_them(major: int) -> None:
    rows, _ = read_all(healthy(major).files["visit_kind"])
    assert max(len(tids) for _, _, _, tids, _ in rows) > 50
    assert min(len(tids) for _, _, _, tids, _ in rows) == 1


def test_items_that_the_server_has_killed_and_deleted_pages(bench: Workbench) -> None:
    bench.do(
        "CREATE TABLE k (id int PRIMARY KEY)",
        "INSERT INTO k SELECT generate_series(1, 5000)",
        "DELETE FROM k WHERE id BETWEEN 10 AND 20",
        "SET enable_seqscan = off; SET enable_bitmapscan = off",
        "SELECT id FROM k WHERE id BETWEEN 10 AND 20",
        "SELECT id FROM k WHERE id BETWEEN 10 AND 20",
    )
    rows, _ = read_all(RelationFile(bench.file("k_pkey")))
    assert sum(dead for _, _, dead, _, _ in rows) == 11
    bench.do("DELETE FROM k WHERE id > 100 AND id < 4900", "VACUUM k")
    relation = RelationFile(bench.file("k_pkey"))
    rows, counts = read_all(relation)
    assert len(rows) == bench.ask("SELECT count(*) FROM k")[0][0]
    assert counts.others > 5


def test_damaged_pages_are_counted_and_left_out(bench: Workbench, tmp_path: Path) -> None:
    bench.do("CREATE TABLE d (id int PRIMARY KEY)", "INSERT INTO d SELECT generate_series(1, 3000)")
    pages = bench.pages("d_pkey")
    whole, counts = read_all(written(tmp_path / "1", pages))
    assert counts == PageCounts(leaves=9, others=2)
    lost = sum(row[0] in {1, 2} for row in whole)
    rows, counts = read_all(written(tmp_path / "1", [pages[0], bytes(BLOCK), b"\xff" * BLOCK, *pages[3:]]))
    assert (len(rows), counts) == (len(whole) - lost, PageCounts(leaves=7, others=2, zero=1, unsound=1))
    heap = bench.pages("d")[0]
    assert read_all(written(tmp_path / "1", [bytes(BLOCK), heap]))[1] == PageCounts(zero=1, unsound=1)


def test_damaged_items_are_counted_and_left_out(bench: Workbench, tmp_path: Path) -> None:
    bench.do("CREATE TABLE i (id int PRIMARY KEY)", "INSERT INTO i SELECT generate_series(1, 9)")
    meta, leaf = bench.pages("i_pkey")
    page = bytearray(leaf)
    pointers = list(struct.unpack_from("<9I", page, 24))
    changed = [BLOCK - 16 | 1 << 15 | 16 << 17, pointers[1] + 1, 0 << 15, 2 << 15, pointers[4] & 0x1FFFF]
    struct.pack_into("<5I", page, 24, *changed)
    info = (pointers[5] & 0x7FFF) + 6
    struct.pack_into("<H", page, info, 0x2010)  # no pivot belongs on a leaf
    struct.pack_into("<H", page, (pointers[6] & 0x7FFF) + 6, 17)  # longer than its line pointer says
    rows, counts = read_all(written(tmp_path / "1", [meta, bytes(page)]))
    assert [row[1] for row in rows] == [8, 9]
    assert counts.broken_items == 7


def test_an_index_of_another_kind(bench: Workbench) -> None:
    bench.do("CREATE TABLE h (id int)", "CREATE INDEX h_hash ON h USING hash (id)")
    with pytest.raises(SnapshotError, match="is no b-tree index"):
        list(read_btree(RelationFile(bench.file("h_hash"))))


VALUES = {
    "int2": ["0", "-32768", "32767"],
    "int4": ["0", "-2147483648", "2147483647"],
    "int8": ["0", "-9223372036854775808", "9223372036854775807"],
    "oid": ["0", "4294967295"],
    "bool": ["true", "false"],
    "uuid": ["00000000-0000-0000-0000-000000000000", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
    "text": ["", "é ünï", "'quoted\\", "x" * 200, "NULL"],
    "varchar(300)": ["", "short", "y" * 126, "y" * 127, "漢" * 60],
    "char(5)": ["a", "", "abcde"],
    "name": ["pg_class", ""],
    '"char"': ["a", ""],
    "bytea": [r"\x", r"\x00ff10"],
    "date": ["2000-01-01", "1999-12-31", "2024-02-29", "1900-02-28", "0001-01-01", "0001-12-31 BC", "4713-01-01 BC",
             "0044-03-15 BC", "5874897-12-31", "infinity", "-infinity"],
    "timestamp": ["2000-01-01 00:00:00", "1999-12-31 23:59:59.999999", "2024-02-29 12:34:56.7",
                  "0044-03-15 01:02:03 BC", "294276-12-31 23:59:59", "infinity", "-infinity"],
    "timestamptz": ["2024-03-31 01:30:00.000001+00", "1970-01-01 00:00:00+05", "infinity", "0044-03-15 01:02:03+00 BC"],
    "float4": ["0", "-0", "1.5", "3.4028235e38", "1e-45", "0.1", "Infinity", "-Infinity", "NaN"],
    "float8": ["0", "0.1", "1e300", "5e-324", "123456789012345680", "Infinity", "NaN"],
    "numeric": ["0", "-1", "1.50", "0.0001", "0.00010", "-0.00000000012", "12345678901234567890.123456789", "1e100",
                "9999.9999", "10000", "100000000", "0.000", "NaN", "1e-300", "-1e200", "99990000.5"],
    "numeric(10, 2)": ["1", "0", "-12345678.9"],
}  # fmt: skip


def columns_of(bench: Workbench, index: str) -> list[KeyColumn]:
    rows = bench.ask(
        f"SELECT atttypid::int, attlen, attalign::text, attbyval FROM pg_attribute WHERE attrelid = '{index}'::regclass"
        " ORDER BY attnum"
    )
    return [KeyColumn(*row) for row in rows]


def keys_by_row(bench: Workbench, index: str) -> dict[str, Key]:
    columns = columns_of(bench, index)
    found = {}
    for chunk in read_btree(RelationFile(bench.file(index))):
        for at, key in enumerate(decode_keys(chunk.raw(range(len(chunk))), columns)):
            found[f"({chunk.heap_block[at]},{chunk.heap_offset[at]})"] = key
    return found


@pytest.mark.parametrize("kind", VALUES)
def test_keys_are_literals_that_the_server_reads_back(bench: Workbench, kind: str) -> None:
    bench.do("DROP TABLE IF EXISTS v", f"CREATE TABLE v (a {kind})", "CREATE INDEX v_a ON v (a)")
    for value in [*VALUES[kind], None]:
        bench.connection.execute(f"INSERT INTO v VALUES (%s::text::{kind})".encode(), (value,))
    bench.connection.execute("SET timezone = 'UTC'; SET datestyle = 'ISO'; SET bytea_output = 'hex'")
    bench.do("CHECKPOINT")
    keys = keys_by_row(bench, "v_a")
    rows = bench.ask("SELECT ctid::text, a::text FROM v")
    assert len(keys) == len(rows)
    for place, text in rows:
        (value,) = keys[place].values
        assert keys[place].is_decoded
        if kind not in {"float4", "float8", "bool", "char(5)"}:
            assert value == text
        same = f"SELECT a IS NOT DISTINCT FROM %s::text::{kind} FROM v WHERE ctid = %s::tid"
        assert bench.connection.execute(same.encode(), (value, place)).fetchone() == (True,)


def test_several_columns_with_nulls_padding_and_included_ones(bench: Workbench) -> None:
    bench.do(
        "CREATE TABLE m (a bool, b int8, c text, d int2, e uuid, f timestamptz, g text)",
        "CREATE INDEX m_i ON m (a, b, c, d, e) INCLUDE (f, g)",
        "SET timezone = 'UTC'",
    )
    values = [
        ("true", "7", "text", "3", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "2024-01-01 00:00:00+00", "g"),
        (None, "8", "x" * 300, None, None, None, ""),
        ("false", None, None, "-1", None, "infinity", None),
        (None,) * 7,
        ("true", "9", "", "5", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", None, "漢字"),
    ]
    for row in values:
        bench.connection.execute("INSERT INTO m VALUES (%s, %s, %s, %s, %s, %s, %s)", row)
    bench.do("CHECKPOINT")
    keys = keys_by_row(bench, "m_i")
    for place, *row in bench.ask("SELECT ctid::text, a::text, b::text, c, d::text, e::text, f::text, g FROM m"):
        assert keys[place].values == tuple(row)
        assert keys[place].is_decoded


def test_what_is_not_decoded_is_hexadecimal(bench: Workbench) -> None:
    bench.do(
        "CREATE TABLE n (a int[], b inet, c text, d int)",
        "CREATE INDEX n_i ON n (d, a, c, b)",
        "INSERT INTO n VALUES ('{1,2}', '10.0.0.1', repeat('long ', 1000), 5)",
    )
    (key,) = keys_by_row(bench, "n_i").values()
    number, array, text, address = key.values
    assert (number, key.undecoded, key.is_decoded) == ("5", (1, 2, 3), False)
    assert bytes.fromhex(str(array)[2:]).endswith(struct.pack("<2i", 1, 2))
    assert str(text).startswith("\\x")
    assert address == "\\x0220" + "0a000001"


def test_text_of_another_encoding() -> None:
    raw = struct.pack("<IHH", 0, 1, 0x4000 | 16) + b"\x07\xe9\xe8" + bytes(5)
    column = KeyColumn(25, -1, "i")
    assert decode_keys([raw], [column], encoding="latin-1") == [Key(("éè",))]
    assert decode_keys([raw], [column]) == [Key(("\\xe9e8",), (0,))]


@pytest.mark.parametrize(
    "raw", [b"", bytes(8), bytes(7) + b"\x80", bytes(8) + b"\xff\xff", bytes(8) + b"\x10\xff\0\0a"]
)
def test_damaged_tuples(raw: bytes) -> None:
    assert decode_keys([raw], [KeyColumn(25, -1, "i")]) == [Key((f"\\x{raw.hex()}",), (0,))]
