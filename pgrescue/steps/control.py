"""pg_control of the copy, read again whenever a step wants to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgrescue.errors import SnapshotError
from pgrescue.retry import until_returns
from pgrescue.snapshot.control import ControlFile, parse_control

if TYPE_CHECKING:
    from pathlib import Path


def read_control(path: Path) -> ControlFile:
    """Return the pg_control at `path`.

    A running server may be writing it at this very moment, so that a wrong checksum is looked at again for a second.
    Raises SnapshotError where it stays wrong.
    """
    return until_returns(lambda: parse_control(path.read_bytes()), on=SnapshotError, timeout_s=1)
