"""The durable record of a rescue."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from pgrescue.errors import WorkspaceError
from pgrescue.ledger import EngineRecord, Fall, Ledger, State, boot_id
from pgrescue.model import EngineName, Outcome, OwnConfig, StepReport, StrategyName

RECORD = EngineRecord(EngineName.NATIVE, bindir="/usr/lib/postgresql/17/bin")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.json"


@pytest.fixture
def ledger(path: Path) -> Ledger:
    return Ledger.begin(path, snapshot=Path("/backups/data.tar"), fingerprint="f" * 64, major=17, engine=RECORD)


def test_a_new_ledger_is_on_disk_at_once(ledger: Ledger, path: Path) -> None:
    state = Ledger.load(path).state
    assert state == ledger.state
    assert (state.snapshot, state.fingerprint, state.major) == ("/backups/data.tar", "f" * 64, 17)
    assert (state.engine, state.boot) == (RECORD, boot_id())
    assert (state.strategy, state.port, state.falls, dict(state.steps)) == (None, None, (), {})
    assert path.stat().st_mode & 0o777 == 0o600


def test_every_change_is_on_disk_when_it_returns(ledger: Ledger, path: Path) -> None:
    ledger.change(strategy=StrategyName.CRASH, port=5433, engine=EngineRecord(EngineName.DOCKER, image="postgres:17"))
    assert Ledger.load(path).state == ledger.state
    assert ledger.state.engine.image == "postgres:17"
    for config in OwnConfig:
        ledger.change(config=config)
        assert Ledger.load(path).state.config is config
    ledger.record(StepReport("unpack", Outcome.FAILED, 1.5))
    ledger.record(StepReport("start", Outcome.DONE, 0.25))
    ledger.record(StepReport("unpack", Outcome.HELD, 0.0))
    assert Ledger.load(path).state == ledger.state
    assert list(Ledger.load(path).state.steps.values()) == [
        StepReport("unpack", Outcome.HELD, 0.0),
        StepReport("start", Outcome.DONE, 0.25),
    ]


def test_a_fall_begins_the_next_strategy_without_any_step(ledger: Ledger, path: Path) -> None:
    ledger.change(strategy=StrategyName.CLEAN)
    ledger.record(StepReport("unpack", Outcome.DONE, 1.0))
    ledger.start_over(failed=StrategyName.CLEAN, to=StrategyName.CRASH, reason="no start")
    ledger.start_over(failed=StrategyName.CRASH, to=StrategyName.RESET, reason="no recovery")
    state = Ledger.load(path).state
    assert (state.strategy, dict(state.steps)) == (StrategyName.RESET, {})
    assert state.falls == (
        Fall(StrategyName.CLEAN, StrategyName.CRASH, "no start"),
        Fall(StrategyName.CRASH, StrategyName.RESET, "no recovery"),
    )


def test_each_workspace_has_an_id_of_its_own(ledger: Ledger, tmp_path: Path) -> None:
    other = Ledger.begin(tmp_path / "other", snapshot=Path("/x"), fingerprint="", major=17, engine=RECORD)
    assert other.state.workspace_id != ledger.state.workspace_id


def test_an_unknown_field_changes_nothing(ledger: Ledger, path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(TypeError):
        ledger.change(password="secret")
    assert path.read_bytes() == before


def test_there_is_no_place_for_a_secret(ledger: Ledger, path: Path) -> None:
    names = {field.name for kind in (State, EngineRecord, Fall, StepReport) for field in dataclasses.fields(kind)}
    assert not {name for name in names if any(word in name for word in ("password", "secret", "url", "verifier"))}
    assert set(json.loads(path.read_text())) == {"schema", *(field.name for field in dataclasses.fields(State))}
    assert ledger.state.workspace_id in path.read_text()


def test_a_failed_write_keeps_the_old_record(ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        ledger.change(port=1)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 2},
        {"schema": None},
        {"engine": {"name": "podman", "image": None, "bindir": None}},
        {"engine": None},
        {"engine": "docker"},
        {"strategy": "hope"},
        {"steps": []},
        {"steps": {"unpack": 5}},
        {"steps": {"unpack": {"name": "unpack", "outcome": "perhaps", "seconds": 1}}},
        {"falls": [{}]},
        {"falls": 1},
        {"major": "new"},
        {"config": "hope"},
        {"config": None},
    ],
)
@pytest.mark.usefixtures("ledger")
def test_what_cannot_be_understood_is_refused(path: Path, changes: dict[str, Any]) -> None:
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document))
    assert Ledger.load(path).state.major == 17
    path.write_text(json.dumps({**document, **changes}))
    with pytest.raises(WorkspaceError, match="cannot be read") as caught:
        Ledger.load(path)
    assert caught.value.hint


def test_one_of_before_there_was_a_choice_stands_for_blank_files(ledger: Ledger, path: Path) -> None:
    ledger.change(config=OwnConfig.KEEP)
    document = json.loads(path.read_text())
    assert document.pop("config") == "keep"
    path.write_text(json.dumps(document))
    assert Ledger.load(path).state == dataclasses.replace(ledger.state, config=OwnConfig.BLANK)


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(State) if field.name != "config"])
@pytest.mark.usefixtures("ledger")
def test_a_missing_field_is_refused(path: Path, key: str) -> None:
    document = json.loads(path.read_text())
    del document[key]
    path.write_text(json.dumps(document))
    with pytest.raises(WorkspaceError, match=key):
        Ledger.load(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"5", b'"text"', b"\xff\xfe", b"{}"])
def test_garbage_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(WorkspaceError, match="cannot be read"):
        Ledger.load(path)


def test_an_absent_ledger_is_refused(path: Path) -> None:
    with pytest.raises(WorkspaceError, match="No such file"):
        Ledger.load(path)
