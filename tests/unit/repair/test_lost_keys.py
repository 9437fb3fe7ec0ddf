"""Rows that a copy of a busy server lost: every key that the copy's index knew is in the table again, or is told."""

from __future__ import annotations

import errno
import os
import random
import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures import Server
from pgrescue.errors import DiskSpaceError
from pgrescue.repair import notes as notes_module
from pgrescue.repair.evidence import Witnesses
from pgrescue.repair.notes import Missing, Notes
from pgrescue.repair.survey import Index, Table
from pgrescue.snapshot.btree import read_btree
from pgrescue.snapshot.index_keys import KeyColumn, decode_keys
from pgrescue.snapshot.relation import RelationFile
from pgrescue.workspace import Workspace
from tests.unit.repair.patients import Patient, admit, codes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

SEED = 7
ROWS = 5000
COPY_S = 3.0
CLIENTS = 2
# No row is ever deleted, and rows move: what is missing later was lost, and other rows lie where it was.
TABLES = {
    "numbered": ("id bigint primary key, v int, pad text", "n, n", "%s", [KeyColumn(20, 8, "d")]),
    "hashed": (
        "id uuid primary key, v int, pad text",
        "md5(n::text)::uuid, n",
        "md5(%s)::uuid",
        [KeyColumn(2950, 16, "c")],
    ),
    "named": ("id text primary key, v int, pad text", "'name ' || n, n", "'name ' || %s", [KeyColumn(25, -1, "i")]),
}
SETTINGS = {
    "shared_buffers": "1MB",
    "checkpoint_timeout": "30s",
    "autovacuum": "on",
    "autovacuum_naptime": "1s",
    "autovacuum_vacuum_cost_delay": "0",
    "autovacuum_vacuum_scale_factor": "0.02",
    "bgwriter_delay": "50ms",
}


class Clients:
    """Update rows, so that they move, and insert new ones, for the length of a block."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(CLIENTS)]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self, number: int) -> None:
        dice = random.Random(SEED * 100 + number)
        new = ROWS + number
        with self._server.connect() as connection:
            while not self._stop.wait(0.005):
                with connection.transaction():
                    for name, (_, _, key, _) in TABLES.items():
                        for _ in range(3):
                            # Each client has rows of its own, so that none waits for another.
                            row = dice.randrange(number, ROWS, CLIENTS) + 1
                            connection.execute(
                                f"update {name} set v = v + 1, pad = repeat('y', {dice.randint(20, 200)})"
                                f" where id = {key}".encode(),
                                (str(row),) if name != "numbered" else (row,),
                            )
                        new += CLIENTS
                        connection.execute(
                            f"insert into {name} values ({key}, 0, 'new')".encode(),
                            (str(new),) if name != "numbered" else (new,),
                        )


def slow_copy(pgdata: Path, target: Path) -> None:
    """Copy a running server's files without its WAL, in an order that the seed gives, over some seconds."""
    files = []
    for directory, _, names in os.walk(pgdata):
        place = Path(directory).relative_to(pgdata)
        (target / place).mkdir()
        if place.name != "pg_wal":
            files += [place / name for name in names if not name.startswith("postmaster.")]
    random.Random(SEED).shuffle(files)
    is_table = {file for file in files if file.name.isdigit() and int(file.name) >= 16384}
    size = sum((pgdata / file).stat().st_size for file in is_table if (pgdata / file).exists())
    for file in files:
        if not (pgdata / file).exists():
            continue
        with (pgdata / file).open("rb") as source, (target / file).open("wb") as out:
            while data := source.read(64 << 10):
                out.write(data)
                if file in is_table:
                    time.sleep(COPY_S * len(data) / size)


def test_no_key_that_the_copys_index_knew_is_missing_in_silence(tmp_path: Path) -> None:
    with Server(settings=SETTINGS, checksums=False) as server, server.connect() as connection:
        for name, (columns, values, _, _) in TABLES.items():
            connection.execute(f"create table {name} ({columns})".encode())
            connection.execute(
                f"create index on {name} (v)".encode()
            )  # so that rows move away from their index entries
            connection.execute(
                f"insert into {name} select {values}, repeat('x', 60 + n % 50)"
                f" from generate_series(1, {ROWS}) n".encode()
            )
        with Clients(server):
            time.sleep(1)
            connection.execute("checkpoint")
            truth = {name: keys(connection, name) for name in TABLES}
            slow_copy(server.pgdata, tmp_path / "copy")
        indexes = {name: path(connection, f"{name}_pkey") for name in TABLES}
    known = {name: known_keys(tmp_path / "copy" / indexes[name], TABLES[name][3]) for name in TABLES}
    patient = admit(tmp_path / "copy", tmp_path)
    try:
        findings = codes(patient.repair())
        lost = 0
        for name in TABLES:
            if ("lost_rows_unchecked", f"postgres.public.{name}") in findings:
                continue
            with patient.connect() as session:
                missing = truth[name] - keys(session, name)
            assert (missing & known[name]) - told(patient, name) == set(), name
            lost += len(missing)
        assert lost, "the copy lost nothing: it shows nothing"
    finally:
        patient.run.engine.remove()


def keys(connection: psycopg.Connection, name: str) -> set[str]:
    return {row[0] for row in connection.execute(f"select id::text from {name}".encode())}


def path(connection: psycopg.Connection, name: str) -> str:
    ((found,),) = connection.execute("select pg_relation_filepath(%s::regclass)", (name,)).fetchall()
    return str(found)


def known_keys(index: Path, columns: Sequence[KeyColumn]) -> set[str]:
    """Return the keys in an index's file, those of entries marked as dead included."""
    return {
        str(key.values[0])
        for chunk in read_btree(RelationFile(index))
        for key in decode_keys(chunk.raw(range(len(chunk))), columns)
    }


def told(patient: Patient, name: str) -> set[str]:
    fates = ("set_aside", "brought_back", "lost", "perhaps_lost", "undecided")
    return {row["key"]["id"] for fate in fates for row in patient.rows(f"public.{name}", fate)}


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    workspace = Workspace(tmp_path / "it.pgrescue")
    workspace.create(shared=False)
    return Notes(workspace)


def table(**changes: Any) -> Table:
    values: dict[str, Any] = dict.fromkeys(Table.__dataclass_fields__)
    return Table(**{**values, "path": "base/5/16400", "oid": 16400, "indexes": (), **changes})


def index_files(tmp_path: Path) -> Path:
    (tmp_path / "16403").write_bytes(b"a" * 100)
    (tmp_path / "16403.1").write_bytes(b"b" * 50)
    (tmp_path / "16403.3").write_bytes(b"of another time")
    return tmp_path / "16403"


def test_an_old_index_is_kept_with_all_of_its_files_until_it_was_compared(notes: Notes, tmp_path: Path) -> None:
    assert notes.old_key(table()) is None
    source = index_files(tmp_path)
    notes.keep_old_key(table(), source)
    os.truncate(source, 0)  # as REINDEX does, so that a link would be empty
    old = notes.old_key(table())
    assert old is not None
    assert sorted(file.name for file in old.parent.iterdir()) == ["16403", "16403.1"]
    assert (old.name, old.read_bytes()) == ("16403", b"a" * 100)
    assert old.with_name("16403.1").read_bytes() == b"b" * 50
    missing = Missing([{"values": {"id": "1"}, "hex": ""}], 1)
    notes.add_missing(table(), missing)
    assert (notes.old_key(table()), notes.missing(table())) == (None, missing)


def test_files_that_share_no_blocks_are_copied(notes: Notes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    notes.keep_old_key(table(), index_files(tmp_path))
    old = notes.old_key(table())
    assert old is not None
    assert old.read_bytes() == b"a" * 100


def test_what_a_kill_left_of_a_copy_is_made_anew(notes: Notes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = index_files(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            notes.keep_old_key(table(), source)
    assert notes.old_key(table()) is None
    notes.keep_old_key(table(), source)
    assert notes.old_key(table()) is not None


def killed(*_: object) -> None:
    raise KeyboardInterrupt


class Answers:
    """A session that says where the index is now."""

    def execute(self, *_: object) -> Answers:
        return self

    def fetchall(self) -> list[tuple[str]]:
        return [("16403",)]


def witnesses(notes: Notes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Witnesses:
    monkeypatch.setattr(Witnesses, "__init__", lambda *_: None)
    made = Witnesses(None, None, notes)  # type: ignore[arg-type]
    made.notes = notes
    made._pgdata = tmp_path
    return made


def with_key(**changes: Any) -> Table:
    values: dict[str, Any] = dict.fromkeys(Index.__dataclass_fields__)
    key = Index(
        **{
            **values,
            "oid": 16403,
            "method": "btree",
            "is_unique": True,
            "is_valid": True,
            "is_primary": True,
            "path": "16403",
        }
    )
    return table(indexes=(key,), **changes)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_an_index_that_cannot_be_kept(notes: Notes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Without room the repair ends before anything is rebuilt; otherwise it is told that losses cannot be named."""

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    index_files(tmp_path)
    monkeypatch.setattr(notes_module, "_copy", refuse)
    made = witnesses(notes, tmp_path, monkeypatch)
    if code == errno.ENOSPC:
        with pytest.raises(DiskSpaceError, match="cannot be kept"):
            made.keep_key(with_key())
        assert notes.missing(with_key()) is None
    else:
        made.keep_key(with_key())
        evidence = made.complete(Answers(), with_key())  # type: ignore[arg-type]
        assert evidence is not None
        assert "could not be kept: Permission denied" in evidence.problem
        # A second attempt must not take the rebuilt index for the old one.
        monkeypatch.setattr(notes_module, "_copy", shutil.copyfile)
        made.keep_key(with_key())
    assert notes.old_key(with_key()) is None


@pytest.mark.parametrize("change", [{"is_unlogged": True}, {"is_view": True}, {"indexes": ()}])
def test_tables_without_an_index_that_knows_more_keep_nothing(
    notes: Notes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    made = witnesses(notes, tmp_path, monkeypatch)
    without = with_key() if not change else table(**{"indexes": with_key().indexes, **change})
    made.keep_key(without)
    assert (notes.old_key(without), made.complete(Answers(), without)) == (None, None)  # type: ignore[arg-type]


def test_an_index_that_was_not_rebuilt_proves_nothing(
    notes: Notes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_files(tmp_path)
    made = witnesses(notes, tmp_path, monkeypatch)
    made.keep_key(with_key())
    monkeypatch.setattr(made, "_relation", lambda path: RelationFile(tmp_path / path))
    evidence = made.complete(Answers(), with_key())  # type: ignore[arg-type]
    assert evidence is not None
    assert "could not be rebuilt" in evidence.problem
    assert notes.old_key(with_key()) is not None
