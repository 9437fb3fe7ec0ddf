"""Who runs PostgreSQL, and the copy of programs that this identity cannot read."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pgrescue.engine import native_identity
from pgrescue.engine.native_identity import choose_owner, runnable
from pgrescue.errors import EngineError
from pgrescue.model import Owner

if TYPE_CHECKING:
    from collections.abc import Iterator

OWNER = Owner(5, 60)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run programs as somebody else")


@pytest.fixture(autouse=True)
def _no_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_UID", raising=False)
    monkeypatch.delenv("SUDO_GID", raising=False)


def test_an_ordinary_user_needs_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    account = pwd.getpwall()[-1]
    monkeypatch.setattr(os, "geteuid", lambda: account.pw_uid or 1)
    assert choose_owner(None) is None


def test_a_user_without_an_account_learns_why_it_cannot_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    with pytest.raises(EngineError, match="4000000 has no account"):
        choose_owner(None)


@as_root
def test_root_uses_a_quiet_account(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = choose_owner(None)
    assert chosen is not None
    account = pwd.getpwuid(chosen.uid)
    assert account.pw_name in native_identity._QUIET
    assert chosen.gid == account.pw_gid
    monkeypatch.setattr(native_identity, "_busy_users", lambda: frozenset({chosen.uid}))
    other = choose_owner(None)
    assert other not in {None, chosen}


@as_root
def test_a_process_makes_an_account_busy_unless_it_is_postgres() -> None:
    chosen = choose_owner(None)
    assert chosen is not None
    with subprocess.Popen(["sleep", "60"], user=chosen.uid) as process:
        assert choose_owner(None) != chosen
        process.kill()
    with subprocess.Popen(["sh", "-c", "echo -n postgres > /proc/$$/comm; echo; read x"], user=chosen.uid,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        assert choose_owner(None) == chosen
        process.kill()


@as_root
def test_no_account_left_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_identity, "_QUIET", ("root", "no-such-account"))
    with pytest.raises(EngineError) as caught:
        choose_owner(None)
    assert "useradd" in caught.value.hint


@as_root
def test_who_called_sudo_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_UID", "1")
    monkeypatch.setenv("SUDO_GID", "7")
    assert choose_owner(None) == Owner(1, 7)
    for uid in ("0", "4000000", "x"):
        monkeypatch.setenv("SUDO_UID", uid)
        assert choose_owner(None) not in {None, Owner(0, 7), Owner(4_000_000, 7)}


@as_root
def test_an_existing_copy_keeps_its_owner(tmp_path: Path) -> None:
    pgdata = tmp_path / "pgdata"
    assert choose_owner(pgdata) is not None
    pgdata.mkdir()
    assert choose_owner(pgdata) != Owner(0, 0)
    os.chown(pgdata, 999, 998)
    assert choose_owner(pgdata) == Owner(999, 998)


@pytest.fixture
def hidden(tmp_path: Path) -> Path:
    """Return the programs of an installation below a directory that only its owner may pass."""
    bindir = tmp_path / "private" / "package" / "pginstall" / "bin"
    bindir.mkdir(parents=True)
    (bindir / "postgres").write_text('#!/bin/sh\nexec cat "$(dirname "$0")/../share/postgres.bki"\n')
    (bindir / "postgres").chmod(0o700)
    share = bindir.parent / "share"
    share.mkdir(mode=0o700)
    (share / "postgres.bki").write_text("# PostgreSQL 17\n")
    (share / "link").symlink_to("postgres.bki")
    (bindir.parent / "include").mkdir()
    libraries = tmp_path / "private" / "package.libs"
    libraries.mkdir()
    (libraries / "libpq.so").write_text("")
    (tmp_path / "private").chmod(0o700)
    return bindir


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    made = Path(subprocess.run(["mktemp", "-d"], check=True, capture_output=True, text=True).stdout.strip())
    made.chmod(0o755)
    monkeypatch.setenv("PGRESCUE_CACHE", str(made / "copies"))
    yield made / "copies"
    shutil.rmtree(made)


@as_root
def test_programs_that_can_be_read_are_not_copied(cache: Path) -> None:
    assert runnable(Path("/usr/bin"), None, label="x") == Path("/usr/bin")
    assert not cache.exists()


@as_root
def test_hidden_programs_are_copied_once(hidden: Path, cache: Path) -> None:
    before = {path: path.lstat().st_mode for path in [*hidden.parents, *hidden.parent.parent.rglob("*")]}
    copy = runnable(hidden, OWNER, label="wheel-17.1")
    assert copy.is_relative_to(cache)
    assert copy.parts[-4].startswith("wheel-17.1-")
    assert copy.parts[-3:] == ("package", "pginstall", "bin")
    assert (copy / "../../../package.libs/libpq.so").exists()
    assert not (copy.parent / "include").exists()
    assert (copy.parent / "share" / "link").readlink() == Path("postgres.bki")
    assert {stat.S_IMODE(path.lstat().st_mode) for path in cache.rglob("*") if not path.is_symlink()} == {0o755, 0o644}
    assert {path.lstat().st_uid for path in cache.rglob("*")} == {0}
    made = copy.stat().st_ino
    assert runnable(hidden, OWNER, label="wheel-17.1") == copy
    assert copy.stat().st_ino == made
    assert {path: path.lstat().st_mode for path in before} == before


@as_root
def test_another_installation_in_its_place_is_copied_again(hidden: Path, cache: Path) -> None:
    first = runnable(hidden, OWNER, label="x")
    (hidden / "postgres").write_text("#!/bin/sh\necho another\n")
    assert runnable(hidden, OWNER, label="x") != first
    assert len(list(cache.iterdir())) == 2


@as_root
def test_what_a_kill_left_of_a_copy_is_removed(hidden: Path, cache: Path) -> None:
    cache.mkdir(mode=0o755)
    (cache / ".making-abc").mkdir()
    (cache / ".making-abc" / "bin").mkdir()
    copy = runnable(hidden, OWNER, label="x")
    assert [path.name for path in cache.iterdir()] == [copy.parts[-4]]


@as_root
def test_concurrent_copies_are_one(hidden: Path, cache: Path) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(runnable(hidden, OWNER, label="x"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert len(list(cache.iterdir())) == 1


@as_root
def test_a_cache_that_others_can_write_to_is_refused(hidden: Path, cache: Path) -> None:
    cache.mkdir()
    cache.chmod(0o777)
    with pytest.raises(EngineError, match="can be written to by others"):
        runnable(hidden, OWNER, label="x")
    cache.chmod(0o755)
    os.chown(cache, 5, 60)
    with pytest.raises(EngineError, match="can be written to by others"):
        runnable(hidden, OWNER, label="x")


@as_root
def test_a_cache_that_cannot_be_reached_either_is_an_error(
    hidden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGRESCUE_CACHE", str(tmp_path / "private" / "cache"))
    with pytest.raises(EngineError, match="neither in") as caught:
        runnable(hidden, OWNER, label="x")
    assert "PGRESCUE_CACHE" in caught.value.hint


@as_root
@pytest.mark.usefixtures("cache")
def test_only_an_installation_is_copied(tmp_path: Path) -> None:
    bindir = tmp_path / "private" / "bin"
    bindir.mkdir(parents=True)
    (bindir / "postgres").write_text("#!/bin/sh\n")
    (tmp_path / "private").chmod(0o700)
    with pytest.raises(EngineError, match="no installation"):
        runnable(bindir, OWNER, label="x")
