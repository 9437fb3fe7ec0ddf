"""amcheck for the time of the checks, in a schema of pgrescue's own where a database does not have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from pgrescue.steps.tools_schema import provide_extension
from pgrescue.verify.target import rows, words

if TYPE_CHECKING:
    from pgrescue.verify.target import Connection

_FUNCTIONS = """
select p.proname, max(p.pronargs)
  from pg_proc p
  join pg_depend d on d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
  join pg_extension e on d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid
 where e.extname = 'amcheck'
 group by 1
"""
_TABLE_ARGUMENTS, _UNIQUE_ARGUMENTS = 2, 3


@dataclass(frozen=True)
class Tools:
    """What of amcheck a database has: its schema, and its functions with their most arguments; else why not."""

    schema: str | None
    functions: dict[str, int]
    why_not: str = ""

    def has(self, function: str) -> bool:
        """Tell whether a function is there; that for b-trees only when it can compare them with their tables."""
        least = _TABLE_ARGUMENTS if function == "bt_index_check" else 1
        return self.schema is not None and self.functions.get(function, 0) >= least

    def function(self, name: str) -> sql.Composable:
        """Return the function's qualified name."""
        return sql.Identifier(self.schema or "", name)

    @property
    def checks_unique(self) -> bool:
        """Tell whether b-tree checks look for duplicates: amcheck 1.4, PostgreSQL 17."""
        return self.functions.get("bt_index_check", 0) >= _UNIQUE_ARGUMENTS


def provide(connection: Connection) -> Tools:
    """Return the database's amcheck, created where there is none; what an interrupted run left goes first."""
    try:
        schema = provide_extension(connection, "amcheck")
        if schema is None:
            return Tools(None, {}, "this PostgreSQL comes without the extension amcheck")
        return Tools(schema, dict(rows(connection, _FUNCTIONS)))
    except psycopg.Error as error:
        if connection.closed:
            raise
        return Tools(None, {}, f"the extension amcheck cannot be created here: {words(error)}")
