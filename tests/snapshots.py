"""Real snapshots for all tests: each batch comes from one server, is made when first asked for, and is shared.

`shelf.get("barman")` is a `fixtures.Snapshot`. Its files are for reading only: other tests, also those in other
processes of pytest-xdist, use the same ones.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fixtures import (
    Kind,
    Load,
    ObjectStore,
    Server,
    Snapshot,
    barman_backup,
    base_backup,
    copy_wal,
    fill,
    read_snapshot,
    running_tar,
    stopped_copy,
    stopped_tar,
    take,
    two_candidates_tar,
)
from fixtures.server import PGDATA
from tests import recoverable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

SCALE = 0.5
SMALL_BUFFERS = {"shared_buffers": "1MB", "checkpoint_timeout": "1h", "autovacuum": "off"}
"""Changed pages reach the files at once, not at a checkpoint: a copy of the running server holds much of its future."""

MISSING_LIBRARY = "pgrescue_test_no_such_library"


def _stopped(out: Path, major: int) -> None:
    """Make copies of a server that was shut down."""
    with Server(major=major) as server:
        fill(server, scale=SCALE)
        stopped_tar(server, out / "stopped-tar")
        stopped_copy(server, out / "stopped-copy")
        stopped_tar(server, out / "nested-tar", prefix=PGDATA)
        two_candidates_tar(server, out / "two-candidates")


def _based(out: Path, major: int) -> None:
    """Back up by pg_basebackup while clients write."""
    with Server(major=major, promoted=True, settings=SMALL_BUFFERS) as server:
        fill(server, scale=SCALE)
        with Load(server, clients=2, warm_up=300):
            base_backup(server, out / "basebackup-none", wal="none")
            base_backup(server, out / "basebackup-stream", wal="stream")


def _barman(out: Path, major: int) -> None:
    """Back up by barman-cloud-backup while clients write."""
    with Server(major=major, promoted=True, settings=SMALL_BUFFERS) as server, ObjectStore() as store:
        fill(server, scale=SCALE)
        with Load(server, clients=1, warm_up=200):
            barman_backup(server, out / "barman", store=store)
        with Load(server, clients=1, pause_s=0.05, seed=2):
            barman_backup(server, out / "barman-gzip", store=store, compression="gzip")


def _running(out: Path, major: int) -> None:
    """Tar a running server without any backup API, while clients write."""
    with Server(major=major, settings=SMALL_BUFFERS) as server:
        fill(server, scale=SCALE)
        with server.connect() as connection:
            connection.execute("CHECKPOINT")
        with Load(server, clients=2, pause_s=0.002):
            running_tar(server, out / "running-wal-last", wal="last")
            running_tar(server, out / "running-no-wal", wal="none")
            running_tar(server, out / "running-wal-first", wal="first", pause_s=1.5)


def _hot(out: Path, major: int) -> None:
    """Copy a busy server with a small cache and checkpoints halfway, by a backup with its WAL aside, and by tar."""
    settings = {**SMALL_BUFFERS, "autovacuum": "on", "autovacuum_naptime": "1s"}
    with Server(major=major, promoted=True, settings=settings) as server, ObjectStore() as store:
        fill(server, scale=1)
        with Load(server, clients=2, pause_s=0.001, warm_up=600, checkpoint_every_s=0.6):
            running_tar(server, out / "hot-tar", wal="none", rest_every_mb=15)
            running_tar(server, out / "hot-tar-wal", wal="first", rest_every_mb=15)
            backup = barman_backup(server, out / "hot-barman", store=store)
        # Elsewhere, so that a rescue without --wal does not find it.
        copy_wal(server, backup).rename(out / "hot-wal")


def _others(out: Path, major: int) -> None:
    """Make the few snapshots that stand for the majors that are tested less."""
    with Server(major=major) as server:
        fill(server, scale=SCALE)
        stopped_tar(server, out / "stopped-tar")
        with Load(server, clients=1):
            base_backup(server, out / "basebackup-none", wal="none")
            take(server, out / "running-wal-last", Kind.RUNNING_WAL_LAST)


def _hostile(out: Path, major: int) -> None:
    """Tar a stopped server whose own settings would keep everybody out, or act like production."""
    with Server(major=major, preload=[MISSING_LIBRARY], promoted=True) as server:
        fill(server, scale=0.1)
        with server.connect("portal") as connection:
            for statement in (*_HOSTILITIES, *(_LOGIN_TRIGGER if major >= 17 else ())):
                connection.execute(statement)
        # Not by ALTER SYSTEM, which CloudNativePG switches off.
        with (server.pgdata / "postgresql.auto.conf").open("a") as settings:
            settings.write("archive_command = '/bin/false'\nwork_mem = '77MB'\n")
        # With all this it would not start again, as it does after a tar that stopped it itself.
        server.stop()
        stopped_tar(server, out / "hostile")


_HOSTILITIES: tuple[bytes, ...] = (
    b"SELECT pg_create_physical_replication_slot('standby_1', true)",
    b"SELECT pg_create_logical_replication_slot('cdc', 'pgoutput')",
    b"CREATE PUBLICATION everything FOR ALL TABLES",
    b"CREATE SUBSCRIPTION elsewhere CONNECTION 'host=192.0.2.1' PUBLICATION everything WITH (connect = false)",
    b"ALTER DATABASE portal SET session_preload_libraries = 'pgrescue_test_no_such_library'",
    b"ALTER DATABASE portal SET default_transaction_read_only = on",
    b"ALTER ROLE ALL SET statement_timeout = '1ms'",
    b"ALTER ROLE ALL SET local_preload_libraries = 'pgrescue_test_no_such_library'",
    b"ALTER ROLE postgres PASSWORD 'postgres-fixture'",
)
_LOGIN_TRIGGER: tuple[bytes, ...] = (
    b"CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'nobody may log in'; END $$",
    b"CREATE EVENT TRIGGER refuse ON login EXECUTE FUNCTION refuse()",
    b"ALTER EVENT TRIGGER refuse ENABLE ALWAYS",
)

_BATCHES: Mapping[str, tuple[Callable[[Path, int], None], tuple[str, ...]]] = {
    "stopped": (_stopped, ("stopped-tar", "stopped-copy", "nested-tar", "two-candidates")),
    "based": (_based, ("basebackup-none", "basebackup-stream")),
    "barman": (_barman, ("barman", "barman-gzip")),
    "running": (_running, ("running-wal-last", "running-no-wal", "running-wal-first")),
    "hostile": (_hostile, ("hostile",)),
    "recoverable": (recoverable.make, recoverable.BACKUPS),
    "hot": (_hot, ("hot-barman", "hot-tar", "hot-tar-wal")),
}
_OTHERS = ("stopped-tar", "basebackup-none", "running-wal-last")
_MAIN_MAJOR = 17


@dataclass
class Shelf:
    """The snapshots of one test session, below `root`."""

    root: Path
    _known: dict[tuple[str, int], Snapshot] = field(default_factory=dict)

    def get(self, name: str, major: int = _MAIN_MAJOR) -> Snapshot:
        """Return the snapshot `name` of a server of `major`; raise FixtureError where this machine cannot make it."""
        if (name, major) not in self._known:
            batch, make = _batch_of(name, major)
            self._known[name, major] = read_snapshot(self._made(f"{batch}-{major}", make, major) / name)
        return self._known[name, major]

    def _made(self, batch: str, make: Callable[[Path, int], None], major: int) -> Path:
        """Return the directory of a batch, made by the first process that comes."""
        self.root.mkdir(parents=True, exist_ok=True)
        with self._locked(batch):
            done = self.root / batch
            if not done.exists():
                unfinished = self.root / f"{batch}.unfinished"
                shutil.rmtree(unfinished, ignore_errors=True)
                make(unfinished, major)
                unfinished.rename(done)
            return done

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with (self.root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _batch_of(name: str, major: int) -> tuple[str, Callable[[Path, int], None]]:
    if major != _MAIN_MAJOR and name in _OTHERS:
        return "others", _others
    return next((batch, make) for batch, (make, names) in _BATCHES.items() if name in names)
