"""Step: damaged files are called by the names of their tables and indexes."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING, NamedTuple

from pgrescue.errors import ServerError
from pgrescue.files import write_atomically
from pgrescue.model import Severity
from pgrescue.steps.connection import SessionError, session
from pgrescue.verify.check_files import FileCheck

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgrescue.model import BlockMap, Finding
    from pgrescue.pipeline import Observer
    from pgrescue.run import Run
    from pgrescue.workspace import Workspace

_FILE = re.compile(r"((?:.*/)?\d+)(?:_fsm|_vm|_init)?(?:\.\d+)?")
_DATABASES = "select datname from pg_catalog.pg_database where datallowconn order by datname"
_NAMES = """
select pg_catalog.pg_relation_filepath(c.oid),
       case when owner.oid is null then n.nspname || '.' || c.relname
            else owner_schema.nspname || '.' || owner.relname || ' (TOAST)' end,
       c.relkind in ('r', 'm', 't') and exists (
           select from pg_catalog.pg_index i
            where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indpred is null)
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join pg_catalog.pg_class owner on owner.reltoastrelid = c.oid
  left join pg_catalog.pg_namespace owner_schema on owner_schema.oid = owner.relnamespace
 where pg_catalog.pg_relation_filepath(c.oid) = any(%s)
"""


class NameDamage:
    """A path such as base/16384/16402 tells a person nothing; only the server knows what it belongs to."""

    name = "name-damage"
    title = "Find out what the damaged files belong to"

    def holds(self, run: Run) -> bool:
        """Tell whether no file is damaged, or the names were found."""
        return not FileCheck.load(run.workspace).findings or run.workspace.file_names.exists()

    def apply(self, run: Run, observer: Observer) -> None:  # noqa: ARG002 - it takes no time
        """Ask every database; what none knows keeps its path."""
        port = run.engine.status().port
        if port is None:
            raise ServerError("the server ended while it was checked", hint="Run the same command again.")
        paths = sorted({_first_file(found.object) for found in FileCheck.load(run.workspace).findings})
        names: dict[str, tuple[str, bool]] = {}
        try:
            with session(run.workspace, port) as connection:
                databases = [str(row[0]) for row in connection.execute(_DATABASES).fetchall()]
        except SessionError as error:
            raise ServerError(f"the server does not say which databases it has: {error}") from error
        for database in databases:
            try:
                with session(run.workspace, port, database) as connection:
                    found = connection.execute(_NAMES, (paths,)).fetchall()
            except SessionError:  # a database that cannot be read has its own finding
                continue
            for path, name, is_witnessed in found:
                # Shared catalogs are the same in every database.
                names[path] = (name if path.startswith("global/") else f"{database}.{name}", is_witnessed)
        write_atomically(run.workspace.file_names, json.dumps(names, indent=1) + "\n")

    def findings(self, run: Run) -> tuple[Finding, ...]:
        """Return what the check of the files found, with names."""
        names = _names(run.workspace)
        return tuple(_finding(found, names) for found in FileCheck.load(run.workspace).findings)


def damaged_files(workspace: Workspace) -> tuple[BlockMap, ...]:
    """Return which blocks of which files are damaged, with names."""
    names = _names(workspace)
    return tuple(
        dataclasses.replace(found, relation=_object(found.file, names)) for found in FileCheck.load(workspace).blocks
    )


def _finding(found: Finding, names: Mapping[str, _Named]) -> Finding:
    """Name what a finding is about; say of empty pages how much they matter.

    From 16 on a busy server leaves empty pages in its tables (RelationAddBlocks, hio.c). Where rows were in them, the
    entries of a unique index point at nothing, which is an error of its own; without such an index nobody can tell.
    """
    named = dataclasses.replace(found, object=_object(found.object, names))
    known = names.get(_first_file(found.object))
    if found.code != "zero_pages" or known is None or not known.is_witnessed:
        return named
    return dataclasses.replace(named, severity=Severity.INFO)


class _Named(NamedTuple):
    """What a file belongs to, and whether a unique index tells which rows should be in it."""

    name: str
    is_witnessed: bool


def _names(workspace: Workspace) -> Mapping[str, _Named]:
    if not workspace.file_names.exists():
        return {}
    return {path: _Named(*named) for path, named in json.loads(workspace.file_names.read_text()).items()}


def _object(path: str, names: Mapping[str, _Named]) -> str:
    known = names.get(_first_file(path))
    return f"{known.name} ({path})" if known else path


def _first_file(path: str) -> str:
    """Return the path of the main fork's first file, by which the server knows a relation."""
    match = _FILE.fullmatch(path)
    return match[1] if match else path
