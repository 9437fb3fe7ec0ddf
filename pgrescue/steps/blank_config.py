"""Step: the data directory's own configuration is what the user wants of it; blank, it lets the copy start anywhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, assert_never

from pgrescue.files import sync_directory, write_atomically
from pgrescue.model import Finding, OwnConfig, Severity
from pgrescue.steps.own_config import FILES, TakenConfig
from pgrescue.steps.ownership import hand_over

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pgrescue.pipeline import Observer
    from pgrescue.run import Run

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
    """The runbook's third step: CloudNativePG's override.conf and custom.conf name paths that exist in its pod only.

    Where the copy is to start on a cluster, they are kept, or those of a clean database take their places.
    """

    name = "blank-config"
    title = "Settle override.conf and custom.conf"

    def holds(self, run: Run) -> bool:
        """Tell whether both are as wanted, and whether the server would find its other configuration files."""
        pgdata = run.workspace.pgdata
        return all(_content(pgdata / name) == content for name, content in _wanted(run).items()) and all(
            (pgdata / name).exists() for name in _DEFAULTS
        )

    def apply(self, run: Run, observer: Observer) -> None:  # noqa: ARG002 - nothing to watch
        """Keep the originals in removed/, once and for all; put what is wanted in their places."""
        pgdata = run.workspace.pgdata
        originals, wanted = _originals(run), _wanted(run)
        if not run.workspace.copied_config.exists():
            write_atomically(run.workspace.copied_config, json.dumps(sorted(originals)) + "\n")
        for name, content in wanted.items():
            if _content(pgdata / name) != content:
                if name in originals:
                    _set_aside(run, name)
                if content is None:
                    (pgdata / name).unlink(missing_ok=True)
                else:
                    _write(pgdata / name, content, run)
        for name, text in _DEFAULTS.items():
            if not (pgdata / name).exists():
                _write(pgdata / name, text.encode(), run)

    def findings(self, run: Run) -> tuple[Finding, ...]:
        """Name the files that were blanked, kept or taken from elsewhere."""
        match run.config:
            case OwnConfig.BLANK:
                return _blanked(_filled(run.workspace.removed))
            case OwnConfig.KEEP:
                return _kept(_filled(run.workspace.pgdata))
            case OwnConfig.TAKEN:
                return (_taken(TakenConfig.load(run.workspace.taken_config)),)
            case _:
                assert_never(run.config)


def _wanted(run: Run) -> Mapping[str, bytes | None]:
    """Return what each file is to hold, None where it is not to be there."""
    originals = _originals(run)
    match run.config:
        case OwnConfig.BLANK:
            # A missing include is fatal.
            included = run.snapshot.chosen.texts.get("postgresql.conf", "")
            return {name: b"" if name in originals or name in included else None for name in FILES}
        case OwnConfig.KEEP:
            return {name: _original(run, name) if name in originals else None for name in FILES}
        case OwnConfig.TAKEN:
            return TakenConfig.load(run.workspace.taken_config).contents
        case _:
            assert_never(run.config)


def _originals(run: Run) -> frozenset[str]:
    """Return which of the files the snapshot has: what the copy shows, until a change makes it be written down.

    An empty file that the snapshot does not have was made by a pgrescue that did not write it down.
    """
    workspace = run.workspace
    if workspace.copied_config.exists():
        return frozenset(json.loads(workspace.copied_config.read_text()))
    texts = run.snapshot.chosen.texts
    return frozenset(
        name
        for name in FILES
        if (workspace.removed / name).exists() or _content(workspace.pgdata / name) or name in texts
    )


def _original(run: Run, name: str) -> bytes | None:
    """Return a file as the snapshot has it: it lies in removed/, or was never touched."""
    aside = _content(run.workspace.removed / name)
    return _content(run.workspace.pgdata / name) if aside is None else aside


def _set_aside(run: Run, name: str) -> None:
    """Move an original to removed/; what lies in its place later is not one."""
    original, aside = run.workspace.pgdata / name, run.workspace.removed / name
    if original.exists() and not aside.exists():
        original.replace(aside)
        sync_directory(aside.parent)


def _filled(directory: Path) -> str:
    return ", ".join(name for name in FILES if _content(directory / name))


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _write(path: Path, content: bytes, run: Run) -> None:
    write_atomically(path, content)
    hand_over(run.engine, path)


def _blanked(names: str) -> tuple[Finding, ...]:
    if not names:
        return ()
    return (
        Finding(
            "config_blanked",
            Severity.INFO,
            names,
            "The snapshot's own settings are not in force; the server runs with pgrescue's.",
            "Nothing to do; the originals lie in removed/ of the workspace.",
        ),
    )


def _kept(names: str) -> tuple[Finding, ...]:
    if not names:
        return ()
    return (
        Finding(
            "config_kept",
            Severity.WARNING,
            names,
            "The snapshot's own settings are in the copy as they were: they name paths, certificates and perhaps a "
            "primary of its old home. The server here runs with pgrescue's.",
            "Start the copy elsewhere only where all of that exists and is meant; otherwise take the files of a clean "
            "database there (--config-from DIR), or none (--config-from blank).",
        ),
    )


def _taken(taken: TakenConfig) -> Finding:
    return Finding(
        "config_taken",
        Severity.INFO,
        ", ".join(FILES),
        f"The copy has those of {taken.directory}. The server here runs with pgrescue's.",
        "Start the copy where they come from (RECOVERY.md, section 4). The snapshot's own, if it has any, lie in "
        "removed/ of the workspace.",
    )
