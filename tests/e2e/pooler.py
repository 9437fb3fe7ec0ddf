"""PgBouncer before a fixture's server, as one sees it before a managed database."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

import psycopg
import pytest

from fixtures.command import spawn
from fixtures.server import PORT

if TYPE_CHECKING:
    from fixtures import Server

_START_S = 20
_STOP_S = 10


def find_pooler() -> str:
    """Return PgBouncer's path; skip the test without one, or fail it where PGRESCUE_REQUIRE_POOLER is 1."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        reason = "no pooler: pgbouncer is not installed"
        if os.environ.get("PGRESCUE_REQUIRE_POOLER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


class Pooler:
    """A PgBouncer that exists inside a `with` block, on a Unix socket, and lets every user of `users` in."""

    def __init__(self, server: Server, *, mode: str, users: tuple[str, ...], settings: str = "") -> None:
        self._program = find_pooler()
        self._server, self._mode, self._users, self._settings = server, mode, users, settings
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as cleanup:
            self.home = Path(tempfile.mkdtemp(prefix="pooler-", dir="/tmp"))
            cleanup.callback(shutil.rmtree, self.home, ignore_errors=True)
            (self.home / "users").write_text("".join(f'"{user}" ""\n' for user in self._users))
            (self.home / "pgbouncer.ini").write_text(self._configuration())
            # It refuses to run as root.
            identity = self._server.identity
            if identity is not None:
                os.chown(self.home, identity.uid, identity.gid)
            with (self.home / "log").open("wb") as log:
                process = spawn([self._program, self.home / "pgbouncer.ini"], log=log, identity=identity)
            cleanup.callback(_end, process)
            self._await(process)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def url(self, database: str, user: str) -> str:
        """Return the URL of a database behind it."""
        return f"postgresql://{user}@/{database}?host={quote(str(self.home), safe='')}&port={PORT}"

    def _configuration(self) -> str:
        return (
            f"[databases]\n* = host={self._server.socket_dir} port={PORT}\n"
            f"[pgbouncer]\nlisten_port = {PORT}\nunix_socket_dir = {self.home}\npool_mode = {self._mode}\n"
            f"auth_type = trust\nauth_file = {self.home}/users\n{self._settings}\n"
        )

    def _await(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and process.poll() is None:
            try:
                psycopg.connect(self.url("postgres", self._users[0]), connect_timeout=2).close()
            except psycopg.OperationalError:
                time.sleep(0.02)
            else:
                return
        pytest.fail(f"pgbouncer does not answer:\n{(self.home / 'log').read_text(errors='replace')[-2000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
