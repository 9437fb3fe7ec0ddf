"""What of a database holds rows: its tables, and the values of its sequences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from pgrescue.transfer.facts import query

if TYPE_CHECKING:
    from pgrescue.transfer.endpoint import Connection


@dataclass(frozen=True)
class Table:
    """A table with rows of its own.

    `columns` are those that are stored, generated ones left out. `condition` restricts a table of an extension to the
    user's rows. `is_plain` tells whether the binary form of its values means the same in another cluster. `forces_rls`
    tells whether even its owner is under its policies. `blocks` counts the pages of its heap.
    A partitioned table has `leaves`: the labels of the partitions that it stands for.
    """

    oid: int
    schema: str
    name: str
    size_bytes: int
    condition: str | None
    forces_rls: bool
    columns: tuple[str, ...]
    is_plain: bool
    blocks: int
    access_method: str | None
    leaves: tuple[str, ...] = ()

    @property
    def identifier(self) -> sql.Identifier:
        """Its name in a statement."""
        return sql.Identifier(self.schema, self.name)

    @property
    def column_list(self) -> sql.Composed:
        """Its columns in a statement, separated by commas."""
        return sql.SQL(", ").join(sql.Identifier(name) for name in self.columns)

    @property
    def own_rows(self) -> sql.Composed:
        """Its rows in a statement, without those of its children; a partitioned table's are those of all partitions."""
        return sql.SQL("{}" if self.leaves else "only {}").format(self.identifier)

    @property
    def label(self) -> str:
        """Its name for a person."""
        return f"{self.schema}.{self.name}"

    @property
    def key(self) -> str:
        """Its name among the tasks."""
        return f"data:{self.schema}.{self.name}"

    def rows(self, where: sql.Composable | None = None) -> sql.Composed:
        """Return the query for its own rows, those of its children not among them."""
        parts: list[sql.Composable] = [sql.SQL("select {} from {}").format(self.column_list, self.own_rows)]
        if self.condition:
            # An extension's own text: "WHERE …" (pg_extension_config_dump).
            parts.append(sql.SQL(self.condition))
        elif where is not None:
            parts += [sql.SQL("where"), where]
        return sql.SQL(" ").join(parts)


@dataclass(frozen=True)
class Sequence:
    """A sequence and where it stands."""

    schema: str
    name: str
    last_value: int
    is_called: bool

    @property
    def label(self) -> str:
        """Its name for a person."""
        return f"{self.schema}.{self.name}"


def read_tables(connection: Connection) -> tuple[Table, ...]:
    """Return all tables, the largest first; raises psycopg.Error."""
    return tuple(
        Table(
            oid=oid,
            schema=schema,
            name=name,
            size_bytes=size,
            condition=condition or None,
            forces_rls=forces,
            columns=tuple(columns),
            is_plain=plain and bool(columns),
            blocks=blocks,
            access_method=method,
            leaves=tuple(leaves),
        )
        for oid, schema, name, size, condition, forces, columns, plain, blocks, method, leaves in connection.execute(
            query("tables")
        ).fetchall()
    )


def read_sequences(connection: Connection) -> tuple[Sequence, ...]:
    """Return all sequences with their values; raises psycopg.Error."""
    names = connection.execute(query("sequences")).fetchall()
    found = []
    for first in range(0, len(names), 500):
        part = names[first : first + 500]
        values = sql.SQL(" union all ").join(
            sql.SQL("select {}, last_value, is_called from {}").format(index, sql.Identifier(schema, name))
            for index, (schema, name) in enumerate(part)
        )
        found += [
            Sequence(part[index][0], part[index][1], last_value, is_called)
            for index, last_value, is_called in connection.execute(values).fetchall()
        ]
    return tuple(sorted(found, key=lambda sequence: sequence.label))
