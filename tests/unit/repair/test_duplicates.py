"""Which of several rows with one key is the newest."""

from __future__ import annotations

import dataclasses

import numpy as np

from pgrescue.repair.duplicates import Version, newest_first

LSNS = np.array([500, 400, 600, 600], dtype=np.uint64)


def version(tid: str, **fields: object) -> Version:
    made = Version(group=1, tid=tid, xmin="1000", xmax="0", age=100, command=0, key="1")
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]


def newest(*versions: Version) -> str:
    return newest_first(versions, LSNS)[0].tid


def test_the_page_with_the_larger_lsn_holds_the_newer_version() -> None:
    assert newest(version("(0,1)"), version("(2,1)"), version("(1,9)")) == "(2,1)"


def test_a_younger_transaction_may_have_written_earlier() -> None:
    assert newest(version("(0,1)", xmin="1001", age=5), version("(2,1)", xmin="900", age=50)) == "(2,1)"


def test_a_row_that_another_one_replaced_is_older_whatever_its_page_says() -> None:
    replaced = version("(2,1)", xmax="1001")
    assert newest(replaced, version("(1,1)", xmin="1001", age=5)) == "(1,1)"


def test_a_lock_replaces_nothing() -> None:
    assert newest(version("(2,1)", xmax="77"), version("(1,1)", xmin="1001")) == "(2,1)"
    assert newest(version("(2,1)", xmax="1000"), version("(1,1)", xmin="1001")) == "(2,1)"


def test_what_was_brought_back_is_older_than_anything_else() -> None:
    assert newest(version("(2,1)", xmin="2", age=2**31 - 1), version("(1,1)")) == "(1,1)"


def test_on_one_page_the_younger_transaction_counts_then_the_later_command_then_the_place() -> None:
    assert newest(version("(2,1)", age=5), version("(2,2)", age=6)) == "(2,1)"
    assert newest(version("(2,1)", command=3), version("(2,2)", command=2)) == "(2,1)"
    assert newest(version("(2,9)"), version("(2,10)"), version("(2,8)")) == "(2,10)"


def test_without_the_pages_the_younger_transaction_counts() -> None:
    versions = [version("(0,1)", age=5), version("(2,1)", age=6)]
    assert newest_first(versions, None)[0].tid == "(0,1)"
