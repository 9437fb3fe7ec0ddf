"""Targets that keep text otherwise than the source: encodings, and the orders of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fixtures import Server
from pgrescue.transfer.collations import check_text
from tests.conftest import require_engine
from tests.targets import OWNER
from tests.transfers import World, both, name_of, run, to_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.model import Finding

ICU = "locale_provider icu icu_locale 'en-US' template template0"
C_UTF8 = "lc_collate 'C.UTF-8' lc_ctype 'C.UTF-8' template template0"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Run a source with ICU, which only the oldest major has here, and a target without."""
    require_engine("native", 15)
    with Server(major=15) as source, Server() as target, World(source, target) as world:
        yield world


def found(source: str, target: str) -> list[Finding]:
    with both(source, target) as sides:
        return list(check_text(sides))


def encoded(name: str) -> str:
    return f"encoding '{name}' template template0"


def test_text_that_may_have_no_form_in_the_target(world: World) -> None:
    sources = {name: world.origin(options=encoded(name)) for name in ("UTF8", "LATIN1", "SQL_ASCII")}
    targets = {name: world.goal(options=encoded(name)) for name in sources}
    pairs = [(here, there) for here in sources for there in targets if here != there]
    lossy = [pair for pair in pairs if pair != ("LATIN1", "UTF8")]
    for here, there in lossy:
        (finding,) = found(sources[here], targets[there])
        assert (finding.code, finding.severity.value) == ("encoding_differs", "error")
        assert f"ENCODING '{here}'" in finding.remedy
    (finding,) = found(sources["LATIN1"], targets["UTF8"])
    assert (finding.code, finding.severity.value) == ("encoding_differs", "warning")
    for name, source in sources.items():
        assert found(source, targets[name]) == []


@pytest.mark.parametrize(
    ("here", "there", "written", "expected"),
    [("LATIN1", "UTF8", "chr(235)", "c3ab"), ("SQL_ASCII", "SQL_ASCII", r"E'\xeb'", "eb")],
)
def test_text_is_converted_on_the_way_or_kept_as_bytes(
    world: World, here: str, there: str, written: str, expected: str
) -> None:
    source = world.origin(
        "create table words (word text primary key, note text);\n"
        f"create index notes on words (note);\ninsert into words values ({written}, 'x')",
        options=encoded(here),
    )
    target = world.goal(options=encoded(there))
    done = to_cluster(source, target).moved()
    assert [table["name"] for table in done.document["tables"]] == ["public.words"]
    with world.target.connect(name_of(target)) as connection:
        hexadecimal = "encode(convert_to(word, getdatabaseencoding()), 'hex')"
        assert connection.execute(f"select {hexadecimal} = %s from words", [expected]).fetchall() == [(True,)]
    assert to_cluster(source, target).codes == ["already_there"]


def test_another_order_of_text_is_told(world: World) -> None:
    sources = {"C": world.origin(), "C.UTF-8": world.origin(options=C_UTF8), "ICU": world.origin(options=ICU)}
    targets = {"C": world.goal(), "C.UTF-8": world.goal(options=C_UTF8.replace("C.UTF-8", "C.utf8"))}
    for here, source in sources.items():
        for there, target in targets.items():
            codes = [finding.code for finding in found(source, target)]
            assert codes == ([] if here == there else ["collation_differs"])
    (finding,) = found(sources["ICU"], targets["C"])
    assert "en-US (ICU, ctype C)" in finding.detail
    assert "C (libc)" in finding.detail
    again = world.goal(options=ICU, on=world.source)
    assert found(sources["ICU"], again) == []
    # Another version of ICU has another number in the catalog.
    run(world.source, "postgres", f"update pg_database set datcollversion = '1.0' where datname = '{name_of(again)}'")
    (finding,) = found(sources["ICU"], again)
    assert (finding.code, finding.severity.value) == ("collation_version_differs", "info")


USES = {
    "a column": 'create table t (a text collate "en-x-icu")',
    "an index": 'create table t (a text);\ncreate index on t (a collate "en-x-icu")',
    "a domain": 'create domain d as text collate "en-x-icu"',
    "a view": 'create view v as select rolname::text collate "en-x-icu" from pg_roles',
    "a constraint": "create table t (a text check (a collate \"en-x-icu\" < 'm'))",
}


def test_a_collation_that_the_target_lacks(world: World) -> None:
    source, here, there = world.origin(is_own=True), world.empty(on=world.source), world.empty()
    for statements in USES.values():
        run(world.source, name_of(source), f"set role {OWNER};\n{statements}")
        (finding,) = found(source, there)
        assert (finding.code, finding.severity.value, finding.object) == ("collation_missing", "error", "en-x-icu")
        assert found(source, here) == []
        run(world.source, name_of(source), f"drop owned by {OWNER} restrict")
        assert found(source, there) == []
    harmless = 'create table t (a text collate "C", b text collate "POSIX", c text collate "C.utf8")'
    run(world.source, name_of(source), harmless)
    assert found(source, there) == []


def test_a_collation_that_the_target_cannot_make(world: World) -> None:
    source = world.origin(
        "create collation german (provider = icu, locale = 'de-u-co-phonebk');\n"
        "create collation plain (locale = 'C.UTF-8')"
    )
    done = to_cluster(source, world.goal())
    done.refused("collation_missing", "public.german (ICU)")
    assert "plain" not in done.finding("collation_missing")["object"]
    to_cluster(source, world.empty(on=world.source), "--dry-run").ready()
    swedish = world.origin('create collation swedish from "C"')
    # As from a machine with that locale.
    run(
        world.source,
        name_of(swedish),
        "update pg_collation set collcollate = 'sv_SE.utf8', collctype = 'sv_SE.utf8' where collname = 'swedish'",
    )
    (finding,) = found(swedish, world.empty())
    assert finding.object == "public.swedish (libc, sv_SE.utf8)"
