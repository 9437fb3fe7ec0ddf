"""What a session's server and database are, and what users made in it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgrescue.transfer.endpoint import Connection

QUARANTINES = "pgrescue\\_%"
"""Schemas of pgrescue's own, such as pgrescue_quarantine, as a pattern of LIKE: they are never moved."""

OWN_SCHEMAS = "pgrescue_*"
"""The same as a pattern of pg_dump."""

_SHOWN = 8


@dataclass(frozen=True)
class Facts:
    """One database, and what a role may do in it.

    `identity` is the system identifier where the session may ask for it, else empty. `size_bytes` is the database's.
    """

    oid: int
    database: str
    major: int
    encoding: str
    provider: str
    locale: str
    ctype: str
    collation_version: str | None
    role: str
    is_superuser: bool
    may_create_roles: bool
    may_create_schemas: bool
    is_read_only: bool
    size_bytes: int
    version: str
    identity: str


@dataclass(frozen=True)
class DatabaseObject:
    """Something that a user made: its kind and name as the server writes them, and the transaction that made it.

    `is_home` tells of a schema that an extension lives in. `class_oid` is the catalog that `oid` is a number in.
    """

    kind: str
    name: str
    made_by: int
    oid: int
    is_home: bool = False
    class_oid: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def listed(names: Sequence[str]) -> str:
    """Return names for a sentence: the first few, and how many there are beside them."""
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def query(name: str) -> bytes:
    """Return one of the longer queries, which lie in sql/."""
    return resources.files("pgrescue.transfer").joinpath("sql", f"{name}.sql").read_bytes()


def read_facts(connection: Connection, role: str | None = None) -> Facts:
    """Ask the server what `role` is and may do, or else the session's own role; raises psycopg.Error."""
    row = connection.execute(query("server"), {"role": role}).fetchone()
    assert row is not None  # noqa: S101 - a session has a database and a role
    return Facts(*(*row, system_identifier(connection)))


def system_identifier(connection: Connection) -> str:
    """Return what names the cluster, or nothing where the role may not know it."""
    try:
        with connection.transaction():
            row = connection.execute("select system_identifier::text from pg_catalog.pg_control_system()").fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return ""
    return row[0] if row else ""


def user_objects(connection: Connection) -> tuple[DatabaseObject, ...]:
    """Return everything in the database that a user made."""
    return tuple(DatabaseObject(*row) for row in connection.execute(query("objects")).fetchall())
