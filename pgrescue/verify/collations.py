"""Check: text sorts here as it did where the indexes were built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgrescue.model import Finding, Severity
from pgrescue.verify.target import listed, load_sql, rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgrescue.verify.survey import Survey
    from pgrescue.verify.target import Connection, Fact

_SHOWN = 10
_DATABASES_HAVE_VERSIONS_SINCE = 15


def check_collations(connection: Connection, survey: Survey) -> Iterator[Fact]:
    """Compare the versions that the catalogs remember with those of this machine's libc and ICU."""
    if survey.major >= _DATABASES_HAVE_VERSIONS_SINCE:
        for was, now, indexes in rows(connection, load_sql("database_collation")):
            refresh = f'ALTER DATABASE "{survey.database}" REFRESH'
            yield _changed(survey.database, "the database", (was, now), indexes, refresh)
    for name, was, now, indexes, columns in rows(connection, load_sql("collations")):
        what = f"the collation {name}, which {columns} columns use,"
        yield _changed(f"{survey.database}.{name}", what, (was, now), indexes, f"ALTER COLLATION {name} REFRESH")


def _changed(name: str, what: str, versions: tuple[str, str], indexes: Sequence[str], refresh: str) -> Finding:
    concerned = listed(list(indexes), total=len(indexes), shown=_SHOWN)
    return Finding(
        "collation_version_changed",
        Severity.WARNING,
        name,
        f"Text in {what} sorted by version {versions[0]}, and sorts by version {versions[1]} here: "
        + (
            f"{len(indexes)} indexes may miss rows ({concerned})."
            if indexes
            else "no index depends on it, but ranges and constraints may."
        ),
        f"REINDEX these indexes (the repair of a reset does), then {refresh} VERSION. A dump and reload does both.",
    )
