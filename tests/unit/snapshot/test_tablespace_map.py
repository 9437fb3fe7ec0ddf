from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrescue.errors import SnapshotError
from pgrescue.snapshot.tablespace_map import TablespaceLink, parse_tablespace_map

if TYPE_CHECKING:
    from collections.abc import Callable


def _written(links: list[tuple[int, str]]) -> str:
    """Write as `do_pg_backup_start` does."""
    return "".join(f"{oid} " + re.sub(r"([\\\n\r])", r"\\\1", path) + "\n" for oid, path in links)


def test_what_pg_basebackup_wrote(sample: Callable[[str], bytes]) -> None:
    text = sample("tablespace_map_17.txt").decode()
    assert parse_tablespace_map(text) == (TablespaceLink(16396, "/tmp/snapw/c/ts/a\\b\nc d"),)


def test_an_empty_map_names_none() -> None:
    assert parse_tablespace_map("") == ()


def test_line_ends_and_spaces() -> None:
    assert parse_tablespace_map("1 /a\r\n\r\n2  /b \n") == (TablespaceLink(1, "/a"), TablespaceLink(2, " /b "))


@pytest.mark.parametrize(
    "text", ["x /a\n", "1\n", "1 \n", " /a\n", "0 /a\n", "4294967296 /a\n", "-1 /a\n", "\\\n /a\n"]
)
def test_malformed_lines_are_named(text: str) -> None:
    with pytest.raises(SnapshotError, match="line 2"):
        parse_tablespace_map("5 /fine\n" + text)


@pytest.mark.parametrize("text", ["1 /a", "1 /a\\\n", "1 /a\\", "\\"])
def test_a_cut_file(text: str) -> None:
    with pytest.raises(SnapshotError, match="does not end"):
        parse_tablespace_map(text)


PATHS = st.text(min_size=1)


@given(st.lists(st.tuples(st.integers(1, (1 << 32) - 1), PATHS)))
def test_what_was_written_is_read(links: list[tuple[int, str]]) -> None:
    assert parse_tablespace_map(_written(links)) == tuple(TablespaceLink(*link) for link in links)


@given(st.text(st.sampled_from("\\\n\r 12/ax")))
def test_any_text_raises_nothing_else(text: str) -> None:
    with contextlib.suppress(SnapshotError):
        parse_tablespace_map(text)
