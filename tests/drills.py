"""Runs of drills made by hand: passed, failed, not verified, several at once, harmful and huge."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from pgrescue.drilled import (
    Assertion,
    AssertionKind,
    DrillOutcome,
    DrillReport,
    DrillRun,
    IgnoredFinding,
    NewestCommit,
    PastRun,
)
from pgrescue.model import (
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
from tests.reports import HARM, HARMFUL, HARMFUL_MAPS, MAPS, PASSWORD, huge

STARTED = datetime(2026, 11, 22, 3, 0, 5, tzinfo=UTC)
_GIB = 1 << 30


def past(*seconds: float, name: str = "portal nightly") -> tuple[PastRun, ...]:
    """Return a nightly run for each recovery time, the last one a day before the drill."""
    return tuple(
        PastRun(
            name=name,
            time=STARTED - timedelta(days=len(seconds) - number),
            outcome=DrillOutcome.PASSED,
            verdict=Verdict.CONSISTENT,
            recovery_seconds=taken,
            seconds=taken + 260.0,
            size_bytes=44 * _GIB + number * (_GIB // 3),
            newest_commit_age_seconds=420.0 + 13 * number,
            rows={"portal public.orders": 1_830_000 + 1_200 * number, "portal public.invoices": 912_400 + 300 * number},
        )
        for number, taken in enumerate(seconds)
    )


RESCUE = RescueReport(
    verdict=Verdict.CONSISTENT,
    strategy=StrategyName.ARCHIVE,
    engine=EngineName.DOCKER,
    version=PgVersion(17, 11),
    system_identifier=7421337712345678901,
    workspace=Path("/srv/drills/portal-nightly-k2v9.drill/rescue.pgrescue"),
    url=f"postgresql://pgrescue:{PASSWORD}@127.0.0.1:5499/postgres",
    shown_url="postgresql://pgrescue@127.0.0.1:5499/postgres?passfile=/srv/drills/portal-nightly-k2v9.drill/rescue.pgrescue/pgpass",
    databases=(Database("portal", 47 * _GIB), Database("postgres", 7_700_000)),
    recovered_to=RecoveredTo(Lsn.parse("16/B374D848"), datetime(2026, 11, 22, 2, 51, 40, tzinfo=UTC)),
    steps=(
        StepReport("unpack", Outcome.DONE, 214.2),
        StepReport("recreate-directories", Outcome.HELD, 0.0),
        StepReport("stage-wal", Outcome.DONE, 3.9),
        StepReport("recover", Outcome.DONE, 118.4),
        StepReport("check-files", Outcome.DONE, 61.0),
        StepReport("start", Outcome.DONE, 2.7),
    ),
    findings=(),
    seconds=401.2,
)
PHASES = (
    StepReport("choose the snapshot", Outcome.DONE, 1.9),
    StepReport("rescue", Outcome.DONE, 401.2),
    StepReport("judge the assertions", Outcome.DONE, 37.5),
    StepReport("transfer to a throwaway server", Outcome.DONE, 196.3),
    StepReport("clean up", Outcome.DONE, 8.8),
)
ASSERTIONS = (
    Assertion(AssertionKind.REQUIRE, "verdict", DrillOutcome.PASSED, "at least consistent", "consistent", seconds=0.0),
    Assertion(AssertionKind.RTO, "recovery time", DrillOutcome.PASSED, "<= 15 min", "6 min 41 s"),
    Assertion(AssertionKind.RPO, "newest commit", DrillOutcome.PASSED, "<= 15 min", "8 min 25 s"),
    Assertion(AssertionKind.VERIFY, "checks", DrillOutcome.PASSED, "full, every check clean", "full, 0 errors"),
    Assertion(
        AssertionKind.SQL,
        "every order has a customer",
        DrillOutcome.PASSED,
        "== 0",
        "0",
        database="portal",
        seconds=3.2,
    ),
    Assertion(
        AssertionKind.ROWS,
        "public.orders: at least 1,000,000 rows",
        DrillOutcome.PASSED,
        "at least 1,000,000 rows, at most 5 % less than last time",
        "1,842,113 rows",
        database="portal",
        seconds=1.4,
    ),
    Assertion(
        AssertionKind.TRANSFER,
        "transfer to a throwaway server",
        DrillOutcome.PASSED,
        "every table equal by its hash",
        "214 of 214 tables equal",
        database="portal",
        seconds=196.3,
    ),
)
SETTINGS = Finding("settings_kept_apart", Severity.INFO, "postgresql.auto.conf", "2 settings\nset aside.", "")
COLLATION = Finding(
    "collation_version",
    Severity.WARNING,
    "portal: public.customers_name_idx",
    "The index was built with glibc 2.31, and this server has 2.41.",
    "REINDEX INDEX public.customers_name_idx;",
)
PASSED_DRILL = DrillReport(
    name="portal nightly",
    outcome=DrillOutcome.PASSED,
    started=STARTED,
    seconds=645.7,
    snapshot="s3://backups/portal/base/20261122T024500/data.tar.gz",
    chosen_because="the newest of 14 by backup.info: ended 2026-11-22 02:49 UTC",
    rescue=RESCUE,
    recovery_seconds=401.2,
    size_bytes=int(47.4 * _GIB),
    newest_commit=NewestCommit(
        datetime(2026, 11, 22, 2, 51, 40, tzinfo=UTC), 505.0, "the last commit that was replayed"
    ),
    assertions=ASSERTIONS,
    findings=(SETTINGS,),
    ignored=(IgnoredFinding(COLLATION, "glibc is upgraded with the next release, OPS-1187", date(2026, 12, 31)),),
    phases=PHASES,
    rows={"portal public.orders": 1_842_113, "portal public.invoices": 915_420},
    past=past(371.0, 380.4, 377.9, 391.3, 385.0, 402.2, 398.8, 394.1, 405.6, 399.9),
)
PASSED = DrillRun(
    id="01JDA9M2V5",
    file="drills/portal.yaml",
    started=STARTED,
    seconds=648.1,
    drills=(PASSED_DRILL,),
)

_DAMAGE = tuple(
    Finding(
        "page_checksum",
        Severity.ERROR,
        name,
        "Pages whose checksum is wrong were found by pg_amcheck and by the scan of the files.",
        "Take the rows from an older backup: RECOVERY.md, part 3.",
        rows=rows,
    )
    for name, rows in (("portal: public.orders", 1_834), ("portal: public.small", 1))
)
FAILED_DRILL = dataclasses.replace(
    PASSED_DRILL,
    outcome=DrillOutcome.FAILED,
    seconds=1_412.6,
    rescue=dataclasses.replace(
        RESCUE,
        verdict=Verdict.DAMAGED,
        seconds=1_088.0,
        steps=(
            StepReport("unpack", Outcome.DONE, 302.8),
            StepReport("recreate-directories", Outcome.HELD, 0.0),
            StepReport("stage-wal", Outcome.DONE, 4.4),
            StepReport("recover", Outcome.DONE, 655.1),
            StepReport("check-files", Outcome.DONE, 122.6),
            StepReport("start", Outcome.DONE, 3.1),
        ),
    ),
    recovery_seconds=1_088.0,
    size_bytes=int(31.2 * _GIB),
    assertions=(
        Assertion(
            AssertionKind.REQUIRE,
            "verdict",
            DrillOutcome.FAILED,
            "at least consistent",
            "damaged",
            "2 errors among the findings: page_checksum.",
        ),
        Assertion(
            AssertionKind.RTO,
            "recovery time",
            DrillOutcome.FAILED,
            "<= 15 min",
            "18 min 08 s",
            "recover took 10 min 55 s of it.",
        ),
        *ASSERTIONS[2:5],
        Assertion(
            AssertionKind.ROWS,
            "public.orders: at least 1,000,000 rows",
            DrillOutcome.FAILED,
            "at least 1,000,000 rows, at most 5 % less than last time",
            "611,204 rows, 66.8 % less than last time (1,840,800)",
            database="portal",
            seconds=1.4,
        ),
        Assertion(
            AssertionKind.TRANSFER,
            "transfer to a throwaway server",
            DrillOutcome.UNVERIFIED,
            "every table equal by its hash",
            "not done",
            "public.orders could not be read: a page of it is damaged.",
            database="portal",
            seconds=41.0,
        ),
    ),
    findings=(*_DAMAGE, dataclasses.replace(COLLATION, object="portal: public.suppliers_name_idx"), SETTINGS),
    phases=(
        StepReport("choose the snapshot", Outcome.DONE, 2.1),
        StepReport("rescue", Outcome.DONE, 1_088.0),
        StepReport("judge the assertions", Outcome.DONE, 252.7),
        StepReport("transfer to a throwaway server", Outcome.FAILED, 41.0),
        StepReport("clean up", Outcome.DONE, 28.8),
    ),
    blocks=MAPS,
    rows={"portal public.orders": 611_204, "portal public.invoices": 915_420},
    past=(
        *past(371.0, 380.4, 377.9, 391.3, 385.0, 402.2, 398.8)[:5],
        dataclasses.replace(
            past(0.0, 0.0)[0],
            outcome=DrillOutcome.UNVERIFIED,
            verdict=None,
            recovery_seconds=None,
            seconds=12.4,
            size_bytes=None,
            newest_commit_age_seconds=None,
            rows={},
        ),
        past(398.8)[0],
    ),
    regressions=(
        "recovery took 1,088 s, 2.8 times the median of the last 6 runs (383 s)",
        "the data directory has 31.2 GiB, 30 % less than the median of the last 6 runs (44.7 GiB)",
        "the table public.orders of portal has 611,204 rows, 1,840,800 last time",
        "the verdict is damaged, it was consistent last time",
    ),
    kept=Path("/srv/drills/portal-nightly-k2v9.drill"),
)
FAILED = dataclasses.replace(PASSED, seconds=1_413.9, drills=(FAILED_DRILL,))

UNVERIFIED_DRILL = DrillReport(
    name="billing weekly",
    outcome=DrillOutcome.UNVERIFIED,
    started=STARTED,
    seconds=12.4,
    snapshot="/backups/billing/*.tar.zst",
    phases=(StepReport("choose the snapshot", Outcome.FAILED, 0.3),),
    past=past(71.0, 70.4, name="billing weekly"),
    problem="No snapshot matches /backups/billing/*.tar.zst; there are 2 other files: README, billing.lock.",
    hint="Say where the backups are, or look why none was made.",
)
UNVERIFIED = dataclasses.replace(
    PASSED,
    file="drills/billing.yaml",
    seconds=12.6,
    drills=(UNVERIFIED_DRILL,),
    notes=("The hook of SLACK_URL could not be told: it answered 404.",),
)
SEVERAL = dataclasses.replace(
    PASSED,
    file="drills/all of them.yaml",
    seconds=2_101.0,
    drills=(PASSED_DRILL, dataclasses.replace(FAILED_DRILL, name="portal weekly"), UNVERIFIED_DRILL),
)
NOTHING = dataclasses.replace(PASSED, drills=(), seconds=0.1)

_HARMFUL_DRILL = DrillReport(
    name=HARM,
    outcome=DrillOutcome.FAILED,
    started=STARTED,
    seconds=1.0,
    snapshot=HARM,
    chosen_because=HARM,
    rescue=dataclasses.replace(RESCUE, databases=HARMFUL.databases, steps=HARMFUL.steps),
    recovery_seconds=1.0,
    size_bytes=1,
    newest_commit=NewestCommit(STARTED, 1.0, HARM),
    assertions=tuple(
        Assertion(kind, HARM, outcome, HARM, HARM, HARM, HARM) for kind in AssertionKind for outcome in DrillOutcome
    ),
    findings=HARMFUL.findings,
    ignored=(IgnoredFinding(HARMFUL.findings[0], HARM, date(2026, 12, 1)),),
    phases=HARMFUL.steps,
    blocks=HARMFUL_MAPS,
    rows={f"{HARM} {HARM}": 1},
    past=past(1.0, 2.0, name=HARM),
    regressions=(HARM,),
    problem=HARM,
    hint=HARM,
    kept=Path(f"/srv/{HARM.replace('/', '')}"),
)
HARMFUL_RUN = DrillRun(id=HARM, file=HARM, started=STARTED, seconds=1.0, drills=(_HARMFUL_DRILL,) * 2, notes=(HARM,))
"""Two drills, which have even the name in common."""


def huge_run() -> DrillRun:
    """Return a run with 10,000 findings, as many assertions, 100 past runs and texts of a megabyte."""
    report, maps = huge()
    long = "long text " * 100_000
    drill = dataclasses.replace(
        FAILED_DRILL,
        findings=(*report.findings, Finding("long", Severity.ERROR, long, long, long)),
        ignored=tuple(IgnoredFinding(one, long[:5_000], date(2026, 12, 1)) for one in report.findings[:5_000]),
        assertions=tuple(
            Assertion(AssertionKind.SQL, f"check {number}", outcome, "== 0", "1", long[:5_000], f"db{number % 50}")
            for number in range(2_500)
            for outcome in DrillOutcome
        ),
        phases=tuple(StepReport(f"phase {number}", Outcome.DONE, 1.0) for number in range(2_000)),
        blocks=maps,
        rows={f"db{number % 50} public.t{number}": number for number in range(5_000)},
        past=past(*(380.0 + 40 * (number % 7) for number in range(100))),
        regressions=tuple(f"the table t{number} has no rows" for number in range(1_000)),
        problem=long,
        hint=long,
    )
    return dataclasses.replace(FAILED, drills=(drill,), notes=("note",) * 500)
