"""Step: no map of free space or visibility of another instant is left, and unlogged tables are empty.

A visibility map that is newer than its table makes index-only scans return deleted rows and old values without an
error; the server makes both maps anew. Unlogged tables are reset as PostgreSQL does after a crash
(`src/backend/storage/file/reinit.c`), since the reset made the copy look like one that was shut down.
"""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from pgrescue.files import sync_directory, write_atomically
from pgrescue.pipeline import Observer, Unit
from pgrescue.steps.ownership import hand_over

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgrescue.model import Finding
    from pgrescue.run import Run
    from pgrescue.workspace import Workspace

_MAP = re.compile(r"\d+_(?:vm|fsm)(?:\.\d+)?", re.ASCII)
_INIT = re.compile(r"(\d+)_init", re.ASCII)
_MAIN = re.compile(r"(\d+)(?:\.\d+)?", re.ASCII)
_DONE = "maps-forgotten"  # in removed/, which is emptied when the copy is made anew


class ForgetMaps:
    """It comes before the server first starts; later the maps are the server's own, and true."""

    name = "forget-maps"
    title = "Forget the maps of free space and visibility"

    def holds(self, run: Run) -> bool:
        """Tell whether it was done on this copy, or nothing is to be repaired: then the reset is the runbook's."""
        return not run.repairs or not run.computes_reset or _marker(run.workspace).exists()

    def apply(self, run: Run, observer: Observer) -> None:
        """Move the maps, and the content of unlogged relations, to removed/; the mark that it is done comes last."""
        directories = tuple(database_directories(run.workspace.pgdata))
        for number, directory in enumerate(directories, start=1):
            for file in sorted(directory.iterdir()):
                if _MAP.fullmatch(file.name):
                    _remove(run.workspace, file)
            _reset_unlogged(run, directory)
            sync_directory(directory)
            observer.advanced(number, len(directories), Unit.ITEMS)
        write_atomically(_marker(run.workspace), "")

    def findings(self, run: Run) -> tuple[Finding, ...]:  # noqa: ARG002 - every step is asked the same
        """Nothing is worth telling: the server makes the maps anew, and the repair names the unlogged tables."""
        return ()


def database_directories(pgdata: Path) -> Iterator[Path]:
    """Yield every directory that holds files of relations: `global`, `base/*` and `pg_tblspc/*/PG_*/*`."""
    yield pgdata / "global"
    for pattern in ("base/*", "pg_tblspc/*/PG_*/*"):
        yield from (path for path in sorted(pgdata.glob(pattern)) if path.is_dir())


def _marker(workspace: Workspace) -> Path:
    return workspace.removed / _DONE


def _reset_unlogged(run: Run, directory: Path) -> None:
    """Give each relation that has an init fork that fork's content."""
    names = {match[1] for file in directory.iterdir() if (match := _INIT.fullmatch(file.name))}
    if not names:
        return
    for file in sorted(directory.iterdir()):
        match = _MAIN.fullmatch(file.name)
        if match and match[1] in names:
            _remove(run.workspace, file)
    for name in sorted(names):
        # PostgreSQL itself would take a part for the whole: the file gets its name when it is complete.
        aside = directory / f"pgsql_tmp.pgrescue.{name}"
        shutil.copyfile(directory / f"{name}_init", aside)
        aside.chmod((directory / f"{name}_init").stat().st_mode & 0o777)
        hand_over(run.engine, aside)
        aside.replace(directory / name)


def _remove(workspace: Workspace, file: Path) -> None:
    """Move a file to its place in removed/; what an earlier attempt kept there is the older one, and stays."""
    target = workspace.removed / file.relative_to(workspace.pgdata)
    if target.exists():
        file.unlink()
        return
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.move(file, target)
