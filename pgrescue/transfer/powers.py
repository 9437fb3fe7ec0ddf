"""What the target's role may make of a schema, and what is left out because it may not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg

from pgrescue.model import Finding, Severity
from pgrescue.transfer.collations import check_text
from pgrescue.transfer.extensions import changed_schemas, check_extensions
from pgrescue.transfer.facts import listed
from pgrescue.transfer.left_behind import check_left_behind
from pgrescue.transfer.preflight import OF_A_SERVICE
from pgrescue.transfer.roles import check_roles, may_grant_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgrescue.transfer.facts import DatabaseObject
    from pgrescue.transfer.plan import Plan
    from pgrescue.transfer.preflight import Sides
    from pgrescue.transfer.schema import Entry, Schema

# The reference pages of each CREATE say "must be a superuser".
_SUPERUSER_TYPES = frozenset(
    {
        "ACCESS METHOD",
        "FOREIGN DATA WRAPPER",
        "OPERATOR CLASS",
        "OPERATOR FAMILY",
        "PROCEDURAL LANGUAGE",
        "TEXT SEARCH PARSER",
        "TEXT SEARCH TEMPLATE",
    }
)
# The application's data does without them.
_SUPERUSER_EXTRAS = frozenset({"EVENT TRIGGER", "PUBLICATION TABLES IN SCHEMA"})
# What pg_dump's entries are called as objects (pg_identify_object); such ones may be there already.
_KINDS = {"FOREIGN DATA WRAPPER": "foreign-data wrapper", "PROCEDURAL LANGUAGE": "language"}
# They belong to another entry, and go with it.
_PARTS = frozenset({"COMMENT", "ACL", "SECURITY LABEL", "PUBLICATION TABLE", "PUBLICATION TABLES IN SCHEMA"})
_NEEDS_SUPERUSER = """
select 1255, p.oid::bigint, 'a function in the untrusted language ' || l.lanname
  from pg_catalog.pg_proc as p join pg_catalog.pg_language as l on l.oid = p.prolang
 where p.oid >= 16384 and not l.lanpltrusted and p.prokind <> 'a'
union all
select 1255, p.oid::bigint, 'a leakproof function' from pg_catalog.pg_proc as p
 where p.oid >= 16384 and p.proleakproof
union all
select 1255, a.aggfnoid::bigint, 'an aggregate with a state of the type internal' from pg_catalog.pg_aggregate as a
 where a.aggfnoid >= 16384 and 'internal'::pg_catalog.regtype in (a.aggtranstype, a.aggmtranstype)
union all
select 1247, t.oid::bigint, 'a base type' from pg_catalog.pg_type as t
 where t.oid >= 16384 and t.typtype = 'b' and not exists (select from pg_catalog.pg_type as e where e.typarray = t.oid)
union all
select 2605, c.oid::bigint, 'a cast without a function' from pg_catalog.pg_cast as c
 where c.oid >= 16384 and c.castmethod = 'b'
union all
select 6104, p.oid::bigint, 'all tables' from pg_catalog.pg_publication as p where p.puballtables
"""


def check_schema(
    sides: Sides,
    schema: Schema,
    plan: Plan,
    present: Sequence[DatabaseObject],
    *,
    role: str | None,
    makes_roles: bool,
) -> Iterator[Finding]:
    """Yield what of the schema the target cannot take, and decide in `plan` what becomes of it.

    `present` is what the target holds that no transfer made.
    """
    yield from _check_present(sides, schema, plan, present)
    yield from _check_superuser(sides, schema, plan, {one.name for one in present if one.kind == "extension"})
    yield from _check_labels(sides, schema, plan)
    _leave_out_parts(schema, plan)
    grants = _hopeless_grants(sides, schema, plan)
    yield from check_roles(sides, schema, plan, role=role, makes_roles=makes_roles)
    yield from _check_grants(sides, schema, plan, grants)
    yield from _check_privileges(sides, schema, plan)
    yield from check_extensions(sides, schema)
    yield from check_text(sides)
    yield from check_left_behind(sides, plan)
    _leave_out_parts(schema, plan)


def _check_present(sides: Sides, schema: Schema, plan: Plan, present: Sequence[DatabaseObject]) -> Iterator[Finding]:
    """Find what both have: the schemas of the target's extensions stay as they are, everything else is in the way."""
    plan.schemas_there = frozenset(one.name.strip('"') for one in present if one.is_home)
    kinds = OF_A_SERVICE - {"extension"}
    names = {(one.kind, one.name.strip('"')) for one in present if one.kind in kinds}
    both = []
    for entry in schema.entries:
        if entry.type == "SCHEMA" and entry.name in plan.schemas_there:
            plan.leave_out(entry)
        elif (_KINDS.get(entry.type, entry.type.lower()), entry.name) in names:
            both.append(str(entry))
    if both:
        yield Finding(
            "target_not_empty",
            Severity.ERROR,
            sides.target_facts.database,
            f"The target holds objects that the source has too: {listed(both)}.",
            "Drop them there, or create a new database.",
        )


def _check_superuser(sides: Sides, schema: Schema, plan: Plan, extensions: set[str]) -> Iterator[Finding]:
    """Find what only a superuser can make: some of it can be left out, and the rest keeps the schema from working.

    `extensions` are there already, as somebody else's.
    """
    if sides.target_facts.is_superuser:
        return
    reasons = {(row[0], row[1]): row[2] for row in sides.source.execute(_NEEDS_SUPERUSER).fetchall()}
    needed, left = [], []
    for entry in schema.entries:
        reason = reasons.get((entry.class_oid, entry.oid))
        if entry.type in _SUPERUSER_EXTRAS or (entry.type == "PUBLICATION" and reason):
            plan.leave_out(entry)
            left.append(str(entry))
        elif entry.type == "COMMENT" and entry.name.removeprefix("EXTENSION ") in extensions:
            plan.leave_out(entry)
        elif entry.type in _SUPERUSER_TYPES or (reason and entry.type not in _PARTS):
            needed.append(f"{entry} ({reason})" if reason else str(entry))
    if needed:
        yield Finding(
            "superuser_needed",
            Severity.ERROR,
            listed(needed),
            f"Only a superuser can create these, and {sides.target_facts.role} is none.",
            "Run the transfer as a superuser of the target, or drop them from the rescued copy first.",
        )
    if left:
        yield _left_out(
            listed(left),
            f"Only a superuser can create these, and {sides.target_facts.role} is none: they are not moved.",
            "If they are needed, create them as an administrator afterwards (pg_dump --schema-only shows them).",
        )


def _left_out(what: str, detail: str, remedy: str) -> Finding:
    return Finding("objects_left_out", Severity.WARNING, what, detail, remedy)


def _hopeless_grants(sides: Sides, schema: Schema, plan: Plan) -> list[Entry]:
    """Leave out privileges on what belongs to others: to PostgreSQL, to extensions, to who made a schema beforehand.

    A superuser may grant them, if only the objects are there: another version may have others.
    """
    changed = changed_schemas(sides)
    numbers = {entry.number for entry in schema.entries}
    there = {entry.number for entry in schema.entries if entry.type == "SCHEMA" and plan.leaves_out(entry)}
    is_superuser, owns_public = sides.target_facts.is_superuser, _owns_public(sides)
    grants = []
    for entry in schema.entries:
        if entry.name in {"public", "SCHEMA public"} and not entry.schema:
            is_hopeless = not owns_public and bool(entry.sql)
        else:
            is_others = not numbers.intersection(entry.depends) and (not is_superuser or entry.schema in changed)
            is_hopeless = entry.type == "ACL" and (is_others or bool(there.intersection(entry.depends)))
        if is_hopeless:
            plan.leave_out(entry)
            grants += [entry] if entry.type == "ACL" else []
    return grants


def _owns_public(sides: Sides) -> bool:
    """Tell whether the schema public, which is there already, belongs to the role."""
    row = sides.target.execute(
        "select pg_catalog.pg_has_role(%s, nspowner, 'USAGE') from pg_catalog.pg_namespace where nspname = 'public'",
        [sides.target_facts.role],
    ).fetchone()
    return row is not None and bool(row[0])


def _check_grants(sides: Sides, schema: Schema, plan: Plan, hopeless: Sequence[Entry]) -> Iterator[Finding]:
    """Tell of privileges that cannot be granted; there are none to grant where owners are not kept."""
    if not plan.keeps_owners:
        return
    lost = [f"privileges on {entry.name}" for entry in hopeless]
    plan.grants_by_role = not sides.target_facts.is_superuser
    for entry in schema.entries:
        if entry.type == "DEFAULT ACL" and entry.owner in plan.strangers:
            plan.leave_out(entry)
            lost.append(f"{entry.name.lower()} of {entry.owner}")
        elif entry.type == "ACL" and plan.grants_by_role and not may_grant_for(sides, plan, entry):
            plan.leave_out(entry)
            lost.append(f"privileges on {entry.name}")
    if lost:
        yield _left_out(
            listed(sorted(set(lost))),
            f"In the target the objects, or the right to grant these, belong to others than {sides.target_facts.role}, "
            "or its version may have other objects.",
            "If the application needs them, grant them as an administrator.",
        )


_SERVERS = """
select s.oid::bigint, f.fdwname::text
  from pg_catalog.pg_foreign_server as s join pg_catalog.pg_foreign_data_wrapper as f on f.oid = s.srvfdw
"""
_WRAPPERS = """
select fdwname::text from pg_catalog.pg_foreign_data_wrapper
 where fdwname = any (%s) and not pg_catalog.has_foreign_data_wrapper_privilege(%s::name, oid, 'USAGE')
"""
_SCHEMAS = """
select nspname::text, pg_catalog.has_schema_privilege(%s::name, oid, 'CREATE')
  from pg_catalog.pg_namespace where nspname = any (%s)
"""


def _check_privileges(sides: Sides, schema: Schema, plan: Plan) -> Iterator[Finding]:
    """Ask for what the role needs to make anything at all, where the target has it already."""
    facts = sides.target_facts
    wanted = [entry for entry in schema.entries if entry.sql and not plan.leaves_out(entry)]
    homes = {entry.schema for entry in wanted if entry.type not in _PARTS} & {"public", *plan.schemas_there}
    there: dict[str, bool] = dict(sides.target.execute(_SCHEMAS, [facts.role, sorted(homes)]).fetchall())
    if "public" in homes - there.keys():
        yield Finding(
            "schema_missing",
            Severity.ERROR,
            "public",
            "The source has objects in the schema public, which the target does not have.",
            "In the target: CREATE SCHEMA public.",
        )
    lacking = [] if facts.may_create_schemas else [f"CREATE on the database {facts.database}"]
    lacking += [f"CREATE on the schema {name}" for name in sorted(homes) if not there.get(name, True)]
    servers: dict[int, str] = dict(sides.source.execute(_SERVERS).fetchall())
    wrappers = sorted({servers[entry.oid] for entry in wanted if entry.type == "SERVER" and entry.oid in servers})
    closed = sides.target.execute(_WRAPPERS, [wrappers, facts.role]).fetchall()
    lacking += [f"USAGE on the foreign-data wrapper {row[0]}" for row in closed]
    if lacking and not facts.is_superuser:
        yield Finding(
            "target_lacks_privilege",
            Severity.ERROR,
            facts.role,
            f"The role may not create what it has to: it lacks {' and '.join(lacking)}.",
            f"As an administrator: ALTER DATABASE … OWNER TO {facts.role}, or GRANT what it lacks.",
        )


_LABEL = re.compile(r"SECURITY LABEL FOR (\S+) ON")


def _check_labels(sides: Sides, schema: Schema, plan: Plan) -> Iterator[Finding]:
    """Try whether the providers of security labels are loaded, which no catalog tells."""
    labels = {entry: set(_LABEL.findall(entry.sql)) for entry in schema.entries if entry.type == "SECURITY LABEL"}
    missing: dict[str, str] = {}
    for provider in sorted(set().union(*labels.values())):
        try:
            with sides.target.transaction(force_rollback=True):
                sides.target.execute(f"security label for {provider} on schema pg_catalog is null".encode())
        except psycopg.errors.InvalidParameterValue as error:
            missing[provider] = str(error.diag.message_primary)
        except psycopg.Error:
            continue  # the provider is there, and has something to say of the schema
    lost = [entry for entry, providers in labels.items() if providers & missing.keys()]
    for entry in lost:
        plan.leave_out(entry)
    if lost:
        yield _left_out(
            listed([str(entry) for entry in lost]),
            f"The target lacks the provider of these security labels: {'; '.join(missing.values())}.",
            "Load the provider's library there (shared_preload_libraries), and set the labels.",
        )


def _leave_out_parts(schema: Schema, plan: Plan) -> None:
    """Comments, privileges and the like go with what they belong to."""
    numbers = plan.left_out(schema)
    for entry in schema.entries:
        if entry.type in _PARTS and numbers.intersection(entry.depends):
            plan.leave_out(entry)
