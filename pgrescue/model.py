"""The words that every part of pgrescue shares, as frozen values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import total_ordering
from typing import TYPE_CHECKING, Any, NewType

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Timeline = NewType("Timeline", int)

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_VERSION = re.compile(r"(\d+)(?:\.(\d+))?")


@total_ordering
@dataclass(frozen=True)
class Lsn:
    """A position in the write-ahead log, in bytes from its beginning (64 bits)."""

    position: int

    def __post_init__(self) -> None:
        if not 0 <= self.position < 1 << 64:
            msg = f"an LSN has 64 bits, {self.position:#x} does not fit"
            raise ValueError(msg)

    @classmethod
    def parse(cls, text: str) -> Lsn:
        """Read PostgreSQL's notation, such as `16/B374D848`; raise ValueError for anything else."""
        match = _LSN.fullmatch(text.strip())
        if match is None:
            msg = f"{text!r} is not an LSN such as 16/B374D848"
            raise ValueError(msg)
        return cls(int(match[1], 16) << 32 | int(match[2], 16))

    def __str__(self) -> str:
        return f"{self.position >> 32:X}/{self.position & 0xFFFFFFFF:X}"

    def __lt__(self, other: Lsn) -> bool:
        return self.position < other.position

    def __bool__(self) -> bool:
        """Tell whether the position is valid: PostgreSQL writes 0/0 for "none"."""
        return self.position != 0


@dataclass(frozen=True)
class Latest:
    """Replay to the end of the WAL."""

    def __str__(self) -> str:
        return "latest"


@dataclass(frozen=True)
class Immediate:
    """Replay only until the backup is consistent."""

    def __str__(self) -> str:
        return "immediate"


@dataclass(frozen=True)
class UntilTime:
    """Replay what was committed up to this moment, which carries its zone."""

    time: datetime

    def __str__(self) -> str:
        return self.time.isoformat(sep=" ")


@dataclass(frozen=True)
class UntilLsn:
    """Replay up to, and with, the record at this position."""

    lsn: Lsn

    def __str__(self) -> str:
        return str(self.lsn)


Until = Latest | Immediate | UntilTime | UntilLsn
"""Where replay is to end."""


def parse_until(text: str) -> Until:
    """Read `latest`, `immediate`, an LSN, or a time with its zone (ISO 8601); raise ValueError for anything else."""
    stripped = text.strip()
    match stripped.lower():
        case "latest":
            return Latest()
        case "immediate":
            return Immediate()
        case _:
            pass
    if _LSN.fullmatch(stripped):
        return UntilLsn(Lsn.parse(stripped))
    utc = stripped.removesuffix("UTC").rstrip()
    try:
        time = datetime.fromisoformat(stripped if utc == stripped else f"{utc}+00:00")
    except ValueError:
        msg = f"{text!r} is neither `latest`, `immediate`, an LSN such as 16/B374D848, nor a time"
        raise ValueError(msg) from None
    if time.tzinfo is None:
        msg = f"the time {text!r} has no zone, and the server's is not known: add it, as in {stripped}+00:00"
        raise ValueError(msg)
    return UntilTime(time)


@dataclass(frozen=True)
class PgVersion:
    """A PostgreSQL version from 10 on; `minor` is None where only the major is known."""

    major: int
    minor: int | None = None

    @classmethod
    def parse(cls, text: str) -> PgVersion:
        """Find the version in `17`, `17.11`, `postgres (PostgreSQL) 17.11 (Debian …)` or `18beta1`."""
        match = _VERSION.search(text)
        if match is None:
            msg = f"no PostgreSQL version in {text!r}"
            raise ValueError(msg)
        return cls(int(match[1]), int(match[2]) if match[2] else None)

    def __str__(self) -> str:
        return str(self.major) if self.minor is None else f"{self.major}.{self.minor}"


@dataclass(frozen=True)
class Owner:
    """The identity that owns the data directory and runs PostgreSQL on it."""

    uid: int
    gid: int

    def __str__(self) -> str:
        return f"{self.uid}:{self.gid}"


class Severity(StrEnum):
    """How much a finding matters: `error` means that data is damaged or missing."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """One fact that a step or check found, and what to do about it.

    `rows` counts the rows that it concerns, or is None where rows are not what it is about.
    """

    code: str
    severity: Severity
    object: str
    detail: str
    remedy: str
    rows: int | None = None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Finding:
        """Return the finding that `dataclasses.asdict` made this of, also after a way through JSON."""
        return cls(**{**document, "severity": Severity(document["severity"])})


class Verdict(StrEnum):
    """What may be believed of a rescued server (DESIGN.md, "Verdicts"), best first."""

    CONSISTENT = "consistent"
    BEST_EFFORT = "best-effort"
    DAMAGED = "damaged"
    FAILED = "failed"

    def is_at_least(self, other: Verdict) -> bool:
        """Tell whether this verdict promises as much as `other`."""
        order = list(Verdict)
        return order.index(self) <= order.index(other)


class Outcome(StrEnum):
    """How a step ended: `held` means that its goal was met before it began."""

    DONE = "done"
    HELD = "held"
    SKIPPED = "skipped"
    FAILED = "failed"


class StrategyName(StrEnum):
    """How a copy is made startable (DESIGN.md, "Strategies"), best first."""

    CLEAN = "clean"
    ARCHIVE = "archive"
    REPLAY = "replay"
    CRASH = "crash"
    RESET = "reset"


class VerifyLevel(StrEnum):
    """How much is checked before the server is opened: each level holds the one before it."""

    NONE = "none"
    FAST = "fast"
    FULL = "full"

    def covers(self, other: VerifyLevel) -> bool:
        """Tell whether this level checks as much as `other`."""
        order = list(VerifyLevel)
        return order.index(self) >= order.index(other)


class OwnConfig(StrEnum):
    """What becomes of the copy's own override.conf and custom.conf, which the server here never reads.

    `taken` stands for those of a directory that the user named.
    """

    BLANK = "blank"
    KEEP = "keep"
    TAKEN = "taken"


class EngineName(StrEnum):
    """What runs PostgreSQL's programs."""

    DOCKER = "docker"
    NATIVE = "native"


@dataclass(frozen=True)
class Database:
    """A database of the rescued server and its size on disk."""

    name: str
    size_bytes: int


@dataclass(frozen=True)
class RecoveredTo:
    """How far the data reaches; None where nobody can know, as after a WAL reset."""

    lsn: Lsn | None = None
    time: datetime | None = None


@dataclass(frozen=True)
class DamagedBlocks:
    """A run of damaged blocks of one relation, both ends included, and what is wrong with them in one word or two."""

    first: int
    last: int
    kind: str


@dataclass(frozen=True)
class BlockMap:
    """Where a relation is damaged: its name, its first file, how many blocks it has, and which ones are damaged."""

    relation: str
    file: str
    blocks: int
    damaged: tuple[DamagedBlocks, ...]


@dataclass(frozen=True)
class StepReport:
    """How a step ended, and how long it took."""

    name: str
    outcome: Outcome
    seconds: float


@dataclass(frozen=True)
class RescueReport:
    """Everything that a rescue has to say at its end (DESIGN.md, "Commands").

    `url` holds the password, `shown_url` names the password file instead; both are None where no server runs.
    """

    verdict: Verdict
    strategy: StrategyName
    engine: EngineName
    version: PgVersion
    system_identifier: int
    workspace: Path
    url: str | None
    shown_url: str | None
    databases: tuple[Database, ...]
    recovered_to: RecoveredTo
    steps: tuple[StepReport, ...]
    findings: tuple[Finding, ...]
    seconds: float
    is_refused: bool = False
    """Whether no server runs because PostgreSQL would not run on this copy, rather than for the machine's sake."""


class TransferOutcome(StrEnum):
    """What a transfer came to; `ready` is a dry run that nothing speaks against."""

    MOVED = "moved"
    ALREADY_THERE = "already-there"
    READY = "ready"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True)
class MovedTable:
    """A table in the target: its rows, its size in the source, and whether both sides are equal, as far as asked."""

    name: str
    rows: int
    size_bytes: int
    is_equal: bool


@dataclass(frozen=True)
class TransferReport:
    """Everything that a transfer has to say at its end; it holds no secret.

    `source` and `target` are words or connection strings without passwords; `compare` is how much was compared.
    """

    outcome: TransferOutcome
    source: str
    database: str
    target: str
    source_version: str
    target_version: str
    tables: tuple[MovedTable, ...]
    compare: str
    steps: tuple[StepReport, ...]
    findings: tuple[Finding, ...]
    seconds: float
