"""Rows of transactions that have not begun are found, and no others."""

from __future__ import annotations

import shutil
import struct
from typing import TYPE_CHECKING

import pytest

from pgrescue.snapshot.control import parse_control
from pgrescue.snapshot.hidden_rows import hidden_rows
from pgrescue.snapshot.relation import RelationFile
from tests.unit.snapshot.relations import BLOCK, healthy

if TYPE_CHECKING:
    from pathlib import Path


def next_xid() -> int:
    control = parse_control((healthy(17).pgdata / "global/pg_control").read_bytes())
    return control.next_xid


def changed(tmp_path: Path, xmin: int, infomask: int) -> RelationFile:
    """Return a copy of a table in which the second row of the first page has another xmin and infomask."""
    file = tmp_path / "table"
    shutil.copyfile(healthy(17).files["customer"].path, file)
    page = bytearray(file.read_bytes()[:BLOCK])
    offset = struct.unpack_from("<I", page, 24 + 4)[0] & 0x7FFF
    struct.pack_into("<I", page, offset, xmin)
    struct.pack_into("<H", page, offset + 20, infomask)
    with file.open("r+b") as opened:
        opened.write(page)
    return RelationFile(file)


@pytest.mark.parametrize("table", ["customer", "visit", "document"])
def test_a_healthy_table_has_none(table: str) -> None:
    assert list(hidden_rows(healthy(17).files[table], next_xid())) == []


def test_rows_are_hidden_from_who_has_seen_less() -> None:
    assert len(list(hidden_rows(healthy(17).files["customer"], 3))) > 50


@pytest.mark.parametrize("ahead", [0, 1, 1 << 30])
def test_a_row_of_a_later_transaction(tmp_path: Path, ahead: int) -> None:
    xmin = (next_xid() + ahead) % (1 << 32)
    assert list(hidden_rows(changed(tmp_path, xmin, 0x0800), next_xid())) == [(0, 2, xmin)]


@pytest.mark.parametrize("infomask", [0x0300, 0x0200, 0x0100])
def test_what_is_frozen_or_settled_is_shown_or_void(tmp_path: Path, infomask: int) -> None:
    assert list(hidden_rows(changed(tmp_path, next_xid() + 1, infomask), next_xid())) == []


def test_a_row_of_long_ago_is_not_of_the_future(tmp_path: Path) -> None:
    assert list(hidden_rows(changed(tmp_path, 0xF000_0000, 0x0800), next_xid())) == []
