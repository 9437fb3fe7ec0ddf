"""The durable record of a rescue: which snapshot, which engine, which strategy, which steps."""

from __future__ import annotations

import dataclasses
import json
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgrescue.errors import WorkspaceError
from pgrescue.files import write_atomically
from pgrescue.model import EngineName, Outcome, OwnConfig, StepReport, StrategyName

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = 1
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class EngineRecord:
    """What it takes to find the engine of a workspace again: `image` for docker, `bindir` for native."""

    name: EngineName
    image: str | None = None
    bindir: str | None = None


@dataclass(frozen=True)
class Fall:
    """A strategy that failed, and the one that was taken instead."""

    strategy: StrategyName
    to: StrategyName
    reason: str


@dataclass(frozen=True)
class State:
    """Everything that the ledger records; it holds no secret.

    `workspace_id` marks what the engine makes for this workspace, such as containers. `boot` identifies the boot of
    the machine under which the copy was unpacked: files that were never synced are not trusted after another one, until
    `is_finished` says that a server came up on them: from then on, somebody may have worked on the copy. `config` is
    what became of the copy's own settings.
    """

    snapshot: str
    fingerprint: str
    workspace_id: str
    major: int
    engine: EngineRecord
    boot: str
    strategy: StrategyName | None = None
    port: int | None = None
    is_finished: bool = False
    falls: tuple[Fall, ...] = ()
    steps: Mapping[str, StepReport] = field(default_factory=dict)
    config: OwnConfig = OwnConfig.BLANK


class Ledger:
    """The state on disk. Every change is durable when the method returns."""

    def __init__(self, path: Path, state: State) -> None:
        self._path = path
        self._state = state

    @property
    def state(self) -> State:
        """What is recorded now."""
        return self._state

    @classmethod
    def begin(cls, path: Path, *, snapshot: Path, fingerprint: str, major: int, engine: EngineRecord) -> Ledger:
        """Record the beginning of a rescue in a new workspace."""
        ledger = cls(
            path,
            State(str(snapshot), fingerprint, uuid.uuid4().hex[:12], major, engine, boot_id()),
        )
        ledger.change()
        return ledger

    @classmethod
    def load(cls, path: Path) -> Ledger:
        """Read the ledger of an existing workspace; raise WorkspaceError where it cannot be understood."""
        try:
            return cls(path, _state(json.loads(path.read_text())))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise WorkspaceError(
                f"{path} cannot be read: {error}",
                hint="Take another workspace with --workspace. If no server runs on this one, delete its directory.",
            ) from error

    def change(self, **fields: Any) -> None:  # noqa: ANN401 - the fields of State, checked by dataclasses.replace
        """Replace the named fields of the state."""
        self._state = dataclasses.replace(self._state, **fields)
        document = {"schema": SCHEMA, **dataclasses.asdict(self._state)}
        write_atomically(self._path, json.dumps(document, indent=1) + "\n")

    def record(self, record: StepReport) -> None:
        """Record how a step ended, in place of what was known of it."""
        self.change(steps={**self._state.steps, record.name: record})

    def start_over(self, *, failed: StrategyName, to: StrategyName, reason: str) -> None:
        """Record that `failed` did not work and that `to` begins on a fresh copy: no step is done."""
        self.change(strategy=to, falls=(*self._state.falls, Fall(failed, to, reason)), steps={}, boot=boot_id())


def boot_id() -> str:
    """Return what identifies this boot of the machine, or nothing where the system does not tell."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _state(document: dict[str, Any]) -> State:
    if document["schema"] != SCHEMA:
        msg = f"its schema is {document['schema']!r}, this pgrescue knows {SCHEMA}"
        raise ValueError(msg)
    engine = document["engine"]
    strategy = document["strategy"]
    return State(
        snapshot=document["snapshot"],
        fingerprint=document["fingerprint"],
        workspace_id=document["workspace_id"],
        major=int(document["major"]),
        engine=EngineRecord(EngineName(engine["name"]), engine["image"], engine["bindir"]),
        boot=document["boot"],
        strategy=None if strategy is None else StrategyName(strategy),
        port=document["port"],
        is_finished=bool(document["is_finished"]),
        falls=tuple(
            Fall(StrategyName(fall["strategy"]), StrategyName(fall["to"]), fall["reason"]) for fall in document["falls"]
        ),
        steps={
            name: StepReport(step["name"], Outcome(step["outcome"]), step["seconds"])
            for name, step in document["steps"].items()
        },
        # Ledgers of before there was a choice do not have it: both files were blanked.
        config=OwnConfig(document.get("config", OwnConfig.BLANK)),
    )
