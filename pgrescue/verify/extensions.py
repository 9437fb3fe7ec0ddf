"""Check: what the extensions of a database need is here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgrescue.model import Finding, Severity
from pgrescue.verify.target import load_sql, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.verify.survey import Survey
    from pgrescue.verify.target import Connection, Fact

_REMEDY = "Rescue with a PostgreSQL that has it (--image, --bindir). What uses it can neither be read nor dumped here."


def check_extensions(connection: Connection, survey: Survey) -> Iterator[Fact]:
    """Find extensions without their control file, and functions in C without their library."""
    missing = {name for (name,) in rows(connection, load_sql("extensions"))}
    for name in sorted(missing):
        yield Finding(
            "extension_missing",
            Severity.WARNING,
            f"{survey.database}: {name}",
            "The database uses the extension, and this PostgreSQL does not have it.",
            _REMEDY,
        )
    for library, functions, extensions in rows(connection, load_sql("libraries")):
        if not missing.intersection(extensions):
            yield Finding(
                "extension_missing",
                Severity.WARNING,
                f"{survey.database}: {library}",
                f"{functions} functions are in this library, which this PostgreSQL does not have.",
                _REMEDY,
            )
