"""How pg_dump is asked for the rows of a migration."""

from __future__ import annotations

import pytest

from pgrescue.transfer.migration_dump import rows_per_insert

MIB = 1 << 20


@pytest.mark.parametrize(
    ("widest_bytes", "expected"), [(0, 100), (1000, 100), (MIB // 4, 100), (MIB, 32), (20 * MIB, 1), (900 * MIB, 1)]
)
def test_one_statement_stays_far_below_what_a_server_takes(widest_bytes: int, expected: int) -> None:
    assert rows_per_insert(widest_bytes) == expected
