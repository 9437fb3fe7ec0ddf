"""Where a migration is written: its folder, and the repository that must not take it in."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from pgrescue.errors import UsageError
from pgrescue.files import is_remains, replacing, sync_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE = "migration.sql"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_NAME_BYTES = 255


@dataclass(frozen=True)
class Place:
    """The folder of one migration, absolute, and the repository whose .gitignore is to name it, where one is."""

    folder: Path
    repository: Path | None = None

    @property
    def file(self) -> Path:
        """The migration itself."""
        return self.folder / FILE

    def ignore(self) -> None:
        """Have git leave the folder out, unless .gitignore says so already; raises UsageError where it cannot."""
        if self.repository is None:
            return
        path = self.repository / ".gitignore"
        try:
            content = path.read_bytes() if path.exists() else b""
            more = addition(content, ignored(self.repository, self.folder))
            if more:
                # Appended, not replaced: the file keeps its owner and mode.
                with path.open("ab") as file:
                    file.write(more)
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise UsageError(
                f"{path} cannot be written: {error.strerror}", hint="Nothing else was written. Add the line by hand."
            ) from error

    @contextlib.contextmanager
    def writing(self) -> Iterator[BinaryIO]:
        """Give the file to write; it is there, whole, when the block ends, and nothing is where the block fails."""
        made = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in self.folder.glob(f".{FILE}.*"):
                if is_remains(path):
                    path.unlink()
            with replacing(self.file) as file:
                yield file
                self.refuse_existing()
            for path in made:
                sync_directory(path.parent)
        except BaseException:
            for path in made:
                # One that holds something by now is somebody else's, too.
                with contextlib.suppress(OSError):
                    path.rmdir()
            raise

    def refuse_existing(self) -> None:
        """Raise UsageError where the migration is there already."""
        if os.path.lexists(self.file):
            raise UsageError(
                f"{self.file} exists, and is not overwritten", hint="Choose another NAME, or remove that one first."
            )


def find_place(name: str, out: Path, *, is_sensitive: bool) -> Place:
    """Look where the migration would be written; raise UsageError, having written nothing, where it cannot be."""
    _check_name(name)
    try:
        folder = out.resolve() / name
        place = Place(folder, _repository(folder) if is_sensitive else None)
        place.refuse_existing()
        above = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        if not above.is_dir():
            raise UsageError(f"{above} is in the way: it is not a directory", hint="Name another root with --out.")
        if not os.access(above, os.W_OK | os.X_OK):
            raise UsageError(f"{above} may not be written to", hint="Name another root with --out.")
    except (OSError, RuntimeError) as error:
        raise UsageError(f"{out} cannot be looked into: {error}", hint="Name another root with --out.") from error
    return place


def _check_name(name: str) -> None:
    wrong = (
        not name.strip()
        or name.startswith((".", "-"))
        or "/" in name
        or "\\" in name
        or _CONTROL.search(name) is not None
        or len(os.fsencode(name)) > _LONGEST_NAME_BYTES
    )
    if wrong:
        raise UsageError(
            f"{name!r} is no name of a migration",
            hint="It becomes a folder: letters, digits and underscores, such as 20261122081500_restore; no slashes, no "
            "dot at the beginning.",
        )


def _repository(folder: Path) -> Path:
    """Return the top of the git repository that the folder would lie in."""
    for path in folder.parents:
        # A directory, or the file that a worktree and a submodule have in its place.
        if (path / ".git").exists():
            return path
    raise UsageError(
        f"{folder} is in no git repository, so there is no .gitignore to add it to",
        hint="Leave out --sensitive, or name a directory of the repository with --out.",
    )


def ignored(repository: Path, folder: Path) -> bytes:
    """Return the line for .gitignore that names this folder and nothing else (gitignore(5), "Pattern format")."""
    relative = folder.relative_to(repository).as_posix()
    escaped = re.sub(r"([\\*?\[])", r"\\\1", relative)
    return os.fsencode(f"/{escaped}/")


def addition(content: bytes, line: bytes) -> bytes:
    """Return what to append to .gitignore, nothing where it has the line.

    Its lines end as those before, and the last one has an end if the last one had.
    """
    if line in content.splitlines():
        return b""
    end = b"\r\n" if b"\r\n" in content else b"\n"
    if not content or content.endswith(b"\n"):
        return line + end
    return end + line
