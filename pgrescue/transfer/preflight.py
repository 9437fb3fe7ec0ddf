"""What must be known of a target before a byte is written: everything at once, each fact with its remedy."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from pgrescue.model import Finding, Severity, Verdict
from pgrescue.transfer.facts import listed
from pgrescue.transfer.marker import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgrescue.transfer.endpoint import Connection
    from pgrescue.transfer.facts import DatabaseObject, Facts
    from pgrescue.transfer.pooling import Sessions

_GIB = 1 << 30
# A table's pages are packed anew, and the WAL of the move comes on top.
_ROOM_FACTOR = 1.1
# The server takes the time twice while it starts.
_CLOCKS_APART_S = 2


@dataclass(frozen=True)
class Sides:
    """Both databases, asked in these two sessions; `sessions` tells which others the target gives.

    `target_facts` are about the role that is to own everything, where one is named.
    """

    source: Connection
    source_facts: Facts
    target: Connection
    target_facts: Facts
    sessions: Sessions


def check_target(sides: Sides, *, verdict: Verdict | None, salvages: bool) -> Iterator[Finding]:
    """Yield what speaks against the move whatever the schema is, or should be known of it; nothing is written."""
    yield from _check_verdict(sides, verdict, salvages=salvages)
    yield from _check_identity(sides)
    yield from _check_version(sides)
    yield from _check_sessions(sides)
    yield from _check_room(sides)


def _check_verdict(sides: Sides, verdict: Verdict | None, *, salvages: bool) -> Iterator[Finding]:
    if verdict in {Verdict.DAMAGED, Verdict.FAILED} and not salvages:
        yield Finding(
            "source_damaged",
            Severity.ERROR,
            sides.source_facts.database,
            f"The verdict of its rescue is {verdict}: reading it as it is would stop in the middle, or move damage.",
            "Add --salvage: what can be read is moved, and everything else is listed. Look for a better snapshot too.",
        )


def _check_identity(sides: Sides) -> Iterator[Finding]:
    """Tell servers apart by a lock: a rescued copy has the system identifier of its original."""
    key = secrets.randbits(62)
    sides.source.execute("select pg_catalog.pg_advisory_lock_shared(%s::bigint)", [key])
    try:
        row = sides.target.execute(
            "select exists (select from pg_catalog.pg_locks where locktype = 'advisory' and objsubid = 1 "
            "and classid::bigint = %s and objid::bigint = %s and database = %s)",
            [key >> 32, key & 0xFFFF_FFFF, sides.target_facts.oid],
        ).fetchone()
    finally:
        sides.source.execute("select pg_catalog.pg_advisory_unlock_shared(%s::bigint)", [key])
    if row is not None and row[0]:
        yield Finding(
            "target_is_source",
            Severity.ERROR,
            sides.target_facts.database,
            "The target is the source itself.",
            "Name the new, empty database in --target-url.",
        )


def _check_version(sides: Sides) -> Iterator[Finding]:
    source, target = sides.source_facts, sides.target_facts
    if target.major < source.major:
        yield Finding(
            "target_older",
            Severity.ERROR,
            target.database,
            f"The target is PostgreSQL {target.version}, older than the source, which is {source.version}.",
            f"Take a target of PostgreSQL {source.major} or later.",
        )
    if target.is_read_only:
        yield Finding(
            "target_read_only",
            Severity.ERROR,
            target.database,
            "The target is a standby, or its transactions are read-only by default.",
            "Name the primary (CloudNativePG: the service that ends with -rw).",
        )


def _check_sessions(sides: Sides) -> Iterator[Finding]:
    sessions = sides.sessions
    if sessions.are_shared:
        yield Finding(
            "target_behind_pooler",
            Severity.ERROR,
            sides.target_facts.database,
            "Behind this address is a pooler that gives each transaction another session; settings and locks get lost.",
            "Connect to the server itself, or to a pool with pool_mode = session.",
        )
    elif sessions.opened < sessions.wanted:
        yield Finding(
            "target_sessions_short",
            Severity.ERROR,
            sides.target_facts.database,
            f"The transfer needs {sessions.wanted} sessions at a time, and the target gave {sessions.opened}: "
            f"{sessions.refusal}",
            "Take fewer --jobs, or raise the limit of the role, the database, the server or the pool.",
        )


def _check_room(sides: Sides) -> Iterator[Finding]:
    source, target = sides.source_facts.size_bytes, sides.target_facts.size_bytes
    place = _data_directory_here(sides.target)
    free = None
    if place is not None:
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(place).free
    if free is None:
        yield Finding(
            "room_unknown",
            Severity.INFO,
            sides.target_facts.database,
            f"The source has {_gib(source)}; whether the target has room cannot be asked from here.",
            "Look at its volume: it needs that much, and room for as much WAL as it keeps (max_wal_size and slots).",
        )
    elif free < room_needed(source, target):
        yield Finding(
            "room_short",
            Severity.ERROR,
            sides.target_facts.database,
            f"The source has {_gib(source)}, the target {_gib(target)}, and its disk has {_gib(free)} free.",
            "Make room, or take a larger volume.",
        )


def room_needed(source_bytes: int, target_bytes: int) -> int:
    """Return how many more bytes the target will take: an interrupted transfer has left a part of them there."""
    return int(max(source_bytes - target_bytes, 0) * _ROOM_FACTOR)


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:.2f} GiB"


def _data_directory_here(target: Connection) -> Path | None:
    """Return the target's data directory where it is one of this machine, and may be looked at."""
    try:
        with target.transaction():
            row = target.execute(
                "select pg_catalog.current_setting('data_directory'), "
                "extract(epoch from pg_catalog.pg_postmaster_start_time())::bigint"
            ).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return None
    assert row is not None  # noqa: S101 - a select without a table
    place, started = Path(row[0]), row[1]
    try:
        # The third line is the start time (miscinit.c): a directory of the same name elsewhere has another.
        lines = (place / "postmaster.pid").read_text().splitlines()
        return place if abs(int(lines[2]) - started) <= _CLOCKS_APART_S else None
    except (OSError, ValueError, IndexError):
        return None


def not_empty(objects: Sequence[DatabaseObject], facts: Facts) -> Finding | None:
    """Return the finding for a target that holds anything of a user's; extensions and their objects do not count.

    What services put into every new database (event triggers, publications, foreign servers) does not count either,
    nor do the schemas that extensions live in.
    """
    counted = [one for one in objects if one.kind not in OF_A_SERVICE and not one.is_home]
    if not counted:
        return None
    return Finding(
        "target_not_empty",
        Severity.ERROR,
        facts.database,
        f"The target holds objects already: {listed([str(one) for one in counted])}.",
        f"pgrescue writes only into an empty database, and never over anything that it did not make: create a new one. "
        f"(What an interrupted transfer left is recognised by its schema {SCHEMA}, and used again.)",
    )


OF_A_SERVICE = frozenset(
    {"extension", "event trigger", "publication", "foreign-data wrapper", "server", "language", "cast"}
)
"""Kinds of objects that an empty database may have."""
