"""Check: no index entry points where no row ever was: the direction in which amcheck does not look."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from pgrescue.errors import SnapshotError
from pgrescue.model import Finding, Severity
from pgrescue.snapshot.index_witness import Dangling, dangling_entries
from pgrescue.snapshot.relation import RelationFile
from pgrescue.verify.not_run import not_run
from pgrescue.verify.target import listed, words

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgrescue.verify.survey import Relation, Survey
    from pgrescue.verify.target import Connection, Fact

_SHOWN = 5


def check_entries(connection: Connection, survey: Survey, relation: Relation, *, pgdata: Path) -> Iterator[Fact]:
    """Read a b-tree and its table from the disk, which a CHECKPOINT has made current."""
    table = survey.by_oid(relation.table)
    if table is None or table.path not in survey.files or relation.path not in survey.files:
        return  # told by the checks of catalogs and files
    index_file, table_file = (
        RelationFile(pgdata / path, survey.block_size, survey.segment_blocks)
        for path in (relation.path or "", table.path or "")
    )
    try:
        found = dangling_entries(index_file, table_file, most_examples=_SHOWN)
        if found.count:
            # A vacuum against wraparound runs even with autovacuum off: what it wrote may not all be on the disk.
            connection.execute("checkpoint")
            found = dangling_entries(index_file, table_file, most_examples=_SHOWN)
    except (SnapshotError, psycopg.Error) as error:
        if connection.closed:
            raise
        problem = error.problem if isinstance(error, SnapshotError) else words(error)
        yield not_run(
            f"entries of {survey.label(relation)}",
            f"The files of the index and its table cannot be compared: {problem}.",
            "Look at the other findings of this index and its table.",
        )
        return
    if found.count:
        yield _told(survey, relation, table, found)


def _told(survey: Survey, relation: Relation, table: Relation, found: Dangling) -> Finding:
    examples = [f"({entry.heap_block},{entry.heap_offset})" for entry in found.examples]
    return Finding(
        "index_points_nowhere",
        Severity.ERROR,
        survey.label(relation),
        f"{found.count} of {found.entries} entries lead to no row of {table.name}, where one was: rows are lost, or "
        f"the index is of another moment than its table: {listed(examples, total=found.count, shown=_SHOWN)}.",
        "Note the keys before REINDEX destroys them: they name lost rows. Look for another snapshot or for the WAL.",
        found.count,
    )
