"""What may be believed."""

from __future__ import annotations

import itertools

import pytest

from pgrescue.model import Severity, StrategyName, Verdict
from pgrescue.strategy.verdict import judge
from tests.unit.builders import finding

UNDAMAGED = {
    StrategyName.CLEAN: Verdict.CONSISTENT,
    StrategyName.ARCHIVE: Verdict.CONSISTENT,
    StrategyName.REPLAY: Verdict.CONSISTENT,
    StrategyName.CRASH: Verdict.BEST_EFFORT,
    StrategyName.RESET: Verdict.BEST_EFFORT,
}
COMBINATIONS = [
    combination for count in range(4) for combination in itertools.combinations_with_replacement(Severity, count)
]


def test_every_strategy_is_judged() -> None:
    assert set(UNDAMAGED) == set(StrategyName)


@pytest.mark.parametrize("strategy", StrategyName)
@pytest.mark.parametrize("severities", COMBINATIONS)
def test_an_error_is_damage_and_nothing_else_is(strategy: StrategyName, severities: tuple[Severity, ...]) -> None:
    verdict = judge(strategy, map(finding, severities))
    assert verdict is (Verdict.DAMAGED if Severity.ERROR in severities else UNDAMAGED[strategy])
