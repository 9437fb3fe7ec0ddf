"""What the files of a table and of its key's index say before anything changes in them, written down in the notes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pgrescue.errors import SnapshotError
from pgrescue.repair.notes import Evidence, Notes
from pgrescue.snapshot.broken_updates import broken_updates
from pgrescue.snapshot.index_keys import Key, KeyColumn, decode_keys
from pgrescue.snapshot.index_witness import EntryClass, Witness, classify_entries
from pgrescue.snapshot.relation import RelationFile
from pgrescue.snapshot.transaction_status import MultiXacts, TransactionStatus

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pgrescue.repair.site import Connection, Site
    from pgrescue.repair.survey import Index, Table

_TOLD = (EntryClass.NOWHERE, EntryClass.DEAD, EntryClass.SUPERSEDED, EntryClass.UNDECIDED)
_TEXT_OID, _OID_OID = 25, 26
_LIKE_TEXT = frozenset({"citext"})
_CODECS = {"UTF8": "utf-8", "SQL_ASCII": "utf-8", "KOI8R": "koi8-r", "KOI8U": "koi8-u", "SJIS": "shift_jis"}


class Witnesses:
    """Reads the files of one database's tables; the server must have written everything to them (CHECKPOINT)."""

    def __init__(self, site: Site, connection: Connection, notes: Notes) -> None:
        self._pgdata = site.run.workspace.pgdata
        self._control = site.run.snapshot.chosen.control
        self._notes = notes
        self._encoding = codec(str(connection.execute("show server_encoding").fetchall()[0][0]))

    def hear(self, table: Table) -> None:
        """Write down what the table's files say, unless that was done: later they say something else.

        A file that cannot be read is itself a fact, and is written down.
        """
        if self._notes.evidence(table) is not None or table.is_unlogged or table.path is None:
            return
        # Each thread has its own: they keep files in memory.
        status = TransactionStatus(self._pgdata, block_size=self._control.block_size)
        multixacts = MultiXacts(self._pgdata, self._control)
        heap = self._relation(table.path)
        try:
            if any(index.forbids_duplicates for index in table.indexes):
                self._notes.add_page_lsns(table, page_lsns(heap))
            if table.is_view:
                return
            broken = broken_updates(heap, status, multixacts)
            keys: list[dict[str, Any]] = []
            problem = ""
            key = table.key
            if key is not None and key.path is not None:
                witness = classify_entries(self._relation(key.path), heap, status, multixacts, broken=broken)
                keys = _keys(witness, key, self._encoding)
                if not witness.is_complete:
                    problem = "its index leads nowhere so often that not every key was looked at"
        except SnapshotError as error:
            self._notes.add_evidence(table, Evidence(problem=error.problem))
            return
        tids = [f"({item.block},{item.offset})" for item in sorted(broken, key=lambda item: -item.updater)]
        self._notes.add_evidence(table, Evidence(tids, keys, problem))

    def _relation(self, path: str) -> RelationFile:
        return RelationFile(
            self._pgdata / path,
            block_size=self._control.block_size,
            segment_blocks=self._control.relation_segment_blocks,
        )


def page_lsns(heap: RelationFile) -> NDArray[np.uint64]:
    """Return the LSN of every page of a table."""
    found = [pages.lsns for pages in heap.chunks()]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.uint64)


def codec(encoding: str) -> str:
    """Return Python's name of a database's encoding; one that Python does not know leaves keys undecoded."""
    return _CODECS.get(encoding, encoding.replace("WIN", "cp"))


def _keys(witness: Witness, index: Index, encoding: str) -> list[dict[str, Any]]:
    """Return the keys of entries that lead to no visible row."""
    entries = [entry for entry_class in _TOLD for entry in witness.of(entry_class)]
    stored = index.stored[: len(index.keys)]
    columns = [KeyColumn(_type_oid(item), item["length"], item["align"], item["by_value"]) for item in stored]
    decoded = decode_keys([entry.raw for entry in entries], columns, encoding=encoding)
    return [
        {
            "class": entry.entry_class.name.lower(),
            "is_newer": entry.index_is_newer,
            "values": _values(key, index, stored),
            "hex": "" if key.is_decoded else entry.raw.hex(),
        }
        for entry, key in zip(entries, decoded, strict=True)
    ]


def _type_oid(stored: dict[str, Any]) -> int:
    """Return the type as which a value is read: others are stored as text, and enums as the OID of their label."""
    if stored["type"] in _LIKE_TEXT:
        return _TEXT_OID
    return _OID_OID if stored["labels"] else int(stored["oid"])


def _values(key: Key, index: Index, stored: tuple[dict[str, Any], ...]) -> dict[str, str | None] | None:
    """Return a key by column, None where it could not be decoded."""
    if not key.is_decoded:
        return None
    return {
        name: value if value is None or not item["labels"] else item["labels"].get(value, value)
        for name, value, item in zip(index.columns, key.values, stored, strict=True)
    }
