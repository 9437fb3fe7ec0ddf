"""What a restore drill has to say at its end, as frozen values: for the reports, and for another process."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date, datetime
    from pathlib import Path

    from pgrescue.model import BlockMap, Finding, RescueReport, StepReport, Verdict


class DrillOutcome(StrEnum):
    """What a drill, or one of its assertions, came to, best first.

    `failed` means that the backup is not what it should be, `could-not-verify` that nobody knows.
    """

    PASSED = "passed"
    UNVERIFIED = "could-not-verify"
    FAILED = "failed"

    @classmethod
    def worst(cls, outcomes: list[DrillOutcome]) -> DrillOutcome:
        """Return the worst of them: one failure is one, whatever else could not be told; nothing is no pass."""
        order = list(cls)
        return max(outcomes, key=order.index, default=cls.UNVERIFIED)


class AssertionKind(StrEnum):
    """What an assertion is about, as the drill file calls it."""

    REQUIRE = "require"
    VERIFY = "verify"
    RTO = "rto_budget"
    RPO = "rpo_budget"
    SQL = "sql"
    ROWS = "rows"
    FRESHNESS = "freshness"
    SCHEMA = "schema"
    TRANSFER = "transfer"
    AFTER = "after"


@dataclass(frozen=True)
class Assertion:
    """One thing that should hold: what was expected and what was seen, in words that hold no row's content.

    `detail` says more where it did not pass: why it could not be told, or what to do. `database` is empty where it is
    about the whole server.
    """

    kind: AssertionKind
    name: str
    outcome: DrillOutcome
    expected: str
    seen: str
    detail: str = ""
    database: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class NewestCommit:
    """The newest commit that the recovered copy has: when (UTC), its age at the drill's begin, and who told."""

    time: datetime
    age_seconds: float
    source: str


@dataclass(frozen=True)
class IgnoredFinding:
    """A finding that does not count, why, and until which day (inclusive)."""

    finding: Finding
    reason: str
    until: date


@dataclass(frozen=True)
class PastRun:
    """One run of a drill as the history keeps it; None where it did not come so far.

    `recovery_seconds` is the time from the snapshot to an open server, `seconds` that of the whole drill. `size_bytes`
    is the size of the data directory, `rows` the rows of the tables that were counted, by `database table`.
    """

    name: str
    time: datetime
    outcome: DrillOutcome
    verdict: Verdict | None = None
    recovery_seconds: float | None = None
    seconds: float = 0.0
    size_bytes: int | None = None
    newest_commit_age_seconds: float | None = None
    rows: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DrillReport:
    """One drill. `rescue` is None where no rescue could begin; its `url` is None, so that no password is in here.

    `snapshot` is what was restored, `chosen_because` says why this one where there was a choice. `findings` are those
    that count, of rescue and transfer; `phases` follow one another. `past` are earlier runs, oldest first, and
    `regressions` what is worse than in them, in words. `problem` and `hint` say why the drill broke off, if it did.
    `notes` are problems that change no outcome. `kept` is the drill's directory, where it was kept.
    """

    name: str
    outcome: DrillOutcome
    started: datetime
    seconds: float
    snapshot: str
    chosen_because: str = ""
    rescue: RescueReport | None = None
    recovery_seconds: float | None = None
    size_bytes: int | None = None
    newest_commit: NewestCommit | None = None
    assertions: tuple[Assertion, ...] = ()
    findings: tuple[Finding, ...] = ()
    ignored: tuple[IgnoredFinding, ...] = ()
    phases: tuple[StepReport, ...] = ()
    blocks: tuple[BlockMap, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)
    past: tuple[PastRun, ...] = ()
    regressions: tuple[str, ...] = ()
    problem: str = ""
    hint: str = ""
    notes: tuple[str, ...] = ()
    kept: Path | None = None

    def as_past(self) -> PastRun:
        """Return what the history keeps of it."""
        return PastRun(
            name=self.name,
            time=self.started,
            outcome=self.outcome,
            verdict=None if self.rescue is None else self.rescue.verdict,
            recovery_seconds=self.recovery_seconds,
            seconds=self.seconds,
            size_bytes=self.size_bytes,
            newest_commit_age_seconds=None if self.newest_commit is None else self.newest_commit.age_seconds,
            rows=dict(self.rows),
        )


@dataclass(frozen=True)
class DrillRun:
    """All drills of one file. `id` is unique; `notes` are problems that change no outcome, such as a dead webhook."""

    id: str
    file: str
    started: datetime
    seconds: float
    drills: tuple[DrillReport, ...]
    notes: tuple[str, ...] = ()

    @property
    def outcome(self) -> DrillOutcome:
        """The worst of its drills."""
        return DrillOutcome.worst([drill.outcome for drill in self.drills])
