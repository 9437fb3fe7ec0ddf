"""What the repair must remember when it is killed: it lies in removed/, which goes when the copy is made anew."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pgrescue.errors import DiskSpaceError
from pgrescue.files import write_atomically
from pgrescue.model import Finding

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pgrescue.repair.outcome import Row
    from pgrescue.repair.survey import Table
    from pgrescue.workspace import Workspace

_COPIED_AT_ONCE = 1 << 30
_FULL = (errno.ENOSPC, errno.EDQUOT)


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


@dataclass(frozen=True)
class Missing:
    """What the key's old index knew and its new one does not: `values` and `hex` as in Evidence, and how many."""

    keys: list[dict[str, Any]] = field(default_factory=list)
    count: int = 0
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
        return [Finding.from_document(found) for found in stored]

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

    def deleted(self, table: Table) -> NDArray[np.uint64]:
        """Return the fingerprints of the key's entries whose rows were deleted before the copy was made."""
        path = self._root / f"{_name(table)}.deleted"
        return np.frombuffer(path.read_bytes() if path.exists() else b"", dtype="<u8")

    def add_deleted(self, table: Table, fingerprints: NDArray[np.uint64]) -> None:
        """Remember them."""
        write_atomically(self._root / f"{_name(table)}.deleted", fingerprints.astype("<u8").tobytes())

    def missing(self, table: Table) -> Missing | None:
        """Return what the rebuilt index of the table's key lacks, None where that was not found out."""
        document = self._load(f"{_name(table)}.missing.json", None)
        return None if document is None else Missing(**document)

    def add_missing(self, table: Table, missing: Missing) -> None:
        """Remember it, and let go of the old index."""
        self._keep(f"{_name(table)}.missing.json", asdict(missing))
        shutil.rmtree(self._key_directory(table), ignore_errors=True)

    def old_key(self, table: Table) -> Path | None:
        """Return the first file of the old index of the table's key, None where it was not kept."""
        directory = self._key_directory(table)
        return min(directory.iterdir(), key=lambda path: path.suffix) if directory.is_dir() else None

    def keep_old_key(self, table: Table, index: Path) -> None:
        """Copy the files of the index of the table's key under their own names, all or none.

        A link would not do: REINDEX cuts the old files to nothing before it unlinks them (mdunlinkfork in md.c).
        Raises OSError where that is not possible, and DiskSpaceError where there is no room.
        """
        target = self._key_directory(table)
        aside = target.with_name(f"{target.name}.part")
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(mode=0o700)
            number, source = 0, index
            while not number or source.exists():
                _copy(source, aside / source.name)
                number += 1
                source = index.with_name(f"{index.name}.{number}")
            aside.rename(target)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            if error.errno in _FULL:
                raise DiskSpaceError(
                    f"the disk is full: {index} cannot be kept while it is rebuilt",
                    hint="Free some space and run the same command again.",
                ) from error
            raise

    def _key_directory(self, table: Table) -> Path:
        return self._root / f"{_name(table)}.key"

    def _load(self, name: str, default: object) -> Any:  # noqa: ANN401 - what JSON holds
        path: Path = self._root / name
        return json.loads(path.read_text()) if path.exists() else default

    def _keep(self, name: str, document: object) -> None:
        write_atomically(self._root / name, json.dumps(document, ensure_ascii=False) + "\n")


def _copy(source: Path, target: Path) -> None:
    """Copy a file; where the file system can, the two share their blocks, which takes neither time nor room."""
    if sys.platform == "linux":
        with source.open("rb") as reader, target.open("xb") as writer:
            try:
                while os.copy_file_range(reader.fileno(), writer.fileno(), _COPIED_AT_ONCE):
                    pass
            except OSError as error:
                if error.errno in _FULL:
                    raise
            else:
                return
    shutil.copyfile(source, target)


def _name(table: Table) -> str:
    """Name the notes of a table by its file, which is one of a kind in the copy."""
    return (table.path or str(table.oid)).replace("/", "-")
