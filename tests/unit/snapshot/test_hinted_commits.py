"""Commits that only rows know of, on a real server whose pg_xact is taken back."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from fixtures import Server
from pgrescue.snapshot.control import parse_control
from pgrescue.snapshot.hinted_commits import hinted_commits

if TYPE_CHECKING:
    from pathlib import Path


def test_rows_know_the_commits_that_an_older_pg_xact_lacks(tmp_path: Path) -> None:
    with Server(major=17) as server:
        with server.connect() as connection:
            connection.execute("create table t (id int primary key, v int)")
            connection.execute("insert into t select n, 0 from generate_series(1, 100) n")
            connection.execute("checkpoint")
        shutil.copytree(server.pgdata / "pg_xact", tmp_path / "older")
        with server.connect() as connection:
            connection.execute("update t set v = 1 where id < 50")
            (updated,) = connection.execute("select xmin::text::int from t where id = 1").fetchone() or (0,)
            with connection.transaction(force_rollback=True):
                connection.execute("update t set v = 2 where id = 60")
                (aborted,) = connection.execute("select xmin::text::int from t where id = 60").fetchone() or (0,)
            connection.execute("select count(*) from t")  # leaves its notes on the rows
            connection.execute("checkpoint")
        server.stop()
        control = parse_control((server.pgdata / "global" / "pg_control").read_bytes())
        assert hinted_commits(server.pgdata, control).tolist() == []
        shutil.copytree(tmp_path / "older", server.pgdata / "pg_xact", dirs_exist_ok=True)
        found = hinted_commits(server.pgdata, control).tolist()
        assert updated in found
        assert aborted not in found
