"""Who runs PostgreSQL's programs, and a copy of them that this identity can read."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pwd
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pgrescue import command
from pgrescue.errors import EngineError, ToolError
from pgrescue.model import Owner

if TYPE_CHECKING:
    from collections.abc import Iterator

# `postgres --single` and initdb refuse a user id without an account (src/common/username.c), so that an unused number
# is not enough. These accounts exist on nearly every system, own next to nothing and run nothing. An account of the
# name pgrescue, made by an administrator, goes before them. `postgres` may own a production server on this machine,
# and nobody, daemon, mail and www-data run services.
_QUIET = ("pgrescue", "games", "_games", "news", "uucp", "_uucp", "irc", "list", "lp")
_CACHE = Path("/var/cache/pgrescue")
_PARTS = ("bin", "lib", "lib64", "share")


def choose_owner(pgdata: Path | None) -> Owner | None:
    """Return the identity that runs PostgreSQL, None for the caller's own.

    PostgreSQL refuses root. For root it is the owner of an existing copy, else who called sudo, else an account that
    nothing else runs as. Raises EngineError where the machine has none, or where the caller has no account.
    """
    if os.geteuid() != 0:
        _require_account(os.geteuid())
        return None
    if pgdata is not None:
        with contextlib.suppress(FileNotFoundError):
            found = pgdata.stat()
            if found.st_uid != 0:
                return Owner(found.st_uid, found.st_gid)
    return _sudo_caller() or _quiet_account()


def _sudo_caller() -> Owner | None:
    try:
        caller = Owner(int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"]))
    except (KeyError, ValueError):
        return None
    return caller if caller.uid > 0 and caller.gid > 0 and _has_account(caller.uid) else None


def _has_account(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _require_account(uid: int) -> None:
    if not _has_account(uid):
        raise EngineError(
            f"the user id {uid} has no account on this machine, and PostgreSQL does not run without one",
            hint=f"Give it one (in a container: add `rescue:x:{uid}:0::/:` to /etc/passwd), or use --engine docker.",
        )


def _quiet_account() -> Owner:
    busy = _busy_users()
    for name in _QUIET:
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            if found.pw_uid > 0 and found.pw_uid not in busy:
                return Owner(found.pw_uid, found.pw_gid)
    raise EngineError(
        "PostgreSQL does not run as root, and no account here is free to run it: looked for " + ", ".join(_QUIET),
        hint="Run pgrescue as an ordinary user, or make an account for it: useradd --system pgrescue",
    )


def _busy_users() -> frozenset[int]:
    """Return the users with a process, PostgreSQL aside: under a quiet account that is another workspace's server."""
    busy = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "comm").read_text().strip() != "postgres":
                busy.add(process.stat().st_uid)
    return frozenset(busy)


def runnable(bindir: Path, owner: Owner | None, *, label: str) -> Path:
    """Return a directory from which `owner` can run the programs of `bindir`: itself, or a copy in the cache.

    root's own Python often lies below /root, which only root may pass. No permission is changed there: the programs
    are copied once, to a directory of root's that everybody may read. `label` begins the name of the copy.
    Raises EngineError where no copy can be made or where it does not run either.
    """
    if owner is None or _runs(bindir, owner):
        return bindir
    copy = _copied(bindir, label=label)
    if not _runs(copy, owner):
        raise EngineError(
            f"the identity {owner} can run the programs neither in {bindir} nor in their copy {copy}",
            hint="Name a directory that every user can reach with PGRESCUE_CACHE, or install PostgreSQL there.",
        )
    return copy


def _runs(bindir: Path, owner: Owner) -> bool:
    try:
        return command.run([str(bindir / "postgres"), "--version"], cwd=Path("/"), owner=owner).status == 0
    except ToolError:
        return False


def _copied(bindir: Path, *, label: str) -> Path:
    """Return the bindir of the copy in the cache; make the copy where there is none."""
    prefix = bindir.resolve().parent
    if not any(prefix.glob("share/**/postgres.bki")):
        raise EngineError(
            f"the programs in {bindir} cannot be read by an unprivileged user, and {prefix} is no installation "
            "that could be copied",
            hint="Install PostgreSQL where every user can read it, or run pgrescue as an ordinary user.",
        )
    cache = _cache()
    final = cache / f"{label}-{_fingerprint(bindir)}"
    # The same layout as the source: wheels look for their libraries in ../../../<package>.libs (readelf -d).
    copy = final / prefix.parent.name / prefix.name / "bin"
    with _only_one(cache):
        if not final.is_dir():
            _copy(prefix, final)
    return copy


def _fingerprint(bindir: Path) -> str:
    """Return what changes when another installation takes this place."""
    program = (bindir / "postgres").stat()
    return hashlib.sha256(f"{bindir}\0{program.st_mtime_ns}\0{program.st_size}".encode()).hexdigest()[:12]


def _cache() -> Path:
    """Return the directory of copies, made if need be; raise EngineError where others could write to it."""
    cache = Path(os.environ.get("PGRESCUE_CACHE") or _CACHE)
    hint = "Name a place of root's that every user can read with PGRESCUE_CACHE."
    try:
        if not cache.is_dir():
            cache.mkdir(parents=True)
            cache.chmod(0o755)
        found = cache.stat()
    except OSError as error:
        raise EngineError(f"PostgreSQL's programs cannot be copied to {cache}: {error.strerror}", hint=hint) from error
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise EngineError(f"{cache} can be written to by others: no programs are run from there", hint=hint)
    return cache


@contextlib.contextmanager
def _only_one(cache: Path) -> Iterator[None]:
    """Let one process at a time change the cache; what it finds half made was left by a kill."""
    descriptor = os.open(cache, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for aside in cache.glob(".making-*"):
            shutil.rmtree(aside)
        yield
    finally:
        os.close(descriptor)


def _copy(prefix: Path, final: Path) -> None:
    """Copy an installation so that `final` is complete or absent, after a power failure too."""
    aside = Path(tempfile.mkdtemp(prefix=".making-", dir=final.parent))
    try:
        package = prefix.parent
        for part in _PARTS:
            if (prefix / part).is_dir():
                shutil.copytree(prefix / part, aside / package.name / prefix.name / part, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, aside / libraries.name, symlinks=True)
        _publish(aside)
        aside.rename(final)
    except OSError as error:
        raise EngineError(
            f"PostgreSQL's programs in {prefix} cannot be copied to {final}: {error}",
            hint="Make room there, or name another place with PGRESCUE_CACHE.",
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _publish(tree: Path) -> None:
    """Let everybody read the copy, and have all of it on disk."""
    for directory, _, files in os.walk(tree):
        Path(directory).chmod(0o755)
        for name in files:
            path = Path(directory, name)
            if path.is_symlink():
                continue
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
            with path.open("rb") as file:
                os.fsync(file.fileno())
