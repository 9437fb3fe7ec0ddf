"""Targets of transfers: empty databases on real servers, owned by a role that is no superuser."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from psycopg import sql

from pgrescue.transfer.compare import CompareLevel, content_query, read_content
from pgrescue.transfer.tables import read_sequences, read_tables

if TYPE_CHECKING:
    import psycopg

    from fixtures import Server

OWNER = "app_owner"
"""As a managed service gives: it owns its database, may create roles, and is no superuser."""

_numbers = itertools.count(1)


def url_of(server: Server, database: str, user: str = "postgres") -> str:
    """Return a URL of a database on a fixture's server, over its socket."""
    return f"postgresql://{user}@/{database}?host={quote(str(server.socket_dir), safe='')}"


def new_database(server: Server, *, owner: str = OWNER, options: str = "") -> str:
    """Create an empty database, and its owner where the role is missing; return its name."""
    name = f"target_{next(_numbers)}"
    with server.connect() as connection:
        known = connection.execute("select from pg_roles where rolname = %s", [owner]).fetchone()
        if known is None:
            connection.execute(sql.SQL("create role {} login createrole").format(sql.Identifier(owner)))
        connection.execute(
            sql.SQL("create database {} owner {} {}").format(
                sql.Identifier(name),
                sql.Identifier(owner),
                sql.SQL(options),
            )
        )
    return name


def contents(connection: psycopg.Connection) -> dict[str, Any]:
    """Return what a database holds: each table's rows by number and hash, and where each sequence stands."""
    connection.execute(
        "set extra_float_digits = 3; set timezone = 'UTC'; set bytea_output = 'hex'; set datestyle = ISO"
    )
    found: dict[str, Any] = {
        table.label: read_content(connection, content_query(table, CompareLevel.HASH))
        for table in read_tables(connection)
    }
    found |= {one.label: (one.last_value, one.is_called) for one in read_sequences(connection)}
    return found
