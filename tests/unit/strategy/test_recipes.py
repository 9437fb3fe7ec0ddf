"""Each strategy's steps."""

from __future__ import annotations

import pytest

from pgrescue.model import StrategyName
from pgrescue.strategy.recipes import STEPS

COPIED = ["unpack", "recreate-directories", "blank-config", "configure"]
SERVED = ["check-files", "start", "health-check", "name-damage", "verify", "open", "hand-over"]
BETWEEN = {
    StrategyName.CLEAN: ["access"],
    StrategyName.ARCHIVE: ["rebuild-backup-label", "recover", "access"],
    StrategyName.REPLAY: ["stage-wal", "recover", "access"],
    StrategyName.CRASH: ["stage-wal", "recover", "require-atomic", "access"],
    StrategyName.RESET: [
        "replay-part",
        "remove-backup-label",
        "reset-wal",
        "complete-xact",
        "forget-maps",
        "access",
        "repair",
    ],
}


@pytest.mark.parametrize("strategy", StrategyName)
def test_the_order_of_steps(strategy: StrategyName) -> None:
    assert [step.name for step in STEPS[strategy]] == [*COPIED, *BETWEEN[strategy], *SERVED]


def test_every_strategy_has_steps_with_names_and_titles_of_their_own() -> None:
    assert set(STEPS) == set(StrategyName)
    for steps in STEPS.values():
        assert len({step.name for step in steps}) == len({step.title for step in steps}) == len(steps)


def test_only_the_reset_touches_the_backup_label_and_the_wal() -> None:
    drastic = {"remove-backup-label", "reset-wal", "repair"}
    for strategy, steps in STEPS.items():
        assert drastic & {step.name for step in steps} == (drastic if strategy is StrategyName.RESET else set())
