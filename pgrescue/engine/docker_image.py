"""Finding an image with PostgreSQL's programs for one major."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pgrescue.engine.docker_container import probe_config
from pgrescue.engine.docker_daemon import NATIVE_HINT, Daemon, MissingError
from pgrescue.engine.interface import Installation
from pgrescue.errors import EngineError
from pgrescue.ledger import EngineRecord
from pgrescue.model import EngineName, Outcome, Owner, PgVersion, StepReport
from pgrescue.pipeline import Unit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pgrescue.pipeline import Observer

_DEBIAN = Owner(999, 999)
_ALPINE = Owner(70, 70)
_PROBE = "postgres --version && id -u postgres && id -g postgres"


@dataclass(frozen=True)
class DockerInstallation:
    """PostgreSQL's programs in an image; `image` is the reference that the user knows it by."""

    image: str
    installation: Installation

    @property
    def version(self) -> PgVersion:
        """The version of the image's programs."""
        return self.installation.version

    @property
    def owner(self) -> Owner | None:
        """The identity that runs the programs, None for the caller's."""
        return self.installation.owner


def default_image(major: int) -> str:
    """Return the official image of a major."""
    return f"postgres:{major}"


def docker_unavailable() -> str | None:
    """Say why the docker engine cannot be used on this machine, or return None when it can; takes 5 s at most."""
    try:
        with contextlib.closing(Daemon()) as daemon:
            return daemon.refusal()
    except EngineError as error:
        return error.problem


def image_is_present(image: str) -> bool:
    """Tell whether the daemon has an image; False where no daemon answers."""
    try:
        with contextlib.closing(Daemon()) as daemon:
            daemon.image(image)
    except EngineError:
        return False
    return True


def find_docker(
    major: int, *, image: str | None, may_pull: bool, observer: Observer, pgdata: Path | None = None
) -> DockerInstallation:
    """Return the image `image`, or else the official one, after pulling it where it is absent and `may_pull`.

    `pgdata` is a copy that may exist already: as root, its owner is kept. Raises EngineError, with the remedy,
    where the daemon cannot be used, where there is no image, or where the image's PostgreSQL is of another major.
    """
    reference = image or default_image(major)
    with contextlib.closing(Daemon()) as daemon:
        if reason := daemon.refusal():
            raise EngineError(reason, hint=NATIVE_HINT)
        inspected = _have(daemon, reference, major=major, may_pull=may_pull, observer=observer)
        content = _content(daemon, reference, inspected)
    if content.version.major != major:
        raise EngineError(
            f"the snapshot is of PostgreSQL {major}, and the image {reference} has PostgreSQL {content.version}",
            hint=f"Name an image of PostgreSQL {major} with --image, or leave it out to take {default_image(major)}.",
        )
    return _installation(reference, content.version, owner_for(pgdata, default=content.postgres))


def known_docker(image: str, *, version: PgVersion, pgdata: Path) -> DockerInstallation:
    """Return the image of an existing workspace without asking Docker: for status, logs, stop and rm."""
    return _installation(image, version, owner_for(pgdata, default=_DEBIAN))


def owner_for(pgdata: Path | None, *, default: Owner) -> Owner | None:
    """Return who should own the data directory: the caller, or as root its present owner, or else `default`."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(FileNotFoundError):
        if pgdata is not None and (found := pgdata.stat()).st_uid != 0:
            return Owner(found.st_uid, found.st_gid)
    return default


def _installation(image: str, version: PgVersion, owner: Owner | None) -> DockerInstallation:
    run_as = f", run as {owner}" if owner else ""
    return DockerInstallation(
        image,
        Installation(
            name=EngineName.DOCKER,
            version=version,
            owner=owner,
            described=f"docker, image {image} (PostgreSQL {version}{run_as})",
            record=EngineRecord(EngineName.DOCKER, image=image),
        ),
    )


@dataclass(frozen=True)
class Content:
    """What an image holds: its PostgreSQL, and who its user `postgres` is."""

    version: PgVersion
    postgres: Owner

    @classmethod
    def told(cls, inspected: Mapping[str, Any]) -> Content | None:
        """Read it from the image's environment, or return None where that does not tell.

        The official Dockerfiles set PG_MAJOR and PG_VERSION to what they install, and derived images inherit both.
        Only Alpine's, which compile PostgreSQL, have PG_SHA256; their user is 70, Debian's 999. Asking the programs
        instead costs one container, which is half of what a whole rescue of a small snapshot takes.
        """
        environment = dict(entry.partition("=")[::2] for entry in inspected["Config"]["Env"] or [])
        major, version = environment.get("PG_MAJOR", ""), environment.get("PG_VERSION", "")
        if not major.isdecimal() or re.match(rf"{major}(\.|beta|rc)\d", version) is None:
            return None
        return cls(PgVersion.parse(version), _ALPINE if "PG_SHA256" in environment else _DEBIAN)

    @classmethod
    def answered(cls, said: str) -> Content:
        """Read the answer of the programs themselves: the version, then the user's ids, one on each line."""
        version, *ids = said.splitlines()
        owner = Owner(int(ids[0]), int(ids[1])) if len(ids) > 1 else _DEBIAN
        return cls(PgVersion.parse(version), owner)


def _content(daemon: Daemon, reference: str, inspected: Mapping[str, Any]) -> Content:
    """Find what an image holds: by its environment, else by running its programs."""
    if told := Content.told(inspected):
        return told
    config = probe_config(reference, inspected["Config"].get("Volumes") or {}, _PROBE)
    _, out, err = daemon.run(config, name=f"pgrescue-probe-{secrets.token_hex(4)}", timeout_s=60)
    try:
        return Content.answered(out)
    except ValueError as error:
        raise EngineError(
            f"the image {reference} does not tell its PostgreSQL version: {(err or out).strip() or 'it said nothing'}",
            hint="Name an image that has the program postgres on its PATH with --image.",
        ) from error


def _have(daemon: Daemon, reference: str, *, major: int, may_pull: bool, observer: Observer) -> dict[str, Any]:
    """Return the description of an image, pulled where it is absent."""
    try:
        return daemon.image(reference)
    except MissingError:
        if not may_pull:
            raise EngineError(
                f"Docker has no image {reference}, and it may not be pulled", hint=_image_hint(reference, major)
            ) from None
    _pull(daemon, reference, major=major, observer=observer)
    return daemon.image(reference)


def _pull(daemon: Daemon, reference: str, *, major: int, observer: Observer) -> None:
    """Pull an image, telling the bytes of its layers; raise EngineError where it cannot be had."""
    begun = time.monotonic()

    def end(outcome: Outcome) -> None:
        observer.ended(StepReport("pull", outcome, round(time.monotonic() - begun, 3)))

    observer.started("pull", f"Pull the image {reference}")
    progress = PullProgress()
    try:
        for report in daemon.pull(reference):
            if progress.learn(report):
                observer.advanced(progress.done, progress.total, Unit.BYTES)
    except EngineError as error:
        end(Outcome.FAILED)
        raise EngineError(
            f"the image {reference} is not here and cannot be pulled: {error.problem}",
            hint=_image_hint(reference, major),
        ) from error
    end(Outcome.DONE)


@dataclass
class PullProgress:
    """How far a pull is: bytes of its layers downloaded so far, and of all layers that are known by now."""

    _layers: dict[str, tuple[int, int]] = field(default_factory=dict)

    def learn(self, report: Mapping[str, Any]) -> bool:
        """Take one of the daemon's reports; tell whether it changed anything."""
        layer, detail = str(report.get("id", "")), report.get("progressDetail") or {}
        match report.get("status"):
            case "Downloading" if "current" in detail:
                self._layers[layer] = (detail["current"], detail.get("total", detail["current"]))
            case "Download complete" if layer in self._layers:
                total = self._layers[layer][1]
                self._layers[layer] = (total, total)
            case _:
                return False
        return True

    @property
    def done(self) -> int:
        """Bytes downloaded."""
        return sum(done for done, _ in self._layers.values())

    @property
    def total(self) -> int:
        """Bytes of the layers that are known to be needed; it grows while the daemon learns of more."""
        return sum(total for _, total in self._layers.values())


def _image_hint(reference: str, major: int) -> str:
    """Return the ways to get an image."""
    return (
        f"Try `docker pull {reference}` by hand for the reason; where no registry can be reached, bring the image from "
        f"another machine with `docker save {reference} | gzip > image.tar.gz` and `docker load -i image.tar.gz`, or "
        f"build a stand-in with compose/image/build.sh. Or name another image of PostgreSQL {major} with --image, or "
        "take the programs of this machine with --engine native."
    )
