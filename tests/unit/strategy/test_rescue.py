"""What a second run on a workspace may ask for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pgrescue.errors import UsageError
from pgrescue.ledger import EngineRecord, Ledger
from pgrescue.model import EngineName, Immediate, Latest, OwnConfig, StrategyName
from pgrescue.run import WalPlan
from pgrescue.steps.own_config import TakenConfig
from pgrescue.strategy.choose import Assessment, Option
from pgrescue.strategy.rescue import RescuePlan, _config, _strategy
from pgrescue.strategy.wal_plan import WalRequest
from pgrescue.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from pgrescue.model import Until
    from pgrescue.steps.own_config import ConfigRequest

ARCHIVE, REPLAY, RESET = StrategyName.ARCHIVE, StrategyName.REPLAY, StrategyName.RESET


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "it.pgrescue")
    made.create(shared=False)
    return made


def chosen(
    workspace: Workspace,
    recorded: StrategyName | None,
    *,
    until: Until | None = None,
    wal: Path | None = None,
    possible: Collection[StrategyName] = (ARCHIVE, RESET),
    failed: StrategyName | None = None,
    files: tuple[str, ...] = (),
) -> StrategyName:
    """Return the strategy of a run with these wishes on a workspace that was begun with `recorded`.

    `failed` was tried before, and `files` are the WAL from the backup's start on.
    """
    engine = EngineRecord(EngineName.NATIVE)
    ledger = Ledger.begin(workspace.ledger, snapshot=workspace.root, fingerprint="f", major=17, engine=engine)
    ledger.change(strategy=recorded)
    if failed is not None:
        ledger.start_over(failed=failed, to=RESET, reason="A reason.")
    options = tuple(Option(name, "A reason.", name in possible) for name in StrategyName)
    plan = RescuePlan(wal=WalRequest(wal, until or Latest()))
    assessment = Assessment(options, (), missing_wal_is_open=False)
    return _strategy(plan, ledger, assessment, WalPlan(run_from_start=files), workspace)


def recovered(workspace: Workspace, until: str) -> None:
    workspace.recovered.write_text(json.dumps({"until": until}))


def test_a_new_workspace_gets_the_best(workspace: Workspace) -> None:
    assert chosen(workspace, None) is ARCHIVE


@pytest.mark.parametrize("recorded", [ARCHIVE, RESET])
def test_the_same_wish_carries_on(workspace: Workspace, recorded: StrategyName) -> None:
    assert chosen(workspace, recorded) is recorded


def test_a_recovery_that_is_under_way_may_get_another_end(workspace: Workspace) -> None:
    """As after a target that was not reached; the server itself refuses what it has passed."""
    assert chosen(workspace, ARCHIVE, until=Immediate()) is ARCHIVE


def test_a_recovery_that_ended_keeps_its_end(workspace: Workspace) -> None:
    recovered(workspace, "immediate")
    assert chosen(workspace, ARCHIVE, until=Immediate()) is ARCHIVE
    assert chosen(workspace, ARCHIVE) is ARCHIVE
    recovered(workspace, "latest")
    with pytest.raises(UsageError, match="recovered until latest, not until immediate"):
        chosen(workspace, ARCHIVE, until=Immediate())


@pytest.mark.parametrize("recorded", [StrategyName.CLEAN, StrategyName.CRASH, RESET])
def test_what_was_begun_without_wal_ends_at_no_chosen_point(workspace: Workspace, recorded: StrategyName) -> None:
    with pytest.raises(UsageError, match=f"begun with the strategy {recorded}"):
        chosen(workspace, recorded, until=Immediate())


def test_a_reset_is_not_made_a_recovery(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="begun without this WAL"):
        chosen(workspace, RESET, wal=workspace.root)


def test_a_reset_that_was_begun_with_the_same_wal_carries_on(workspace: Workspace) -> None:
    """As after a kill: the WAL lacks a file, or the recovery with it failed."""
    assert chosen(workspace, RESET, wal=workspace.root, possible=(RESET,), files=("one",)) is RESET
    workspace.reset_plan.touch()
    workspace.replayed_part.touch()
    assert chosen(workspace, RESET, wal=workspace.root, possible=(RESET,), files=("one",)) is RESET
    assert chosen(workspace, RESET, wal=workspace.root, failed=ARCHIVE) is RESET


def test_wal_that_comes_after_the_reset_is_refused(workspace: Workspace) -> None:
    workspace.reset_plan.touch()
    with pytest.raises(UsageError, match="begun without this WAL"):
        chosen(workspace, RESET, wal=workspace.root, possible=(RESET,), files=("one",))


@pytest.mark.parametrize("recorded", [ARCHIVE, REPLAY])
def test_a_recovery_whose_wal_is_gone_is_not_given_up(workspace: Workspace, recorded: StrategyName) -> None:
    with pytest.raises(UsageError, match="not possible now: A reason") as caught:
        chosen(workspace, recorded, possible=(RESET,))
    assert "--wal" in caught.value.hint
    recovered(workspace, "latest")
    assert chosen(workspace, recorded, possible=(RESET,)) is recorded


@pytest.fixture
def config(workspace: Workspace) -> Callable[[ConfigRequest | None], OwnConfig]:
    """Return what becomes of the copy's own settings in one run after the other, each asking as it is told."""
    engine = EngineRecord(EngineName.NATIVE)
    Ledger.begin(workspace.ledger, snapshot=workspace.root, fingerprint="f", major=17, engine=engine)

    def run(asked: ConfigRequest | None) -> OwnConfig:
        ledger = Ledger.load(workspace.ledger)
        found = _config(RescuePlan(config=asked), ledger, workspace)
        ledger.change(config=found)
        return found

    return run


def test_the_copys_own_settings_are_blanked_unless_something_else_is_asked_for(
    config: Callable[[ConfigRequest | None], OwnConfig],
) -> None:
    assert config(None) is OwnConfig.BLANK
    assert config(OwnConfig.KEEP) is OwnConfig.KEEP
    assert config(None) is OwnConfig.KEEP
    assert config(OwnConfig.BLANK) is OwnConfig.BLANK
    assert config(None) is OwnConfig.BLANK


def test_what_is_taken_from_a_directory_is_in_the_workspace_from_then_on(
    workspace: Workspace, config: Callable[[ConfigRequest | None], OwnConfig]
) -> None:
    names = ("override.conf", "custom.conf")
    for content in (b"", b"port = 5433\n"):
        taken = TakenConfig(workspace.root / "gone", dict.fromkeys(names, content))
        assert config(taken) is OwnConfig.TAKEN
        assert TakenConfig.load(workspace.taken_config) == taken
        assert config(None) is OwnConfig.TAKEN
        assert TakenConfig.load(workspace.taken_config) == taken
    assert config(OwnConfig.KEEP) is OwnConfig.KEEP
    assert config(None) is OwnConfig.KEEP
