"""Drill files as values: what they are called, and what they have an effect on."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from pydantic import ValidationError

from pgrescue.drill.expectation import Expectation
from pgrescue.drill.reading import parse_scenario
from pgrescue.drill.scenario import Check, Drill, Ignore, RowCount, RowsCheck, SnapshotChoice, SqlCheck, VerifyCheck
from pgrescue.model import Finding, Severity, VerifyLevel
from tests.unit.drill.drill_files import HEAD

FINDING = Finding("index_damaged", Severity.ERROR, "portal public.orders_pkey", "it is", "rebuild it")


def check(text: str) -> Check:
    (only,) = parse_scenario(f"{HEAD}checks:\n  - {text}\n", Path("/drills/drill.yaml")).drills[0].checks
    return only


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("{verify: full}", "verify: full"),
        ("{verify: full, name: all}", "all"),
        ("{schema: a/portal.sql}", "schema as in portal.sql"),
        ("{rows: {table: orders, min: 1000}}", "orders: at least 1,000 rows"),
        ("{rows: {table: orders, max: 5}}", "orders: at most 5 rows"),
        (
            "{rows: {table: orders, min: 1, max_loss: 2.5 %}}",
            "orders: at least 1 rows, at most 2.5 % fewer rows than last time",
        ),
        ("{freshness: {table: o, column: c, max_age: 90 m}}", "o.c: at most 1 h 30 min old"),
        ("{sql: 'select  1', expect: '== 1'}", "select 1 == 1"),
        ("{sql: 'select 1', expect: '== 1', name: one}", "one"),
        ('{sql: "select\\n  1", expect: "== 1"}', "select 1 == 1"),
    ],
)
def test_a_check_has_a_title(text: str, title: str) -> None:
    assert check(text).title == title


def test_a_long_query_is_cut_in_the_title() -> None:
    title = check(f"{{sql: select {'x' * 500}, expect: '== 1'}}").title
    assert len(title) < 80
    assert title.endswith("x… == 1")


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("portal", "portal"),
        ("Portal, nightly (eu-west-1)", "portal-nightly-eu-west-1"),
        ("../../etc/passwd", "etc-passwd"),
        ("Größe", "groe"),
        ("Čeština", "cestina"),
        ("\u65e5\u672c", "drill"),
        ("--", "drill"),
        ("x" * 39 + " y", "x" * 39),
        ("x" * 100, "x" * 40),
    ],
)
def test_a_name_becomes_one_for_files(name: str, slug: str) -> None:
    assert Drill(name=name, snapshot=SnapshotChoice("/a", takes_newest=False)).slug == slug


def test_the_most_that_is_asked_for_is_verified() -> None:
    def level(*levels: VerifyLevel) -> VerifyLevel:
        checks = tuple(VerifyCheck(level=level) for level in levels)
        return Drill(name="a", snapshot=SnapshotChoice("/a", takes_newest=False), checks=checks).verify_level

    assert level() is VerifyLevel.FAST
    assert level(VerifyLevel.FULL, VerifyLevel.FAST) is VerifyLevel.FULL


def test_an_ignored_finding_counts_again_after_its_day() -> None:
    ignore = Ignore(code="index_damaged", reason="known", until=date(2027, 1, 31))
    assert ignore.applies_on(date(2027, 1, 31))
    assert not ignore.applies_on(date(2027, 2, 1))
    assert ignore.covers(FINDING, day=date(2027, 1, 31))
    assert not ignore.covers(FINDING, day=date(2027, 2, 1))


@pytest.mark.parametrize(
    ("code", "pattern", "covers"),
    [
        ("index_damaged", "portal *", True),
        ("index_damaged", "*.orders_pkey", True),
        ("index_damaged", "portal public.orders_pkey", True),
        ("index_damaged", "PORTAL *", False),
        ("index_damaged", "orders_pkey", False),
        ("index", None, False),
        ("index*", None, False),
    ],
)
def test_only_the_named_finding_is_ignored(code: str, pattern: str | None, *, covers: bool) -> None:
    ignore = Ignore(code=code, object=pattern, reason="known", until=date(2027, 1, 31))
    assert ignore.covers(FINDING, day=date(2027, 1, 1)) is covers


def test_values_can_be_made_without_a_file() -> None:
    made = SqlCheck(sql="select 1", expect=Expectation.parse("== 1"))
    assert made == check("{sql: select 1, expect: '== 1'}")
    assert RowsCheck(rows=RowCount(table="t", min=5)) == check("{rows: {table: t, min: 5}}")


def test_values_are_frozen() -> None:
    made = RowCount(table="t", min=5)
    with pytest.raises(ValidationError, match="frozen"):
        made.min = 6
