"""What the repair found and did, gathered from several threads, as findings and as the manifest of single rows."""

from __future__ import annotations

import dataclasses
import json
import threading
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgrescue.model import Finding, Severity

Row = dict[str, Any]


class Fate(StrEnum):
    """What became of a row, as the manifest names it."""

    SET_ASIDE = "set_aside"
    BROUGHT_BACK = "brought_back"
    LOST = "lost"
    PERHAPS_LOST = "perhaps_lost"
    UNDECIDED = "undecided"
    UNCERTAIN = "uncertain"


@dataclass
class TableRows:
    """The rows of one table that something became of."""

    database: str
    table: str
    rows: dict[Fate, list[Row]] = field(default_factory=lambda: {fate: [] for fate in Fate})


@dataclass
class Outcome:
    """Everything so far; any thread may add."""

    told: dict[tuple[str, str], Finding] = field(default_factory=dict)
    tables: dict[tuple[str, str], TableRows] = field(default_factory=dict)
    catalog_rows: list[Row] = field(default_factory=list)
    foreign_keys: dict[tuple[str, str, str], Row] = field(default_factory=dict)
    rebuilt: set[tuple[str, str]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def findings(self) -> list[Finding]:
        """The findings, what matters most first."""
        with self._lock:
            return sorted(self.told.values(), key=_order)

    def tell(self, finding: Finding) -> None:
        """Add a finding; a second one of the same code and object replaces it, as when work is done again."""
        with self._lock:
            self.told[finding.code, finding.object] = finding

    def add(self, database: str, table: str, fate: Fate, rows: Sequence[Row]) -> None:
        """Say which rows of a table, named `schema.table`, have this fate."""
        with self._lock:
            known = self.tables.setdefault((database, table), TableRows(database, table))
            known.rows[fate] = list(rows)

    def count_rebuilt(self, database: str, index: str) -> None:
        """Count an index that was rebuilt."""
        with self._lock:
            self.rebuilt.add((database, index))

    def manifest(self) -> str:
        """Return the manifest: every single row, with no limit."""
        return "".join(self._manifest())

    def _manifest(self) -> Iterator[str]:
        """Yield the JSON in pieces, one row to a line."""
        yield '{"schema": 1, "tables": ['
        for number, (_, table) in enumerate(sorted(self.tables.items())):
            yield f'{"," if number else ""}\n{{"database": {_json(table.database)}, "table": {_json(table.table)}'
            for fate in Fate:
                yield f', "{fate}": [{_lines(table.rows[fate])}]'
            yield "}"
        yield f'\n],\n"catalog_rows_removed": [{_lines(self.catalog_rows)}]'
        yield f',\n"foreign_keys": [{_lines([row for _, row in sorted(self.foreign_keys.items())])}]}}\n'


def findings_document(findings: Sequence[Finding]) -> str:
    """Return findings as JSON."""
    return json.dumps({"findings": [dataclasses.asdict(finding) for finding in findings]}, indent=1) + "\n"


def _order(finding: Finding) -> tuple[int, str, str]:
    """Sort findings by how much they matter, then by code and object."""
    weight: dict[Severity, int] = {severity: number for number, severity in enumerate(reversed(type(finding.severity)))}
    return weight[finding.severity], finding.code, finding.object


def _lines(rows: Sequence[Row]) -> str:
    return ",".join(f"\n {_json(row)}" for row in rows)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
