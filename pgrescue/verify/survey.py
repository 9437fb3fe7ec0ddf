"""What one database holds: its relations with their files, as the catalogs tell and as the disk does."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pgrescue.verify.target import load_sql, rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pgrescue.verify.target import Connection
    from pgrescue.verify.tools import Tools

_SEGMENT = re.compile(r"(?P<main>.*?)(?P<fork>_(?:fsm|vm|init))?(?:\.(?P<number>\d+))?")
_CATALOG_SCHEMA = "pg_catalog"


@dataclass(frozen=True)
class Relation:
    """A relation with storage; `path` is its first file in the data directory, None where the server knows none.

    `table` is the OID of an index's table, `toast_of` the name of a TOAST table's. `sound` says of an index that it is
    valid and in use, `populated` of a materialized view that it was filled.
    """

    oid: int
    schema: str
    name: str
    kind: str
    persistence: str
    shared: bool
    method: str
    path: str | None
    populated: bool
    table: int
    unique: bool
    sound: bool
    toast_of: str

    @property
    def is_heap(self) -> bool:
        """Tell whether rows lie in it as PostgreSQL's own heap."""
        return self.kind == "S" or (self.kind in "rtm" and self.method == "heap")

    @property
    def is_index(self) -> bool:
        """Tell whether it is an index."""
        return self.kind == "i"

    @property
    def is_catalog(self) -> bool:
        """Tell whether it belongs to the system."""
        return self.schema == _CATALOG_SCHEMA


@dataclass(frozen=True)
class Survey:
    """One database. `has_shared` says that the relations of the whole cluster are checked as part of this one.

    `files` are all relation files of the database's directories with their sizes in bytes.
    """

    database: str
    oid: int
    major: int
    block_size: int
    segment_blocks: int
    encoding: str
    has_shared: bool
    relations: tuple[Relation, ...]
    files: Mapping[str, int]
    directories: tuple[str, ...]
    tools: Tools

    def label(self, relation: Relation) -> str:
        """Name a relation for a person."""
        table = self.by_oid(relation.table)
        toast_of = relation.toast_of or (table.toast_of if table is not None else "")
        of = f" (TOAST of {toast_of})" if toast_of else ""
        return f"{self.database}.{relation.schema}.{relation.name}{of}"

    def checked(self) -> Iterator[Relation]:
        """Yield the relations that are this database's to check."""
        return (relation for relation in self.relations if self.has_shared or not relation.shared)

    def by_oid(self, oid: int) -> Relation | None:
        """Return a relation."""
        return self._by_oid.get(oid)

    def size_bytes(self, relation: Relation) -> int:
        """Return the size of a relation's main fork on disk."""
        return sum(self.segments.get(relation.path or "", {}).values())

    def blocks(self, relation: Relation) -> int:
        """Return how many blocks the server sees: up to the first segment that is not full (md.c)."""
        count, segments = 0, self.segments.get(relation.path or "", {})
        for number in range(len(segments)):
            blocks = min(segments.get(number, 0) // self.block_size, self.segment_blocks)
            count += blocks
            if blocks < self.segment_blocks:
                break
        return count

    @cached_property
    def segments(self) -> Mapping[str, Mapping[int, int]]:
        """The files by the path of the first file of their fork, each with the sizes of its segments by number."""
        found: dict[str, dict[int, int]] = defaultdict(dict)
        for path, size in self.files.items():
            match = _SEGMENT.fullmatch(path)
            if match is not None:
                found[match["main"] + (match["fork"] or "")][int(match["number"] or 0)] = size
        return found

    @cached_property
    def _by_oid(self) -> Mapping[int, Relation]:
        return {relation.oid: relation for relation in self.relations}


def take_survey(connection: Connection, database: str, *, has_shared: bool, tools: Tools) -> Survey:
    """Read what a database holds."""
    ((oid, major, block_size, segment_blocks, encoding),) = rows(
        connection,
        "select oid::bigint, current_setting('server_version_num')::int / 10000,"
        " current_setting('block_size')::int, s.setting::int, current_setting('server_encoding')"
        " from pg_database, pg_settings s where datname = current_database() and s.name = 'segment_size'",
    )
    relations = tuple(Relation(*row) for row in rows(connection, load_sql("survey")))
    own = _directories(connection, oid)
    directories = (*own, *(("global",) if has_shared else ()))
    files = connection.execute(load_sql("files").encode(), {"directories": list(directories)}).fetchall()
    return Survey(
        database=database,
        oid=oid,
        major=major,
        block_size=block_size,
        segment_blocks=segment_blocks,
        encoding=encoding,
        has_shared=has_shared,
        relations=relations,
        files={path: size for path, size in files if size is not None},
        directories=directories,
        tools=tools,
    )


def _directories(connection: Connection, database_oid: int) -> tuple[str, ...]:
    """Return the directories of a database: one in base/, and one in each tablespace that has one."""
    ((version,),) = rows(
        connection,
        "select 'PG_' || current_setting('server_version_num')::int / 10000 || '_' || catalog_version_no"
        " from pg_control_system()",
    )
    spaces = [oid for (oid,) in rows(connection, "select oid::text from pg_tablespace where oid not in (1663, 1664)")]
    return (f"base/{database_oid}", *(f"pg_tblspc/{oid}/{version}/{database_oid}" for oid in spaces))
