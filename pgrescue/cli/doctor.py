"""`pgrescue doctor`: can this machine do it."""

from __future__ import annotations

import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pgrescue.cli.common import JsonOption, output, print_json
from pgrescue.engine.native_find import find_native
from pgrescue.errors import EngineError, ExitStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAJORS = (15, 16, 17, 18)
_LOW_BYTES = 10 << 30


@dataclass(frozen=True)
class Check:
    """One thing that a rescue may need, whether it is there, and how to get it."""

    name: str
    detail: str
    remedy: str = ""
    ok: bool = True


def doctor(as_json: JsonOption = False) -> None:
    """Check what this machine can do: engines and majors, disk, ports, FUSE. Exit status 1 where no engine works."""
    checks = list(_checks())
    able = any(check.ok for check in checks if check.name.startswith(("docker", "native")))
    if as_json:
        print_json({"schema": 1, "able": able, "checks": [vars(check) for check in checks]})
    else:
        console = output()
        for check in checks:
            console.print(
                f"{'ok' if check.ok else 'no':<4}{check.name:<12}{check.detail}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
            if check.remedy and not check.ok:
                console.print(f"{'':<16}-> {check.remedy}", markup=False, highlight=False, soft_wrap=True)
    if not able:
        raise typer.Exit(int(ExitStatus.FAILED))


def _checks() -> Iterator[Check]:
    yield from _docker()
    for major in _MAJORS:
        yield _native(major)
    free = shutil.disk_usage(Path.cwd()).free
    yield Check(
        "disk",
        f"{free / (1 << 30):,.1f} GiB are free here; a rescue needs the size of the unpacked data",
        "Name a directory on a larger disk with --workspace.",
        ok=free >= _LOW_BYTES,
    )
    yield _port()
    fuse = Path("/dev/fuse").exists()
    yield Check("fuse", "/dev/fuse is there" if fuse else "there is no /dev/fuse", "Nothing needs it yet.", ok=fuse)


def _docker() -> Iterator[Check]:
    # Docker's SDK takes 0.3 s to import, which no other command should wait for.
    from pgrescue.engine.docker import docker_unavailable, image_is_present  # noqa: PLC0415 - see above

    reason = docker_unavailable()
    if reason is not None:
        yield Check("docker", reason.splitlines()[0], "Start Docker, or use --engine native.", ok=False)
        return
    for major in _MAJORS:
        image = f"postgres:{major}"
        present = image_is_present(image)
        yield Check(
            f"docker {major}",
            f"the image {image} is {'here' if present else 'not here; it is pulled when it is needed'}",
            f"To have it before the night: docker pull {image}",
            ok=present,
        )


def _native(major: int) -> Check:
    try:
        found = find_native(major)
    except EngineError as error:
        return Check(f"native {major}", f"PostgreSQL {major} was not found on this machine", error.hint, ok=False)
    return Check(f"native {major}", found.installation.described)


def _port() -> Check:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", 0))
        except OSError as error:
            return Check(
                "port", f"no port can be opened on 127.0.0.1: {error.strerror}", "Look at the firewall.", ok=False
            )
    return Check("port", "ports can be opened on 127.0.0.1")
