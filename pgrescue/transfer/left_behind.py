"""What no transfer moves: settings and privileges of the database, subscriptions, set-aside rows, tablespaces."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from psycopg import sql

from pgrescue.model import Finding, Severity
from pgrescue.steps.access import ROLE
from pgrescue.transfer.facts import listed
from pgrescue.transfer.marker import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pgrescue.transfer.plan import Plan
    from pgrescue.transfer.preflight import Sides

# Settings whose stored value is a list of identifiers (guc_tables.c, GUC_LIST_QUOTE).
_LISTS = frozenset(
    {
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    }
)
_ELEMENT = re.compile(r'"((?:[^"]|"")*)"|([^",\s]+)')

_SUBSCRIPTIONS = """
select subname::text from pg_catalog.pg_subscription where subdbid = (
       select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()) order by 1
"""
_QUARANTINES = r"select nspname::text from pg_catalog.pg_namespace where nspname like 'pgrescue\_%' order by 1"
_TABLESPACES = """
select distinct t.spcname::text
  from pg_catalog.pg_class as c join pg_catalog.pg_tablespace as t on t.oid = c.reltablespace
 where c.oid >= 16384 order by 1
"""


def check_left_behind(sides: Sides, plan: Plan) -> Iterator[Finding]:
    """Yield what the source has and the target will not have."""
    yield from _check_settings(sides, plan)
    if names := [row[0] for row in sides.source.execute(_SUBSCRIPTIONS).fetchall()]:
        yield Finding(
            "subscriptions_left_out",
            Severity.WARNING,
            listed(names),
            "Subscriptions are not moved: the new database would begin to replicate from its old sources.",
            "Create them by hand once the old cluster is gone for good.",
        )
    names = [row[0] for row in sides.source.execute(_QUARANTINES.encode()).fetchall() if row[0] != SCHEMA]
    if names:
        yield Finding(
            "quarantine_left_behind",
            Severity.INFO,
            listed(names),
            "Rows that the repair set aside stay in the rescued copy.",
            "Keep the workspace until nobody needs them any more.",
        )
    if names := [row[0] for row in sides.source.execute(_TABLESPACES).fetchall()]:
        yield Finding(
            "tablespaces_not_kept",
            Severity.INFO,
            listed(names),
            "Everything goes into the target's default tablespace.",
            "Nothing to do, unless the target has tablespaces for it: ALTER TABLE … SET TABLESPACE.",
        )


# Of the database, of roles in it, and of roles everywhere; without a role the setting is everybody's.
_SETTINGS = """
select r.rolname::text, s.setdatabase <> 0, pg_catalog.unnest(s.setconfig)
  from pg_catalog.pg_db_role_setting as s left join pg_catalog.pg_roles as r on r.oid = s.setrole
 where s.setdatabase = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
    or s.setdatabase = 0 and r.rolname = any (%s)
 order by 1 nulls first, 2, 3
"""
_PRIVILEGES = """
select coalesce(r.rolname::text, ''), a.privilege_type
  from pg_catalog.pg_database as d
 cross join lateral pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) as a
  left join pg_catalog.pg_roles as r on r.oid = a.grantee
 where d.datname = pg_catalog.current_database() and a.grantee <> d.datdba
 order by 1, 2
"""


def _check_settings(sides: Sides, plan: Plan) -> Iterator[Finding]:
    known = {row[0] for row in sides.target.execute("select rolname::text from pg_catalog.pg_roles").fetchall()}
    known = (known | set(plan.missing_roles)) - {ROLE}
    present = set(_settings(sides.target, plan))
    statements = [
        _setting(sides, role, setting, in_database=in_database)
        for role, in_database, setting in _settings(sides.source, plan)
        if (role, in_database, setting) not in present and (role is None or role in known)
    ]
    statements += _privileges(sides, known)
    if statements:
        yield Finding(
            "database_settings_left_behind",
            Severity.WARNING,
            sides.target_facts.database,
            "The source has settings or privileges of the database itself, or settings of its roles, which no dump "
            "holds, and the target does not have them.",
            f"If the application needs them: {'; '.join(statements)}",
        )


def _privileges(sides: Sides, known: set[str]) -> Iterator[str]:
    """Yield the statements that give the source's privileges on the database, and take from everybody what it took."""
    here, there = (set(side.execute(_PRIVILEGES).fetchall()) for side in (sides.source, sides.target))
    database = sql.Identifier(sides.target_facts.database)
    for role, privilege in sorted(here - there):
        if role == "" or (role in known and role != sides.target_facts.role):
            grantee = sql.Identifier(role) if role else sql.SQL("PUBLIC")
            yield sql.SQL("GRANT {} ON DATABASE {} TO {}").format(sql.SQL(privilege), database, grantee).as_string(None)
    for role, privilege in sorted(there - here):
        if role == "":
            yield sql.SQL("REVOKE {} ON DATABASE {} FROM PUBLIC").format(sql.SQL(privilege), database).as_string(None)


def _settings(connection: Any, plan: Plan) -> list[tuple[str | None, bool, str]]:  # noqa: ANN401
    found: list[tuple[str | None, bool, str]] = connection.execute(_SETTINGS, [list(plan.roles)]).fetchall()
    return found


def _setting(sides: Sides, role: str | None, setting: str, *, in_database: bool) -> str:
    """Return the statement that makes a setting again."""
    key, _, value = setting.partition("=")
    database = sql.SQL("DATABASE {}").format(sql.Identifier(sides.target_facts.database))
    whose = database if role is None else sql.SQL("ROLE {}").format(sql.Identifier(role))
    where = sql.SQL(" IN {}").format(database) if role is not None and in_database else sql.SQL("")
    return (
        sql.SQL("ALTER {}{} SET {} = {}")
        .format(whose, where, sql.Identifier(*key.split(".")), _value(key, value))
        .as_string(sides.target)
    )


def _value(key: str, value: str) -> sql.Composable:
    if key not in _LISTS:
        return sql.Literal(value)
    names = [quoted.replace('""', '"') or plain for quoted, plain in _ELEMENT.findall(value)]
    return sql.SQL(", ").join(map(sql.Literal, names or [""]))
