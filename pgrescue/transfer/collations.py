"""How text is encoded and sorted on both sides, and which collations the schema needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgrescue.model import Finding, Severity
from pgrescue.transfer.facts import listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.transfer.facts import Facts
    from pgrescue.transfer.preflight import Sides

_PROVIDERS = {"c": "libc", "i": "ICU", "b": "builtin", "d": "the database's"}


def check_text(sides: Sides) -> Iterator[Finding]:
    """Yield where the target keeps text otherwise than the source, or cannot keep it."""
    yield from _check_encoding(sides)
    yield from _check_collation(sides)
    yield from _check_collations(sides)


def _check_encoding(sides: Sides) -> Iterator[Finding]:
    source, target = sides.source_facts.encoding, sides.target_facts.encoding
    if source == target:
        return
    fits = target == "UTF8" and source != "SQL_ASCII"
    yield Finding(
        "encoding_differs",
        Severity.WARNING if fits else Severity.ERROR,
        sides.target_facts.database,
        f"The source's encoding is {source}, the target's {target}"
        + (": text is converted on the way." if fits else ": some text may have no form there."),
        "Nothing to do." if fits else f"Create the target with ENCODING '{source}' TEMPLATE template0.",
    )


def _check_collation(sides: Sides) -> Iterator[Finding]:
    source, target = sides.source_facts, sides.target_facts
    if _order(source) != _order(target):
        yield Finding(
            "collation_differs",
            Severity.WARNING,
            target.database,
            f"Text sorts by {_collation(source)} in the source, by {_collation(target)} in the target.",
            "Queries may give another order, and patterns other plans. If the application minds, create the target "
            "with the source's locale.",
        )
    elif source.collation_version != target.collation_version:
        yield Finding(
            "collation_version_differs",
            Severity.INFO,
            target.database,
            f"The collation {_collation(source)} has version {source.collation_version or 'unknown'} in the source, "
            f"{target.collation_version or 'unknown'} in the target.",
            "Nothing to do: all indexes are built anew.",
        )


def _order(facts: Facts) -> tuple[str, str, str]:
    return facts.provider, plain_locale(facts.locale), plain_locale(facts.ctype)


def plain_locale(name: str) -> str:
    """Return a locale's name without what differs between systems in its spelling: C.UTF-8 is C.utf8, POSIX is C."""
    language, dot, codeset = name.partition(".")
    if not dot:
        return "C" if name == "POSIX" else name
    return f"{language}.{codeset.lower().replace('-', '')}"


def _collation(facts: Facts) -> str:
    provider = _PROVIDERS.get(facts.provider, facts.provider)
    return f"{facts.locale} ({provider}" + (f", ctype {facts.ctype})" if facts.ctype != facts.locale else ")")


_USED = """
select distinct c.collname::text
  from pg_catalog.pg_depend as d join pg_catalog.pg_collation as c on c.oid = d.refobjid
 where d.refclassid = 'pg_catalog.pg_collation'::pg_catalog.regclass and d.objid >= 16384 and d.deptype in ('n', 'a')
   and c.collnamespace = 'pg_catalog'::pg_catalog.regnamespace
"""
_THERE = """
select collname::text from pg_catalog.pg_collation
 where collnamespace = 'pg_catalog'::pg_catalog.regnamespace and collname = any (%s) and collencoding in (
       -1, (select encoding from pg_catalog.pg_database where datname = pg_catalog.current_database()))
"""
# What users made (oid >= 16384), by provider and locale.
_MADE = """
select n.nspname || '.' || c.collname, c.collprovider::text, coalesce(c.collcollate, ''), coalesce(c.collctype, '')
  from pg_catalog.pg_collation as c join pg_catalog.pg_namespace as n on n.oid = c.collnamespace
 where c.oid >= 16384 and n.nspname <> 'pg_catalog'
   and not exists (select from pg_catalog.pg_depend as e
                    where e.classid = 'pg_catalog.pg_collation'::pg_catalog.regclass and e.objid = c.oid
                      and e.deptype = 'e')
"""
# What is there could be made; initdb imports the locales of its machine.
# A server without ICU has one of its collations, too, and cannot use it.
_LOCALES = """
select distinct collprovider::text, collcollate from pg_catalog.pg_collation
 where collprovider <> 'i' or collname like '%-x-icu'
"""


def _check_collations(sides: Sides) -> Iterator[Finding]:
    used = sorted(row[0] for row in sides.source.execute(_USED).fetchall())
    there = {row[0] for row in sides.target.execute(_THERE, [used]).fetchall()}
    missing = [name for name in used if name not in there]
    known = {(provider, plain_locale(name or "")) for provider, name in sides.target.execute(_LOCALES).fetchall()}
    providers = {provider for provider, _ in known}
    for name, provider, *locales in sides.source.execute(_MADE).fetchall():
        if provider not in providers or (
            provider == "c" and any(("c", plain_locale(locale)) not in known for locale in locales)
        ):
            missing.append(f"{name} ({_PROVIDERS.get(provider, provider)}{', ' + locales[0] if locales[0] else ''})")
    if missing:
        yield Finding(
            "collation_missing",
            Severity.ERROR,
            listed(missing),
            "The source uses these collations, and the target has neither them nor their locales.",
            "Take an image with these locales (CloudNativePG: the standard or system flavour), or change what uses "
            "them.",
        )
