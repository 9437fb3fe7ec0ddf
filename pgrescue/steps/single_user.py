"""PostgreSQL in single-user mode: no port, no other session, and the bootstrap superuser whatever its name is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

from pgrescue.errors import CopyRefusedError
from pgrescue.files import write_atomically
from pgrescue.steps.ownership import hand_over

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pgrescue.command import Completed
    from pgrescue.run import Run

_SHOWN_LINES = 12


def single_user(
    run: Run,
    statements: str,
    *,
    log: str,
    settings: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> Completed:
    """Run `statements`, one in each line, in template1; append what the server says to `log` in logs/ as it comes.

    `settings` go before those of the configuration; `on_line` hears every line. Raises CopyRefusedError with the
    server's last words where it does not come up. The caller judges the rest: single-user mode goes on after an error
    in a statement, and ends with status 0.
    """
    workspace = run.workspace
    script = workspace.server / "single-user.sql"
    write_atomically(script, statements)
    hand_over(run.engine, script)
    told = (f"{name}={value}" for name, value in (settings or {}).items())
    try:
        with _Log(workspace.logs / log, on_line) as record:
            done = run.engine.run(
                "postgres",
                (
                    "--single",
                    "-D",
                    run.engine.path(workspace.pgdata),
                    "-c",
                    f"config_file={run.engine.path(workspace.server / 'postgresql.conf')}",
                    *(word for setting in told for word in ("-c", setting)),
                    "template1",
                ),
                stdin=script,
                on_stderr=record.add,
            )
    finally:
        script.unlink(missing_ok=True)
    if done.status != 0:
        said = "\n".join(f"  {line}" for line in done.stderr.strip().splitlines()[-_SHOWN_LINES:])
        raise CopyRefusedError(
            f"PostgreSQL ended with status {done.status} on the copy; it said last:\n{said}",
            hint=f"All that it said is in {workspace.logs / log}",
        )
    return done


class _Log:
    """What the server says, written line by line, so that a kill loses none of it; nobody else may read it."""

    def __init__(self, path: Path, on_line: Callable[[str], None] | None) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._on_line = on_line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def add(self, line: str) -> None:
        """Keep a line, and pass it on."""
        os.write(self._descriptor, f"{line}\n".encode(errors="replace"))
        if self._on_line is not None:
            self._on_line(line)
