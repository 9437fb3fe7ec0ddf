"""The whole repair on a running server, in its order: catalogs, evidence, tables side by side, what spans tables."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from pgrescue.model import Finding, Severity
from pgrescue.pipeline import Observer, Unit
from pgrescue.repair import bring_back, catalogs, foreign_keys, lost_rows, names, sequences
from pgrescue.repair.evidence import Witnesses
from pgrescue.repair.mend import mend_table
from pgrescue.repair.notes import Notes
from pgrescue.repair.outcome import Outcome
from pgrescue.repair.quarantine import Quarantine, choose_schema
from pgrescue.repair.site import FAILURES, Site, find_operators, said
from pgrescue.repair.survey import Table, tables
from pgrescue.retry import until_returns
from pgrescue.steps.tools_schema import drop_tools

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pgrescue.repair.foreign_keys import ForeignKey

Item = TypeVar("Item")

_WORKERS = 3
_RESTART_TIMEOUT_S = 600
_ON_ITS_WAY = ("in recovery mode", "starting up", "not yet accepting", "not accepting", "shutting down")
_CUT_OFF = (
    *_ON_ITS_WAY,
    "crash of another server process",
    "server closed the connection unexpectedly",
    "connection is closed",
    "terminating connection",
)


class _NotBackError(Exception):
    """The server is on its way back after a crash."""


class _Progress:
    """How many of the pieces of work are done; any thread may count."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._lock = threading.Lock()
        self._done = 0
        self.total = 0

    def count(self) -> None:
        """Count one more."""
        with self._lock:
            self._done += 1
            self._observer.advanced(self._done, self.total, Unit.ITEMS)


def repair(site: Site, observer: Observer) -> Outcome:
    """Repair every database that can be connected to; what fails is told, and the rest goes on.

    Raises SessionError where not even the first session is possible.
    """
    outcome = Outcome()
    notes = Notes(site.run.workspace)
    databases = catalogs.databases(site)
    for database in databases:
        catalogs.repair_catalogs(site, database, notes, outcome)
    catalogs.tell_removed(notes, outcome)
    with site.indexed("template1") as connection:
        connection.execute("checkpoint")
    found = {database: _survey(site, database, notes, outcome) for database in databases}
    progress = _Progress(observer)
    progress.total = sum(2 * len(items) for items in found.values())
    everything = [table for items in found.values() for table in items]
    everything.sort(key=lambda table: -table.work_bytes)
    witnesses = _hear(site, everything, notes, outcome, progress)
    for database, items in found.items():
        _stage(site, database, items, notes, outcome)
    schemas = notes.quarantine_schemas()
    _side_by_side(
        everything,
        lambda table: _mend(site, table, schemas[table.database], witnesses[table.database], outcome),
        lambda table, error: outcome.tell(_incomplete(table.object, error)),
        progress,
    )
    for database, items in found.items():
        _span(site, database, items, notes, outcome)
    for fact in notes.facts():
        outcome.tell(fact)
    _tell_rebuilt(outcome)
    # A backend that crashed on a damaged page takes the server down for a moment.
    until_returns(partial(_when_it_is_back, _checkpoint, site), on=_NotBackError, timeout_s=_RESTART_TIMEOUT_S)
    return outcome


def _checkpoint(site: Site) -> None:
    with site.indexed("template1") as connection:
        connection.execute("checkpoint")


def _survey(site: Site, database: str, notes: Notes, outcome: Outcome) -> tuple[Table, ...]:
    """Return the tables of a database, after removing what a killed repair left of its tools."""
    try:
        with site.indexed(database) as connection:
            drop_tools(connection)
            choose_schema(connection, database, notes)
            return tables(connection, database)
    except FAILURES as error:
        outcome.tell(_incomplete(database, error))
        return ()


def _hear(
    site: Site, everything: list[Table], notes: Notes, outcome: Outcome, progress: _Progress
) -> dict[str, Witnesses]:
    """Read the files of all tables before anything in them changes; return the readers of each database."""
    witnesses: dict[str, Witnesses] = {}
    for database in {table.database for table in everything}:
        with site.indexed(database) as connection:
            witnesses[database] = Witnesses(site, connection, notes)
    _side_by_side(
        everything,
        lambda table: witnesses[table.database].hear(table),
        lambda table, error: outcome.tell(_incomplete(table.object, error)),
        progress,
    )
    return witnesses


def _mend(site: Site, table: Table, schema: str, witnesses: Witnesses, outcome: Outcome) -> None:
    """Mend a table, and name the rows that only the old index of its key still knew, wherever that led to.

    They are named, too, where the table could not be mended, as far as its index could be rebuilt.
    """
    witnesses.keep_key(table)
    try:
        mend_table(site, table, schema, witnesses.notes, outcome)
    except FAILURES as error:
        if not _is_cut_off(error):
            with contextlib.suppress(*FAILURES):
                _tell_lost(site, table, schema, witnesses, outcome)
        raise
    _tell_lost(site, table, schema, witnesses, outcome)


def _tell_lost(site: Site, table: Table, schema: str, witnesses: Witnesses, outcome: Outcome) -> None:
    with site.indexed(table.database) as connection:
        key = table.key
        find_operators(connection, [] if key is None else [item["schema"] for item in key.stored])
        evidence = witnesses.complete(connection, table)
        if evidence is not None:
            quarantine = Quarantine(schema, table)
            aside = quarantine.qualified if quarantine.exists(connection) else None
            lost_rows.tell_lost(connection, table, evidence, outcome, aside=aside)


def _stage(site: Site, database: str, items: Iterable[Table], notes: Notes, outcome: Outcome) -> None:
    """Take older versions out of their tables, one table after the other and while nothing else is done.

    A version in the middle of a HOT chain that somebody might still see would keep its table's indexes from being
    built.
    """
    schema = notes.quarantine_schemas().get(database)
    concerned = [(table, evidence) for table in items if (evidence := notes.evidence(table)) and evidence.broken]
    if not concerned or schema is None:
        return
    try:
        with site.heaps(database) as connection:
            for table, evidence in concerned:
                bring_back.stage(connection, schema, table, evidence, outcome)
    except FAILURES as error:
        outcome.tell(_incomplete(database, error))


def _span(site: Site, database: str, items: tuple[Table, ...], notes: Notes, outcome: Outcome) -> None:
    """Do what concerns several tables, or the database."""
    names.tell_without_key(database, items, outcome)
    names.tell_unlogged(database, items, site.run.workspace.removed, outcome)
    try:
        with site.indexed(database) as connection:
            sequences.move_sequences(connection, database, notes, outcome)
            broken = [finding for finding in outcome.findings if finding.code == "index_not_rebuilt"]
            if not any(finding.object.startswith(f"{database}.") for finding in broken):
                names.refresh_collations(connection, database, site.major, notes)
            keys = foreign_keys.foreign_keys(connection)
    except FAILURES as error:
        outcome.tell(_incomplete(database, error))
        return

    def check(key: ForeignKey) -> None:
        with site.indexed(database) as connection:
            foreign_keys.check(connection, database, key, outcome)

    _side_by_side(keys, check, lambda key, error: outcome.tell(_incomplete(f"{key.name} on {database}", error)), None)


def _side_by_side(
    items: Iterable[Item],
    work: Callable[[Item], None],
    failed: Callable[[Item, BaseException], None],
    progress: _Progress | None,
) -> None:
    """Do the work on each item, several at a time; a failure concerns its item only.

    When a backend crashes, PostgreSQL ends all others: those pieces of work are done again, one after the other.
    """
    cut_off: list[Item] = []

    def guarded(item: Item) -> None:
        try:
            work(item)
        except FAILURES as error:
            if _is_cut_off(error):
                cut_off.append(item)
            else:
                failed(item, error)
        if progress is not None:
            progress.count()

    with concurrent.futures.ThreadPoolExecutor(_WORKERS) as pool:
        futures = [pool.submit(guarded, item) for item in items]
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for item in cut_off:
        try:
            until_returns(partial(_when_it_is_back, work, item), on=_NotBackError, timeout_s=_RESTART_TIMEOUT_S)
        except (*FAILURES, _NotBackError) as error:
            failed(item, error)


def _when_it_is_back(work: Callable[[Item], None], item: Item) -> None:
    """Do a piece of work; raise _NotBackError while the server is still recovering."""
    try:
        work(item)
    except FAILURES as error:
        if any(words in str(error) for words in _ON_ITS_WAY):
            raise _NotBackError(str(error)) from error
        raise


def _is_cut_off(error: BaseException) -> bool:
    """Tell whether the server went away, or is on its way back after a crash."""
    return any(words in str(error) for words in _CUT_OFF)


def _incomplete(name: str, error: BaseException) -> Finding:
    return Finding(
        "repair_incomplete",
        Severity.ERROR,
        name,
        f"The repair stopped here: {said(error)}",
        "Look at the server's log (pgrescue logs). Dump what can be dumped; look for another snapshot.",
    )


def _tell_rebuilt(outcome: Outcome) -> None:
    outcome.tell(
        Finding(
            "indexes_rebuilt",
            Severity.INFO,
            "all databases",
            f"{len(outcome.rebuilt)} indexes were built anew from their tables, and those of the system catalogs.",
            "Nothing to do.",
        )
    )
