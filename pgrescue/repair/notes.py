"""What the repair must remember when it is killed: it lies in removed/, which goes when the copy is made anew."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pgrescue.files import write_atomically
from pgrescue.model import Finding, Severity

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pgrescue.repair.outcome import Row
    from pgrescue.repair.survey import Table
    from pgrescue.workspace import Workspace


@dataclass(frozen=True)
class Evidence:
    """What a table's files say that the server cannot see, read before anything changed in them.

    `broken` are older versions of rows whose newest version is nowhere, newest first, as `(block,item)`. `keys` are
    entries of the key's old index that lead to no row: `fate` is the reader's word, `is_newer` tells that the index was
    copied after the table's page, `values` holds the key's columns as text, or None where `hex` is all that is known.
    """

    broken: list[str] = field(default_factory=list)
    keys: list[dict[str, Any]] = field(default_factory=list)
    problem: str = ""


class Notes:
    """Files below removed/repair; each is written once, and read again by a second attempt."""

    def __init__(self, workspace: Workspace) -> None:
        self._root = workspace.removed / "repair"
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._catalog_rows: list[Row] = self._load("catalogs.json", [])

    def catalog_rows(self) -> list[Row]:
        """Return the rows of catalogs that were removed."""
        return self._catalog_rows

    def add_catalog_rows(self, rows: list[Row]) -> None:
        """Remember rows that are about to be removed; one that is known already stays known once."""
        self._catalog_rows = self._catalog_rows + [row for row in rows if row not in self._catalog_rows]
        self._keep("catalogs.json", self._catalog_rows)

    def facts(self) -> list[Finding]:
        """Return what was done once, and would not be found to do a second time."""
        stored: list[dict[str, Any]] = self._load("facts.json", [])
        return [Finding(**{**found, "severity": Severity(found["severity"])}) for found in stored]

    def add_fact(self, finding: Finding) -> None:
        """Remember what is about to be done; only one thread may tell."""
        known = {(fact.code, fact.object): fact for fact in self.facts()}
        known.setdefault((finding.code, finding.object), finding)
        self._keep("facts.json", [asdict(fact) for fact in known.values()])

    def quarantine_schemas(self) -> dict[str, str]:
        """Return the name of the quarantine's schema in each database, as far as chosen."""
        found: dict[str, str] = self._load("quarantine.json", {})
        return found

    def add_quarantine_schema(self, database: str, schema: str) -> None:
        """Remember it; only one thread may ask."""
        self._keep("quarantine.json", {**self.quarantine_schemas(), database: schema})

    def evidence(self, table: Table) -> Evidence | None:
        """Return what was read of the table's files, None where nothing was."""
        document = self._load(f"{_name(table)}.json", None)
        return None if document is None else Evidence(**document)

    def add_evidence(self, table: Table, evidence: Evidence) -> None:
        """Remember it."""
        self._keep(f"{_name(table)}.json", asdict(evidence))

    def page_lsns(self, table: Table) -> NDArray[np.uint64] | None:
        """Return the LSN of each page of the table, as the copy had them."""
        path = self._root / f"{_name(table)}.lsns"
        return np.frombuffer(path.read_bytes(), dtype="<u8") if path.exists() else None

    def add_page_lsns(self, table: Table, lsns: NDArray[np.uint64]) -> None:
        """Remember them."""
        write_atomically(self._root / f"{_name(table)}.lsns", lsns.astype("<u8").tobytes())

    def _load(self, name: str, default: object) -> Any:  # noqa: ANN401 - what JSON holds
        path: Path = self._root / name
        return json.loads(path.read_text()) if path.exists() else default

    def _keep(self, name: str, document: object) -> None:
        write_atomically(self._root / name, json.dumps(document, ensure_ascii=False) + "\n")


def _name(table: Table) -> str:
    """Name the notes of a table by its file, which is one of a kind in the copy."""
    return (table.path or str(table.oid)).replace("/", "-")
