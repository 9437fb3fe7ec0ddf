"""Sequences that would give numbers out again: they were copied before the rows that took these."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from pgrescue.model import Finding, Severity
from pgrescue.repair.site import query, said

if TYPE_CHECKING:
    from pgrescue.repair.notes import Notes
    from pgrescue.repair.outcome import Outcome
    from pgrescue.repair.site import Connection


def move_sequences(connection: Connection, database: str, notes: Notes, outcome: Outcome) -> None:
    """Set each sequence past the columns that it feeds and those that refer to these, never back."""
    rows = connection.execute(query("sequences")).fetchall()
    for (_, schema, name), columns in itertools.groupby(rows, key=lambda row: row[:3]):
        try:
            _move(connection, database, (schema, name), list(columns), notes)
        except psycopg.Error as error:
            if connection.closed:
                raise
            outcome.tell(
                Finding(
                    "sequence_broken",
                    Severity.WARNING,
                    f"{database}.{schema}.{name}",
                    f"It could not be compared with the columns that it feeds: {said(error)}",
                    "Set it by hand: select setval(…, (select max(…) from …))",
                )
            )


def _move(
    connection: Connection,
    database: str,
    sequence: tuple[str, str],
    columns: list[tuple[object, ...]],
    notes: Notes,
) -> None:
    increment, lowest, highest = (int(str(value)) for value in columns[0][7:10])
    extreme = sql.SQL("max" if increment > 0 else "min")
    values = [
        value
        for _, _, _, schema, table, column, is_partitioned, *_ in columns
        for (value,) in connection.execute(
            sql.SQL("select pg_catalog.{}({}) from {}{}").format(
                extreme,
                sql.Identifier(str(column)),
                sql.SQL("" if is_partitioned else "only "),
                sql.Identifier(str(schema), str(table)),
            )
        ).fetchall()
        if value is not None and lowest <= value <= highest
    ]
    if not values:
        return
    last, is_called = connection.execute(
        sql.SQL("select last_value, is_called from {}").format(sql.Identifier(*sequence))
    ).fetchall()[0]
    used = max(values) if increment > 0 else min(values)
    following = last + increment if is_called else last
    if (used < following) if increment > 0 else (used > following):
        return
    schema, table, column = columns[0][3:6]
    notes.add_fact(
        Finding(
            "sequence_moved",
            Severity.INFO,
            f"{database}.{sequence[0]}.{sequence[1]}",
            f"It stood at {last}, behind {used} in {schema}.{table}.{column} or in what refers to it, and was set to "
            "that: its next number would have been given out twice.",
            "Nothing to do. Numbers that were given out and did not reach the copy may come again.",
        )
    )
    connection.execute(
        sql.SQL("select pg_catalog.setval({}::pg_catalog.oid::pg_catalog.regclass, {}, true)").format(
            sql.Literal(columns[0][0]), sql.Literal(used)
        )
    )
