"""A report with a secret in it, and consoles that are no terminal or pretend to be one."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from pgrescue.model import (
    Database,
    EngineName,
    Lsn,
    Outcome,
    PgVersion,
    RecoveredTo,
    RescueReport,
    Severity,
    StepReport,
    StrategyName,
    Verdict,
)
from tests.unit.builders import finding

PASSWORD = "s3cret-password"


@pytest.fixture
def report() -> RescueReport:
    """Return the report of a rescue that went well enough."""
    return RescueReport(
        verdict=Verdict.BEST_EFFORT,
        strategy=StrategyName.CRASH,
        engine=EngineName.NATIVE,
        version=PgVersion(17, 11),
        system_identifier=(1 << 64) - 1,
        workspace=Path("/rescue/my data.pgrescue"),
        url=f"postgresql://pgrescue:{PASSWORD}@127.0.0.1:5499/postgres",
        shown_url="postgresql://pgrescue@127.0.0.1:5499/postgres?passfile=/rescue/my%20data.pgrescue/pgpass",
        databases=(Database("app", 5 << 20), Database("postgres", 7 << 20)),
        recovered_to=RecoveredTo(Lsn.parse("0/900028"), datetime(2026, 11, 22, 8, 18, 51, tzinfo=UTC)),
        steps=(StepReport("unpack", Outcome.DONE, 1.25), StepReport("start", Outcome.HELD, 0.0)),
        findings=(
            finding(Severity.INFO, code="an_info"),
            finding(Severity.WARNING, code="a_warning", detail="[bold]not markup[/]", rows=7),
            finding(Severity.ERROR, code="an_error", remedy=""),
        ),
        seconds=2.5,
    )


@pytest.fixture
def plain() -> Console:
    """Return a console that writes to a file."""
    return Console(file=io.StringIO(), width=40)


@pytest.fixture
def terminal() -> Console:
    """Return a console that takes its file for a terminal."""
    return Console(file=io.StringIO(), force_terminal=True, width=100)


def text_of(console: Console) -> str:
    """Return what was written to one of these consoles."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
