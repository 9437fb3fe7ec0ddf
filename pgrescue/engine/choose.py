"""Which engine serves a rescue, and the engine of a workspace that exists."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from pgrescue.engine.native import NativeEngine
from pgrescue.engine.native_find import NativeInstallation, find_native, known_native
from pgrescue.errors import EngineError, UsageError
from pgrescue.model import EngineName, PgVersion

if TYPE_CHECKING:
    from pgrescue.engine.docker_image import DockerInstallation
    from pgrescue.engine.interface import Engine
    from pgrescue.ledger import EngineRecord
    from pgrescue.pipeline import Observer
    from pgrescue.workspace import Workspace

    Found = DockerInstallation | NativeInstallation


@dataclass(frozen=True)
class EngineRequest:
    """What the user asked for; `name` is None for "whatever works"."""

    name: EngineName | None = None
    image: str | None = None
    bindir: Path | None = None

    def decided(self) -> EngineName | None:
        """Return the engine that the options imply; raise UsageError where they contradict each other."""
        implied = {EngineName.DOCKER} if self.image else set()
        implied |= {EngineName.NATIVE} if self.bindir else set()
        implied |= {self.name} if self.name else set()
        if len(implied) > 1:
            raise UsageError(
                "the options name two engines", hint="--image goes with --engine docker, --bindir with --engine native."
            )
        return next(iter(implied), None)


@dataclass(frozen=True)
class Choice:
    """The engine that was found, and why it is this one."""

    found: Found
    why: str


def choose_engine(request: EngineRequest, major: int, *, observer: Observer, pgdata: Path | None = None) -> Choice:
    """Find PostgreSQL `major`: as asked for, else in Docker where it answers and has the image, else on this machine.

    An absent image is pulled. `pgdata` is a copy that may exist already, whose owner is kept. Raises EngineError,
    with everything that was tried, where there is none.
    """
    name = request.decided()
    match name:
        case EngineName.DOCKER:
            found = _find_docker(major, image=request.image, observer=observer, pgdata=pgdata)
            return Choice(found, "as asked for")
        case EngineName.NATIVE:
            return Choice(find_native(major, bindir=request.bindir, pgdata=pgdata), "as asked for")
        case None:
            return _whatever_works(major, observer=observer, pgdata=pgdata)
        case _:
            assert_never(name)


def _whatever_works(major: int, *, observer: Observer, pgdata: Path | None) -> Choice:
    try:
        found = _find_docker(major, image=None, observer=observer, pgdata=pgdata)
    except EngineError as no_docker:
        try:
            native = find_native(major, pgdata=pgdata)
        except EngineError as no_native:
            raise EngineError(
                f"PostgreSQL {major} can be had neither from Docker nor from this machine.\n"
                f"Docker: {no_docker.problem}\nThis machine: {no_native.problem}",
                hint=no_native.hint,
            ) from no_native
        return Choice(native, f"Docker cannot be used: {no_docker.problem.splitlines()[0]}")
    return Choice(found, "a Docker engine answers and has the image")


def _find_docker(major: int, *, image: str | None, observer: Observer, pgdata: Path | None) -> DockerInstallation:
    # Docker's SDK takes 0.3 s to import, which a rescue without Docker does not spend.
    from pgrescue.engine.docker import find_docker  # noqa: PLC0415 - see above

    return find_docker(major, image=image, may_pull=True, observer=observer, pgdata=pgdata)


def bind(found: Found, workspace: Workspace, workspace_id: str) -> Engine:
    """Return the engine that runs `found` on a workspace."""
    if isinstance(found, NativeInstallation):
        return NativeEngine(found, workspace)
    from pgrescue.engine.docker import DockerEngine  # noqa: PLC0415 - see _find_docker

    return DockerEngine(found, workspace, workspace_id)


def reopen(record: EngineRecord, major: int, workspace: Workspace, workspace_id: str) -> Engine:
    """Return the engine of an existing workspace, to look at its server or to end it.

    Nothing is pulled or looked for: this works also where the image or the programs are gone meanwhile.
    """
    match record.name:
        case EngineName.DOCKER:
            from pgrescue.engine.docker import known_docker  # noqa: PLC0415 - see _find_docker

            image = record.image or f"postgres:{major}"
            return bind(known_docker(image, version=PgVersion(major), pgdata=workspace.pgdata), workspace, workspace_id)
        case EngineName.NATIVE:
            bindir = Path(record.bindir or "/")
            return bind(
                known_native(bindir, version=PgVersion(major), pgdata=workspace.pgdata), workspace, workspace_id
            )
        case _:
            assert_never(record.name)
