"""What an image tells about itself, and who owns the data directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pgrescue.engine.docker_image import Content, known_docker, owner_for
from pgrescue.model import EngineName, Owner, PgVersion

if TYPE_CHECKING:
    from pathlib import Path

DEBIAN = Owner(999, 999)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (["PG_MAJOR=17", "PG_VERSION=17.2-1.pgdg120+1"], Content(PgVersion(17, 2), DEBIAN)),
        (["PG_MAJOR=17", "PG_VERSION=17.2", "PG_SHA256=82ef"], Content(PgVersion(17, 2), Owner(70, 70))),
        (["PG_MAJOR=19", "PG_VERSION=19beta1"], Content(PgVersion(19), DEBIAN)),
        (["PG_MAJOR=17", "PG_VERSION=16.3"], None),
        (["PG_MAJOR=1", "PG_VERSION=17.2"], None),
        (["PG_MAJOR=", "PG_VERSION=.2"], None),
        (["PG_MAJOR=17"], None),
        (["PATH=/bin", "ODD"], None),
        ([], None),
        (None, None),
    ],
)
def test_the_environment_tells_the_version_where_it_agrees_with_itself(
    environment: list[str] | None, expected: Content | None
) -> None:
    assert Content.told({"Config": {"Env": environment}}) == expected


def test_the_programs_tell_the_version_and_the_user() -> None:
    assert Content.answered("postgres (PostgreSQL) 16.4\n26\n27\n") == Content(PgVersion(16, 4), Owner(26, 27))
    assert Content.answered("postgres (PostgreSQL) 16.4\n") == Content(PgVersion(16, 4), DEBIAN)


@pytest.mark.parametrize("said", ["", "sh: postgres: not found\n"])
def test_an_image_without_postgresql_does_not_answer(said: str) -> None:
    with pytest.raises(ValueError, match=r"no PostgreSQL version|not enough values"):
        Content.answered(said)


@pytest.mark.skipif(os.geteuid() != 0, reason="ownership is chosen for root only")
def test_as_root_the_owner_of_an_existing_copy_is_kept(tmp_path: Path) -> None:
    assert owner_for(None, default=DEBIAN) == DEBIAN
    assert owner_for(tmp_path / "absent", default=DEBIAN) == DEBIAN
    assert owner_for(tmp_path, default=DEBIAN) == DEBIAN  # root's own: PostgreSQL refuses root
    os.chown(tmp_path, 12345, 12346)
    assert owner_for(tmp_path, default=DEBIAN) == Owner(12345, 12346)


def test_anybody_else_is_the_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert owner_for(tmp_path, default=DEBIAN) is None


def test_a_known_image_is_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/absent")
    known = known_docker("mine:1", version=PgVersion(17), pgdata=tmp_path).installation
    assert (known.name, known.version, known.record.image) == (EngineName.DOCKER, PgVersion(17), "mine:1")
