"""CloudNativePG's two files of settings in a data directory, taken over from that of a clean database."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pgrescue.errors import UsageError, WorkspaceError
from pgrescue.files import write_atomically
from pgrescue.model import OwnConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

FILES = ("override.conf", "custom.conf")

_CONFIG_FROM = (
    "Name the data directory of a clean database, which holds both files, or say keep or blank. "
    "A workspace that took them before goes on with what it has when the option is left out."
)


@dataclass(frozen=True)
class TakenConfig:
    """Both files of one directory: where they were read, and each one's content by its name."""

    directory: Path
    contents: Mapping[str, bytes]

    @classmethod
    def read(cls, directory: Path) -> TakenConfig:
        """Read both files; raise UsageError unless each one is a regular file that can be read."""
        directory = directory.absolute()
        return cls(directory, {name: _read(directory / name) for name in FILES})

    @classmethod
    def load(cls, path: Path) -> TakenConfig:
        """Return what `save` wrote; raise WorkspaceError where it is gone or cannot be understood."""
        try:
            document = json.loads(path.read_text())
            contents = document["contents"]
            return cls(
                Path(document["directory"]),
                {name: contents[name].encode(errors="surrogateescape") for name in FILES},
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise WorkspaceError(
                f"{path}, which holds what --config-from took, cannot be read: {error}",
                hint="Name the directory again with --config-from, or say keep or blank.",
            ) from error

    def save(self, path: Path) -> None:
        """Keep both files, since the directory may be gone when they are needed; they change together or not at all."""
        contents = {name: content.decode(errors="surrogateescape") for name, content in self.contents.items()}
        document = {"directory": str(self.directory), "contents": contents}
        write_atomically(path, json.dumps(document, indent=1) + "\n")


ConfigRequest = Literal[OwnConfig.BLANK, OwnConfig.KEEP] | TakenConfig
"""What can be asked for; TAKEN alone would not say what to take."""


def _read(path: Path) -> bytes:
    try:
        if path.is_file():
            return path.read_bytes()
        found = "is not a regular file" if path.exists() else "does not exist"
    except OSError as error:
        found = f"cannot be read: {error.strerror}"
    raise UsageError(f"--config-from: {path} {found}", hint=_CONFIG_FROM)
