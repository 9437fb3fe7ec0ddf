"""Relation files of real servers: a healthy database of each major, and pieces of several instants put together."""

from __future__ import annotations

import atexit
import contextlib
import functools
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures import FixtureError, Server
from pgrescue.snapshot.control import parse_control
from pgrescue.snapshot.relation import RelationFile
from pgrescue.snapshot.transaction_status import MultiXacts, TransactionStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

BLOCK = 8192
MAJORS = (15, 16, 17, 18)
QUIET = {"autovacuum": "off", "archive_mode": "off"}

_STATEMENTS = """
CREATE TABLE customer (id int PRIMARY KEY, name text, visits int DEFAULT 0) WITH (fillfactor = 80);
CREATE TABLE visit (id bigserial PRIMARY KEY, customer int REFERENCES customer, kind text);
CREATE INDEX visit_kind ON visit (kind);
CREATE TABLE document (code text, version int, key uuid UNIQUE, body text, PRIMARY KEY (code, version));
INSERT INTO customer SELECT n, 'customer ' || n FROM generate_series(1, 3000) n;
INSERT INTO visit (customer, kind) SELECT n % 3000 + 1, 'kind ' || n % 3 FROM generate_series(1, 9000) n;
INSERT INTO document SELECT 'code ' || n / 3, n % 3, md5(n::text)::uuid, repeat('x', n % 200)
    FROM generate_series(1, 3000) n;
UPDATE customer SET visits = 1 WHERE id % 7 = 0;
UPDATE customer SET visits = 2 WHERE id % 14 = 0;
UPDATE customer SET name = repeat('long ', 40) WHERE id % 11 = 0;
BEGIN; UPDATE customer SET visits = 100;
INSERT INTO customer SELECT n, 'never' FROM generate_series(5001, 5100) n; ROLLBACK;
BEGIN; DELETE FROM visit WHERE id > 8000; ROLLBACK;
DELETE FROM visit WHERE id % 5 = 0;
DELETE FROM document WHERE version = 2;
VACUUM visit;
INSERT INTO visit (customer, kind) SELECT n, 'later' FROM generate_series(1, 500) n;
BEGIN; SAVEPOINT a; INSERT INTO customer VALUES (6001, 'kept'); RELEASE a;
SAVEPOINT b; INSERT INTO customer VALUES (6002, 'not kept'); ROLLBACK TO b; COMMIT;
UPDATE document SET body = 'changed' WHERE code < 'code 2';
DELETE FROM customer WHERE id > 6000 AND id < 6001;
VACUUM FREEZE document;
UPDATE document SET version = version + 10 WHERE code > 'code 8';
SELECT count(*) FROM customer;
DELETE FROM document WHERE code = 'code 3'
"""


@dataclass(frozen=True)
class Healthy:
    """A stopped server's data directory: relations by name, and what the server said of its files.

    `tables` are row counts. `heap` and `btree` hold pageinspect's rows (by table, by index), empty where it is missing;
    `xids` pg_xact_status, `multixacts` pg_get_multixact_members.
    """

    pgdata: Path
    files: dict[str, RelationFile]
    tables: dict[str, int]
    indexes: dict[str, str]
    heap: dict[str, list[Any]]
    btree: dict[str, list[Any]]
    xids: dict[int, str | None]
    multixacts: dict[int, list[tuple[int, str]]]

    def readers(self) -> tuple[TransactionStatus, MultiXacts]:
        return readers(self.pgdata)


def readers(pgdata: Path) -> tuple[TransactionStatus, MultiXacts]:
    control = parse_control((pgdata / "global/pg_control").read_bytes())
    return TransactionStatus(pgdata), MultiXacts(pgdata, control)


def healthy(major: int) -> Healthy:
    """Return the healthy database of a major; skip the test where this machine lacks the server."""
    try:
        return _healthy(major)
    except FixtureError as error:
        if "no PostgreSQL" in str(error):
            pytest.skip(str(error))
        raise


@functools.cache
def _healthy(major: int) -> Healthy:
    with Server(major=major, settings=QUIET) as server, server.connect() as connection:
        for statement in _STATEMENTS.split(";\n"):
            for part in statement.split("; "):
                connection.execute(part.encode())
        _lock_together(server)
        connection.execute("CHECKPOINT")

        return _describe(connection, _copy_of(server.pgdata))


@functools.cache
def _directory() -> Path:
    path = Path(tempfile.mkdtemp(prefix="pgrescue-healthy-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _copy_of(pgdata: Path) -> Path:
    target = Path(tempfile.mkdtemp(dir=_directory()))
    for name in ("base", "global", "pg_xact", "pg_multixact"):
        shutil.copytree(pgdata / name, target / name, ignore=shutil.ignore_patterns("pgsql_tmp*", "t[0-9]*_*"))
    return target


def _lock_together(server: Server) -> None:
    """Let several transactions lock one row, and let one of them update, delete or do nothing to it."""
    changes = [
        "UPDATE customer SET visits = 50 WHERE id = %s",
        "UPDATE customer SET name = repeat('moved ', 100) WHERE id = %s",
        None,
    ]
    with server.connect() as first, server.connect() as second, server.connect() as third:
        for number in range(1, 400):
            for connection in (first, second, third):
                connection.execute("BEGIN")
            for connection in (first, second):
                connection.execute("SELECT FROM customer WHERE id = %s FOR KEY SHARE", (number,))
            change = changes[number % 3]
            if change:
                third.execute(change.encode(), (number,))
            for connection in (first, second):
                connection.execute("COMMIT")
            third.execute("COMMIT" if number % 2 else "ROLLBACK")


def _describe(connection: psycopg.Connection, pgdata: Path) -> Healthy:
    has_pageinspect = connection.execute(
        "SELECT count(*) FROM pg_available_extensions WHERE name = 'pageinspect'"
    ).fetchone()
    files = {
        str(name): RelationFile(pgdata / str(path))
        for name, path in connection.execute(
            "SELECT oid::regclass::text, pg_relation_filepath(oid) FROM pg_class WHERE relkind IN ('r', 'i', 't', 'm')"
            " AND relpersistence = 'p'"
        )
    }
    indexes = {
        str(index): str(table)
        for index, table in connection.execute(
            "SELECT indexrelid::regclass::text, indrelid::regclass::text FROM pg_index"
            " JOIN pg_class ON oid = indexrelid JOIN pg_am am ON am.oid = relam"
            " WHERE amname = 'btree' AND relpersistence = 'p'"
        )
    }
    names = ("customer", "visit", "document")
    ours = [index for index, table in indexes.items() if table in names]
    last = int(connection.execute("SELECT txid_snapshot_xmax(txid_current_snapshot())").fetchone()[0])  # type: ignore[index]
    xids = {
        xid: connection.execute("SELECT pg_xact_status(%s::text::xid8)", (xid,)).fetchone()[0]  # type: ignore[index]
        for xid in range(last - 900, last - 1)
    }
    heap, btree = {}, {}
    if has_pageinspect and has_pageinspect[0]:
        connection.execute("CREATE EXTENSION pageinspect")
        heap = {name: _heap_items(connection, name, files[name]) for name in names}
        btree = {index: _btree_items(connection, index, files[index]) for index in ours}
    # Counting comes last: it sets hints and prunes, so that pages are no longer those of the copy.
    tables = {name: _count(connection, name) for name in names}
    return Healthy(pgdata, files, tables, indexes, heap, btree, xids, _multixacts(connection))


def _count(connection: psycopg.Connection, name: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {name}".encode()).fetchone()
    assert row
    return int(row[0])


def _heap_items(connection: psycopg.Connection, name: str, file: RelationFile) -> list[Any]:
    return connection.execute(
        "SELECT b, lp, lp_flags, lp_off, lp_len, t_xmin::text::bigint, t_xmax::text::bigint, t_ctid::text, t_infomask,"
        " t_infomask2, (page_header(get_raw_page(%s, b))).lsn::text"
        " FROM generate_series(0, %s - 1) b, heap_page_items(get_raw_page(%s, b))",
        (name, file.block_count(), name),
    ).fetchall()


def _btree_items(connection: psycopg.Connection, name: str, file: RelationFile) -> list[Any]:
    """Return every leaf item as (block, item, is dead, its rows, bytes of the key); high keys have no htid."""
    return connection.execute(
        "SELECT b, itemoffset, dead, coalesce(tids::text[], ARRAY[htid::text]), data"
        " FROM generate_series(1, %s - 1) b, bt_page_stats(%s, b) s, bt_page_items(%s, b) i"
        " WHERE s.type = 'l' AND NOT (itemoffset = 1 AND s.btpo_next <> 0)",
        (file.block_count(), name, name),
    ).fetchall()


def _multixacts(connection: psycopg.Connection) -> dict[int, list[tuple[int, str]]]:
    row = connection.execute("SELECT next_multixact_id::text::bigint FROM pg_control_checkpoint()").fetchone()
    assert row
    return {
        number: [
            (int(xid), str(mode))
            for xid, mode in connection.execute(
                "SELECT xid::text::bigint, mode FROM pg_get_multixact_members(%s::text::xid)", (number,)
            )
        ]
        for number in range(1, int(row[0]))
    }


@contextlib.contextmanager
def workbench(major: int = 17) -> Iterator[Workbench]:
    """Run a server for the length of a block."""
    with Server(major=major, settings=QUIET) as server:
        bench = Workbench(server)
        try:
            yield bench
        finally:
            bench.connection.close()


class Workbench:
    """A running server whose tables are looked at, torn apart and put together."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._connect()

    def do(self, *statements: str) -> None:
        """Run statements, one transaction each, then let the server write everything down."""
        for statement in statements:
            self.connection.execute(statement.encode())
        self.connection.execute("CHECKPOINT")

    def restart(self) -> None:
        """Stop the server, which writes unlogged tables too, and start it again."""
        self.connection.close()
        with self.server.stopped():
            pass
        self._connect()

    def _connect(self) -> None:
        self.connection = self.server.connect()
        self.connection.prepare_threshold = None  # Tables of one name come and go.

    def ask(self, query: str) -> list[Any]:
        return self.connection.execute(query.encode()).fetchall()

    def file(self, name: str) -> Path:
        return Path(self.server.pgdata / str(self.ask(f"SELECT pg_relation_filepath('{name}')")[0][0]))

    def pages(self, name: str) -> list[bytes]:
        data = self.file(name).read_bytes()
        return [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)]

    def readers(self) -> tuple[TransactionStatus, MultiXacts]:
        return readers(self.server.pgdata)


def written(path: Path, pages: list[bytes]) -> RelationFile:
    """Write pages as a relation's file."""
    path.write_bytes(b"".join(pages))
    return RelationFile(path)
