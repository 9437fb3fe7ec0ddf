"""Who owns what PostgreSQL reads and writes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pgrescue.engine.interface import Engine


def hand_over(engine: Engine, *paths: Path) -> None:
    """Give files or directories to the identity that runs PostgreSQL, where that is not the caller."""
    owner = engine.installation.owner
    if owner is not None:
        for path in paths:
            os.chown(path, owner.uid, owner.gid)
