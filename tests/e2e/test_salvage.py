"""A damaged source is moved as far as it can be read, and a manifest names everything else."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from fixtures import Server, fill, stopped_copy
from tests.cli import pgrescue
from tests.e2e.damage import BLOCK, forget_hints
from tests.targets import OWNER, contents, new_database, url_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fixtures import Snapshot
    from tests.cli import Done, Rescue
    from tests.conftest import Rescuer

_LONG_AGO = 0xF000_0000  # its status was never kept: the server says so
_NOT_YET = 0x7000_0000  # taken for one at work: the server shows nothing, and says nothing

# The catalogs say that both hold, and no row was asked.
_LIES = """
create table prices (id integer primary key, price numeric not null);
insert into prices select g, g from generate_series(1, 300) as g;
insert into prices values (1001, -1), (1002, -2);
alter table prices add constraint positive check (price > 0) not valid;
create table twice (id integer primary key, note text);
insert into twice values (1, 'first'), (2, 'other');
"""
_HIDE = (
    "update pg_constraint set convalidated = true where conname = 'positive'",
    "update pg_index set indisready = false where indexrelid = 'twice_pkey'::regclass",
)
_SHOW = "update pg_index set indisready = true where indexrelid = 'twice_pkey'::regclass"


@dataclass(frozen=True)
class Damaged:
    """A damaged copy, what is in it that cannot be read, and what can."""

    snapshot: Snapshot
    block: int
    orders: tuple[int, ...]
    documents: tuple[str, ...]
    users: dict[str, int]
    whole: dict[str, Any]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Damaged:
    with Server(checksums=False, settings={"autovacuum": "off"}) as server:
        fill(server, scale=0.5, databases=("portal",))
        with server.connect("portal") as connection:
            connection.execute(_LIES.encode())
            connection.execute("set allow_system_table_mods = on")
            for statement in _HIDE:
                connection.execute(statement.encode())
        with server.connect("portal") as connection:
            connection.execute("insert into twice values (1, 'second')")
            connection.execute("set allow_system_table_mods = on")
            connection.execute(_SHOW.encode())
            files = {
                name: connection.execute("select pg_relation_filepath(%s::regclass)", [name]).fetchall()[0][0]
                for name in ("orders", "users")
            }
            (toast,) = connection.execute(
                "select reltoastrelid::regclass::text from pg_class where oid = 'documents'::regclass"
            ).fetchall()[0]
            (files["toast"],) = connection.execute("select pg_relation_filepath(%s::regclass)", [toast]).fetchall()[0]
            orders = connection.execute(
                "select id from orders where ctid >= '(2,0)' and ctid < '(3,0)' order by id"
            ).fetchall()
            documents = connection.execute(
                f"select distinct id::text from documents, {toast} as t "
                "where t.ctid >= '(1,0)' and t.ctid < '(2,0)' and t.chunk_id in ("
                "pg_column_toast_chunk_id(body), pg_column_toast_chunk_id(content)) order by 1".encode()
            ).fetchall()
            users: dict[str, int] = dict(
                connection.execute("select ctid::text, id from users where ctid in ('(1,3)', '(1,5)')").fetchall()
            )
            whole = contents(connection)
        snapshot = stopped_copy(server, tmp_path_factory.mktemp("damaged") / "copy")
    assert orders
    assert documents
    break_header(snapshot.path / files["orders"], 2)
    break_header(snapshot.path / files["toast"], 1)
    orphan_row(snapshot.path / files["users"], 1, 3, _LONG_AGO)
    orphan_row(snapshot.path / files["users"], 1, 5, _NOT_YET)
    return Damaged(snapshot, 2, tuple(row[0] for row in orders), tuple(row[0] for row in documents), users, whole)


def break_header(file: Path, block: int) -> None:
    """Make a page that no server accepts: its free space ends before it begins."""
    with file.open("r+b") as opened:
        opened.seek(block * BLOCK + 12)
        opened.write(struct.pack("<HH", 8000, 100))


def orphan_row(file: Path, block: int, item: int, xmin: int) -> None:
    """Let a row be of another transaction."""
    with file.open("r+b") as opened:
        opened.seek(block * BLOCK)
        page = bytearray(opened.read(BLOCK))
        forget_hints(page)
        offset = struct.unpack_from("<I", page, 24 + 4 * (item - 1))[0] & 0x7FFF
        struct.pack_into("<I", page, offset, xmin)
        opened.seek(block * BLOCK)
        opened.write(page)


@pytest.fixture(scope="module")
def target() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture(scope="module")
def rescued(damaged: Damaged, shared_rescue: Rescuer, engine_name: str) -> Rescue:
    """Return a rescue of the damaged copy, whose verdict says so."""
    found = shared_rescue(damaged.snapshot, "--engine", engine_name, "--verify", "fast")
    assert found.report["verdict"] == "damaged"
    return found


def to_cluster(rescued: Rescue, target: Server, database: str, *options: str) -> Done:
    return pgrescue(
        "to-cluster",
        "-w",
        rescued.workspace,
        *("--target-url", url_of(target, database, OWNER), "--database", "portal", "--json"),
        *options,
        cwd=rescued.workspace.parent,
    )


def codes(done: Done) -> list[str]:
    return [finding["code"] for finding in done.document()["findings"]]


def test_a_damaged_source_is_refused_with_the_hint(rescued: Rescue, target: Server) -> None:
    database = new_database(target)
    done = to_cluster(rescued, target, database)
    assert (done.status, done.document()["outcome"]) == (2, "refused")
    (finding,) = [one for one in done.document()["findings"] if one["code"] == "source_damaged"]
    assert finding["severity"] == "error"
    assert "--salvage" in finding["remedy"]
    with target.connect(database) as connection:
        assert contents(connection) == {}


def test_what_can_be_read_is_moved_and_the_rest_is_listed(rescued: Rescue, damaged: Damaged, target: Server) -> None:
    database = new_database(target)
    done = to_cluster(rescued, target, database, "--salvage").ok()
    assert done.document()["outcome"] == "moved"
    assert {"rows_not_moved", "constraint_left_out", "constraint_not_valid"} <= set(codes(done))

    manifest = json.loads((rescued.workspace / "salvage.json").read_text())
    lost = manifest["tables"]
    assert set(lost) == {"public.orders", "public.users", "public.documents", "public.prices"}
    assert [one["block"] for one in lost["public.orders"]["blocks"]] == [damaged.block]
    assert lost["public.orders"]["rows"] == []
    assert {one["ctid"] for one in lost["public.users"]["rows"]} == set(damaged.users) == {"(1,3)", "(1,5)"}
    assert len(lost["public.documents"]["rows"]) == len(damaged.documents)
    assert len(lost["public.prices"]["rows"]) == 2
    assert all("positive" in one["reason"] for one in lost["public.prices"]["rows"])
    left = {one["name"]: one["outcome"] for one in manifest["constraints"]}
    assert left["constraint public.twice twice_pkey"] == "left out"
    assert left["fk constraint public.orders orders_user_id_fkey"] == "not valid"

    with target.connect(database) as connection:
        held = contents(connection)
        untouched = set(damaged.whole) - set(lost)
        assert {name: held[name] for name in untouched} == {name: damaged.whole[name] for name in untouched}
        for name, rows in (("orders", len(damaged.orders)), ("users", 2), ("documents", len(damaged.documents))):
            assert held[f"public.{name}"].rows == damaged.whole[f"public.{name}"].rows - rows

        def missing(query: str, keys: object) -> int:
            return int(connection.execute(query.encode(), [keys]).fetchall()[0][0])

        assert missing("select count(*) from orders where id = any (%s)", list(damaged.orders)) == 0
        assert missing("select count(*) from users where id = any (%s)", list(damaged.users.values())) == 0
        assert missing("select count(*) from documents where id::text = any (%s)", list(damaged.documents)) == 0
        assert missing("select count(*) from prices where price < %s", 0) == 0
        assert missing("select count(*) from twice where id = %s", 1) == 2

    again = to_cluster(rescued, target, database, "--salvage").ok()
    assert again.document()["outcome"] == "already-there"
