"""Each strategy as the steps that it takes, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgrescue.model import StrategyName
from pgrescue.steps.access import Access
from pgrescue.steps.blank_config import BlankConfig
from pgrescue.steps.configure import Configure
from pgrescue.steps.hand_over import HandOver
from pgrescue.steps.health_check import HealthCheck
from pgrescue.steps.recover import Recover
from pgrescue.steps.recreate_directories import RecreateDirectories
from pgrescue.steps.remove_backup_label import RemoveBackupLabel
from pgrescue.steps.reset_wal import ResetWal
from pgrescue.steps.start import Start
from pgrescue.steps.unpack import Unpack

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgrescue.pipeline import Step
    from pgrescue.run import Run

_SERVE: tuple[Step[Run], ...] = (Access(), Start(), HealthCheck(), HandOver())

STEPS: Mapping[StrategyName, tuple[Step[Run], ...]] = {
    StrategyName.CLEAN: (Unpack(), RecreateDirectories(), BlankConfig(), Configure(), *_SERVE),
    StrategyName.CRASH: (Unpack(), RecreateDirectories(), BlankConfig(), Configure(), Recover(), *_SERVE),
    StrategyName.RESET: (
        Unpack(),
        RecreateDirectories(),
        RemoveBackupLabel(),
        BlankConfig(),
        ResetWal(),
        Configure(),
        *_SERVE,
    ),
}
