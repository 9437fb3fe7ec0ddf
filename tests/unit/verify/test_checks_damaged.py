"""Each finding of the checks on a server whose files or catalogs are damaged in one place."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from fixtures import Server
from fixtures.command import run
from fixtures.identity import server_identity
from pgrescue.model import DamagedBlocks, Severity, VerifyLevel
from tests.unit.verify.servers import (
    BLOCK,
    SETTINGS,
    age_rows,
    check,
    execute,
    file_of,
    found,
    one,
    overwrite,
    page,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pgrescue.verify.verified import Verified

ROWS = "SELECT n AS id, 'row ' || n AS body FROM generate_series(1, 2000) n"
LONG = "(SELECT string_agg(md5((n * 1000 + m)::text), '') FROM generate_series(1, 400) m)"


def keyed(name: str, rows: str = ROWS) -> tuple[str, ...]:
    return f"CREATE TABLE {name} AS {rows}", f"ALTER TABLE {name} ADD PRIMARY KEY (id)"


class Damage:
    """What is prepared while the server runs, and done to its files when it is down."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.later: list[Callable[[], object]] = []
        execute(server, "postgres", "CREATE DATABASE files", "CREATE DATABASE catalogs")

    def tables(self) -> None:
        """Make the tables, most of which a stopped server's files are then damaged of."""
        names = ("zeroed", "cut", "lost", "future", "zero_leaf", "unreadable", "split")
        execute(self.server, "files", *(part for name in names for part in keyed(name)))
        execute(
            self.server,
            "files",
            *(part for name in ("stale", "ahead", "twice", "invalid") for part in keyed(name)),
            f"CREATE TABLE toasted AS SELECT n AS id, {LONG} AS body FROM generate_series(1, 20) n",
            "CREATE UNLOGGED TABLE no_init (id int)",
            "CREATE TABLE torn (id int, body text) WITH (vacuum_truncate = off)",
            "INSERT INTO torn SELECT n, repeat('a', 50) FROM generate_series(1, 500) n",
            "CREATE TABLE locked AS SELECT 1 AS id; ALTER TABLE locked ADD PRIMARY KEY (id)",
            "VACUUM",
            "CHECKPOINT",
        )
        self._zero("zeroed", 3)
        self._zero("zero_leaf_pkey", 2)
        self._zero("pg_toast.pg_toast_" + str(one(self.server, "files", "select 'toasted'::regclass::oid")), 1)
        self._on("cut", lambda file: os.truncate(file, 5 * BLOCK))
        self._on("lost", lambda file: file.unlink())
        self._on("unreadable", lambda file: overwrite(file, 2 * BLOCK, b"\xa5" * 64))
        self._on("future", lambda file: age_rows(file, 1, 900_000_000))
        self._on("split", lambda file: file.with_name(f"{file.name}.1").write_bytes(page(file, 0)))
        init = file_of(self.server, "files", "no_init")
        self.later.append(init.with_name(f"{init.name}_init").unlink)
        self._older("stale_pkey", "DELETE FROM stale WHERE id > 1500; VACUUM stale", newer="stale")
        self._older("ahead", "INSERT INTO ahead SELECT n, 'new' FROM generate_series(2001, 2500) n")
        self._torn()
        orphan = file_of(self.server, "files", "zeroed").with_name("999999")
        self.later.append(lambda: shutil.copy2(file_of_zeroed, orphan))
        file_of_zeroed = file_of(self.server, "files", "zeroed")

    def _on(self, relation: str, change: Callable[[Path], object]) -> None:
        file = file_of(self.server, "files", relation)
        self.later.append(lambda: change(file))

    def _zero(self, relation: str, block: int) -> None:
        self._on(relation, lambda file: overwrite(file, block * BLOCK, bytes(BLOCK)))

    def _older(self, relation: str, change: str, *, newer: str | None = None) -> None:
        """Put back the older file of `relation`, after its table was changed and given new rows."""
        file = file_of(self.server, "files", relation)
        old = file.read_bytes()
        if newer is not None:
            change = f"INSERT INTO {newer} SELECT n, 'new' FROM generate_series(2001, 2500) n"
        execute(self.server, "files", change)
        self.later.append(lambda: file.write_bytes(old))

    def _torn(self) -> None:
        """Make a page whose halves are of two moments: the line pointers of one, most rows of the other."""
        file = file_of(self.server, "files", "torn")
        old = page(file, 0)
        execute(
            self.server,
            "files",
            "DELETE FROM torn",
            "VACUUM torn",
            "INSERT INTO torn SELECT n, repeat('b', 301 + n % 7) FROM generate_series(1, 500) n",
        )
        self.later.append(lambda: overwrite(file, BLOCK // 2, old[BLOCK // 2 :]))

    def catalogs(self) -> None:
        """Damage the catalogs of a database by what only a superuser may do."""
        execute(
            self.server,
            "catalogs",
            *(part for name in ("columnless", "free", "unclassed", "invalid") for part in keyed(name)),
            "CREATE TYPE mood AS ENUM ('sad')",
            "CREATE FUNCTION c_function() RETURNS int LANGUAGE internal AS 'pg_backend_pid'",
            "CREATE TABLE sorted (name text COLLATE pg_c_utf8 PRIMARY KEY)",
            "CHECKPOINT",
        )
        index = file_of(self.server, "catalogs", "pg_enum_oid_index")
        old = index.read_bytes()
        self.later.append(lambda: index.write_bytes(old))
        execute(
            self.server,
            "catalogs",
            "ALTER TYPE mood ADD VALUE 'ok'",
            "CREATE EXTENSION citext",
            "UPDATE pg_extension SET extname = 'of_another_image' WHERE extname = 'citext'",
            "UPDATE pg_proc SET prolang = 13, probin = '$libdir/of_another_image' WHERE proname = 'c_function'",
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'invalid_pkey'::regclass",
            "UPDATE pg_collation SET collversion = '0' WHERE collname = 'pg_c_utf8'",
            "DELETE FROM pg_depend WHERE objid = 'free'::regclass AND classid = 'pg_class'::regclass",
            "DELETE FROM pg_attribute WHERE attrelid = 'columnless'::regclass AND attname = 'body'",
            "DELETE FROM pg_class WHERE oid = 'unclassed_pkey'::regclass",
        )
        execute(
            self.server,
            "postgres",
            "CREATE DATABASE sorted_otherwise TEMPLATE template0 LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'",
            "UPDATE pg_database SET datcollversion = '0' WHERE datname = 'sorted_otherwise'",
        )

    def done(self) -> None:
        """Damage the files."""
        execute(self.server, "postgres", "CHECKPOINT")
        with self.server.stopped():
            for change in self.later:
                change()


@pytest.fixture(scope="module")
def damaged() -> Iterator[Server]:
    """Yield a running server that is damaged in many places."""
    settings = {**SETTINGS, "allow_system_table_mods": "on", "max_prepared_transactions": "2"}
    with Server(checksums=False, settings=settings) as server:
        damage = Damage(server)
        damage.tables()
        damage.catalogs()
        # The rows of one key twice: the index does not mind as long as it is not said to be unique.
        execute(
            server,
            "files",
            "UPDATE pg_index SET indisunique = false WHERE indexrelid = 'twice_pkey'::regclass",
            "INSERT INTO twice VALUES (77, 'again')",
            "UPDATE pg_index SET indisunique = true WHERE indexrelid = 'twice_pkey'::regclass",
        )
        damage.done()
        execute(server, "postgres", "CREATE DATABASE sealed", "CREATE DATABASE old_tools")
        execute(server, "old_tools", "CREATE EXTENSION amcheck VERSION '1.0'")
        with server.connect("files") as connection:
            connection.execute("BEGIN; LOCK TABLE locked; PREPARE TRANSACTION 'somebody'")
        sealed = (
            server.pgdata / "base" / str(one(server, "sealed", "select oid from pg_database where datname = 'sealed'"))
        )
        sealed.chmod(0o500)
        yield server


@pytest.fixture(scope="module")
def fast(damaged: Server) -> Verified:
    return check(damaged, VerifyLevel.FAST)


@pytest.fixture(scope="module")
def full(damaged: Server, fast: Verified) -> Verified:
    del fast
    return check(damaged, VerifyLevel.FULL)


@pytest.fixture(params=["fast", "full"])
def verified(request: pytest.FixtureRequest) -> Verified:
    verified: Verified = request.getfixturevalue(request.param)
    return verified


FILES = {
    "zeroed_pkey": {"index_points_nowhere"},
    "cut_pkey": {"index_points_nowhere"},
    "ahead_pkey": {"index_points_nowhere"},
    "zero_leaf_pkey": {"index_corrupt"},
    "stale_pkey": {"index_corrupt"},
    "twice_pkey": {"index_corrupt"},
    "torn": {"heap_corrupt"},
    "future": {"heap_corrupt"},
    "unreadable": {"heap_corrupt"},
    "lost": {"relation_file_missing"},
    "split": {"relation_file_missing"},
    "no_init": {"relation_file_missing"},
}
CATALOGS = [
    ("catalogs.pg_catalog.pg_enum_oid_index", "catalog_index_stale", Severity.ERROR),
    ("catalogs.pg_catalog.pg_depend", "catalog_inconsistent", Severity.ERROR),
    ("catalogs.pg_catalog.pg_attribute", "catalog_inconsistent", Severity.ERROR),
    ("catalogs.pg_catalog.pg_index", "catalog_inconsistent", Severity.ERROR),
    ("catalogs: of_another_image", "extension_missing", Severity.WARNING),
    ("catalogs.pg_catalog.pg_c_utf8", "collation_version_changed", Severity.WARNING),
    ("sorted_otherwise", "collation_version_changed", Severity.WARNING),
    ("catalogs.public.invalid_pkey", "index_invalid", Severity.WARNING),
    ("files", "orphan_file", Severity.INFO),
    ("sealed", "write_failed", Severity.ERROR),
]


def test_each_damaged_file_has_its_own_finding_and_no_other(verified: Verified) -> None:
    prefix = "files.public."
    told: dict[str, set[str]] = {}
    for item in verified.findings:
        if item.object.startswith(prefix) and item.code != "row_unreadable":
            told.setdefault(item.object.removeprefix(prefix), set()).add(item.code)
    told.pop("toasted", None)
    assert told == FILES
    assert all(item.remedy for item in verified.findings)


@pytest.mark.parametrize(("of", "code", "severity"), CATALOGS)
def test_damage_to_catalogs_is_found(verified: Verified, *, of: str, code: str, severity: Severity) -> None:
    found_here = [item for item in verified.findings if (item.object, item.code) == (of, code)]
    assert found_here
    assert {item.severity for item in found_here} == {severity}


def test_each_rule_of_the_catalogs_names_the_object(fast: Verified) -> None:
    details = " ".join(item.detail for item in fast.findings if item.code == "catalog_inconsistent")
    assert all(name in details for name in ("columnless (", "free ("))


def test_rows_and_blocks_are_counted(full: Verified) -> None:
    assert found(full, "index_points_nowhere", "files.public.ahead_pkey").rows == 500
    assert found(full, "heap_corrupt", "files.public.future").rows == 185
    maps = {item.relation: item for item in full.unreadable_blocks}
    assert maps["files.public.unreadable"].damaged == (DamagedBlocks(2, 2, "unreadable"),)
    assert maps["files.public.future"].damaged == (DamagedBlocks(1, 1, "corrupt rows"),)
    assert maps["files.public.unreadable"].blocks == 11


def test_rows_that_cannot_be_read_whole_are_found_by_the_full_checks(fast: Verified, full: Verified) -> None:
    assert not [item for item in fast.findings if item.code == "row_unreadable"]
    finding = found(full, "row_unreadable", "files.public.toasted")
    assert finding.rows == 2
    assert "(0,1): missing chunk number 4" in finding.detail
    assert found(full, "heap_corrupt", "files.public.toasted").rows == 2
    assert "1 of 11 blocks" in found(full, "row_unreadable", "files.public.unreadable").detail
    assert "cannot open the table" in found(full, "row_unreadable", "catalogs.public.columnless").detail


@pytest.mark.parametrize(
    ("of", "why"),
    [
        ("rows of files.public.locked", "lock timeout"),
        ("index files.public.locked_pkey", "lock timeout"),
        ("index files.public.unreadable_pkey", "invalid page in block 2"),
        ("rows of all tables in old_tools", "verify_heapam"),
        ("b-tree indexes in old_tools", "bt_index_check"),
    ],
)
def test_a_check_that_cannot_run_says_why(verified: Verified, *, of: str, why: str) -> None:
    finding = found(verified, "check_not_run", of)
    assert (finding.severity, why in finding.detail) == (Severity.WARNING, True)


def test_a_missing_file_of_transaction_states_is_found() -> None:
    with Server(checksums=False, settings=SETTINGS) as server:
        execute(server, "postgres", "CREATE TABLE judged (id int PRIMARY KEY)", "VACUUM FREEZE")
        execute(server, "template1", "VACUUM FREEZE")
        execute(server, "postgres", "INSERT INTO judged SELECT generate_series(1, 300)", "CHECKPOINT")
        server.stop()
        run([server.tool("pg_resetwal"), "-x", str(0x100000), server.pgdata], identity=server_identity())
        (server.pgdata / "pg_xact" / "0000").unlink()
        server.start()
        verified = check(server, VerifyLevel.FAST)
        finding = found(verified, "heap_corrupt", "postgres.public.judged")
        assert "could not access status of transaction" in finding.detail
        assert {item.code for item in verified.findings} <= {"heap_corrupt", "check_not_run"}
