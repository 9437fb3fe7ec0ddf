"""PostgreSQL's own tools for damaged data, for the length of a block."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from psycopg import sql

from pgrescue.steps.tools_schema import drop_tools, provide_extension

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.repair.site import Connection

_LOCK = 0x7067726573637565  # "pgrescue"


@contextlib.contextmanager
def extension(connection: Connection, name: str) -> Iterator[sql.Identifier | None]:
    """Give the schema in which the extension's functions lie, or None where this PostgreSQL does not have it.

    One that the database has already is used where it lies. One that was created for the block goes with it, and so
    does what a killed repair left.
    """
    # Several threads mend tables of one database: what one of them needs, another one would drop.
    connection.execute("select pg_catalog.pg_advisory_lock(%s)", (_LOCK,))
    try:
        schema = provide_extension(connection, name)
        yield None if schema is None else sql.Identifier(schema)
    finally:
        if not connection.closed and not connection.broken:
            drop_tools(connection)
            connection.execute("select pg_catalog.pg_advisory_unlock(%s)", (_LOCK,))
