"""`pgrescue to-cluster`: what it refuses before it looks at anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.cli.conftest import pgrescue

if TYPE_CHECKING:
    from pathlib import Path

TARGET = ("--target-url", "postgresql://owner:geheim@127.0.0.1:1/new")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "no target is named"),
        (("--target-url", ""), "is empty"),
        (("--target-url", "postgresql://owner:geheim@host:notaport/x?nonsense=1"), "neither a URL nor a connection"),
        ((*TARGET, "--compare", "some"), "--compare 'some' is unknown"),
        ((*TARGET, "--engine", "steam"), "--engine 'steam' is unknown"),
        ((*TARGET, "--role", "app", "--roles"), "exclude each other"),
        ((*TARGET, "a.tar", "--source-url", "postgresql://x/y"), "two sources are named"),
        ((*TARGET, "-w", "it.pgrescue", "--source-url", "postgresql://x/y"), "two sources are named"),
        (TARGET, "there is no workspace"),
        ((*TARGET, "absent.tar"), "absent.tar"),
    ],
)
@pytest.mark.usefixtures("here")
def test_what_cannot_be_meant_ends_with_2_and_names_no_password(options: tuple[str, ...], words: str) -> None:
    done = pgrescue("to-cluster", *options, "--json")
    assert done.status == 2
    error = done.document()["error"]
    assert words in error["problem"]
    assert error["hint"]
    assert "geheim" not in done.stdout + done.stderr


def test_the_target_may_come_from_the_environment(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGRESCUE_TARGET_URL", TARGET[1])
    done = pgrescue("to-cluster", "--json")
    assert "there is no workspace" in done.document()["error"]["problem"]
    assert list(here.iterdir()) == []


def test_a_default_of_the_environment_is_not_shown_in_the_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGRESCUE_TARGET_URL", TARGET[1])
    done = pgrescue("to-cluster", "--help")
    assert "PGRESCUE_TARGET_URL" in done.stdout
    assert "geheim" not in done.stdout
