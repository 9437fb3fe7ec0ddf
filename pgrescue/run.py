"""What every step is handed: frozen, and the same for the whole rescue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgrescue.engine.interface import Engine
    from pgrescue.model import StrategyName
    from pgrescue.snapshot.contents import Snapshot
    from pgrescue.workspace import Workspace


@dataclass(frozen=True)
class Run:
    """One attempt at a rescue: what is there, where it happens, what runs it, and how.

    `port` is where the server will listen on 127.0.0.1. `computes_reset` is False where the user wants pg_resetwal
    to find its own values.
    """

    snapshot: Snapshot
    workspace: Workspace
    engine: Engine
    strategy: StrategyName
    port: int
    computes_reset: bool = True
