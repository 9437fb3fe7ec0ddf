"""Which checks there are, and which of them a level takes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from pgrescue.model import VerifyLevel
from pgrescue.verify.catalog_indexes import check_catalog_indexes
from pgrescue.verify.catalogs import check_catalogs
from pgrescue.verify.collations import check_collations
from pgrescue.verify.dangling import check_entries
from pgrescue.verify.extensions import check_extensions
from pgrescue.verify.heaps import check_heap
from pgrescue.verify.indexes import check_btree, check_gin, check_invalid_indexes
from pgrescue.verify.not_run import not_run
from pgrescue.verify.storage import check_files
from pgrescue.verify.tasks import Task
from pgrescue.verify.toast import check_rows
from pgrescue.verify.writes import check_checkpoint, check_writes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pgrescue.model import Finding
    from pgrescue.verify.survey import Relation, Survey
    from pgrescue.verify.target import Connection, Fact

_OfDatabase: TypeAlias = "Callable[[Connection, Survey], Iterator[Fact]]"

_OF_A_DATABASE: tuple[tuple[str, _OfDatabase], ...] = (
    ("files", check_files),
    ("catalogs", check_catalogs),
    ("catalog indexes", check_catalog_indexes),
    ("extensions", check_extensions),
    ("collations", check_collations),
    ("invalid indexes", check_invalid_indexes),
)
# What each level asks amcheck for: the function, and what is not checked where the database lacks it.
_NEEDED = {"verify_heapam": "rows of all tables", "bt_index_check": "b-tree indexes"}
_GET_AMCHECK = (
    "Rescue with a PostgreSQL that has the extension amcheck in a version for it (--image, --bindir), or ALTER "
    "EXTENSION amcheck UPDATE where an old one is installed."
)


def reading_tasks(survey: Survey, *, level: VerifyLevel, pgdata: Path | None) -> Iterator[Task]:
    """Yield the checks of one database that write nothing; without `pgdata`, none that reads files by itself."""
    for name, check in _OF_A_DATABASE:
        yield Task(f"{name} of {survey.database}", survey.database, _on(check, survey))
    for relation in survey.checked():
        yield from _of_relation(survey, relation, full=level is VerifyLevel.FULL, pgdata=pgdata)


def writing_tasks(surveys: Sequence[Survey]) -> Iterator[Task]:
    """Yield the checks that write, to be run when all others are done, one after the other."""
    for survey in surveys:
        yield Task(f"writes to {survey.database}", survey.database, _on(check_writes, survey))
    for survey in surveys[:1]:
        yield Task("CHECKPOINT", survey.database, _on(check_checkpoint, survey))


def _on(check: _OfDatabase, survey: Survey) -> Callable[[Connection], Iterator[Fact]]:
    return lambda connection: check(connection, survey)


def lacking(survey: Survey) -> Iterator[Finding]:
    """Tell what cannot be checked in a database because amcheck is not there, or is too old."""
    tools = survey.tools
    for function, of in _NEEDED.items():
        if not tools.has(function):
            why = tools.why_not or f"its extension amcheck is too old: {function} is not there, or not as it is needed"
            yield not_run(f"{of} in {survey.database}", f"{why[0].upper()}{why[1:]}.", _GET_AMCHECK)


def _of_relation(survey: Survey, relation: Relation, *, full: bool, pgdata: Path | None) -> Iterator[Task]:
    label, size, tools = survey.label(relation), survey.size_bytes(relation), survey.tools

    def task(name: str, run: Callable[[Connection], Iterator[Fact]], size_bytes: int = size) -> Task:
        return Task(f"{name} {label}", survey.database, run, size_bytes)

    if relation.is_heap:
        if tools.has("verify_heapam"):
            yield task("rows of", partial(check_heap, survey=survey, relation=relation, toast=full))
        if full and relation.kind in "rm" and relation.populated:
            yield task("every row of", partial(check_rows, survey=survey, relation=relation))
        return
    if not relation.is_index or not relation.sound:
        return
    table = survey.by_oid(relation.table)
    both = size + (survey.size_bytes(table) if table is not None else 0)
    if relation.method == "btree" and (full or relation.unique or relation.is_catalog):
        if tools.has("bt_index_check"):
            yield task("index", partial(check_btree, survey=survey, relation=relation, parents=full), both)
        # A checkpoint does not write unlogged relations: their files are never current while the server runs.
        if pgdata is not None and relation.persistence == "p":
            yield task("entries of", partial(check_entries, survey=survey, relation=relation, pgdata=pgdata), both)
    elif relation.method == "gin" and full and tools.has("gin_index_check"):
        yield task("index", partial(check_gin, survey=survey, relation=relation))
