"""Both ends of a transfer while it is at work, and its report as it comes."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgrescue.model import Severity
from pgrescue.pipeline import watched
from pgrescue.transfer.compare import CompareLevel
from pgrescue.transfer.endpoint import speaking_of
from pgrescue.transfer.facts import read_facts
from pgrescue.transfer.marker import purpose
from pgrescue.transfer.pooling import passing, try_sessions
from pgrescue.transfer.preflight import Sides
from pgrescue.transfer.pulse import watching
from pgrescue.transfer.sessions import Pair, reading, streaming, writing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pgrescue.model import Finding, StepReport
    from pgrescue.pipeline import Observer
    from pgrescue.transfer.compare import Compared
    from pgrescue.transfer.endpoint import Connection, Endpoint
    from pgrescue.transfer.source import Source


REHEARSAL = "rehearsal"
"""What a rehearsal has in the options of its mark."""


@dataclass(frozen=True)
class TransferPlan:
    """What the user asked for; `manifest` is where a salvage writes what did not make it.

    A rehearsal `keeps_mark`: by it, everything is taken back later.
    """

    jobs: int
    compare: CompareLevel = CompareLevel.HASH
    role: str | None = None
    makes_roles: bool = False
    salvages: bool = False
    is_dry: bool = False
    manifest: Path | None = None
    keeps_mark: bool = False

    @property
    def options(self) -> str:
        """What makes a difference to the target: a transfer goes on only with the same."""
        return json.dumps([self.role, self.makes_roles, self.salvages, *([REHEARSAL] if self.keeps_mark else [])])


@dataclass
class Journal:
    """The parts of the report as they come."""

    observer: Observer
    findings: list[Finding] = field(default_factory=list)
    steps: list[StepReport] = field(default_factory=list)
    compared: tuple[Compared, ...] = ()

    @contextlib.contextmanager
    def step(self, name: str, title: str) -> Iterator[None]:
        """Time a part of the work, and let the observer watch."""
        with watched(self.observer, name, title, keep=self.steps.append):
            yield

    @property
    def has_errors(self) -> bool:
        """Tell whether a finding speaks against the target's use."""
        return any(finding.severity is Severity.ERROR for finding in self.findings)


@dataclass(frozen=True)
class Site:
    """Both ends while a transfer is at work: `snapshot` is what all readers of the source see."""

    source: Source
    endpoint: Endpoint
    sides: Sides
    snapshot: str | None
    state: str
    encoding: str
    plan: TransferPlan

    @contextlib.contextmanager
    def pair(self, transfer_id: str) -> Iterator[Pair]:
        """Open a worker's two sessions."""
        with (
            reading(self.source.endpoint, encoding=self.encoding, snapshot=self.snapshot) as source,
            streaming(self.source.endpoint, source, encoding=self.encoding, snapshot=self.snapshot) as reader,
            writing(self.endpoint, encoding=self.encoding, role=self.plan.role, purpose=purpose(transfer_id)) as target,
        ):
            yield Pair(source, reader, target)


@contextlib.contextmanager
def connected(source: Source, endpoint: Endpoint, plan: TransferPlan) -> Iterator[Site]:
    """Open the sessions that last for the whole transfer, the source's with the snapshot that all others share."""
    with contextlib.ExitStack() as stack:
        with speaking_of("the target could not be looked at"):
            # A worker each, one that writes the schema, one that asks, and one that is asked whether it is there.
            sessions = try_sessions(endpoint, plan.jobs + 3)
            if not sessions.are_shared:
                stack.enter_context(watching(endpoint))
            opening = passing(endpoint) if sessions.are_shared else endpoint.connect(purpose=purpose("main"))
            target = stack.enter_context(opening)
            target_facts = read_facts(target, plan.role)
        named = endpoint.of_database(target_facts.database)
        stack.enter_context(watching(source.endpoint))
        asked = stack.enter_context(source.endpoint.connect(purpose="source"))
        with speaking_of("the source could not be looked at"):
            source_facts = read_facts(asked)
            encoding = "SQL_ASCII" if source_facts.encoding == "SQL_ASCII" else "UTF8"
            reader = stack.enter_context(reading(source.endpoint, encoding=encoding, snapshot=None))
            snapshot, state = _export(reader)
        sides = Sides(reader, source_facts, target, target_facts, sessions)
        identity = f"{source_facts.identity}/{source_facts.oid}/{state}"
        yield Site(source, named, sides, snapshot, identity, encoding, plan)


def _export(reader: Connection) -> tuple[str, str]:
    """Return the reader's snapshot for other sessions, and words that differ as soon as somebody wrote."""
    row = reader.execute("select pg_catalog.pg_export_snapshot(), pg_catalog.txid_current_snapshot()::text").fetchone()
    assert row is not None  # noqa: S101 - a select without a table
    return str(row[0]), str(row[1])
