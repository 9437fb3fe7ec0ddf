"""What a database holds: its tables with their files, their columns, their indexes, and the key of each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import rows, sql

from pgrescue.repair.site import query, raw

if TYPE_CHECKING:
    from pgrescue.repair.site import Connection


@dataclass(frozen=True)
class Column:
    """A column: `type` is as the server writes it, without a domain; only toastable values can lie elsewhere."""

    name: str
    type: str
    collation: str | None
    is_generated: bool
    is_toastable: bool


@dataclass(frozen=True)
class Index:
    """An index of a table. `keys` are its columns or expressions as SQL, `columns` the names where all are columns.

    `stored` describes what its entries hold, INCLUDE columns too. `path` is relative to the data directory.
    """

    oid: int
    schema: str
    name: str
    method: str
    is_unique: bool
    is_primary: bool
    is_exclusion: bool
    is_valid: bool
    is_immediate: bool
    nulls_not_distinct: bool
    predicate: str | None
    has_expressions: bool
    path: str | None
    size_bytes: int
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    stored: tuple[dict[str, Any], ...]
    is_not_null: bool

    @property
    def qualified(self) -> sql.Identifier:
        """The name as SQL."""
        return sql.Identifier(self.schema, self.name)

    @property
    def forbids_duplicates(self) -> bool:
        """Tell whether two rows with one key are damage; an invalid index may have failed on rows that were legal."""
        return self.is_unique and self.is_valid and not self.is_exclusion

    def condition(self) -> sql.Composable:
        """Return as SQL which rows the index keeps apart: those of its predicate, those with a NULL only if told so."""
        parts: list[sql.Composable] = [sql.SQL("true")]
        if self.predicate is not None:
            parts.append(sql.SQL("({})").format(raw(self.predicate)))
        if not self.nulls_not_distinct:
            # A composite value with a NULL field "is not null" only by the test for being distinct from NULL.
            parts += [sql.SQL("({}) is distinct from null").format(raw(key)) for key in self.keys]
        return sql.SQL(" and ").join(parts)

    def key_list(self) -> sql.Composable:
        """Return the keys as SQL, separated by commas."""
        return sql.SQL(", ").join(sql.SQL("({})").format(raw(key)) for key in self.keys)


@dataclass(frozen=True)
class Table:
    """A table or materialized view; `path` and `toast` are None where there is no such file."""

    database: str
    oid: int
    schema: str
    name: str
    is_view: bool
    is_unlogged: bool
    is_populated: bool
    path: str | None
    size_bytes: int
    indexes_bytes: int
    toast: int | None
    toast_bytes: int
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...]

    @property
    def qualified(self) -> sql.Identifier:
        """The name as SQL."""
        return sql.Identifier(self.schema, self.name)

    @property
    def object(self) -> str:
        """The name for a person, and in findings."""
        return f"{self.database}.{self.schema}.{self.name}"

    @property
    def work_bytes(self) -> int:
        """How much is to be read and written for it, roughly."""
        return self.size_bytes + self.indexes_bytes + self.toast_bytes

    @property
    def key(self) -> Index | None:
        """Return the index whose columns tell one row from another: the primary key, or the best unique one."""
        fit = [
            index
            for index in self.indexes
            if index.forbids_duplicates
            and index.method == "btree"
            and index.predicate is None
            and not index.has_expressions
            and (index.is_primary or index.is_immediate)
        ]
        return min(fit, key=lambda index: (not index.is_primary, not index.is_not_null, index.oid), default=None)


def tables(connection: Connection, database: str) -> tuple[Table, ...]:
    """Return the tables of users of the session's database."""
    with connection.transaction():
        connection.execute("set local search_path = pg_catalog")
        columns = _columns(connection)
        indexes = _indexes(connection)
        with connection.cursor(row_factory=rows.dict_row) as cursor:
            found = cursor.execute(query("tables")).fetchall()
    return tuple(
        Table(
            database=database,
            oid=row["oid"],
            schema=row["nspname"],
            name=row["relname"],
            is_view=row["is_view"],
            is_unlogged=row["is_unlogged"],
            is_populated=row["relispopulated"],
            path=row["path"],
            size_bytes=row["size_bytes"],
            indexes_bytes=row["indexes_bytes"],
            toast=row["toast"],
            toast_bytes=row["toast_bytes"],
            columns=columns.get(row["oid"], ()),
            indexes=indexes.get(row["oid"], ()),
        )
        for row in found
    )


def _columns(connection: Connection) -> dict[int, tuple[Column, ...]]:
    found: dict[int, tuple[Column, ...]] = {}
    for table, *values in connection.execute(query("columns")).fetchall():
        found[table] = (*found.get(table, ()), Column(*values))
    return found


def _indexes(connection: Connection) -> dict[int, tuple[Index, ...]]:
    found: dict[int, tuple[Index, ...]] = {}
    with connection.cursor(row_factory=rows.dict_row) as cursor:
        for row in cursor.execute(query("indexes")).fetchall():
            index = Index(
                oid=row["indexrelid"],
                schema=row["nspname"],
                name=row["relname"],
                method=row["amname"],
                is_unique=row["indisunique"],
                is_primary=row["indisprimary"],
                is_exclusion=row["indisexclusion"],
                is_valid=row["indisvalid"],
                is_immediate=row["indimmediate"],
                nulls_not_distinct=row["nulls_not_distinct"],
                predicate=row["predicate"],
                has_expressions=row["has_expressions"],
                path=row["path"],
                size_bytes=row["size_bytes"],
                keys=tuple(row["keys"]),
                columns=tuple(row["columns"] or ()),
                stored=tuple(row["stored"] or ()),
                is_not_null=bool(row["is_not_null"]),
            )
            found[row["indrelid"]] = (*found.get(row["indrelid"], ()), index)
    return found
