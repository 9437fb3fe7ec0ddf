"""The checks have nothing to say about healthy servers, and leave them as they were."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fixtures import FixtureError, Server, fill
from fixtures.binaries import find_bindir
from pgrescue.model import VerifyLevel
from pgrescue.pipeline import Silent, Unit
from tests.unit.verify.servers import SETTINGS, check, execute, one, run_script

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.verify.verified import Verified

ZOO = Path(__file__).parent / "zoo.sql"
REFUSAL = (
    "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no DDL here'; END $$",
    "CREATE EVENT TRIGGER refuse ON ddl_command_start EXECUTE FUNCTION refuse()",
)
# Before 16 its OID stays in pg_auth_members.
GRANTOR = (
    "CREATE ROLE grantor SUPERUSER",
    "SET ROLE grantor; GRANT portal TO billing; RESET ROLE",
    "DROP ROLE grantor",
)
STATE = """
select string_agg(t::text, ',') from (
  select 'schema', nspname::text from pg_namespace where nspname !~ '^pg_(toast_)?temp'
  union all select 'extension', extname from pg_extension
  union all select relname, relfilenode::text from pg_class
  union all select tgname, tgenabled::text from pg_trigger order by 1, 2) t
"""


@pytest.fixture(scope="module", params=[15, 16, 17, 18])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Yield a server with one of everything, just back from a crash, which takes no DDL in one of its databases."""
    try:
        find_bindir(request.param)
    except FixtureError as error:
        pytest.skip(str(error))
    with Server(major=request.param, settings=SETTINGS) as server:
        fill(server, scale=0.1)
        run_script(server, "portal", ZOO)
        execute(server, "billing", *(GRANTOR if request.param < 16 else ()), *REFUSAL)
        with server.connect("portal") as connection:
            connection.execute("CREATE TEMP TABLE left_over (id int PRIMARY KEY, body text)")
            connection.execute("INSERT INTO left_over VALUES (1, 'x')")
            server.stop(immediate=True)
        server.start()
        yield server


@pytest.fixture(scope="module")
def small() -> Iterator[Server]:
    """Yield a server that has nothing but its own databases."""
    with Server(settings=SETTINGS) as server:
        yield server


def has_amcheck(server: Server) -> bool:
    return bool(one(server, "postgres", "select count(*) from pg_available_extensions where name = 'amcheck'"))


def told(verified: Verified) -> list[str]:
    return [f"{item.code} {item.object}: {item.detail}" for item in verified.findings]


def test_a_healthy_server_has_no_findings(server: Server) -> None:
    before = [one(server, database, STATE) for database in ("portal", "billing", "template1")]
    verified = check(server, VerifyLevel.FULL)
    if has_amcheck(server):
        assert told(verified) == []
    else:
        assert {item.code for item in verified.findings} == {"check_not_run"}
    assert verified.level is VerifyLevel.FULL
    assert verified.checks > 500
    assert verified.unreadable_blocks == ()
    assert [one(server, database, STATE) for database in ("portal", "billing", "template1")] == before


def test_a_postgresql_without_amcheck_is_told_and_everything_else_checked() -> None:
    pgserver = pytest.importorskip("pgserver")
    with Server(bindir=Path(pgserver.__file__).parent / "pginstall" / "bin", settings=SETTINGS) as server:
        if has_amcheck(server):
            pytest.skip("this wheel has amcheck")
        verified = check(server)
        assert {item.code for item in verified.findings} == {"check_not_run"}
        assert {item.object for item in verified.findings} == {
            f"{what} in {database}"
            for what in ("rows of all tables", "b-tree indexes")
            for database in ("postgres", "template1")
        }


class Progress(Silent):
    def __init__(self) -> None:
        self.seen: list[tuple[int, int | None]] = []

    def advanced(self, done: int, total: int | None, unit: Unit, detail: str = "") -> None:  # noqa: ARG002
        assert unit is Unit.BYTES
        self.seen.append((done, total))


def test_progress_grows_to_its_total(small: Server) -> None:
    progress = Progress()
    check(small, VerifyLevel.FAST, progress)
    totals = sorted({total or 0 for _, total in progress.seen})
    assert all(done <= (total or 0) for done, total in progress.seen)
    assert [max(done for done, of in progress.seen if of == total) for total in totals] == totals


class Impatient(Silent):
    def advanced(self, done: int, total: int | None, unit: Unit, detail: str = "") -> None:  # noqa: ARG002
        del total, unit
        if done > 1 << 18:
            raise KeyboardInterrupt


def test_an_interrupted_check_leaves_nothing_behind(small: Server) -> None:
    with pytest.raises(KeyboardInterrupt):
        check(small, VerifyLevel.FULL, Impatient())
    for database in ("postgres", "template1"):
        assert one(small, database, "select count(*) from pg_namespace where nspname ~ '^pgrescue'") == 0
    assert one(small, "postgres", "select count(*) from pg_stat_activity where application_name = 'pgrescue'") == 0


def test_what_a_killed_check_left_behind_goes_first(small: Server) -> None:
    if not has_amcheck(small):
        pytest.skip("without amcheck nothing is left behind")
    execute(
        small,
        "postgres",
        "CREATE SCHEMA pgrescue_tools",
        "CREATE EXTENSION amcheck SCHEMA pgrescue_tools",
        "CREATE TABLE pgrescue_tools.other (id int)",
    )
    assert told(check(small, VerifyLevel.FAST)) == []
    assert one(small, "postgres", "select count(*) from pg_namespace where nspname ~ '^pgrescue'") == 0


def test_the_users_own_amcheck_is_used_and_stays(small: Server) -> None:
    if not has_amcheck(small):
        pytest.skip("there is no amcheck")
    execute(small, "postgres", 'CREATE SCHEMA "My tools"', 'CREATE EXTENSION amcheck SCHEMA "My tools"')
    assert told(check(small, VerifyLevel.FAST)) == []
    assert one(small, "postgres", "select count(*) from pg_extension where extname = 'amcheck'") == 1


def test_a_schema_of_that_name_that_is_the_users_stays(small: Server) -> None:
    execute(
        small,
        "postgres",
        "CREATE ROLE somebody",
        "CREATE SCHEMA pgrescue_tools AUTHORIZATION somebody",
        "DROP EXTENSION IF EXISTS amcheck",
    )
    verified = check(small, VerifyLevel.FAST)
    assert {item.code for item in verified.findings} == {"check_not_run"}
    assert one(small, "postgres", "select count(*) from pg_namespace where nspname = 'pgrescue_tools'") == 1
    execute(small, "postgres", "DROP SCHEMA pgrescue_tools", "DROP ROLE somebody")
