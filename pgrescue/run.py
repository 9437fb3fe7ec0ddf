"""What every step is handed: frozen, and the same for the whole rescue."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgrescue.model import Latest, OwnConfig, Timeline, VerifyLevel

if TYPE_CHECKING:
    from pgrescue.engine.interface import Engine
    from pgrescue.model import Lsn, StrategyName, Until
    from pgrescue.snapshot.contents import Snapshot
    from pgrescue.snapshot.wal_archive import WalArchive
    from pgrescue.workspace import Workspace


@dataclass(frozen=True)
class WalPlan:
    """The WAL that can be replayed besides that in the snapshot's pg_wal, and how far.

    `first_segment` is the first file that recovery reads, `timeline` the one to follow. `backup_end` is where the
    backup becomes consistent, and `reaches` where the WAL ends, each None where nobody can know. `is_inside` and
    `is_covered` tell whether the snapshot's pg_wal, and the archive, have all that the backup needs, as far as anybody
    can know; `missing` names the files without which it cannot become consistent, each with what is wrong.
    `run_from_start` names the files from the first one up to the first gap. `label` is the text of a backup_label that
    the archive still knows and the snapshot lost.
    """

    archive: WalArchive | None = None
    until: Until = field(default_factory=Latest)
    first_segment: str | None = None
    timeline: Timeline | None = None
    backup_end: Lsn | None = None
    reaches: Lsn | None = None
    missing: tuple[str, ...] = ()
    is_inside: bool = False
    is_covered: bool = False
    run_from_start: tuple[str, ...] = ()
    label: str | None = None


@dataclass(frozen=True)
class Run:
    """One attempt at a rescue: what is there, where it happens, what runs it, and how.

    `port` is where the server will listen on 127.0.0.1. `computes_reset` is False where the user wants pg_resetwal
    to find its own values, `repairs` where nothing is to be repaired after a reset. `verify` is how much is checked.
    `may_fall` tells whether another strategy is tried where this one fails. `config` is what becomes of the copy's own
    settings; those that are taken from elsewhere lie in the workspace.
    """

    snapshot: Snapshot
    workspace: Workspace
    engine: Engine
    strategy: StrategyName
    port: int
    wal: WalPlan = field(default_factory=WalPlan)
    computes_reset: bool = True
    repairs: bool = True
    verify: VerifyLevel = VerifyLevel.FAST
    may_fall: bool = False
    config: OwnConfig = OwnConfig.BLANK
