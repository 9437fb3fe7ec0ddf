"""What the files of a table and of its key's index say before anything changes in them, written down in the notes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from pgrescue.errors import SnapshotError
from pgrescue.repair.notes import Evidence, Missing, Notes
from pgrescue.snapshot.broken_updates import broken_updates
from pgrescue.snapshot.index_keys import Key, KeyColumn, decode_keys
from pgrescue.snapshot.index_witness import EntryClass, Witness, classify_entries
from pgrescue.snapshot.key_hashes import Attribute, KeyLayout
from pgrescue.snapshot.missing_keys import missing_keys
from pgrescue.snapshot.relation import RelationFile
from pgrescue.snapshot.transaction_status import MultiXacts, TransactionStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

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
        self.notes = notes
        self._encoding = codec(str(connection.execute("show server_encoding").fetchall()[0][0]))
        self._attributes = _attributes(connection)

    def hear(self, table: Table) -> None:
        """Write down what the table's files say, unless that was done: later they say something else.

        A file that cannot be read is itself a fact, and is written down.
        """
        if self.notes.evidence(table) is not None or table.is_unlogged or table.path is None:
            return
        # Each thread has its own: they keep files in memory.
        status = TransactionStatus(self._pgdata, block_size=self._control.block_size)
        multixacts = MultiXacts(self._pgdata, self._control)
        heap = self._relation(table.path)
        try:
            if any(index.forbids_duplicates for index in table.indexes):
                self.notes.add_page_lsns(table, page_lsns(heap))
            if table.is_view:
                return
            broken = broken_updates(heap, status, multixacts)
            keys: list[dict[str, Any]] = []
            key = table.key
            if key is not None and key.path is not None:
                layout = self._layout(table, key)
                index = self._relation(key.path)
                witness = classify_entries(index, heap, status, multixacts, broken=broken, layout=layout)
                keys = _keys(witness, key, self._encoding)
                self.notes.add_deleted(table, witness.deleted)
        except SnapshotError as error:
            self.notes.add_evidence(table, Evidence(problem=error.problem))
            return
        tids = [f"({item.block},{item.offset})" for item in sorted(broken, key=lambda item: -item.updater)]
        self.notes.add_evidence(table, Evidence(tids, keys))

    def keep_key(self, table: Table) -> None:
        """Keep the old index of the table's key, unless it is kept or compared already; it must not be rebuilt yet.

        Raises DiskSpaceError. Any other failure is written down as a reason why lost rows cannot be named.
        """
        key = table.key
        if key is None or key.path is None or table.is_unlogged or table.is_view:
            return
        if self.notes.old_key(table) is not None or self.notes.missing(table) is not None:
            return
        try:
            self.notes.keep_old_key(table, self._pgdata / key.path)
        except OSError as error:
            problem = f"the old index of its key ({key.path}) could not be kept: {error.strerror}"
            self.notes.add_missing(table, Missing(problem=problem))

    def complete(self, connection: Connection, table: Table) -> Evidence | None:
        """Return the evidence with all keys that the old index knew and the rebuilt one does not.

        Those that `hear` did not suspect have the class "hidden"; those that it did, and that are there, are left out.
        """
        evidence, missing = self.notes.evidence(table), self._missing(connection, table)
        if missing is None:
            return evidence
        evidence = evidence or Evidence()
        names = {key_name(entry) for entry in missing.keys}
        known = {key_name(entry) for entry in evidence.keys}
        hidden = [
            {"class": "hidden", "is_newer": False, **entry} for entry in missing.keys if key_name(entry) not in known
        ]
        problem = missing.problem or evidence.problem
        is_whole = not problem and len(missing.keys) == missing.count
        if not problem and not is_whole:
            problem = f"the old index of its key has {missing.count} keys that no row has, too many to name them all"
        suspects = [entry for entry in evidence.keys if not is_whole or key_name(entry) in names]
        return Evidence(evidence.broken, suspects + hidden, problem)

    def _missing(self, connection: Connection, table: Table) -> Missing | None:
        """Compare the old index with the rebuilt one; None where there was nothing to be kept.

        The rebuilt one may be read as it is: building a b-tree writes its file itself (nbtsort.c). What is written to
        it later, and not yet in its file, is taken for missing, and found when it is looked up by its value.
        """
        known, old, key = self.notes.missing(table), self.notes.old_key(table), table.key
        if known is not None or old is None or key is None:
            return known
        ((path,),) = connection.execute("select pg_catalog.pg_relation_filepath(%s::oid)", (key.oid,)).fetchall()
        new = self._relation(path)
        if new.path.name == old.name:
            return Missing(problem="the index of its key could not be rebuilt")
        try:
            found = missing_keys(self._file(old), new, self._layout(table, key), deleted=self.notes.deleted(table))
        except SnapshotError as error:
            missing = Missing(problem=error.problem)
        else:
            missing = Missing(_decoded(found.raw, key, self._encoding), found.count)
        self.notes.add_missing(table, missing)
        return missing

    def _layout(self, table: Table, key: Index) -> KeyLayout:
        """Tell how the key lies in its index and in the table."""
        stored = key.stored[: len(key.keys)]
        attributes = self._attributes.get(table.oid, [])
        numbers = {name: number for number, (name, _) in enumerate(attributes)}
        places = tuple(numbers[name] for name in key.columns if name in numbers)
        # A name is stored as a string of its length, and so not as in the table.
        is_same = len(places) == len(stored) and all(
            attributes[place][1] == Attribute(item["length"], item["align"])
            for place, item in zip(places, stored, strict=True)
        )
        return KeyLayout(
            key=tuple(Attribute(item["length"], item["align"]) for item in stored),
            has_more=len(key.stored) > len(stored),
            attributes=tuple(attribute for _, attribute in attributes[: max(places, default=-1) + 1]),
            columns=places if is_same else None,
        )

    def _relation(self, path: str) -> RelationFile:
        return self._file(self._pgdata / path)

    def _file(self, path: Path) -> RelationFile:
        return RelationFile(
            path,
            block_size=self._control.block_size,
            segment_blocks=self._control.relation_segment_blocks,
        )


def key_name(entry: dict[str, Any]) -> str:
    """Return the same text for entries with the same key."""
    return json.dumps(entry["hex"] if entry["values"] is None else entry["values"], sort_keys=True)


def page_lsns(heap: RelationFile) -> NDArray[np.uint64]:
    """Return the LSN of every page of a table."""
    found = [pages.lsns for pages in heap.chunks()]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.uint64)


def _attributes(connection: Connection) -> dict[int, list[tuple[str, Attribute]]]:
    """Return the columns of every table of the session's database in their order, dropped ones included."""
    found: dict[int, list[tuple[str, Attribute]]] = {}
    for table, name, length, align in connection.execute(
        "select a.attrelid::bigint, a.attname, a.attlen, a.attalign::text from pg_catalog.pg_attribute a"
        " join pg_catalog.pg_class c on c.oid = a.attrelid"
        " where c.relkind = 'r' and c.oid >= 16384 and a.attnum > 0 order by a.attrelid, a.attnum"
    ).fetchall():
        found.setdefault(table, []).append((name, Attribute(length, align)))
    return found


def codec(encoding: str) -> str:
    """Return Python's name of a database's encoding; one that Python does not know leaves keys undecoded."""
    return _CODECS.get(encoding, encoding.replace("WIN", "cp"))


def _keys(witness: Witness, index: Index, encoding: str) -> list[dict[str, Any]]:
    """Return the keys of entries that lead to no visible row."""
    entries = [entry for entry_class in _TOLD for entry in witness.of(entry_class)]
    return [
        {"class": entry.entry_class.name.lower(), "is_newer": entry.index_is_newer, **key}
        for entry, key in zip(entries, _decoded([entry.raw for entry in entries], index, encoding), strict=True)
    ]


def _decoded(raw: Sequence[bytes], index: Index, encoding: str) -> list[dict[str, Any]]:
    """Return the keys of index tuples."""
    stored = index.stored[: len(index.keys)]
    columns = [KeyColumn(_type_oid(item), item["length"], item["align"], item["by_value"]) for item in stored]
    return [
        {"values": _values(key, index, stored), "hex": "" if key.is_decoded else item.hex()}
        for item, key in zip(raw, decode_keys(raw, columns, encoding=encoding), strict=True)
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
