"""Each strategy as the steps that it takes, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgrescue.model import StrategyName
from pgrescue.repair.complete_xact import CompleteXact
from pgrescue.repair.forget_maps import ForgetMaps
from pgrescue.repair.step import Repair
from pgrescue.steps.access import Access
from pgrescue.steps.blank_config import BlankConfig
from pgrescue.steps.configure import Configure
from pgrescue.steps.hand_over import HandOver
from pgrescue.steps.health_check import HealthCheck
from pgrescue.steps.rebuild_backup_label import RebuildBackupLabel
from pgrescue.steps.recover import Recover, RequireAtomic
from pgrescue.steps.recover_from_backup import RecoverFromBackup
from pgrescue.steps.recreate_directories import RecreateDirectories
from pgrescue.steps.remove_backup_label import RemoveBackupLabel
from pgrescue.steps.replay_part import ReplayPart
from pgrescue.steps.reset_wal import ResetWal
from pgrescue.steps.stage_wal import StageWal
from pgrescue.steps.start import Start
from pgrescue.steps.unpack import Unpack
from pgrescue.verify.check_files import CheckFiles
from pgrescue.verify.name_damage import NameDamage
from pgrescue.verify.open_door import OpenDoor
from pgrescue.verify.step import Verify

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgrescue.pipeline import Step
    from pgrescue.run import Run

_COPY: tuple[Step[Run], ...] = (Unpack(), RecreateDirectories(), BlankConfig(), Configure())
_SERVE: tuple[Step[Run], ...] = (
    CheckFiles(),
    Start(),
    HealthCheck(),
    NameDamage(),
    Verify(),
    OpenDoor(),
    HandOver(),
)

STEPS: Mapping[StrategyName, tuple[Step[Run], ...]] = {
    StrategyName.CLEAN: (*_COPY, Access(), *_SERVE),
    StrategyName.ARCHIVE: (*_COPY, RebuildBackupLabel(), RecoverFromBackup(), Access(), *_SERVE),
    StrategyName.REPLAY: (*_COPY, StageWal(), RecoverFromBackup(), Access(), *_SERVE),
    StrategyName.CRASH: (*_COPY, StageWal(), Recover(), RequireAtomic(), Access(), *_SERVE),
    StrategyName.RESET: (
        *_COPY,
        ReplayPart(),
        RemoveBackupLabel(),
        ResetWal(),
        CompleteXact(),
        ForgetMaps(),
        Access(),
        Repair(),
        *_SERVE,
    ),
}
