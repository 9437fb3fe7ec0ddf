"""Every engine and major of the tests: the server starts after a reset, and has the modules that check and mend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fixtures import FixtureError, binaries
from tests.contract import engines_native
from tests.contract.conftest import KINDS, Site, connect, own

if TYPE_CHECKING:
    from collections.abc import Callable

MAJORS = (15, 16, 17, 18)
CASES = [
    pytest.param(kind, major, id=f"{kind}-{major}", marks=getattr(pytest.mark, kind))
    for kind in KINDS
    for major in MAJORS
]
CHECKS = {
    "SELECT count(*) FROM verify_heapam('pg_class')": 0,
    "SELECT bt_index_check('pg_class_oid_index', true)::text": "",
    "SELECT count(*) FROM page_header(get_raw_page('pg_class', 0))": 1,
    "SELECT heap_force_freeze('victim', ARRAY['(0,1)']::tid[])::text": "",
}


@pytest.mark.parametrize(("kind", "major"), CASES)
def test_a_reset_server_checks_and_mends(new_site: Callable[..., Site], kind: str, major: int) -> None:
    if kind == "native":
        engines_native.require(major, contrib=True)
    site = new_site(kind, major)
    engine = site.engine()
    assert engine.installation.version.major == major
    pgdata = engine.path(site.workspace.pgdata)
    engine.run("pg_resetwal", ["-f", "-D", pgdata]).check("pg_resetwal")
    sql = site.workspace.root / "input.sql"
    sql.write_text("CREATE TABLE victim AS SELECT 1 AS id;\n")
    own(sql, engine)
    engine.run("postgres", ["--single", "-D", pgdata, "postgres"], stdin=sql).check("single")
    with connect(site.start(engine)) as connection:
        for module in binaries.CONTRIB:
            connection.execute(f"CREATE EXTENSION {module}".encode())
        said = {query: connection.execute(query.encode()).fetchone() for query in CHECKS}
    assert said == {query: (answer,) for query, answer in CHECKS.items()}
    assert set(binaries.CONTRIB) <= set(engine.libraries())


@pytest.mark.native
def test_without_the_tree_16_is_the_wheel_and_tells_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    engines_native.require(16)
    monkeypatch.setattr(binaries, "_tree_16", lambda: FixtureError("npm is not on this machine"))
    assert binaries.find_bindir(16).parts[-3:] == ("pgserver", "pginstall", "bin")
    reason = binaries.contrib_missing(16)
    assert reason is not None
    assert reason.endswith("has no amcheck, pageinspect, pg_surgery: npm is not on this machine")
