"""Check: the server takes writes; what is written is rolled back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from pgrescue.model import Finding, Severity
from pgrescue.verify.target import words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.verify.survey import Survey
    from pgrescue.verify.target import Connection, Fact

_PROBE = (
    "create schema pgrescue_probe",
    "create table pgrescue_probe.probe (id bigint primary key, body text)",
    # Long and hard to compress, so that a TOAST table is written, too.
    (
        "insert into pgrescue_probe.probe select n, (select string_agg(md5((n * 1000 + m)::text), '')"
        " from generate_series(1, case when n % 100 = 0 then 400 else 1 end) m) from generate_series(1, 1000) n"
    ),
    "update pgrescue_probe.probe set body = body || '!' where id % 2 = 0",
    "delete from pgrescue_probe.probe where id % 3 = 0",
)
_COUNT = "select count(*), count(*) filter (where body like '%!') from pgrescue_probe.probe"
_EXPECTED = (667, 334)
_REMEDY = "Look at the server's log (pgrescue logs). A page newer than the WAL does that: rescue with --strategy reset."


def check_writes(connection: Connection, survey: Survey) -> Iterator[Fact]:
    """Make a table with rows in one transaction, change them, count them, and roll back."""
    try:
        with connection.transaction(force_rollback=True):
            for statement in _PROBE:
                connection.execute(statement.encode())
            (found,) = connection.execute(_COUNT.encode()).fetchall()
    except psycopg.Error as error:
        if connection.closed:
            raise
        yield _failed(survey.database, f"A new table could not be made, filled and changed: {words(error)}.")
        return
    if found != _EXPECTED:
        yield _failed(survey.database, f"A new table has {found} rows, of which {_EXPECTED} were written.")


def check_checkpoint(connection: Connection, _: Survey) -> Iterator[Fact]:
    """Write everything to the disk."""
    try:
        connection.execute("checkpoint")
    except psycopg.Error as error:
        if connection.closed:
            raise
        yield _failed("server", f"CHECKPOINT fails after the checks: {words(error)}.")


def _failed(of: str, detail: str) -> Finding:
    return Finding("write_failed", Severity.ERROR, of, detail, _REMEDY)
