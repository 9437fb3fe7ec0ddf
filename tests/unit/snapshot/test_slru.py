from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrescue.errors import SnapshotError
from pgrescue.snapshot.slru import (
    multixact_members,
    multixact_offsets,
    next_segment,
    segment_numbers,
    transactions,
)


def test_the_sizes_of_8_kb_blocks() -> None:
    assert (transactions(8192).per_page, transactions(8192).per_segment) == (0x8000, 0x100000)
    assert (multixact_offsets(8192).per_page, multixact_offsets(8192).per_segment) == (0x800, 0x10000)
    assert (multixact_members(8192).per_page, multixact_members(8192).per_segment) == (1636, 0xCC80)
    assert transactions(8192).last_segment == 0xFFF
    assert multixact_offsets(8192).last_segment == 0xFFFF
    assert multixact_members(8192).last_segment == 0x14078


def test_names() -> None:
    names = ["0000", "00FF", "14078", "14079", "00ff", "0", "000", "0000.tmp", "FFFFFFF", "\u0660\u0660\u0660\u0660"]
    assert segment_numbers(names, last=0x14078) == {0, 0xFF, 0x14078}


@pytest.mark.parametrize(
    ("existing", "current", "expected"),
    [
        ([], 0, (0, False)),
        ([0], 0, (1, False)),
        ([3, 4, 5], 4, (6, False)),
        ([3, 4, 6], 4, (5, False)),
        ([0xFFF], 0xFFF, (0, True)),
        ([0xFFE, 0xFFF, 0, 1], 0xFFE, (2, True)),
        ([0xFFE, 0xFFF, 0, 1], 1, (2, False)),
        ([5], 7, (7, False)),
    ],
)
def test_the_walk(existing: list[int], current: int, expected: tuple[int, bool]) -> None:
    assert next_segment(existing, current, last=0xFFF) == expected


def test_a_full_circle_ends() -> None:
    with pytest.raises(SnapshotError, match="no number is free"):
        next_segment(range(8), 3, last=7)


@given(st.integers(0, 40).flatmap(lambda last: st.tuples(st.just(last), st.sets(st.integers(0, last)))), st.data())
def test_everything_walked_over_exists(case: tuple[int, set[int]], data: st.DataObject) -> None:
    last, existing = case
    current = data.draw(st.integers(0, last))
    if len(existing) == last + 1:
        return
    found, wrapped = next_segment(existing, current, last=last)
    assert found not in existing
    assert wrapped == (found < current)
    distance = (found - current) % (last + 1)
    assert all((current + step) % (last + 1) in existing for step in range(distance))
