"""Each strategy's steps."""

from __future__ import annotations

import pytest

from pgrescue.model import StrategyName
from pgrescue.strategy.recipes import STEPS

PREPARED = ["unpack", "recreate-directories"]
SERVED = ["access", "start", "health-check", "hand-over"]


@pytest.mark.parametrize(
    ("strategy", "names"),
    [
        (StrategyName.CLEAN, [*PREPARED, "blank-config", "configure", *SERVED]),
        (StrategyName.CRASH, [*PREPARED, "blank-config", "configure", "recover", *SERVED]),
        (
            StrategyName.RESET,
            [*PREPARED, "remove-backup-label", "blank-config", "reset-wal", "configure", *SERVED],
        ),
    ],
)
def test_the_order_of_steps(strategy: StrategyName, names: list[str]) -> None:
    assert [step.name for step in STEPS[strategy]] == names


def test_every_strategy_has_steps_with_names_and_titles_of_their_own() -> None:
    assert set(STEPS) == set(StrategyName)
    for steps in STEPS.values():
        assert len({step.name for step in steps}) == len({step.title for step in steps}) == len(steps)


def test_only_the_reset_touches_the_backup_label_and_the_wal() -> None:
    drastic = {"remove-backup-label", "reset-wal"}
    for strategy, steps in STEPS.items():
        assert drastic & {step.name for step in steps} == (drastic if strategy is StrategyName.RESET else set())
