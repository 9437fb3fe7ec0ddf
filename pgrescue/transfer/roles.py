"""Who is to own what in the target: which roles it has, which can be made, and whether owners can be kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from pgrescue.model import Finding, Severity
from pgrescue.steps.access import ROLE
from pgrescue.transfer.facts import listed
from pgrescue.transfer.plan import GRANTOR, Loan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgrescue.transfer.endpoint import Connection
    from pgrescue.transfer.facts import Facts
    from pgrescue.transfer.plan import Plan
    from pgrescue.transfer.preflight import Sides
    from pgrescue.transfer.schema import Entry, Schema

_SET_OPTION_SINCE = 16

_CONCERNED = """
select distinct r.rolname::text
  from pg_catalog.pg_shdepend as d join pg_catalog.pg_roles as r on r.oid = d.refobjid
 where d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
   and d.dbid = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
"""
_LARGE_OBJECTS = "select distinct pg_catalog.pg_get_userbyid(lomowner)::text from pg_catalog.pg_largeobject_metadata"


def check_roles(sides: Sides, schema: Schema, plan: Plan, *, role: str | None, makes_roles: bool) -> Iterator[Finding]:
    """Yield what stands between the target and the source's owners, and decide in `plan` whether they are kept."""
    known = {row[0] for row in sides.target.execute("select rolname::text from pg_catalog.pg_roles").fetchall()}
    owners = _owners(sides, schema, plan)
    concerned = {row[0] for row in sides.source.execute(_CONCERNED).fetchall()} | set(owners)
    plan.roles = tuple(sorted(concerned - {ROLE}))
    missing = [name for name in plan.roles if name not in known and not name.startswith("pg_")]
    if role is not None:
        plan.keeps_owners = False
        yield from _check_policies(sides, schema, plan, set(missing))
        if role not in known or not _may(sides.target, role, _set_option(sides.target_facts)):
            yield Finding(
                "role_missing",
                Severity.ERROR,
                role,
                f"The target has no role {role}, or {sides.target.info.user} may not act as it.",
                f"Create it, and GRANT {role} TO {sides.target.info.user}; or leave --role out.",
            )
        return
    if missing and makes_roles:
        if not (sides.target_facts.is_superuser or sides.target_facts.may_create_roles):
            yield Finding(
                "role_missing",
                Severity.ERROR,
                listed(missing),
                f"The target lacks these roles, and {sides.target_facts.role} may not create any (--roles).",
                "Create them as an administrator, or leave --roles out.",
            )
            return
        plan.missing_roles = tuple(missing)
        missing = []
    yield from _check_policies(sides, schema, plan, set(missing))
    yield from _check_owners(sides, schema, plan, [name for name in owners if name in known], missing)


def _owners(sides: Sides, schema: Schema, plan: Plan) -> list[str]:
    """Return the roles that things are given to: what is left out is not."""
    found = {row[0] for row in sides.source.execute(_LARGE_OBJECTS).fetchall()}
    for entry in schema.entries:
        # Whoever owns the schema public in the target grants it, too.
        if entry.sql and not plan.leaves_out(entry) and (entry.type, entry.name) != ("ACL", "SCHEMA public"):
            found.add(entry.owner)
    return sorted(found - {"", "pg_database_owner"})


def _check_owners(
    sides: Sides, schema: Schema, plan: Plan, owners: Sequence[str], missing: Sequence[str]
) -> Iterator[Finding]:
    facts = sides.target_facts
    remedy = (
        "If the application logs in as another role: create the roles there first, or add --roles (they get no "
        "passwords), or name the owner with --role."
    )
    if missing:
        plan.keeps_owners = False
        yield _not_kept(
            facts,
            f"The target lacks the roles {listed(missing)}. Everything will belong to {facts.role}, without any GRANT "
            "(as with --no-owner --no-privileges).",
            remedy,
        )
    elif not facts.is_superuser:
        strangers = [name for name in owners if name != facts.role and not may_act_as(sides.target, name, facts)]
        why = [f"{facts.role} may not act as {listed(strangers)}"] if strangers else []
        plan.strangers = frozenset(strangers)
        why += [f"{loan.role} {loan.lacks}" for loan in _lend(sides, schema, plan)]
        if why:
            yield _not_kept(
                facts,
                f"{'; '.join(why)}. What is theirs in the source will belong to {facts.role}.",
                _JOIN % facts.role,
            )


_JOIN = (
    "If it matters whose it is: as an administrator GRANT these roles TO %s and CREATE on the schema to them; else "
    "nothing."
)


def _not_kept(facts: Facts, detail: str, remedy: str) -> Finding:
    return Finding("ownership_not_kept", Severity.WARNING, facts.role, detail, remedy)


_POLICIES = """
select p.oid::bigint, p.polpermissive, array(
       select r.rolname::text from pg_catalog.pg_roles as r where r.oid = any (p.polroles))
  from pg_catalog.pg_policy as p
"""


def _check_policies(sides: Sides, schema: Schema, plan: Plan, missing: set[str]) -> Iterator[Finding]:
    """Leave out policies that let in only roles that are not there; others must not get lost."""
    policies = {row[0]: (row[1], set(row[2])) for row in sides.source.execute(_POLICIES).fetchall()}
    for entry in schema.entries:
        is_permissive, roles = policies.get(entry.oid, (True, set())) if entry.type == "POLICY" else (True, set())
        if not roles & missing:
            continue
        if is_permissive and roles <= missing:
            plan.leave_out(entry)
            yield Finding(
                "objects_left_out",
                Severity.WARNING,
                str(entry),
                f"It lets in roles that the target lacks, and nobody else: {listed(sorted(roles))}.",
                "If they are needed, create them first or add --roles.",
            )
        else:
            yield Finding(
                "role_missing",
                Severity.ERROR,
                str(entry),
                f"It names roles that the target lacks: {listed(sorted(roles & missing))}; without it, rows would be "
                "shown to others than in the source.",
                "Create them first, or add --roles.",
            )


def may_act_as(target: Connection, role: str, facts: Facts) -> bool:
    """Tell whether the target's role can give things to `role`, and still work on them."""
    return _may(target, role, _set_option(facts)) and _may(target, role, "USAGE")


def _set_option(facts: Facts) -> str:
    return "SET" if facts.major >= _SET_OPTION_SINCE else "MEMBER"


def _may(target: Connection, role: str, privilege: str) -> bool:
    row = target.execute(
        "select pg_catalog.pg_has_role(r.oid, %s) from pg_catalog.pg_roles as r where r.rolname = %s",
        [privilege, role],
    ).fetchone()
    return row is not None and bool(row[0])


def _lend(sides: Sides, schema: Schema, plan: Plan) -> list[Loan]:
    """Decide what owners need while they are given things (ALTER … OWNER TO); return what cannot be lent to them.

    They need CREATE on the schema, a publication's owner on the database; the source's own GRANTs come last.
    """
    made = {
        entry.name: entry.owner for entry in schema.entries if entry.type == "SCHEMA" and not plan.leaves_out(entry)
    }
    made.pop("public", None)
    refused = []
    for loan in sorted({loan for entry in schema.entries if not plan.leaves_out(entry) and (loan := Loan.of(entry))}):
        owner = made.get(loan.name) if loan.kind == "SCHEMA" else None
        if loan.role in {owner, sides.target_facts.role} | plan.strangers:
            continue
        if owner is None and _has_create(sides.target, loan, loan.role):
            continue
        if owner is not None or _may_lend(sides.target, loan, plan):
            plan.loans.add(loan)
        else:
            refused.append(loan)
    plan.strangers |= {loan.role for loan in refused}
    return refused


_PRIVILEGE = {
    "SCHEMA": "select pg_catalog.has_schema_privilege(coalesce(%s, current_user), oid, %s) "
    "from pg_catalog.pg_namespace where nspname = %s",
    "DATABASE": "select pg_catalog.has_database_privilege(coalesce(%s, current_user), oid, %s) "
    "from pg_catalog.pg_database where datname = %s",
}


def _may_lend(target: Connection, loan: Loan, plan: Plan) -> bool:
    # A schema that is there beforehand stays as it is: else it would look like one that the transfer made.
    return loan.name not in plan.schemas_there and _has(target, loan, None, "CREATE WITH GRANT OPTION")


def _has_create(target: Connection, loan: Loan, role: str) -> bool:
    """Tell what a role has; one that is yet to be made has what everybody has."""
    row = target.execute("select exists (select from pg_catalog.pg_roles where rolname = %s)", [role]).fetchone()
    return _has(target, loan, role if row is not None and row[0] else "public", "CREATE")


def _has(target: Connection, loan: Loan, role: str | None, privilege: str) -> bool:
    """Ask for a privilege of a role, or of the session's own, on what a loan is about."""
    name = loan.name if loan.kind == "SCHEMA" else target.info.dbname
    row = target.execute(_PRIVILEGE[loan.kind].encode(), [role, privilege, name]).fetchone()
    return row is not None and bool(row[0])


def may_grant_for(sides: Sides, plan: Plan, entry: Entry) -> bool:
    """Tell whether the target's role may act as those in whose names an entry grants."""
    grantors = [name.strip('"').replace('""', '"') for name in GRANTOR.findall(entry.sql)]
    return all(
        name in plan.missing_roles or _may(sides.target, name, _set_option(sides.target_facts)) for name in grantors
    )


_ROLES = """
select rolname::text, rolcanlogin, rolinherit, rolconnlimit,
       rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls
  from pg_catalog.pg_roles where rolname = any (%s) order by 1
"""
# Options of a membership came with PostgreSQL 16.
_MEMBERS = """
select g.rolname::text, m.rolname::text, coalesce((pg_catalog.to_jsonb(a) ->> 'inherit_option')::boolean, m.rolinherit),
       coalesce((pg_catalog.to_jsonb(a) ->> 'set_option')::boolean, true)
  from pg_catalog.pg_auth_members as a
  join pg_catalog.pg_roles as g on g.oid = a.roleid
  join pg_catalog.pg_roles as m on m.oid = a.member
 where m.rolname = any (%(new)s) or g.rolname = any (%(new)s)
 order by 1, 2
"""
_THERE = """
select rolname::text, rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls or rolname ~ '^pg_'
  from pg_catalog.pg_roles
"""


def make_roles(sides: Sides, names: Sequence[str]) -> Iterator[Finding]:
    """Create roles as they are in the source, without passwords and without powers over the cluster; all or none.

    A role that is no superuser becomes a member of each: else it could not give it anything, nor work on that.
    """
    facts, target = sides.target_facts, sides.target
    found = []
    with target.transaction():
        for name, can_login, inherits, limit, is_powerful in sides.source.execute(_ROLES, [list(names)]).fetchall():
            target.execute(
                sql.SQL("create role {} {} {} connection limit {}").format(
                    sql.Identifier(name),
                    sql.SQL("login" if can_login else "nologin"),
                    sql.SQL("inherit" if inherits else "noinherit"),
                    sql.Literal(limit),
                )
            )
            if is_powerful:
                found.append(_less(name, "In the source it may do more in the whole cluster (SUPERUSER, CREATEDB …)."))
            if not facts.is_superuser:
                _grant(sides, name, facts.role, inherits=True, may_set=True)
        found += _make_members(sides, names)
    yield from found
    yield Finding(
        "roles_made",
        Severity.INFO,
        listed(list(names)),
        "These roles were created in the target's cluster, without passwords.",
        "Set passwords for those that log in: ALTER ROLE … PASSWORD.",
    )


def _make_members(sides: Sides, names: Sequence[str]) -> Iterator[Finding]:
    """Repeat the memberships of and in new roles, but for those that give powers over the cluster."""
    there: dict[str, bool] = dict(sides.target.execute(_THERE).fetchall())
    for group, member, inherits, may_set in sides.source.execute(_MEMBERS, {"new": list(names)}).fetchall():
        if group not in there or member not in there or group == ROLE or member == sides.target_facts.role:
            continue
        if there[group]:
            yield _less(member, f"In the source it is a member of {group}, which has powers over the whole cluster.")
            continue
        try:
            with sides.target.transaction():
                _grant(sides, group, member, inherits=inherits, may_set=may_set)
        except psycopg.errors.InsufficientPrivilege:
            yield _less(
                member, f"In the source it is a member of {group}, which {sides.target_facts.role} may not grant."
            )


def _grant(sides: Sides, group: str, member: str, *, inherits: bool, may_set: bool) -> None:
    has_options = sides.target_facts.major >= _SET_OPTION_SINCE
    options = f" with inherit {inherits}, set {may_set}" if has_options else ""
    sides.target.execute(
        sql.SQL("grant {} to {}").format(sql.Identifier(group), sql.Identifier(member)) + sql.SQL(options)
    )


def _less(role: str, detail: str) -> Finding:
    return Finding(
        "role_less_powerful",
        Severity.WARNING,
        role,
        detail,
        "If that is meant: ALTER ROLE, or GRANT … TO, as an administrator.",
    )
