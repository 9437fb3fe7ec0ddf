"""Moving what can be read of a damaged source, and naming everything else."""

from __future__ import annotations

import contextlib
import json
import threading
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from pgrescue.files import write_atomically
from pgrescue.model import Finding, Severity
from pgrescue.snapshot.hidden_rows import hidden_rows
from pgrescue.snapshot.relation import RelationFile
from pgrescue.transfer.compare import Compared, Content, content_query, read_content
from pgrescue.transfer.endpoint import is_lost, said, speaking_of
from pgrescue.transfer.load import TableProgress, copy_in, run_entry
from pgrescue.transfer.marker import mark
from pgrescue.transfer.stream import LibpqReader, copy_rows
from pgrescue.verify.toast import blocks_between

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pgrescue.transfer.compare import CompareLevel
    from pgrescue.transfer.load import Progress
    from pgrescue.transfer.schema import Entry
    from pgrescue.transfer.sessions import Pair
    from pgrescue.transfer.tables import Table

SCHEMA = 1
_CHUNK_BLOCKS = 2048
_RANGE_SCANS_SINCE = 14
# Line pointers take 4 bytes of a page of 32 kB at most; no page has more of them (bufpage.h, htup_details.h).
_MOST_ITEMS = 291
_SHOWN = 5


_FILES = """
select pg_catalog.pg_relation_filepath(%s::oid), pg_catalog.current_setting('block_size')::integer,
       (select setting::integer from pg_catalog.pg_settings where name = 'segment_size'),
       pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot())
"""


@dataclass
class TableLoss:
    """What of a table did not make it: whole blocks, and single rows, each with the reason.

    `kept` gives, for each block of which something is missing, the items that did make it. `ends` is the number of
    blocks that the table has.
    """

    ends: int
    blocks: dict[int, str] = field(default_factory=dict)
    rows: dict[str, str] = field(default_factory=dict)
    kept: dict[int, list[int]] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Tell whether the whole table made it."""
        return not (self.blocks or self.rows)


class Salvage:
    """One salvage: what it meets is written to the manifest before the target commits what was moved.

    So the manifest is exact also after any interruption. Any thread may call.
    """

    def __init__(self, manifest: Path | None, pgdata: Path | None = None) -> None:
        """Begin, or go on with what the manifest says; `pgdata` is where the source's files are, if they are here."""
        self._path = manifest
        self._pgdata = pgdata
        self._lock = threading.Lock()
        self._tables: dict[str, TableLoss] = {}
        self._constraints: dict[str, dict[str, str]] = {}
        self._large_objects: dict[int, str] = {}
        self._resume()

    def copy_table(self, pair: Pair, table: Table, progress: Progress) -> None:
        """Move the rows of a table that can be read and taken, in one transaction; raises RescueError."""
        loss, own = TableLoss(table.blocks), TableProgress(progress, table)
        worker = _Worker(pair, table, loss, own)
        with speaking_of(f"the rows of {table.label} could not be salvaged"), pair.target.transaction():
            if table.condition is None:
                pair.target.execute(sql.SQL("truncate {}").format(table.own_rows))
            rows = worker.run()
            loss.rows.update(self._hidden(pair, table))
            with self._lock:
                self._tables[table.label] = loss
                self._write()
            pair.target.execute(mark(table.key, rows))
        own.ended()

    def _hidden(self, pair: Pair, table: Table) -> Iterator[tuple[str, str]]:
        """Yield the rows that the server does not show and does not speak of; only files tell."""
        if self._pgdata is None:
            return
        row = pair.source.execute(_FILES, [table.oid]).fetchone()
        assert row is not None  # noqa: S101 - a select without a table
        path, block_size, segment_blocks, next_xid = row
        if path is None:
            return
        for block, item, xmin in hidden_rows(RelationFile(self._pgdata / path, block_size, segment_blocks), next_xid):
            yield f"({block},{item})", f"the server does not show it: its transaction {xmin} has not begun"

    def begin_anew(self) -> None:
        """Forget what an earlier transfer noted: another target is begun, and nothing is in it yet."""
        with self._lock:
            self._tables, self._constraints, self._large_objects = {}, {}, {}
            self._write()

    def lost_large_objects(self, unread: Sequence[tuple[int, str]]) -> None:
        """Note large objects that could not be read."""
        with self._lock:
            self._large_objects.update(unread)
            self._write()

    def without(self, pair: Pair, entry: Entry, error: psycopg.Error) -> None:
        """Do without an object that the data does not allow: a foreign key is added NOT VALID, others are left out."""
        problem, outcome = said(error), "left out"
        if entry.type == "FK CONSTRAINT":
            with contextlib.suppress(psycopg.Error):
                run_entry(pair.target, entry, f"{entry.sql.rstrip().removesuffix(';')} NOT VALID;")
                outcome = "not valid"
        with self._lock:
            self._constraints[str(entry)] = {"outcome": outcome, "reason": problem, "sql": entry.sql}
            self._write()
        if outcome == "left out":
            pair.target.execute(mark(entry.key))

    def findings(self) -> Iterator[Finding]:
        """Yield what did not make it; the manifest names each row and block."""
        where = f"Each one is in {self._path}." if self._path else ""
        for label, loss in sorted(self._tables.items()):
            if loss.is_empty:
                continue
            parts = []
            if loss.rows:
                parts.append(f"{len(loss.rows):,} rows that could not be read or were not taken")
            if loss.blocks:
                parts.append(f"{len(loss.blocks):,} of {loss.ends:,} blocks that could not be read at all")
            reasons = sorted({*loss.rows.values(), *loss.blocks.values()})[:_SHOWN]
            yield Finding(
                "rows_not_moved",
                Severity.WARNING,
                label,
                f"Without {' and '.join(parts)}: {'; '.join(reasons)}.",
                f"{where} Look them up elsewhere.".strip(),
                len(loss.rows) or None,
            )
        if self._large_objects:
            yield Finding(
                "rows_not_moved",
                Severity.WARNING,
                "large objects",
                f"{len(self._large_objects):,} could not be read.",
                f"{where} Look them up elsewhere.".strip(),
                len(self._large_objects),
            )
        for name, noted in sorted(self._constraints.items()):
            if noted["outcome"] == "left out":
                yield Finding(
                    "constraint_left_out",
                    Severity.WARNING,
                    name,
                    f"The data does not allow it, and it is not in the target: {noted['reason']}.",
                    f"Mend the rows, then run the statement in {self._path or 'the manifest'}.",
                )

    def left_out_counts(self) -> dict[str, int]:
        """Return how many objects of each kind that the comparison counts were left out."""
        counts: dict[str, int] = {}
        for name, noted in self._constraints.items():
            if noted["outcome"] != "left out":
                continue
            for kind in _kinds(name, noted["sql"]):
                counts[kind] = counts.get(kind, 0) + 1
        if self._large_objects:
            counts["large objects"] = len(self._large_objects)
        return counts

    def compare_table(self, pair: Pair, table: Table, level: CompareLevel) -> Compared:
        """Compare what is in the target with just those rows of the source that were moved; raises psycopg.Error."""
        there = read_content(pair.target, content_query(table, level, as_utf8=pair.converts))
        with pair.source.transaction():
            # A scan of the whole table would meet the damage.
            pair.source.execute("set local enable_seqscan = off")
            here = _total(
                read_content(pair.source, content_query(table, level, where, as_utf8=pair.converts))
                for where in _moved_rows(table, self._tables.get(table.label))
            )
        return Compared(table, here, there)

    def _write(self) -> None:
        if self._path is None:
            return
        document = {
            "schema": SCHEMA,
            "tables": {
                label: {
                    **asdict(loss),
                    "rows": [{"ctid": ctid, "reason": reason} for ctid, reason in loss.rows.items()],
                    "blocks": [{"block": block, "reason": reason} for block, reason in loss.blocks.items()],
                }
                for label, loss in sorted(self._tables.items())
                if not loss.is_empty
            },
            "large_objects": [{"oid": oid, "reason": reason} for oid, reason in sorted(self._large_objects.items())],
            "constraints": [{"name": name, **noted} for name, noted in sorted(self._constraints.items())],
        }
        write_atomically(self._path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")

    def _resume(self) -> None:
        """Read what an earlier run of the same transfer noted; a file that is not of one is begun anew."""
        if self._path is None or not self._path.exists():
            return
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            document: dict[str, Any] = json.loads(self._path.read_text())
            self._tables = {
                label: TableLoss(
                    noted["ends"],
                    {entry["block"]: entry["reason"] for entry in noted["blocks"]},
                    {entry["ctid"]: entry["reason"] for entry in noted["rows"]},
                    {int(block): items for block, items in noted["kept"].items()},
                )
                for label, noted in document["tables"].items()
            }
            self._large_objects = {entry["oid"]: entry["reason"] for entry in document["large_objects"]}
            self._constraints = {
                entry["name"]: {"outcome": entry["outcome"], "reason": entry["reason"], "sql": entry["sql"]}
                for entry in document["constraints"]
            }


class _Worker:
    """Moves one table's rows by ranges of blocks, and around damage by halves, to the single row."""

    def __init__(self, pair: Pair, table: Table, loss: TableLoss, progress: TableProgress) -> None:
        self._pair, self._table, self._loss, self._progress = pair, table, loss, progress
        self._into = copy_in(table, freezes=False)

    def run(self) -> int:
        """Move all that can be moved; return how many rows that were."""
        if self._table.condition is not None:
            return self._copy(None)
        # Before 14 every range of rows is a scan of the whole table.
        step = _CHUNK_BLOCKS
        if self._pair.source.info.server_version // 10000 < _RANGE_SCANS_SINCE:
            step = max(self._table.blocks, 1)
        return sum(
            self._range(first, min(first + step, self._table.blocks) - 1)
            for first in range(0, self._table.blocks, step)
        )

    def _range(self, first: int, last: int) -> int:
        try:
            return self._copy(blocks_between(first, last))
        except psycopg.Error as error:
            self._require_alive(error)
        if first < last:
            middle = (first + last) // 2
            return self._range(first, middle) + self._range(middle + 1, last)
        return self._block(first)

    def _block(self, block: int) -> int:
        """Move the rows of a block one by one; where all fail alike, it is the block that cannot be read."""
        kept: list[int] = []
        lost: dict[int, str] = {}
        for item in range(1, _MOST_ITEMS + 1):
            try:
                if self._copy(sql.SQL("ctid = {}::pg_catalog.tid").format(sql.Literal(f"({block},{item})"))):
                    kept.append(item)
            except psycopg.Error as error:
                self._require_alive(error)
                lost[item] = said(error)
        if len(lost) == _MOST_ITEMS:
            self._loss.blocks[block] = lost[1]
            return 0
        self._loss.rows.update({f"({block},{item})": reason for item, reason in lost.items()})
        if lost:
            self._loss.kept[block] = kept
        return len(kept)

    def _copy(self, where: sql.Composable | None) -> int:
        """Copy rows within savepoints of both sides; raises psycopg.Error, with both as they were before."""
        with self._pair.source.transaction(), self._pair.target.transaction():
            # A range of rows is no reason to read the whole table.
            self._pair.source.execute("set local enable_seqscan = off")
            return copy_rows(
                LibpqReader(self._pair.source),
                self._pair.target,
                self._table,
                where,
                into=self._into,
                on_bytes=self._progress.went,
                listens=False,
            )

    def _require_alive(self, error: psycopg.Error) -> None:
        """Raise an error that is not about the rows: a lost session, a full disk, a statement that was cancelled."""
        if is_lost(error) or self._pair.source.closed or self._pair.target.closed:
            raise error
        if (error.sqlstate or "").startswith(("53", "57", "42")):
            raise error


def _moved_rows(table: Table, loss: TableLoss | None) -> Iterator[sql.Composable | None]:
    """Yield conditions that together name the rows that were moved, none of which touches what cannot be read."""
    if loss is None or loss.is_empty:
        yield None
        return
    begin = 0
    for block in [*sorted({*loss.blocks, *loss.kept}), table.blocks]:
        if begin < block:
            yield blocks_between(begin, block - 1)
        begin = block + 1
        if kept := loss.kept.get(block):
            tids = ", ".join(f'"({block},{item})"' for item in kept)
            yield sql.SQL("ctid = any ({}::pg_catalog.tid[])").format(sql.Literal(f"{{{tids}}}"))


def _total(parts: Iterator[Content]) -> Content:
    rows, digest = 0, None
    for part in parts:
        rows += part.rows
        if part.digest is not None:
            digest = (digest or 0) + part.digest
    return Content(rows, digest)


def _kinds(name: str, statement: str) -> Iterator[str]:
    """Yield the kinds of objects that one entry would have made."""
    words = {"PRIMARY KEY": "primary keys", "UNIQUE": "unique constraints", "EXCLUDE": "exclusion constraints"}
    if name.startswith("index "):
        yield "indexes"
    elif name.startswith("constraint "):
        yield "indexes"
        for word, kind in words.items():
            if f" {word} " in statement:
                yield kind
                break
    elif name.startswith("fk constraint "):
        yield "foreign keys"
    elif name.startswith("trigger "):
        yield "triggers"
    elif name.startswith("policy "):
        yield "policies"
