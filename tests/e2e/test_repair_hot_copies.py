"""Copies of busy servers without their WAL: after the repair everything in them agrees, and everything works."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pgrescue.model import Severity
from tests.unit.repair.patients import Patient, admit

if TYPE_CHECKING:
    from pathlib import Path

    from tests.snapshots import Shelf

COPIES = [("running-no-wal", 17), ("barman", 17), ("basebackup-none", 17), ("basebackup-none", 18)]
BROKEN_PROMISES = """
select 'ledger' from ledger group by id having count(*) > 1
union all select 'orders' from orders group by client_ref having count(*) > 1 and client_ref is not null
union all select 'accounts' from accounts group by user_id having count(*) > 1
"""


@pytest.mark.parametrize(("name", "major"), COPIES)
def test_a_hot_copy_without_wal_becomes_whole_in_itself(shelf: Shelf, tmp_path: Path, name: str, major: int) -> None:
    patient = admit(shelf.get(name, major).path, tmp_path, major=major)
    try:
        findings = patient.repair()
        assert [finding for finding in findings if finding.severity is Severity.ERROR] == []
        assert patient.query(BROKEN_PROMISES, "portal", "-c enable_indexscan=off -c enable_indexonlyscan=off") == []
        for database in ("portal", "billing", "postgres", "template1"):
            assert damage(patient, database) == []
        with patient.connect("portal") as connection:
            connection.execute("set role portal")
            connection.execute("update accounts set balance = balance + 1")
            connection.execute("insert into ledger (account_id, amount, reason) select id, 1, 'repaired' from accounts")
            connection.execute(
                "insert into orders (user_id, total, placed_at, updated_at) select id, 1, now(), now() from users"
            )
            connection.execute("reset role")
            connection.execute("vacuum")
        assert damage(patient, "portal") == []
    finally:
        patient.run.engine.remove()


def damage(patient: Patient, database: str) -> list[object]:
    """Return what amcheck finds in a database's tables, their large values, and its b-trees."""
    with patient.connect(database) as connection:
        connection.execute("create extension if not exists amcheck")
        found: list[object] = []
        for (table,) in connection.execute(
            "select oid::regclass::text from pg_class where relkind in ('r', 'm', 't') and relpersistence = 'p'"
        ).fetchall():
            rows = connection.execute(
                "select * from verify_heapam(%s::regclass, check_toast => true)", (table,)
            ).fetchall()
            found += [(table, row) for row in rows]
        for (index,) in connection.execute(
            "select c.oid::regclass::text from pg_class c join pg_am a on a.oid = c.relam"
            " where a.amname = 'btree' and c.relkind = 'i' and c.relpersistence = 'p'"
        ).fetchall():
            connection.execute("select bt_index_parent_check(%s::regclass, true, true)", (index,))
        connection.execute("drop extension amcheck")
    return found
