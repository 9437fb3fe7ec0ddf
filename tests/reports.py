"""Rescue reports made by hand: one with every kind of trouble, one without, and one that means harm."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

from pgrescue.model import (
    BlockMap,
    DamagedBlocks,
    Database,
    EngineName,
    Finding,
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

PASSWORD = "s3cret-password"
HARM = (
    '<script>window.harmed=1</script><img src="http://192.0.2.1/x" onerror="window.harmed=1">'
    "\"'--></style>&amp;\x1b[31m\u202e"
)

DAMAGED = RescueReport(
    verdict=Verdict.DAMAGED,
    strategy=StrategyName.RESET,
    engine=EngineName.DOCKER,
    version=PgVersion(17, 11),
    system_identifier=7421337712345678901,
    workspace=Path("/srv/rescue/a rather long directory name without end/data.pgrescue"),
    url=f"postgresql://pgrescue:{PASSWORD}@127.0.0.1:5499/postgres",
    shown_url="postgresql://pgrescue@127.0.0.1:5499/postgres?passfile=/srv/rescue/a%20rather%20long%20directory/pgpass",
    databases=(Database("portal", 48_300_000_000), Database("postgres", 7_700_000), Database("x" * 63, 912_000_000)),
    recovered_to=RecoveredTo(Lsn.parse("16/B374D848"), datetime(2026, 11, 22, 1, 14, 9, tzinfo=UTC)),
    steps=(
        StepReport("unpack", Outcome.DONE, 84.2),
        StepReport("recreate-directories", Outcome.HELD, 0.0),
        StepReport("blank-config", Outcome.SKIPPED, 0.0),
        StepReport("reset-wal", Outcome.DONE, 41.7),
        StepReport("health-check", Outcome.FAILED, 12.9),
    ),
    findings=(
        Finding("wal_reset", Severity.WARNING, "pg_wal", "The WAL was reset.", "Dump the data before you build on it."),
        Finding("reset_values", Severity.INFO, "pg_control", "-x 0x300000: next\n-l 00000001: next", "Nothing to do."),
        Finding(
            "tablespace_missing",
            Severity.ERROR,
            "pg_tblspc/16999",
            "Its tables are not in the copy:\n  public.invoices\n  public." + "attachments_" * 9,
            "Get its files.",
            rows=1834,
        ),
    ),
    seconds=139.4,
)
CONSISTENT = dataclasses.replace(
    DAMAGED,
    verdict=Verdict.CONSISTENT,
    strategy=StrategyName.CLEAN,
    engine=EngineName.NATIVE,
    findings=(),
    steps=DAMAGED.steps[:3],
)
MAPS = (
    BlockMap("portal: public.healthy", "base/16385/16400", 12, ()),
    BlockMap("portal: public.small", "base/16385/16401", 5, (DamagedBlocks(4, 4, "missing"),)),
    BlockMap(
        "portal: public.orders",
        "base/16385/16402",
        96_000,
        tuple(
            DamagedBlocks(at, at + at // 900 % 70, ("checksum", "zeroed", "bad header")[at // 1700 % 3])
            for at in range(500, 90_000, 1_700)
        ),
    ),
)
HARMFUL = dataclasses.replace(
    DAMAGED,
    workspace=Path(f"/srv/{HARM.replace('/', '')}"),
    shown_url=f"postgresql://{HARM}",
    databases=(Database(HARM, 1),),
    steps=(StepReport(HARM, Outcome.DONE, 1.0),),
    findings=tuple(Finding(HARM, severity, HARM, HARM, HARM) for severity in Severity),
)
HARMFUL_MAPS = (BlockMap(HARM, HARM, 5, (DamagedBlocks(4, 4, HARM),)),)


def huge() -> tuple[RescueReport, tuple[BlockMap, ...]]:
    """Return a report with 10,000 findings, and a relation of 100 million blocks with 50,000 runs of damage."""
    findings = tuple(
        Finding(f"code_{number % 70}", list(Severity)[number % 3], f"object {number}", "detail " * 20, "remedy " * 9)
        for number in range(10_000)
    )
    large = tuple(DamagedBlocks(at, at + 3, f"kind {at % 11}") for at in range(0, 100_000_000, 2_000))
    small = (BlockMap(f"public.t{number}", "base/1/2", 9, (DamagedBlocks(1, 2, "zeroed"),)) for number in range(700))
    report = dataclasses.replace(
        DAMAGED, findings=findings, databases=tuple(Database(f"db{number}", number) for number in range(3_000))
    )
    return report, (BlockMap("public.large", "base/1/1", 100_000_000, large), *small)
