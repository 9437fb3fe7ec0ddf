"""What the computed values of a reset are good for: the same hot backup, reset with and without them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from pgrescue.model import Lsn
from tests.conftest import require_engine
from tests.producers import facts

if TYPE_CHECKING:
    from tests.cli import Rescue
    from tests.conftest import Rescuer
    from tests.snapshots import Shelf

BUSY = "running-wal-first"
"""Its pages are the furthest ahead of its pg_control: clients wrote for more than a second while it was copied."""


def told(rescued: Rescue) -> dict[str, str]:
    """Return what the report says that pg_resetwal was given, by option; each has its derivation."""
    lines = rescued.finding("reset_values")["detail"].splitlines()
    return {match[1]: match[2] for line in lines if (match := re.match(r"(-\w|--[\w-]+) (\S+): .", line))}


def future_rows(rescued: Rescue) -> int:
    with rescued.connect("portal") as connection:
        return facts.rows_from_the_future(rescued.workspace / "pgdata", connection)


def next_transaction(rescued: Rescue) -> int:
    return int(rescued.one("SELECT pg_current_xact_id()::text"))


def wal_position(rescued: Rescue) -> Lsn:
    return Lsn.parse(str(rescued.one("SELECT pg_current_wal_insert_lsn()")))


@pytest.mark.native
def test_computed_values_leave_nothing_in_the_future_where_plain_ones_leave_rows_there(
    shelf: Shelf, rescue: Rescuer
) -> None:
    """Without a repair, so that the two differ in nothing else."""
    require_engine("native")
    options = ("--engine", "native", "--strategy", "reset", "--no-repair")
    computed = rescue(shelf.get(BUSY), *options)
    plain = rescue(shelf.get(BUSY), *options, "--plain-reset")
    for rescued in (computed, plain):
        rescued.done.ok()
        assert rescued.one("SELECT 1") == 1
    assert future_rows(computed) == 0
    assert future_rows(plain) > 0
    assert Lsn(facts.newest_page(computed.workspace / "pgdata")) < wal_position(computed)
    assert next_transaction(computed) > next_transaction(plain)
    assert wal_position(computed) > wal_position(plain)
    assert told(plain) == {}
    assert plain.report["verdict"] in {"best-effort", "damaged"}


def test_the_runbooks_steps_leave_their_values_and_what_they_took_away(
    shelf: Shelf, rescue: Rescuer, engine_name: str
) -> None:
    rescued = rescue(shelf.get("barman"), "--engine", engine_name, "--strategy", "reset")
    rescued.done.ok()
    outcomes = {step["name"]: step["outcome"] for step in rescued.report["steps"]}
    assert list(outcomes)[:11] == [
        "unpack",
        "recreate-directories",
        "blank-config",
        "configure",
        "replay-part",
        "remove-backup-label",
        "reset-wal",
        "complete-xact",
        "forget-maps",
        "access",
        "repair",
    ]
    assert {name for name, outcome in outcomes.items() if outcome != "done"} == {
        "replay-part",
        "check-files",
        "name-damage",
        "verify",
    }
    values = told(rescued)
    assert {"-x", "-m", "-O", "-l"} <= values.keys()
    assert int(values["-x"], 0) % 0x100000 == 0
    ran = (rescued.workspace / "logs" / "pg_resetwal.log").read_text().splitlines()[0]
    assert all(f"{option} {value}" in ran for option, value in values.items())
    removed, pgdata = rescued.workspace / "removed", rescued.workspace / "pgdata"
    kept = {"backup_label", "override.conf", "postgresql.auto.conf", "custom.conf", "global/pg_control"}
    assert {str(path.relative_to(removed)) for path in removed.rglob("*") if path.is_file()} >= kept
    assert not (pgdata / "backup_label").exists()
    assert [(pgdata / name).stat().st_size for name in ("override.conf", "custom.conf")] == [0, 0]
    stored = json.loads((rescued.workspace / "report.json").read_text())
    assert stored["findings"] == rescued.report["findings"]
