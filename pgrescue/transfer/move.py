"""The move itself: schema, rows with indexes as soon as their tables are there, constraints, everything else."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from pgrescue.model import Finding, Severity
from pgrescue.transfer.endpoint import as_problem, is_external, is_lost, said, speaking_of
from pgrescue.transfer.large_objects import copy_large_objects
from pgrescue.transfer.load import Progress, copy_table, run_entries, run_entry, set_sequences
from pgrescue.transfer.marker import mark
from pgrescue.transfer.tasks import StuckError, Task, run_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from pgrescue.pipeline import Observer
    from pgrescue.transfer.endpoint import Connection
    from pgrescue.transfer.large_objects import Range
    from pgrescue.transfer.salvage import Salvage
    from pgrescue.transfer.schema import Entry, Schema
    from pgrescue.transfer.sessions import Pair
    from pgrescue.transfer.tables import Sequence as SequenceValue
    from pgrescue.transfer.tables import Table

_SEQUENCES = "sequences"
_ALL_ROWS, _ALL_BUILT, _ALL_INDEXES = "all rows", "all indexes built", "all indexes"
_BUILT = frozenset({"INDEX", "CONSTRAINT"})
_LAST = frozenset({"ACL", "DEFAULT ACL", "EVENT TRIGGER"})


@dataclass(frozen=True)
class Load:
    """Everything that is to be moved.

    `left_out` are numbers of entries, `table_of` gives the table of each index and constraint by its class and oid.
    What `strangers` own is kept by the target's role, where `keeps_owners` leaves other owners as they are.
    `views` are the populated materialized views in the order in which they can be refreshed, `analyzed` the tables
    whose statistics are gathered.
    """

    schema: Schema
    left_out: frozenset[int]
    tables: tuple[Table, ...]
    sequences: tuple[SequenceValue, ...]
    large_objects: tuple[Range, ...]
    table_of: Mapping[tuple[int, int], tuple[str, ...]]
    views: tuple[tuple[str, str], ...]
    analyzed: tuple[tuple[str, str], ...]
    keeps_owners: bool
    strangers: frozenset[str] = frozenset()
    salvage: Salvage | None = None
    findings: list[Finding] = field(default_factory=list)

    def entries(self, wanted: Sequence[Entry]) -> list[Entry]:
        """Return those that do something, and are not left out."""
        return [entry for entry in wanted if entry.sql and entry.number not in self.left_out]


_TABLE_OF = """
select 1259, indexrelid::bigint, array[indrelid::bigint] from pg_catalog.pg_index where indexrelid >= 16384
union all
select 2606, oid::bigint,
       case when contype = 'f' then array[conrelid::bigint, confrelid::bigint] else array[conrelid::bigint] end
  from pg_catalog.pg_constraint where conrelid >= 16384
"""
_NAMES = """
select c.oid::bigint, n.nspname || '.' || c.relname
  from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace where c.oid >= 16384
"""


def tables_of_indexes(source: Connection) -> dict[tuple[int, int], tuple[str, ...]]:
    """Return the tables that each index and constraint concerns, by the class and the oid of that."""
    names: dict[int, str] = dict(source.execute(_NAMES).fetchall())
    return {
        (class_oid, oid): tuple(names[table] for table in tables if table in names)
        for class_oid, oid, tables in source.execute(_TABLE_OF).fetchall()
    }


_VIEWS = """
select c.oid::bigint, n.nspname, c.relname, c.relkind = 'm' and c.relispopulated
       and not exists (select from pg_catalog.pg_depend as e
                        where e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and e.objid = c.oid
                          and e.deptype = 'e'),
       array(select distinct d.refobjid::bigint
               from pg_catalog.pg_rewrite as r
               join pg_catalog.pg_depend as d
                 on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = r.oid
                and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid <> c.oid
              where r.ev_class = c.oid)
  from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
 where c.relkind in ('v', 'm') and c.oid >= 16384 and n.nspname not like 'pgrescue\\_%'
 order by 2, 3
"""


def populated_views(source: Connection) -> tuple[tuple[str, str], ...]:
    """Return the materialized views that hold rows, each after those that it reads, through other views too."""
    views = {row[0]: row[1:] for row in source.execute(_VIEWS).fetchall()}
    ordered: list[tuple[str, str]] = []
    seen: set[int] = set()

    def visit(oid: int) -> None:
        if oid in seen or oid not in views:
            return
        seen.add(oid)
        schema, name, is_populated, reads = views[oid]
        for other in reads:
            visit(other)
        if is_populated:
            ordered.append((schema, name))

    for oid in views:
        visit(oid)
    return tuple(ordered)


_ANALYZED = """
select n.nspname, c.relname
  from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
 where (c.relkind in ('r', 'm') and not c.relispartition or c.relkind = 'p' and not c.relispartition)
   and c.relpersistence <> 't' and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
   and n.nspname not like 'pgrescue\\_%'
   and not exists (select from pg_catalog.pg_depend as e
                    where e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and e.objid = c.oid
                      and e.deptype = 'e')
 order by pg_catalog.pg_relation_size(c.oid) desc, 1, 2
"""


def analyzed_tables(source: Connection) -> tuple[tuple[str, str], ...]:
    """Return the tables to gather statistics of; a partitioned one stands for its partitions."""
    return tuple((row[0], row[1]) for row in source.execute(_ANALYZED).fetchall())


def move(
    load: Load,
    target: Connection,
    opener: Callable[[], AbstractContextManager[Pair]],
    *,
    jobs: int,
    done: Mapping[str, int | None],
    observer: Observer,
) -> None:
    """Do all tasks but those in `done`; raises RescueError, and then the target tells how far it came.

    Facts worth telling are added to the load's findings.
    """
    known = frozenset(done)
    before = load.entries(load.schema.before)
    run_entries(target, [entry for entry in before if entry.key not in known])
    tasks = list(_tasks(load, _progress(load, known, observer), _Builds(load, known, jobs)))
    try:
        run_tasks(tasks, opener, workers=jobs, done=known)
    except StuckError:
        # pg_dump's own order never needs what comes later.
        run_tasks([Task(task.key, task.run) for task in tasks], opener, workers=1, done=_done_now(target))
    _finish(load, target, _done_now(target))


def _done_now(target: Connection) -> frozenset[str]:
    return frozenset(row[0] for row in target.execute("select task from pgrescue_transfer.done").fetchall())


def _progress(load: Load, done: frozenset[str], observer: Observer) -> Progress:
    after = load.entries(load.schema.after)
    built = [entry for entry in after if entry.type in _BUILT or entry.type == "FK CONSTRAINT"]
    progress = Progress(
        observer,
        size_bytes=sum(table.size_bytes for table in load.tables),
        tables=len(load.tables),
        indexes=len(built),
    )
    for table in load.tables:
        if table.key in done:
            progress.rows_went(table.size_bytes)
            progress.table_ended()
    return progress


class _Builds:
    """How many indexes are still to be built: as long as there are enough for all workers, each gets one process.

    The last ones get as many as the server gives them. Any thread may call.
    """

    def __init__(self, load: Load, done: frozenset[str], jobs: int) -> None:
        self._jobs = jobs
        self._left = sum(entry.type in _BUILT and entry.key not in done for entry in load.entries(load.schema.after))
        self._lock = threading.Lock()

    def prefix(self) -> str:
        """Return what to run before the next one, in its transaction."""
        with self._lock:
            self._left -= 1
            return "set local max_parallel_maintenance_workers = 0;\n" if self._left >= self._jobs > 1 else ""


def _tasks(load: Load, progress: Progress, builds: _Builds) -> Iterator[Task[Pair]]:
    """Yield the tasks that can run side by side, and those that must follow each other among them.

    A constraint locks its table, an index shares it with others. Foreign keys wait for all unique indexes; triggers,
    rules and policies for all rows.
    """
    copies = [Task(table.key, _copying(load, table, progress)) for table in load.tables]
    objects = [Task(part.key, _copying_objects(load, part)) for part in load.large_objects]
    yield from copies
    yield from objects
    rows = frozenset(task.key for task in (*copies, *objects))
    yield Task(_ALL_ROWS, _nothing, needs=rows)
    yield Task(
        _SEQUENCES, lambda pair: set_sequences(pair.target, load.sequences, _SEQUENCES), needs=frozenset({_ALL_ROWS})
    )
    after = [entry for entry in load.entries(load.schema.after) if not _comes_last(entry)]
    keys = {entry.number: entry.key for entry in after}
    built = frozenset(entry.key for entry in after if entry.type in _BUILT)
    attached = frozenset(entry.key for entry in after if entry.type == "INDEX ATTACH")
    # What waits for all of something needs one name, not all of theirs: there may be thousands on both sides.
    yield Task(_ALL_BUILT, _nothing, needs=built)
    yield Task(_ALL_INDEXES, _nothing, needs=attached | {_ALL_ROWS, _ALL_BUILT})
    copied = {label: table.key for table in load.tables for label in (table.label, *table.leaves)}
    previous: dict[str, frozenset[str]] = {}
    for entry in _largest_first(load, after):
        needs = frozenset(keys[number] for number in entry.depends if number in keys)
        tables = frozenset(load.table_of.get((entry.class_oid, entry.oid), ()))
        run = _making(load, entry, progress, builds)
        if entry.type in _BUILT:
            needs |= {copied[name] for name in tables if name in copied}
            is_shared = entry.type == "INDEX" and "ALTER TABLE" not in entry.sql
            yield Task(entry.key, run, needs, *(((frozenset(), tables)) if is_shared else (tables, frozenset())))
        elif entry.type == "FK CONSTRAINT":
            yield Task(entry.key, run, needs | {_ALL_INDEXES}, alone=tables)
        else:
            chain = "attach" if entry.type == "INDEX ATTACH" else "other"
            needs |= previous.get(chain, frozenset()) | {_ALL_BUILT if chain == "attach" else _ALL_ROWS}
            previous[chain] = frozenset({entry.key})
            yield Task(entry.key, run, needs)


def _nothing(pair: Pair) -> None:
    """Do nothing: a task that others wait for, which itself waits for many."""


def _comes_last(entry: Entry) -> bool:
    """Tell whether pg_dump's restore passes keep it for the very end (pg_backup_archiver.c, RestorePass)."""
    return entry.type in _LAST or (
        entry.type in {"COMMENT", "SECURITY LABEL"} and entry.name.startswith("EVENT TRIGGER ")
    )


def _largest_first(load: Load, entries: Sequence[Entry]) -> list[Entry]:
    """Order what takes long by the size of its table; everything else stays as it is, behind it."""
    sizes = {label: table.size_bytes for table in load.tables for label in (table.label, *table.leaves)}

    def weight(entry: Entry) -> int:
        if entry.type not in _BUILT and entry.type != "FK CONSTRAINT":
            return 1
        return -sum(sizes.get(name, 0) for name in load.table_of.get((entry.class_oid, entry.oid), ()))

    return sorted(entries, key=weight)


def _copying(load: Load, table: Table, progress: Progress) -> Callable[[Pair], None]:
    def run(pair: Pair) -> None:
        if load.salvage is not None:
            load.salvage.copy_table(pair, table, progress)
        else:
            copy_table(pair, table, progress)

    return run


def _copying_objects(load: Load, part: Range) -> Callable[[Pair], None]:
    def run(pair: Pair) -> None:
        unread = copy_large_objects(
            pair,
            part,
            keeps_owners=load.keeps_owners,
            strangers=load.strangers,
            salvages=load.salvage is not None,
        )
        if load.salvage is not None:
            load.salvage.lost_large_objects(unread)

    return run


def _making(load: Load, entry: Entry, progress: Progress, builds: _Builds) -> Callable[[Pair], None]:
    def run(pair: Pair) -> None:
        try:
            run_entry(pair.target, entry, (builds.prefix() if entry.type in _BUILT else "") + entry.sql)
        except psycopg.Error as error:
            if load.salvage is None or is_external(error):
                raise as_problem(f"{entry} could not be made in the target", error) from error
            load.salvage.without(pair, entry, error)
        if entry.type in _BUILT or entry.type == "FK CONSTRAINT":
            progress.index_ended()

    return run


def _finish(load: Load, target: Connection, done: frozenset[str]) -> None:
    """Grant privileges, refresh views, and last let event triggers in."""
    last = [entry for entry in load.entries(load.schema.after) if _comes_last(entry) and entry.key not in done]
    events = [entry for entry in last if "EVENT TRIGGER" in entry.type or entry.name.startswith("EVENT TRIGGER ")]
    run_entries(target, [entry for entry in last if entry not in events])
    for schema, name in load.views:
        key = f"refresh:{schema}.{name}"
        if key not in done:
            _refresh(load, target, schema, name, key)
    run_entries(target, events)


def _refresh(load: Load, target: Connection, schema: str, name: str, key: str) -> None:
    try:
        with target.transaction():
            target.execute(sql.SQL("refresh materialized view {}").format(sql.Identifier(schema, name)))
            target.execute(mark(key))
    except psycopg.Error as error:
        if is_lost(error):
            raise as_problem(f"the materialized view {schema}.{name} could not be filled", error) from error
        load.findings.append(
            Finding(
                "materialized_view_broken",
                Severity.WARNING,
                f"{schema}.{name}",
                f"It could not be filled in the target and is empty: {said(error)}.",
                "Mend the cause, then REFRESH MATERIALIZED VIEW.",
            )
        )


def analyze(
    load: Load,
    opener: Callable[[], AbstractContextManager[Pair]],
    *,
    jobs: int,
    done: frozenset[str],
) -> None:
    """Gather the planner's statistics of all tables: nobody else does before the first queries come."""

    def task_of(schema: str, name: str) -> Task[Pair]:
        key = f"analyze:{schema}.{name}"

        def run(pair: Pair) -> None:
            with speaking_of(f"{schema}.{name} could not be analyzed"), pair.target.transaction():
                pair.target.execute(sql.SQL("analyze {}").format(sql.Identifier(schema, name)))
                pair.target.execute(mark(key))

        return Task(key, run)

    run_tasks([task_of(*one) for one in load.analyzed], opener, workers=jobs, done=done)
