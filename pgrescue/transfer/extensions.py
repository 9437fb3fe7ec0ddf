"""Whether the target has the source's extensions, or can get them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pgrescue.model import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.transfer.preflight import Sides
    from pgrescue.transfer.schema import Entry, Schema

_AVAILABLE = """
select a.name::text, a.default_version, e.extversion, n.nspname::text, coalesce(v.superuser and not v.trusted, false)
  from pg_catalog.pg_available_extensions as a
  left join pg_catalog.pg_extension as e on e.extname = a.name
  left join pg_catalog.pg_namespace as n on n.oid = e.extnamespace
  left join pg_catalog.pg_available_extension_versions as v on v.name = a.name and v.version = a.default_version
"""
_INSTALLED = """
select e.extname::text, e.extversion, n.nspname::text
  from pg_catalog.pg_extension as e join pg_catalog.pg_namespace as n on n.oid = e.extnamespace
"""


def check_extensions(sides: Sides, schema: Schema) -> Iterator[Finding]:
    """Yield the extensions that the target lacks, cannot be given, has elsewhere, or has in an older version."""
    available = {row[0]: row[1:] for row in sides.target.execute(_AVAILABLE).fetchall()}
    installed = {row[0]: row[1:] for row in sides.source.execute(_INSTALLED).fetchall()}
    for entry in schema.entries:
        if entry.type != "EXTENSION":
            continue
        version, home = installed.get(entry.name, ("", ""))
        if entry.name not in available:
            yield _unavailable(
                entry, "The target does not have it.", "Install its package there, or take another image."
            )
            continue
        default, present, elsewhere, needs_superuser = available[entry.name]
        if present is not None and elsewhere != home:
            yield _unavailable(
                entry,
                f"It is in the schema {home} in the source, and in {elsewhere} in the target.",
                f"In the target: ALTER EXTENSION {entry.name} SET SCHEMA {home}, or drop it there.",
            )
        elif present is None and needs_superuser and not sides.target_facts.is_superuser:
            first = "" if home in {"public", "pg_catalog"} else f"CREATE SCHEMA IF NOT EXISTS {home}; "
            yield _unavailable(
                entry,
                f"Only a superuser can create it, and {sides.target_facts.role} is none.",
                f"As an administrator of the target: {first}CREATE EXTENSION {entry.name} WITH SCHEMA {home}.",
            )
        elif _ordered(present or default) < _ordered(version):
            yield Finding(
                "extension_older",
                Severity.WARNING,
                entry.name,
                f"The source has version {version}, the target gets {present or default}.",
                "Its functions may lack what the application uses: update the extension's package in the target.",
            )


def changed_schemas(sides: Sides) -> frozenset[str]:
    """Return the schemas of the source whose extensions, or whose PostgreSQL, the target has in another version."""
    there = {row[0]: row[2] or row[1] for row in sides.target.execute(_AVAILABLE).fetchall()}
    installed = sides.source.execute(_INSTALLED).fetchall()
    changed = {home for name, version, home in installed if there.get(name) != version}
    if sides.source_facts.major != sides.target_facts.major:
        changed |= {"pg_catalog", "information_schema"}
    return frozenset(changed)


def _unavailable(entry: Entry, detail: str, remedy: str) -> Finding:
    return Finding("extension_unavailable", Severity.ERROR, entry.name, detail, remedy)


def _ordered(version: str | None) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version or "")))
