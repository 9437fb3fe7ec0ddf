"""Check: every relation has its files, and every file its relation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgrescue.model import Finding, Severity
from pgrescue.verify.target import listed, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.verify.survey import Relation, Survey
    from pgrescue.verify.target import Connection, Fact

_SHOWN = 10
_SEGMENT_BYTES = (
    "select setting::bigint * current_setting('block_size')::int from pg_settings where name = 'segment_size'"
)
_DATABASE_DIRECTORIES = """
select 'base/' || f.name
  from pg_ls_dir('base') as f (name)
 where f.name ~ '^[0-9]+$' and not exists (select from pg_database d where d.oid::text = f.name)
"""


def check_files(connection: Connection, survey: Survey) -> Iterator[Fact]:
    """Compare pg_class with the database's directories, both ways."""
    for relation in survey.checked():
        missing = _missing(relation, survey)
        if missing:
            yield Finding(
                "relation_file_missing",
                Severity.ERROR,
                survey.label(relation),
                f"{missing[0].upper()}{missing[1:]}.",
                "REINDEX INDEX builds it anew."
                if relation.is_index
                else "Its rows are not in the copy: look for another snapshot that has the file.",
            )
    yield from _orphans(survey)
    if survey.has_shared:
        for (path,) in rows(connection, _DATABASE_DIRECTORIES):
            yield Finding(
                "orphan_file",
                Severity.INFO,
                path,
                "The directory belongs to no database: pg_database does not name it.",
                "None, if a database was being created or dropped. Else pg_database has lost a row.",
            )


def _missing(relation: Relation, survey: Survey) -> str | None:
    """Say what lacks of a relation's files, or None."""
    if relation.kind in "rtm" and not relation.is_heap:
        return None  # another table access method keeps its files as it likes
    if relation.path is None:
        return "no file is known for it, neither in pg_class nor in pg_filenode.map"
    segments = survey.segments.get(relation.path)
    if segments is None or 0 not in segments:
        return f"its file {relation.path} is missing"
    if relation.persistence == "u" and 0 not in survey.segments.get(f"{relation.path}_init", {}):
        return f"its file {relation.path}_init is missing, without which an unlogged relation is lost at a crash"
    # Empty segments after the end are usual: a truncation leaves them (md.c).
    last = max(number for number, size in segments.items() if size or not number)
    for number in range(last):
        if number not in segments:
            return f"its file {relation.path}.{number} is missing, and a later one is there"
        if segments[number] < survey.segment_blocks * survey.block_size:
            name = f"{relation.path}.{number}" if number else relation.path
            return f"its file {name} was cut short, so that the server does not see the files after it"
    return None


def _orphans(survey: Survey) -> Iterator[Finding]:
    owned = {relation.path for relation in survey.relations if relation.path is not None}
    owned |= {f"{path}_{fork}" for path in owned for fork in ("fsm", "vm", "init")}
    # An empty file is what a DROP leaves until the next checkpoint.
    orphans = {
        path: size_bytes
        for path, segments in survey.segments.items()
        if path not in owned and (size_bytes := sum(segments.values()))
    }
    if orphans:
        yield Finding(
            "orphan_file",
            Severity.INFO,
            survey.database,
            f"{len(orphans)} files with {sum(orphans.values()):,} bytes belong to no relation: "
            f"{listed(sorted(orphans), total=len(orphans), shown=_SHOWN)}.",
            "None, if a transaction was under way: what it had made is left behind. Nothing reads these files.",
        )
