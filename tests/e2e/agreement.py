"""Whether what a server holds agrees with itself: every index with its heap, and every write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    import psycopg

_INDEXES = """
select n.nspname, c.relname, i.indexrelid::regclass::text,
       array(select pg_get_indexdef(i.indexrelid, k, true) from generate_series(1, i.indnkeyatts) k),
       coalesce(pg_get_expr(i.indpred, i.indrelid), 'true')
  from pg_index i
  join pg_class c on c.oid = i.indrelid
  join pg_class x on x.oid = i.indexrelid
  join pg_am a on a.oid = x.relam and a.amname = 'btree'
  join pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'm') and n.nspname not in ('pg_catalog', 'pg_toast', 'information_schema')
 order by 1, 2, 3
"""


def disagreements(connection: psycopg.Connection) -> list[str]:
    """Return every b-tree index of a user's table through which other rows are found than by reading the heap."""
    found = []
    for schema, table, index, keys, predicate in connection.execute(_INDEXES).fetchall():
        query = sql.SQL("select ctid::text from only {}.{} where {} order by {}").format(
            sql.Identifier(schema),
            sql.Identifier(table),
            sql.SQL(predicate),
            sql.SQL(", ".join(f"({key})" for key in keys)),
        )
        heap = _rows(connection, query, without=("enable_indexscan",))
        through = _rows(connection, query, without=("enable_seqscan", "enable_bitmapscan", "enable_sort"))
        if heap != through:
            found.append(f"{index}: {len(heap)} rows in the heap, {len(through)} through the index")
    return found


def _rows(connection: psycopg.Connection, query: sql.Composed, *, without: tuple[str, ...]) -> set[str]:
    with connection.transaction(force_rollback=True):
        for name in (*without, "enable_indexonlyscan"):
            connection.execute(sql.SQL("set local {} = off").format(sql.Identifier(name)))
        return {str(row[0]) for row in connection.execute(query)}


def write_everywhere(connection: psycopg.Connection) -> None:
    """Insert, update, delete and freeze; any error of the server is the test's failure."""
    with connection.transaction():
        user = _one(connection, "select id from users where id = (select min(user_id) from accounts)")
        order = _one(
            connection,
            f"insert into orders (user_id, total, client_ref, placed_at, updated_at) values ({user}, 3,"
            " gen_random_uuid(), now(), now()) returning id",
        )
        connection.execute(
            "insert into order_lines (order_id, line, sku, quantity, price)"
            f" values ({order}, 1, (select min(sku) from products), 3, 1)".encode()
        )
        connection.execute(f"update orders set remark = repeat('y', 3000) where id = {order}".encode())
        connection.execute("insert into events (at, source, payload) values (now(), 'test', '{}')")
        connection.execute("update users set profile = profile || '{\"seen\": true}'")
        connection.execute("update accounts set balance = balance")
        connection.execute(f"delete from orders where id = {order}".encode())
    connection.execute("vacuum (freeze, analyze)")
    connection.execute("checkpoint")


def _one(connection: psycopg.Connection, query: str) -> int:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])
