"""Children without a parent: reported, never deleted, since nobody knows which of the two is the mistake."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

from pgrescue.model import Finding, Severity
from pgrescue.repair.site import query, raw

if TYPE_CHECKING:
    from pgrescue.repair.outcome import Outcome
    from pgrescue.repair.site import Connection

_EXAMPLES = 20


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key; `operators` compare a parent's column (left) with a child's."""

    oid: int
    name: str
    schema: str
    table: str
    is_partitioned: bool
    parent_schema: str
    parent: str
    parent_is_partitioned: bool
    is_full: bool
    has_period: bool
    columns: tuple[str, ...]
    parent_columns: tuple[str, ...]
    operators: tuple[str, ...]


def foreign_keys(connection: Connection) -> tuple[ForeignKey, ...]:
    """Return the foreign keys of the session's database that ought to hold."""
    return tuple(
        ForeignKey(*row[:10], *(tuple(part) for part in row[10:]))
        for row in connection.execute(query("foreign_keys")).fetchall()
    )


def check(connection: Connection, database: str, key: ForeignKey, outcome: Outcome) -> None:
    """Tell how many rows refer to nothing, with some of them in the manifest."""
    name = f"{key.name} on {database}.{key.schema}.{key.table}"
    if key.has_period:
        outcome.tell(
            Finding(
                "foreign_key_unchecked",
                Severity.WARNING,
                name,
                "A foreign key with PERIOD is not checked.",
                "Check it by a query of your own.",
            )
        )
        return
    dangling = dangling_rows(key)
    ((rows,),) = connection.execute(sql.SQL("select pg_catalog.count(*) {}").format(dangling)).fetchall()
    if not rows:
        return
    shown = sql.SQL(", ").join(
        sql.SQL("{}, c.{}::text").format(sql.Literal(column), sql.Identifier(column)) for column in key.columns
    )
    examples = connection.execute(
        sql.SQL("select c.ctid::text, pg_catalog.jsonb_build_object({}) {} limit {}").format(
            shown, dangling, sql.Literal(_EXAMPLES)
        )
    ).fetchall()
    outcome.foreign_keys[database, f"{key.schema}.{key.table}", key.name] = {
        "database": database,
        "constraint": key.name,
        "table": f"{key.schema}.{key.table}",
        "parent": f"{key.parent_schema}.{key.parent}",
        "rows": rows,
        "examples": [{"ctid": tid, "key": values} for tid, values in examples],
    }
    outcome.tell(
        Finding(
            "foreign_key_dangling",
            Severity.WARNING,
            name,
            f"These rows refer to rows of {key.parent_schema}.{key.parent} that are not there: lost, or deleted after "
            "the rows here were copied.",
            "Decide for each: add the parent again, or remove the child. A dump is restored only without this key.",
            rows,
        )
    )


def dangling_rows(key: ForeignKey) -> sql.Composed:
    """Return the part of a query, from FROM on, that finds the children without a parent, called c."""
    columns = [sql.SQL("c.{}").format(sql.Identifier(column)) for column in key.columns]
    null = [sql.SQL("{} is null").format(column) for column in columns]
    matched = sql.SQL(" and ").join(
        sql.SQL("p.{} {} {}").format(sql.Identifier(parent), raw(operator), column)
        for parent, operator, column in zip(key.parent_columns, key.operators, columns, strict=True)
    )
    complete = sql.SQL("not ({})").format(sql.SQL(" or ").join(null))
    orphan = sql.SQL("{} and not exists (select from {} p where {})").format(
        complete, _from(key.parent_schema, key.parent, is_partitioned=key.parent_is_partitioned), matched
    )
    if key.is_full:
        torn = sql.SQL("({}) and not ({})").format(sql.SQL(" or ").join(null), sql.SQL(" and ").join(null))
        orphan = sql.SQL("({}) or ({})").format(orphan, torn)
    return sql.SQL("from {} c where {}").format(_from(key.schema, key.table, is_partitioned=key.is_partitioned), orphan)


def _from(schema: str, table: str, *, is_partitioned: bool) -> sql.Composable:
    only = sql.SQL("" if is_partitioned else "only ")
    return sql.SQL("{}{}").format(only, sql.Identifier(schema, table))
