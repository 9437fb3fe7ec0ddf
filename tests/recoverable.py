"""Backups of one busy server with all of its WAL, and a record of the commits that a recovery may be asked to end at.

The segments have 1 MiB, so that there are many of them. The server asks for more places than pgrescue would give it by
itself, and holds a prepared transaction. Later a standby takes over, on a timeline of its own.
"""

from __future__ import annotations

import gzip
import json
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fixtures import Load, ObjectStore, Server, barman_backup, base_backup, copy_wal, fill, read_acks
from fixtures.snapshot import write_acks
from fixtures.standby import Standby
from pgrescue.model import Lsn
from pgrescue.snapshot.wal import SegmentName

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

    from fixtures import Snapshot

BACKUPS = ("archived-barman", "streamed-tar", "streamed-gzip", "plain-directory", "from-standby")
SETTINGS = {
    "shared_buffers": "1MB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    "max_connections": "250",
    "max_prepared_transactions": "7",
    "max_locks_per_transaction": "300",
    "max_worker_processes": "40",
    "wal_keep_size": "64MB",
}
MIB = 1 << 20
MARKS_BEFORE, MARKS_AFTER = (1, 2, 3), (4, 5)
"""The marks that were committed before and after the change of timelines."""


@dataclass(frozen=True)
class Mark:
    """A row that was committed by itself: the time and the position right after it."""

    number: int
    time: datetime
    lsn: str


def make(out: Path, major: int) -> None:
    """Make everything; `wal/` ends where the first timeline does, `wal-2/` holds both."""
    with Server(major=major, promoted=True, settings=SETTINGS, wal_segment_mb=1) as server:
        fill(server, scale=0.25, databases=("portal",))
        with server.connect("portal") as connection:
            connection.execute("CREATE TABLE marks (number int PRIMARY KEY, filler text)")
            connection.execute("CREATE TABLE pledges (number int)")
            connection.execute("BEGIN")
            connection.execute("INSERT INTO pledges VALUES (1)")
            connection.execute("PREPARE TRANSACTION 'pledge-1'")
        with Standby(server) as standby:
            snapshots = _backups(server, standby, out)
            marks = [_mark(server, number) for number in MARKS_BEFORE]
            copy_wal(server, snapshots[0]).rename(out / "wal")
            for snapshot in snapshots:
                write_acks(server, snapshot)
            standby.catch_up()
            server.stop(immediate=True)
            standby.promote()
            marks += [_mark(standby, number) for number in MARKS_AFTER]
            shutil.copytree(server.archive, out / "wal-2", copy_function=shutil.copyfile)
    (out / "marks.json").write_text(
        json.dumps([{"number": mark.number, "time": mark.time.isoformat(), "lsn": mark.lsn} for mark in marks])
    )
    _lay_out_as_barman(out / "wal", out / "archived-barman" / "portal" / "wals")


def _backups(server: Server, standby: Standby, out: Path) -> list[Snapshot]:
    with ObjectStore() as store, Load(server, clients=2, pause_s=0.002, warm_up=100, checkpoint_every_s=0.7):
        made = [barman_backup(server, out / "archived-barman", store=store)]
        made.append(base_backup(server, out / "streamed-tar"))
        made.append(base_backup(server, out / "streamed-gzip", gzip=True))
        made.append(base_backup(server, out / "plain-directory", form="plain"))
        made.append(base_backup(standby, out / "from-standby", wal="none"))  # type: ignore[arg-type]  # as good as one
        time.sleep(0.2)
    return made


def _mark(server: Server | Standby, number: int) -> Mark:
    """Commit a mark in WAL files of its own."""
    with server.connect("portal") as connection:
        connection.execute("INSERT INTO marks VALUES (%s, repeat('x', 100))", (number,))
        row = connection.execute("SELECT clock_timestamp(), pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        time.sleep(0.05)
        _switch(connection)
    return Mark(number, row[0].astimezone(UTC), row[1])


def _switch(connection: psycopg.Connection) -> None:
    """Fill a segment and begin another, and wait until the archiver has it."""
    connection.execute("SELECT pg_logical_emit_message(false, 'fixtures', repeat('y', 600000))")
    row = connection.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone()
    assert row is not None
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done = connection.execute("SELECT last_archived_wal FROM pg_stat_archiver").fetchone()
        if done is not None and str(done[0] or "")[8:24] >= row[0][8:]:
            return
        time.sleep(0.01)
    raise AssertionError(f"{row[0]} was not archived")


def _lay_out_as_barman(flat: Path, wals: Path) -> None:
    """Store segments as barman-cloud-wal-archive --gzip does (reference/formats.md §1)."""
    for file in flat.iterdir():
        folder = wals if file.suffix == ".history" else wals / file.name[:16]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes(), 1))


def read_marks(batch: Path) -> dict[int, Mark]:
    """Return what `make` recorded."""
    found = json.loads((batch / "marks.json").read_text())
    return {item["number"]: Mark(item["number"], datetime.fromisoformat(item["time"]), item["lsn"]) for item in found}


def last_word(snapshot: Snapshot) -> dict[str, int]:
    """Return the version of every order that the clients were last told of, deleted ones left out."""
    versions: dict[str, int | None] = {}
    for ack in sorted(read_acks(snapshot.acks), key=lambda ack: ack.version):
        assert ack.acknowledged
        versions[ack.ref] = None if ack.op == "delete" else ack.version
    return {ref: version for ref, version in versions.items() if version is not None}


def segment(at: str, timeline: int = 1, *, after: int = 0) -> str:
    """Name the file with a position, or the n-th after it."""
    name = SegmentName.from_lsn(Lsn.parse(at), SegmentName.parse(f"{timeline:08X}{0:016X}").timeline, MIB)
    for _ in range(after):
        name = name.next(MIB)
    return str(name)


def needed(snapshot: Snapshot) -> list[str]:
    """Name the files that the backup needs, in order."""
    assert snapshot.begin_lsn is not None
    assert snapshot.end_lsn is not None
    found = [segment(snapshot.begin_lsn)]
    while found[-1] != segment(snapshot.end_lsn):
        found.append(str(SegmentName.parse(found[-1]).next(MIB)))
    return found
