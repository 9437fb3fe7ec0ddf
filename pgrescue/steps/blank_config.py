"""Step: the data directory's own configuration lets it start anywhere, as the runbook promises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgrescue.files import write_atomically
from pgrescue.model import Finding, Severity
from pgrescue.steps.ownership import hand_over

if TYPE_CHECKING:
    from pathlib import Path

    from pgrescue.pipeline import Observer
    from pgrescue.run import Run

BLANKED = ("override.conf", "custom.conf")

# Debian, Bitnami and others keep these outside of the data directory (formats.md §6); without them a plain
# `docker run` on it ends at once.
_DEFAULTS = {
    "postgresql.conf": "# Written by pgrescue: the snapshot had no postgresql.conf. All defaults.\n",
    "pg_hba.conf": (
        "# Written by pgrescue: the snapshot had no pg_hba.conf.\n"
        "local all all peer\n"
        "host all all 127.0.0.1/32 scram-sha-256\n"
        "host all all samenet scram-sha-256\n"
    ),
    "pg_ident.conf": "# Written by pgrescue: the snapshot had no pg_ident.conf.\n",
}


class BlankConfig:
    """The runbook's third step: CloudNativePG's override.conf and custom.conf name paths that exist in its pod only."""

    name = "blank-config"
    title = "Blank override.conf and custom.conf"

    def holds(self, run: Run) -> bool:
        """Tell whether both are empty or needless, and whether the server would find its configuration files."""
        pgdata = run.workspace.pgdata
        return all(_is_empty(pgdata / name) for name in _wanted(run)) and all(
            (pgdata / name).exists() for name in _DEFAULTS
        )

    def apply(self, run: Run, observer: Observer) -> None:  # noqa: ARG002 - nothing to watch
        """Keep the originals in removed/; make empty files, since a missing include is fatal."""
        pgdata, removed = run.workspace.pgdata, run.workspace.removed
        for name in _wanted(run):
            if not _is_empty(pgdata / name):
                if (pgdata / name).exists():
                    (pgdata / name).replace(removed / name)
                _write(pgdata / name, "", run)
        for name, text in _DEFAULTS.items():
            if not (pgdata / name).exists():
                _write(pgdata / name, text, run)

    def findings(self, run: Run) -> tuple[Finding, ...]:
        """Name the files that were blanked."""
        names = [name for name in BLANKED if (run.workspace.removed / name).exists()]
        if not names:
            return ()
        return (
            Finding(
                "config_blanked",
                Severity.INFO,
                ", ".join(names),
                "The snapshot's own settings are not in force; the server runs with pgrescue's.",
                "Nothing to do; the originals lie in removed/ of the workspace.",
            ),
        )


def _wanted(run: Run) -> tuple[str, ...]:
    """Return the files to blank: those in the snapshot, and those that its postgresql.conf may include."""
    texts = run.snapshot.chosen.texts
    return tuple(name for name in BLANKED if name in texts or name in texts.get("postgresql.conf", ""))


def _is_empty(path: Path) -> bool:
    return path.exists() and path.stat().st_size == 0


def _write(path: Path, text: str, run: Run) -> None:
    write_atomically(path, text)
    hand_over(run, path)
