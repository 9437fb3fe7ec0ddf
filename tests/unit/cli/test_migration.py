"""`pgrescue migration`: what is refused before any source is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.cli.conftest import pgrescue

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = "postgresql://me:s3cret@127.0.0.1:1/x"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["../x"], "'../x' is no name of a migration"),
        (["x", "--sensitive"], "is in no git repository"),
        (["x", "--engine", "podman"], "--engine 'podman' is unknown"),
        (["x", "a.tar", "--source-url", NOBODY], "two sources are named"),
        (["x", "--source-url", "no url s3cret"], "--source-url is neither a URL nor a connection string"),
        (["x"], "there is no workspace in"),
    ],
)
def test_what_cannot_be_meant_ends_with_2_and_writes_nothing(here: Path, arguments: list[str], expected: str) -> None:
    done = pgrescue("migration", *arguments, "--json")
    assert done.status == 2
    assert expected in done.document()["error"]["problem"]
    assert "s3cret" not in done.stdout + done.stderr
    assert list(here.iterdir()) == []


def test_an_existing_migration_is_refused_in_the_default_place(here: Path) -> None:
    there = here / "db" / "migrations" / "x" / "migration.sql"
    there.parent.mkdir(parents=True)
    there.write_text("old")
    done = pgrescue("migration", "x", "--source-url", NOBODY)
    assert (done.status, done.stdout) == (2, "")
    assert f"error: {there} exists, and is not overwritten\n" in done.stderr
    assert there.read_text() == "old"
