"""The directory of one drill: everything that it makes lies there, and goes with it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from pgrescue.engine.choose import reopen
from pgrescue.errors import RescueError, UsageError
from pgrescue.files import write_atomically
from pgrescue.ledger import Ledger
from pgrescue.signals import shielded
from pgrescue.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUFFIX = ".drill"
_MARK = "drill.json"
_AT_ONCE_S = 1


class Keep(StrEnum):
    """What becomes of the drill's directory and servers at its end."""

    NEVER = "never"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


@dataclass(frozen=True)
class Home:
    """Where a drill happens; the directory is locked by the drill's process for as long as that lives."""

    root: Path

    @property
    def workspace(self) -> Workspace:
        """The rescue."""
        return Workspace(self.root / "rescue.pgrescue")

    @property
    def target(self) -> Workspace:
        """The throwaway server that the database is moved into."""
        return Workspace(self.root / "target.pgrescue")

    @property
    def fetched(self) -> Path:
        """What was fetched from an object store."""
        return self.root / "fetched"

    def keep(self) -> None:
        """Mark the directory as kept on purpose: no later drill clears it away."""
        _mark(self.root, is_kept=True)

    @property
    def is_kept(self) -> bool:
        """Tell whether the directory was kept on purpose; what cannot be read is left alone, too."""
        try:
            return bool(json.loads((self.root / _MARK).read_text())["is_kept"])
        except (OSError, ValueError, KeyError, TypeError):
            return True

    def end_target(self) -> None:
        """End the throwaway target and remove it: the room may be needed."""
        _end_server(self.target)
        shutil.rmtree(self.target.root, ignore_errors=True)

    def clear_away(self) -> None:
        """Stop every server of the drill at once, and remove the directory.

        Raises RescueError, after trying everything, where something stays.
        """
        problems = []
        for workspace in (self.workspace, self.target):
            try:
                _end_server(workspace)
            except RescueError as error:
                problems.append(error.problem)
        if not problems:
            shutil.rmtree(self.root, onerror=lambda _, path, error: problems.append(f"{path}: {error[1]}"))
        if problems:
            raise RescueError(
                f"{self.root} could not be removed: {'; '.join(problems[:3])}",
                hint=f"Look at it, then: pgrescue rm --yes -w {self.workspace.root}; rm -r {self.root}",
            )


def _end_server(workspace: Workspace) -> None:
    if workspace.ledger.exists():
        state = Ledger.load(workspace.ledger).state
        engine = reopen(state.engine, state.major, workspace, state.workspace_id)
        engine.stop(timeout_s=_AT_ONCE_S)
        engine.remove()


def _mark(root: Path, *, is_kept: bool) -> None:
    write_atomically(root / _MARK, json.dumps({"schema": 1, "is_kept": is_kept}) + "\n")


@contextlib.contextmanager
def open_home(base: Path, slug: str) -> Iterator[Home]:
    """Give a new directory in `base`, after clearing away what killed drills of the same name left there.

    It is cleared away at the end of the block unless it was marked as kept; no signal breaks that off.
    Raises UsageError where no directory can be made.
    """
    descriptor, home = -1, None
    try:
        with shielded():
            clear_remains(base, slug)
            home, descriptor = _make(base, slug)
        yield home
    except BaseException as error:
        with shielded():
            try:
                _leave(home, descriptor)
            except RescueError as left:
                # What ended the block is more than what stays of it: Ctrl-C must not get lost.
                error.add_note(left.problem)
        raise
    with shielded():
        _leave(home, descriptor)


def _leave(home: Home | None, descriptor: int) -> None:
    try:
        if home is not None and not home.is_kept:
            home.clear_away()
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _make(base: Path, slug: str) -> tuple[Home, int]:
    stamp = datetime.now(tz=UTC).strftime("%Y%m%dT%H%M%S")
    root = base / f"{slug}-{stamp}-{secrets.token_hex(2)}{SUFFIX}"
    try:
        base.mkdir(parents=True, exist_ok=True)
        root.mkdir(mode=0o700)
        return Home(root), _claim(root)
    except OSError as error:
        raise UsageError(
            f"the drill cannot work in {base}: {error.strerror}",
            hint="Name a directory that you can write to, on a disk with room for the data, with --work-dir.",
        ) from error


def _claim(root: Path) -> int:
    """Lock and mark a new directory, and return the descriptor that holds the lock; it is gone where that fails."""
    descriptor = -1
    try:
        # The identity that runs PostgreSQL passes through it.
        root.chmod(0o711)
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # Whoever looks for remains holds the lock for a moment.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _mark(root, is_kept=False)
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        if descriptor >= 0:
            os.close(descriptor)
        raise
    return descriptor


def clear_remains(base: Path, slug: str) -> None:
    """Clear away what drills of this name left in `base` that were killed, or whose machine went down.

    What was kept on purpose, and a drill that is at work, are left alone.
    """
    for root in base.glob(f"{slug}-????????T??????-????{SUFFIX}"):
        home = Home(root)
        with contextlib.suppress(OSError, RescueError):
            descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not home.is_kept:
                    home.clear_away()
            finally:
                os.close(descriptor)
