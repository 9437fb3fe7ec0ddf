"""Step: a person finds in the workspace how to reach the server, and how to keep it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from pgrescue.engine.interface import ServerState
from pgrescue.errors import ServerError
from pgrescue.files import write_atomically
from pgrescue.model import EngineName
from pgrescue.steps.access import ROLE
from pgrescue.steps.configure import CONFIG, HBA, IDENT
from pgrescue.steps.connection import HOST

if TYPE_CHECKING:
    from pathlib import Path

    from pgrescue.model import Finding
    from pgrescue.pipeline import Observer
    from pgrescue.run import Run

_MOVED_SINCE = 18  # from then on the image's PGDATA is /var/lib/postgresql/18/docker, its volume /var/lib/postgresql


class HandOver:
    """Writes pg_service.conf and compose.yaml for the port where the server listens now."""

    name = "hand-over"
    title = "Write down how to connect"

    def holds(self, run: Run) -> bool:
        """Tell whether both files speak of the server as it runs now."""
        return all(path.exists() and path.read_text() == text for path, text in _files(run).items())

    def apply(self, run: Run, observer: Observer) -> None:  # noqa: ARG002 - nothing to watch
        """Write them."""
        for path, text in _files(run).items():
            write_atomically(path, text)

    def findings(self, run: Run) -> tuple[Finding, ...]:  # noqa: ARG002 - every step is asked the same
        """Nothing is worth telling."""
        return ()


def _files(run: Run) -> dict[Path, str]:
    status = run.engine.status()
    if status.state is not ServerState.RUNNING or status.port is None:
        raise ServerError("the server ended after it was checked", hint="Run the same command again.")
    return {
        run.workspace.service_file: service(status.port, run.workspace.pgpass),
        run.workspace.compose: compose(run, status.port),
    }


def service(port: int, pgpass: Path) -> str:
    """Return libpq's service file; the password stays in the password file."""
    return (
        "# Written by pgrescue. PGSERVICEFILE=<this file> psql service=pgrescue\n"
        f"[pgrescue]\nhost={HOST}\nport={port}\nuser={ROLE}\ndbname=postgres\npassfile={pgpass}\nsslmode=disable\n"
    )


def compose(run: Run, port: int) -> str:
    """Return a compose file that runs the copy as pgrescue does: same configuration, same role, same port."""
    record = run.engine.installation.record
    major = run.snapshot.chosen.major
    image = record.image if record.name is EngineName.DOCKER and record.image else f"postgres:{major}"
    owner = run.engine.installation.owner
    user = str(owner) if owner else f"{os.getuid()}:{os.getgid()}"
    volume = "/var/lib/postgresql" if major >= _MOVED_SINCE else "/var/lib/postgresql/data"
    command = ["postgres", "-D", "/pgrescue/pgdata"]
    for name, file in (("config_file", CONFIG), ("hba_file", HBA), ("ident_file", IDENT)):
        command += ["-c", f"{name}=/pgrescue/server/{file}"]
    command += ["-c", "listen_addresses=*", "-c", "unix_socket_directories="]
    return f"""\
# Written by pgrescue: the rescued server for keeping. Stop pgrescue's own first (pgrescue stop), then, in this
# directory: docker compose up -d. Role and password are the same (pgpass).
name: {json.dumps(f"pgrescue-{port}")}
services:
  postgres:
    image: {json.dumps(image)}
    user: {json.dumps(user)}
    entrypoint: {json.dumps(command[:1])}
    command: {json.dumps(command[1:])}
    environment:
      PGDATA: /pgrescue/pgdata
    ports:
      - {json.dumps(f"{HOST}:{port}:5432")}
    volumes:
      - ./pgdata:/pgrescue/pgdata
      - ./server:/pgrescue/server:ro
    tmpfs:
      - {json.dumps(volume)}
    shm_size: 1g
    stop_signal: SIGINT
    stop_grace_period: 10m
"""
