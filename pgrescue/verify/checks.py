"""All checks on a running server, from the first session to the last."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg

from pgrescue.errors import ServerError
from pgrescue.model import BlockMap, Finding, Severity, VerifyLevel
from pgrescue.pipeline import Silent
from pgrescue.steps.connection import SessionError
from pgrescue.steps.tools_schema import SCHEMA, drop_tools
from pgrescue.verify.maps import merged
from pgrescue.verify.not_run import not_run
from pgrescue.verify.plan import lacking, reading_tasks, writing_tasks
from pgrescue.verify.survey import Survey, take_survey
from pgrescue.verify.target import rows, words
from pgrescue.verify.tasks import Runner
from pgrescue.verify.tools import provide
from pgrescue.verify.verified import Verified

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgrescue.pipeline import Observer
    from pgrescue.verify.target import Opener

_CATALOG_DATABASE = "template1"
# One that is half dropped (datconnlimit -2, since 15.4) lets nobody in, and health_check tells of it.
_DATABASES = (
    "select datname from pg_database where datallowconn and datconnlimit <> -2 order by datname <> 'template1', 1"
)
_LOOK = "Look at the server's log (pgrescue logs), and at the other findings of this database."


def run_checks(opener: Opener, *, pgdata: Path, level: VerifyLevel, observer: Observer) -> Verified:
    """Check every database of a server that nobody else uses, and leave it as it was.

    Raises ServerError where the server goes away.
    """
    findings: list[Finding] = []
    surveys: list[Survey] = []
    names = _databases(opener)
    with contextlib.ExitStack() as cleanup:
        # What is not removed, because the server went away, goes when the checks run again.
        cleanup.callback(lambda: findings.extend(_remove_tools(opener, names)))
        for name in names:
            try:
                surveys.append(_survey(opener, name, has_shared=not surveys))
            except (SessionError, psycopg.Error) as error:
                findings.append(
                    not_run(f"all checks of {name}", f"The database cannot be looked at: {words(error)}.", _LOOK)
                )
        if not surveys:
            raise ServerError("no database of the server can be checked", hint=_LOOK)
        findings += [found for survey in surveys for found in lacking(survey)]
        files_are_current = _checkpoint(opener)
        findings += files_are_current
        tasks = [
            task
            for survey in surveys
            for task in reading_tasks(survey, level=level, pgdata=None if files_are_current else pgdata)
        ]
        told = Runner(opener, observer).run(tasks)
        writing = list(writing_tasks(surveys))
        told += Runner(opener, Silent(), workers=1).run(writing)  # too little to be progress
        findings += [fact for fact in told if isinstance(fact, Finding)]
    maps = merged(fact for fact in told if isinstance(fact, BlockMap))
    return Verified(level, len(tasks) + len(writing), tuple(findings), maps)


def _databases(opener: Opener) -> list[str]:
    try:
        with opener(_CATALOG_DATABASE) as connection:
            return [name for (name,) in rows(connection, _DATABASES)]
    except SessionError as error:
        raise ServerError(f"the server cannot be checked: {error}", hint=_LOOK) from error


def _survey(opener: Opener, database: str, *, has_shared: bool) -> Survey:
    with opener(database) as connection:
        return take_survey(connection, database, has_shared=has_shared, tools=provide(connection))


def _checkpoint(opener: Opener) -> list[Finding]:
    """Write everything to the disk, where some checks read it; tell what they cannot do when that fails."""
    try:
        with opener(_CATALOG_DATABASE) as connection:
            connection.execute("checkpoint")
    except SessionError as error:
        return [
            not_run("entries of all indexes", f"The files are not current, since CHECKPOINT fails: {error}.", _LOOK)
        ]
    return []


def _remove_tools(opener: Opener, names: list[str]) -> Iterator[Finding]:
    for name in names:
        try:
            with opener(name) as connection:
                drop_tools(connection)
        except SessionError as error:
            yield Finding(
                "tools_left_behind",
                Severity.WARNING,
                name,
                f"The schema {SCHEMA}, where pgrescue keeps amcheck for its checks, cannot be dropped: {error}.",
                f"DROP SCHEMA {SCHEMA} CASCADE, before the database is dumped as a whole.",
            )
