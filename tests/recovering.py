"""The recovery steps on a copy that was unpacked once: what they do to the data, without all that a rescue does after.

A rescue takes seconds, most of them for what other tests look at.
"""

from __future__ import annotations

import dataclasses
import re
import subprocess
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from pgrescue.model import Latest, StrategyName
from pgrescue.pipeline import Silent, run_steps
from pgrescue.run import Run
from pgrescue.snapshot.contents import read_snapshot
from pgrescue.steps.ownership import hand_over
from pgrescue.strategy.choose import assess
from pgrescue.strategy.recipes import STEPS
from pgrescue.strategy.wal_plan import WalRequest, plan_wal
from pgrescue.workspace import Workspace
from tests.contract import engines_native

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from fixtures import Expectation
    from pgrescue.model import Finding, StepReport, Until

_VALUE = re.compile(r'^\t 1: \w+ = "(.*)"\t\(typeid', re.MULTILINE)


class NoJournal:
    """A ledger that forgets."""

    def record(self, record: StepReport) -> None:
        """Forget it."""


@dataclass
class Recovered:
    """A copy that PostgreSQL recovered and shut down, and what was found on the way."""

    run: Run
    findings: tuple[Finding, ...] = ()

    @property
    def codes(self) -> list[str]:
        return [finding.code for finding in self.findings]

    def finding(self, code: str) -> Finding:
        """Return the only finding with this code."""
        (found,) = [finding for finding in self.findings if finding.code == code]
        return found

    def one(self, query: str) -> str:
        """Return the one value that a query on the portal gives."""
        (value,) = self.ask([query])
        return value

    def ask(self, queries: Sequence[str], database: str = "portal") -> list[str]:
        """Return the one value of each query, asked in single-user mode."""
        run = self.run
        script = run.workspace.root / "query.sql"
        script.write_text("".join(f"{query};\n" for query in queries))
        hand_over(run.engine, script)
        config = run.engine.path(run.workspace.server / "postgresql.conf")
        arguments = ["--single", "-D", run.engine.path(run.workspace.pgdata), "-c", f"config_file={config}", database]
        done = run.engine.run("postgres", arguments, stdin=script).check("the query failed")
        values = [str(value) for value in _VALUE.findall(done.stdout)]
        assert len(values) == len(queries), done.stderr
        return values

    def missed(self, expected: Iterable[Expectation]) -> list[str]:
        """Return the expectations that are not met, with the value found."""
        facts = list(expected)
        found = zip(facts, self.ask([fact.query for fact in facts]), strict=True)
        return [f"{fact.label}: {value}, not {fact.value}" for fact, value in found if value != str(fact.value)]

    @property
    def marks(self) -> list[int]:
        """The marks that are there."""
        return [
            int(number) for number in self.one("SELECT string_agg(number::text, ',') FROM marks").split(",") if number
        ]

    @property
    def orders(self) -> dict[str, int]:
        """The version of every order of the load."""
        told = self.one("SELECT string_agg(client_ref || '=' || version, ',') FROM orders WHERE client_ref IS NOT NULL")
        return {ref: int(version) for ref, _, version in (item.partition("=") for item in told.split(","))}


@dataclass
class Bench:
    """Where copies are made: the first of a snapshot is unpacked, the others are copies of it."""

    root: Path
    major: int = 17
    _made: list[Workspace] = field(default_factory=list)

    def prepared(
        self,
        snapshot: Path,
        *,
        wal: Path | None = None,
        until: Until | None = None,
        strategy: StrategyName | None = None,
    ) -> Run:
        """Return a run on a copy of its own, of the best strategy that the snapshot and this WAL allow."""
        read = read_snapshot(snapshot)
        plan = plan_wal(read, WalRequest(wal, until or Latest()))
        workspace = Workspace(self.root / f"{len(self._made)}.pgrescue")
        subprocess.run(["cp", "-a", self._template(snapshot).root, workspace.root], check=True)
        self._made.append(workspace)
        engine = engines_native.make(workspace, self.major, "bench")
        return Run(read, workspace, engine, strategy or assess(read, plan).best, 1, wal=plan)

    def recover(self, run: Run) -> Recovered:
        """Take the steps up to the recovery."""
        return self.take(run, "recover")

    def take(self, run: Run, last: str) -> Recovered:
        """Take the steps of the run's strategy up to `last`."""
        steps = STEPS[run.strategy]
        end = [step.name for step in steps].index(last) + 1
        return Recovered(run, run_steps(steps[:end], run, journal=NoJournal(), observer=Silent()))

    @cache  # noqa: B019 - a bench lives as long as its module's tests
    def _template(self, snapshot: Path) -> Workspace:
        workspace = Workspace(self.root / f"template-{len(list(self.root.glob('template-*')))}.pgrescue")
        workspace.create(shared=True)
        engine = engines_native.make(workspace, self.major, "bench")
        run = Run(read_snapshot(snapshot), workspace, engine, StrategyName.ARCHIVE, 1)
        run_steps(STEPS[run.strategy][:1], run, journal=NoJournal(), observer=Silent())
        return workspace

    def __hash__(self) -> int:
        return id(self)


def with_wal(run: Run, **changes: object) -> Run:
    """Return the run with parts of its WAL plan replaced."""
    return dataclasses.replace(run, wal=dataclasses.replace(run.wal, **changes))  # type: ignore[arg-type]
