"""Pages made by hand, and data directories of real servers that did a bit of everything and were stopped in order."""

from __future__ import annotations

import os
import shutil
import struct
from typing import TYPE_CHECKING

import pytest

from fixtures import FixtureError, Load, Server, fill
from fixtures.binaries import find_bindir
from pgrescue.snapshot.control import parse_control

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

    from pgrescue.snapshot.control import ControlFile

BLOCK = 8192
EMPTY = bytes(BLOCK)
_INDEX_METHODS = b"""
create table places as
    select g id, point(g % 317, g * 7 % 911) at, md5(g::text) name from generate_series(1, 40000) g;
create index places_btree on places (id);
create index places_gist on places using gist (at);
create index places_spgist on places using spgist (at);
create index places_radix on places using spgist (name);
create index places_hash on places using hash (name);
create index places_brin on places using brin (id);
create index places_gin on places using gin (string_to_array(name, 'a'));
create table numbers (id int);
create index numbers_hash on numbers using hash (id);
insert into numbers select generate_series(1, 20000);
create table long_texts as select g id, repeat(md5(g::text), 3000) body from generate_series(1, 20) g;
create unlogged table visits as select g id, repeat('x', 500) note from generate_series(1, 5000) g;
create index visits_gist on visits using gist (point(id, id));
create unlogged table no_visits (id int primary key);
select lo_from_bytea(0, decode(repeat('deadbeef', 50000), 'hex'));
set allow_in_place_tablespaces = on;
create tablespace in_place location '';
create table elsewhere tablespace in_place as select generate_series(1, 20000) id;
vacuum elsewhere;
create table shrunk as select generate_series(1, 50000) id
"""
_CHANGES = b"""
insert into places select g, point(g % 311, g * 7 % 911), md5(g::text || 'again') from generate_series(1, 20000) g;
delete from places where id % 3 = 0;
vacuum places;
insert into visits select g, repeat('y', 500) from generate_series(1, 2000) g;
delete from shrunk where id > 100;
vacuum shrunk;
checkpoint;
begin;
insert into shrunk select generate_series(1, 50000);
rollback
"""


def page(lsn: int, *, block_size: int = BLOCK, **fields: int) -> bytes:
    """Return a page with a sound header, but for `fields`."""
    values = {"checksum": 0, "flags": 0, "lower": 40, "upper": 4000, "special": block_size}
    values |= {"size_version": block_size | 4} | fields
    header = struct.pack("<IIHHHHHH", lsn >> 32, lsn & 0xFFFFFFFF, *values.values())
    return header.ljust(block_size, b"\xaa")


def programs(major: int) -> Path:
    """Return the directory of the programs of `major`; skip the test where this machine lacks them."""
    try:
        return find_bindir(major)
    except FixtureError as error:
        if "native" in os.environ.get("PGRESCUE_REQUIRE_ENGINES", "").split(","):
            raise
        pytest.skip(error.problem)


def stopped_server(major: int, target: Path) -> dict[str, str]:
    """Copy the data directory of a server to `target`; return the paths of the relations of its database by name."""
    programs(major)
    with Server(major=major, settings={"shared_buffers": "2MB"}) as server:
        fill(server, scale=0.2)
        with server.connect("portal") as connection:
            _run(connection, _INDEX_METHODS)
            # One client: where several extend a table, PostgreSQL 16 and later leave empty pages before used ones.
            with Load(server, clients=1, pause_s=0, checkpoint_every_s=0.5):
                _run(connection, _CHANGES)
            found = connection.execute("select relname, pg_relation_filepath(oid) from pg_class where relkind <> 'c'")
            paths = {str(name): str(path) for name, path in found if path}
        server.stop()
        shutil.copytree(server.pgdata, target)
    return paths


def _run(connection: psycopg.Connection, script: bytes) -> None:
    for statement in script.strip().split(b";\n"):
        connection.execute(statement)


def control_of(pgdata: Path) -> ControlFile:
    """Read a data directory's pg_control."""
    return parse_control((pgdata / "global/pg_control").read_bytes())
