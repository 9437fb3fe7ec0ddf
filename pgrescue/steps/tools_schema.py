"""The schema that holds PostgreSQL's own extensions for damaged data while pgrescue works in a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

SCHEMA = "pgrescue_tools"

_SCHEMA_OF = """
select n.nspname
  from pg_catalog.pg_extension e
  join pg_catalog.pg_namespace n on n.oid = e.extnamespace
 where e.extname = %s
"""
_OURS = """
select 1
  from pg_catalog.pg_namespace n
  join pg_catalog.pg_roles r on r.oid = n.nspowner
 where n.nspname = %s and r.rolname = current_user
"""


def provide_extension(connection: psycopg.Connection[tuple[Any, ...]], name: str) -> str | None:
    """Return the schema in which an extension's functions lie, creating it where the database does not have it.

    None where this PostgreSQL does not come with it. What an interrupted run left is dropped first.
    """
    from psycopg import sql  # noqa: PLC0415 - it takes 0.3 s to import, and most commands never do

    drop_tools(connection)
    if found := connection.execute(_SCHEMA_OF, (name,)).fetchall():
        return str(found[0][0])
    known = connection.execute("select 1 from pg_catalog.pg_available_extensions where name = %s", (name,)).fetchall()
    if not known:
        return None
    schema = sql.Identifier(SCHEMA)
    with connection.transaction():
        connection.execute(sql.SQL("create schema {}").format(schema))
        connection.execute(sql.SQL("create extension {} schema {}").format(sql.Identifier(name), schema))
    return SCHEMA


def drop_tools(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    """Drop the schema with everything in it, where the role of this session made it: a user's own stays."""
    from psycopg import sql  # noqa: PLC0415 - see above

    if connection.execute(_OURS, (SCHEMA,)).fetchall():
        connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(SCHEMA)))
