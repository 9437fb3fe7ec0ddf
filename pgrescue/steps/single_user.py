"""PostgreSQL in single-user mode: no port, no other session, and the bootstrap superuser whatever its name is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgrescue.errors import CopyRefusedError
from pgrescue.files import write_atomically
from pgrescue.steps.ownership import hand_over

if TYPE_CHECKING:
    from pgrescue.command import Completed
    from pgrescue.run import Run

_SHOWN_LINES = 12


def single_user(run: Run, statements: str, *, log: str) -> Completed:
    """Run `statements`, one in each line, in template1; keep what the server said under `log` in logs/.

    Raises CopyRefusedError with the server's last words where it does not come up. The caller judges the rest:
    single-user mode goes on after an error in a statement, and ends with status 0.
    """
    workspace = run.workspace
    script = workspace.server / "single-user.sql"
    write_atomically(script, statements)
    hand_over(run, script)
    try:
        done = run.engine.run(
            "postgres",
            (
                "--single",
                "-D",
                run.engine.path(workspace.pgdata),
                "-c",
                f"config_file={run.engine.path(workspace.server / 'postgresql.conf')}",
                "template1",
            ),
            stdin=script,
        )
    finally:
        script.unlink(missing_ok=True)
    write_atomically(workspace.logs / log, done.stderr)
    if done.status != 0:
        said = "\n".join(f"  {line}" for line in done.stderr.strip().splitlines()[-_SHOWN_LINES:])
        raise CopyRefusedError(
            f"PostgreSQL ended with status {done.status} on the copy; it said last:\n{said}",
            hint=f"All that it said is in {workspace.logs / log}",
        )
    return done
