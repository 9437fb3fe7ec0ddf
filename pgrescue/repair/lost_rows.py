"""Rows that the copy no longer has in any version, by what the old index of their key still knew."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from pgrescue.model import Finding, Severity
from pgrescue.repair.outcome import Fate, Outcome
from pgrescue.repair.site import raw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.repair.notes import Evidence
    from pgrescue.repair.site import Connection
    from pgrescue.repair.survey import Index, Table

_BATCH = 1000
_WHY = {
    "nowhere": "the index leads to a place where there is no row",
    "dead": "the row was deleted, or updated to a version that is not in the copy",
    "superseded": "the row was updated to a version that is not in the copy",
    "hidden": "the index leads to a place that another row has taken since, or that tells nothing of this one any more",
    "undecided": "the end of the transaction that wrote the row is not in pg_xact",
}


def tell_lost(
    connection: Connection,
    table: Table,
    evidence: Evidence,
    outcome: Outcome,
    *,
    aside: sql.Composable | None = None,
) -> None:
    """Name the keys that the old index knew and that no visible row has, by what may have become of them.

    `aside` is where rows of the table were set aside: these are not lost. The session uses indexes, and finds the
    operators of the key's types.
    """
    if evidence.problem:
        outcome.tell(_unchecked(table, evidence.problem))
    key = table.key
    if key is None or not evidence.keys:
        return
    fates: dict[str, tuple[Fate, dict[str, Any]]] = {}
    for entry in _missing(connection, table, key, evidence.keys, aside):
        shown = entry["values"] if entry["values"] is not None else {"hex": entry["hex"]}
        fate = _fate(entry)
        name = json.dumps(shown, sort_keys=True)
        # One key may have several entries, one for each version that the row had: the surest word counts.
        if name not in fates or list(Fate).index(fate) < list(Fate).index(fates[name][0]):
            fates[name] = fate, {"key": shown, "why": _WHY[entry["class"]]}
    for fate in (Fate.LOST, Fate.UNDECIDED, Fate.PERHAPS_LOST):
        rows = [row for found, row in fates.values() if found is fate]
        if rows:
            outcome.add(table.database, f"{table.schema}.{table.name}", fate, rows)
            outcome.tell(_finding(table, fate, len(rows)))


def _fate(entry: dict[str, Any]) -> Fate:
    match entry["class"]:
        case "undecided":
            return Fate.UNDECIDED
        case "nowhere" if entry["is_newer"]:
            return Fate.LOST
        case _:
            return Fate.PERHAPS_LOST


def _missing(
    connection: Connection, table: Table, key: Index, entries: list[dict[str, Any]], aside: sql.Composable | None
) -> Iterator[dict[str, Any]]:
    """Yield the entries whose key no row has; a key that could not be decoded or looked up is one of them."""
    types = {column.name: column.type for column in table.columns}
    decoded = []
    for entry in entries:
        if entry["values"] is None:
            yield entry
        elif None not in entry["values"].values():  # a NULL names no row
            decoded.append(entry)
    same = sql.SQL(" and ").join(
        sql.SQL("t.{} = v.{}::{}").format(sql.Identifier(name), sql.Identifier(f"k{number}"), raw(types[name]))
        for number, name in enumerate(key.columns)
    )
    places = [table.qualified] if aside is None else [table.qualified, aside]
    absent = sql.SQL(" and ").join(
        sql.SQL("not exists (select from only {} t where {})").format(place, same) for place in places
    )
    names = [sql.Identifier("n"), *(sql.Identifier(f"k{number}") for number in range(len(key.columns)))]
    for begin in range(0, len(decoded), _BATCH):
        batch = decoded[begin : begin + _BATCH]
        values = sql.SQL(", ").join(
            sql.SQL("({})").format(
                sql.SQL(", ").join(
                    [sql.Literal(number), *(sql.SQL("{}::text").format(text) for text in _texts(entry, key))]
                )
            )
            for number, entry in enumerate(batch)
        )
        try:
            rows = connection.execute(
                sql.SQL("select v.n from (values {}) as v ({}) where {} order by v.n").format(
                    values, sql.SQL(", ").join(names), absent
                )
            ).fetchall()
        except psycopg.Error:
            if connection.closed:
                raise
            yield from batch
        else:
            for (number,) in rows:
                yield batch[number]


def _texts(entry: dict[str, Any], key: Index) -> list[sql.Literal]:
    return [sql.Literal(entry["values"][name]) for name in key.columns]


def _finding(table: Table, fate: Fate, rows: int) -> Finding:
    match fate:
        case Fate.LOST:
            code = "rows_lost"
            detail = (
                "These rows were there when the index of their key was copied, and are in the copy of the table in "
                "no version: its pages had been copied before they were written."
            )
        case Fate.UNDECIDED:
            code = "rows_undecided"
            detail = (
                "The transactions that wrote these rows have no end in the copy of pg_xact. They read as not "
                "committed; they may have been committed after pg_xact was copied, or rolled back."
            )
        case _:
            code = "rows_perhaps_lost"
            detail = (
                "The index of their key knew these rows, and the table has no visible version of them: they were "
                "deleted before the copy was made, or their newest version was lost. Nobody can tell from the files."
            )
    return Finding(
        code, Severity.WARNING, table.object, detail, "The manifest names each key: look it up elsewhere.", rows
    )


def _unchecked(table: Table, problem: str) -> Finding:
    return Finding(
        "lost_rows_unchecked",
        Severity.WARNING,
        table.object,
        f"Whether rows of this table were lost could not be found out, or not for all: {problem}.",
        "Compare its rows with what you know of them.",
    )
