"""The transfer's own mark in the target: which transfer this is, and which of its tasks are done.

Each task commits its work and its mark together, so that whatever ends a transfer, the mark tells exactly how far it
came; and by the transactions' numbers it tells which objects of the target this transfer made.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from pgrescue.errors import RescueError
from pgrescue.retry import until_returns
from pgrescue.transfer.endpoint import speaking_of
from pgrescue.transfer.facts import query, user_objects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.transfer.endpoint import Connection
    from pgrescue.transfer.facts import DatabaseObject

SCHEMA = "pgrescue_transfer"
_LOCK = 0x70677265  # any number, the same in all transfers
_LOCK_PATIENCE_S = 15
_LEFTOVER_PATIENCE_S = 60
_XID = 1 << 32
_MAKE = f"""
create schema {SCHEMA};
create table {SCHEMA}.transfer (
    id text primary key, source text not null, state text not null, options text not null, phase text not null,
    started timestamptz not null default pg_catalog.now()
);
create table {SCHEMA}.done (
    task text primary key, rows bigint, xid bigint not null default (pg_catalog.txid_current() % {_XID})
);
create table {SCHEMA}.before (class oid, object oid, acl aclitem[]);
create unlogged table {SCHEMA}.unlogged ();
insert into {SCHEMA}.unlogged default values;
"""
_NOTE = f"insert into {SCHEMA}.before (class, object) values (%s, %s)"  # noqa: S608
_NOTE_ACLS = (
    f"insert into {SCHEMA}.before (class, object, acl) "  # noqa: S608
    "select 'pg_catalog.pg_default_acl'::pg_catalog.regclass, oid, defaclacl from pg_catalog.pg_default_acl"
)
# Objects that the server drops with the word that it identifies them by, but for these. DROP AGGREGATE would want to
# know the star of an aggregate without arguments.
_DROPPED_AS = {
    "aggregate": "routine",
    "function": "routine",
    "procedure": "routine",
    "composite type": "type",
    "foreign-data wrapper": "foreign data wrapper",
}
_RELATIONS = frozenset({"table", "foreign table", "view", "materialized view", "sequence"})
_BATCH = 20


class _HeldError(Exception):
    """Another session holds the transfer's lock."""


@dataclass(frozen=True)
class Marker:
    """What the target says of the transfer that was begun there.

    `source` names the database that it came from, `state` its data then, `options` what it was told; `phase` is
    `moving`, or `dropping` once a start over has begun.
    """

    id: str
    source: str
    state: str
    options: str
    phase: str


def purpose(transfer_id: str) -> str:
    """Return how the transfer's sessions call themselves: by transfer, host, machine and process."""
    return f"transfer {transfer_id} {socket.gethostname()[:16]} {_machine()} {os.getpid()}"


@functools.cache
def _machine() -> str:
    """Return what tells where a process number means the same process: many machines and containers share a name."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


@contextlib.contextmanager
def sole_use(connection: Connection) -> Iterator[None]:
    """Keep every other transfer away from the target while the block runs; raise RescueError where one is at work.

    A transfer of this machine whose process is gone, and whose session the server has not missed yet, is ended.
    """

    def take() -> None:
        row = connection.execute("select pg_catalog.pg_try_advisory_lock(%s)", [_LOCK]).fetchone()
        if row is None or not row[0]:
            _end_dead_holder(connection)
            raise _HeldError

    with speaking_of("the target could not be kept for this transfer alone"):
        try:
            until_returns(take, on=_HeldError, timeout_s=_LOCK_PATIENCE_S)
        except _HeldError:
            raise _busy(_holder(connection)) from None
    try:
        yield
    finally:
        with contextlib.suppress(psycopg.Error):
            connection.execute("select pg_catalog.pg_advisory_unlock(%s)", [_LOCK])


_HOLDERS = """
select a.pid, a.application_name
  from pg_catalog.pg_locks as l join pg_catalog.pg_stat_activity as a using (pid)
 where l.locktype = 'advisory' and l.granted and l.objid = %s and l.classid = 0 and l.objsubid = 1
   and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
"""


def _busy(holder: str) -> RescueError:
    return RescueError(
        f"another transfer is at work in the target: {holder}",
        hint="Wait for it. If it is gone and only its session is left, end that one: SELECT "
        "pg_terminate_backend(pid), with the pid above; then run this again.",
    )


def _holder(connection: Connection) -> str:
    found = connection.execute(_HOLDERS, [_LOCK]).fetchall()
    return ", ".join(f"pid {pid}, {name or 'unnamed'}" for pid, name in found) or "it has just ended"


def _end_dead_holder(connection: Connection) -> None:
    """End the session that holds the lock where its process is gone; raise RescueError where it is alive.

    Of processes on other machines nobody can tell.
    """
    for pid, name in connection.execute(_HOLDERS, [_LOCK]).fetchall():
        words = str(name).split()
        if len(words) != len(_NAME) or words[:2] != _NAME[:2] or words[4] != _machine() or not words[5].isdigit():
            continue
        if _is_alive(int(words[5])):
            raise _busy(f"pid {pid}, {name}")
        with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
            connection.execute("select pg_catalog.pg_terminate_backend(%s)", [pid])


# What `purpose` gives, behind the program's name.
_NAME = ["pgrescue", "transfer", "id", "host", "machine", "process"]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # somebody else's
    return True


def end_leftovers(connection: Connection, transfer_id: str) -> None:
    """End sessions that an earlier run of the transfer left at work in the target; the caller has its sole use.

    Raises RescueError where they do not end, and psycopg.Error where this role may not end them.
    """
    query = (
        "select pid from pg_catalog.pg_stat_activity where pid <> pg_catalog.pg_backend_pid() "
        "and datname = pg_catalog.current_database() and application_name like %s"
    )
    pattern = f"pgrescue transfer {transfer_id} %"

    def none_left() -> None:
        left = connection.execute(query, [pattern]).fetchall()
        for (pid,) in left:
            connection.execute("select pg_catalog.pg_terminate_backend(%s)", [pid])
        if left:
            raise _HeldError

    try:
        until_returns(none_left, on=_HeldError, timeout_s=_LEFTOVER_PATIENCE_S)
    except _HeldError:
        raise RescueError(
            f"sessions of an interrupted transfer do not end in the target: those named {pattern.removesuffix(' %')}",
            hint="Wait until they are gone from pg_stat_activity, then run this again.",
        ) from None


def read_marker(connection: Connection) -> Marker | None:
    """Return the mark, None where the target has none; raises RescueError where its schema is not of this program."""
    try:
        row = connection.execute("select pg_catalog.to_regnamespace(%s)::text", [SCHEMA]).fetchone()
        if row is None or row[0] is None:
            return None
        found = connection.execute(f"select id, source, state, options, phase from {SCHEMA}.transfer").fetchone()  # noqa: S608
    except psycopg.errors.InsufficientPrivilege as error:
        raise RescueError(
            f"the target's schema {SCHEMA} belongs to another role: {error.diag.message_primary}",
            hint="Run the transfer as the role that began it, or give it a new, empty database.",
        ) from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
        found = None
    if found is None:
        raise RescueError(
            f"the target has a schema {SCHEMA} that no transfer of this version made",
            hint="Drop it, or take another database.",
        )
    return Marker(*found)


def make_marker(connection: Connection, source: str, state: str, options: str) -> Marker:
    """Mark the target, which was empty a moment ago, as this transfer's; all of the mark, or nothing.

    What is there already, such as a service's extensions and event triggers, is noted: it is not the transfer's.
    """
    marker = Marker(secrets.token_hex(4), source, state, options, "moving")
    with connection.transaction():
        connection.execute(_MAKE.encode())
        connection.execute(_NOTE_ACLS)
        connection.cursor().executemany(
            _NOTE.encode(), [(found.class_oid, found.oid) for found in user_objects(connection)]
        )
        connection.execute(
            f"insert into {SCHEMA}.transfer (id, source, state, options, phase) values (%s, %s, %s, %s, %s)",  # noqa: S608
            [marker.id, marker.source, marker.state, marker.options, marker.phase],
        )
    return marker


def remove_marker(connection: Connection) -> None:
    """Remove the mark; when this returns, it and everything that the transfer committed is on the target's disk."""
    # "off" is the only value that waits for no disk; the others may wait for standbys, as their owner wants it.
    connection.execute(
        "select pg_catalog.set_config('synchronous_commit', 'local', false) "
        "where pg_catalog.current_setting('synchronous_commit') = 'off'"
    )
    connection.execute(f"drop schema {SCHEMA} cascade")


def done_tasks(connection: Connection) -> dict[str, int | None]:
    """Return the tasks that are done, and how many rows each moved."""
    return dict(connection.execute(f"select task, rows from {SCHEMA}.done").fetchall())  # noqa: S608


def mark(key: str, rows: int | None = None) -> sql.Composed:
    """Return the statement that marks a task as done, for the end of its transaction."""
    return sql.SQL("insert into {} (task, rows) values ({}, {})").format(
        sql.Identifier(SCHEMA, "done"), sql.Literal(key), sql.Literal(rows)
    )


def has_lost_rows(connection: Connection) -> bool:
    """Tell whether unlogged tables of the target are empty, whatever the mark says: so they are after a crash."""
    row = connection.execute(
        f"select not exists (select from {SCHEMA}.unlogged) and exists (select from pg_catalog.pg_class "  # noqa: S608
        "where relpersistence = 'u' and relkind in ('r', 'S') and relnamespace <> %s::pg_catalog.regnamespace)",
        [SCHEMA],
    ).fetchone()
    return row is not None and bool(row[0])


def foreign_objects(connection: Connection) -> list[DatabaseObject]:
    """Return the objects of the target that were there before, that somebody else made, or changed since."""
    ours = {xid for (xid,) in connection.execute(f"select xid from {SCHEMA}.done").fetchall()}  # noqa: S608
    return [found for found in user_objects(connection) if found.made_by not in ours]


def _objects(connection: Connection) -> tuple[list[DatabaseObject], list[DatabaseObject]]:
    """Return what the transfer made, and what somebody else did, or changed since; the rest was there before."""
    ours = {xid for (xid,) in connection.execute(f"select xid from {SCHEMA}.done").fetchall()}  # noqa: S608
    before = set(connection.execute(f"select class::bigint, object::bigint from {SCHEMA}.before").fetchall())  # noqa: S608
    new = [found for found in user_objects(connection) if (found.class_oid, found.oid) not in before]
    return [found for found in new if found.made_by in ours], [found for found in new if found.made_by not in ours]


def drop_made(connection: Connection) -> None:
    """Drop everything that the transfer made, and forget its tasks; carries on where an earlier call was interrupted.

    Raises RescueError, before anything is dropped, where the target holds something that it did not make.
    """
    made, foreign = _objects(connection)
    if foreign:
        named = ", ".join(map(str, foreign[:5])) + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else "")  # noqa: PLR2004
        raise RescueError(
            f"the target holds objects that this transfer did not make, or that were changed since: {named}",
            hint="Nothing was dropped. Move them away, or give the transfer a new, empty database.",
        )
    connection.execute(f"update {SCHEMA}.transfer set phase = 'dropping'")  # noqa: S608
    # Those that were made last are dropped first: nothing that is still there needs them.
    made.sort(key=lambda one: (_rank(one), -one.oid))
    statements = [_drop(one) for one in made]
    # Default privileges after the objects: until then they belong to nothing new.
    statements += [row[0] for row in connection.execute(query("default_acls")).fetchall()]
    for first in range(0, len(statements), _BATCH):
        _drop_some(connection, statements[first : first + _BATCH])
    with connection.transaction():
        connection.execute(f"delete from {SCHEMA}.done")  # noqa: S608
        connection.execute(f"update {SCHEMA}.transfer set phase = 'moving'")  # noqa: S608


def _rank(made: DatabaseObject) -> int:
    """Return when an object is dropped: what fires, then rows, and extensions last, whose types tables have."""
    if made.kind == "event trigger":
        return 0
    if made.kind in _RELATIONS:
        return 1
    return {"schema": 3, "extension": 4}.get(made.kind, 2)


def _drop(made: DatabaseObject) -> str:
    if made.kind == "large object":
        return f"select pg_catalog.lo_unlink({made.oid})"
    # Before 18, a transform is not named as DROP TRANSFORM wants it.
    name = made.name.replace(" on language ", " language ") if made.kind == "transform" else made.name
    return f"drop {_DROPPED_AS.get(made.kind, made.kind)} if exists {name} cascade"


def _drop_some(connection: Connection, statements: list[str]) -> None:
    """Drop in one transaction and one round trip; one by one where something went with something else before.

    What a drop changes in other objects of the transfer is the transfer's work, too, and is marked so.
    """
    marked = mark(f"dropping {secrets.token_hex(8)}").as_string(connection)
    try:
        connection.execute(";\n".join([*statements, marked]).encode())
    except psycopg.errors.UndefinedObject:
        if len(statements) > 1:
            for statement in statements:
                _drop_some(connection, [statement])
