"""How a refusal looks, and whoever is refused."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli import TIMEOUT_S, Done, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOBODY = 65534

# As root, the interpreter itself may lie where nobody else can read, so that everything is imported before.
_AS_NOBODY = f"""
import os, sys
import docker, psycopg, numpy, tenacity, requests
import pgrescue.engine.docker, pgrescue.snapshot.pages, pgrescue.__main__
os.setgroups([])
os.setgid({_NOBODY})
os.setuid({_NOBODY})
pgrescue.__main__.main()
"""


def refused(done: Done, *words: str, status: int = 2) -> None:
    """Assert that a command with --json ended in one clear error that says all of `words`."""
    assert done.status == status, f"status {done.status}\n{done.stdout}\n{done.stderr}"
    error = done.document()["error"]
    assert set(error) == {"problem", "hint", "exit_status"}
    assert error["exit_status"] == status
    assert "Traceback" not in done.stderr
    assert f"error: {error['problem'].splitlines()[0]}" in done.stderr
    said = f"{error['problem']}\n{error['hint']}"
    assert [word for word in words if word not in said] == [], said
    assert error["hint"], f"no remedy: {error['problem']}"


def there(directory: Path) -> list[str]:
    """Return the names in a directory."""
    return sorted(path.name for path in directory.iterdir())


@contextlib.contextmanager
def public_directory() -> Iterator[Path]:
    """Make a directory that everybody can reach and that nobody else can write to."""
    with tempfile.TemporaryDirectory(prefix="pgrescue-test-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def as_plain_user(*arguments: str | Path, cwd: Path) -> Done:
    """Run one command as somebody who is not root; where root runs the tests, `cwd` is a public directory."""
    program = ["-c", _AS_NOBODY] if os.geteuid() == 0 else ["-m", "pgrescue"]
    done = subprocess.run(
        [sys.executable, *program, *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def small_disk(place: Path, *, megabytes: int) -> Iterator[Path]:
    """Mount a file system of this size at `place`; only root can."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
