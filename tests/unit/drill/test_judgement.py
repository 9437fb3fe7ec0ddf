"""What findings and a verdict mean for a drill."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import pgrescue
from pgrescue.drill.judgement import (
    NOT_RUN,
    expired,
    named,
    newest_commit,
    on_age,
    on_checks,
    on_recovery_time,
    on_verdict,
    problem_of,
    sift,
)
from pgrescue.drill.scenario import Ignore
from pgrescue.drilled import DrillOutcome, NewestCommit
from pgrescue.model import (
    EngineName,
    Finding,
    PgVersion,
    RecoveredTo,
    RescueReport,
    Severity,
    StrategyName,
    Verdict,
)

PASSED, FAILED, UNVERIFIED = DrillOutcome.PASSED, DrillOutcome.FAILED, DrillOutcome.UNVERIFIED
TODAY = date(2026, 11, 22)
NOW = datetime(2026, 11, 22, 8, 15, tzinfo=UTC)
ERROR = Finding("page_checksum", Severity.ERROR, "portal: public.orders", "Two pages.", "Restore it.", rows=7)
WARNING = Finding("collation_changed", Severity.WARNING, "portal: public.a_idx", "Another glibc.", "REINDEX.")
NOTE = Finding("settings_kept_apart", Severity.INFO, "postgresql.auto.conf", "Set aside.", "")
UNCHECKED = Finding("check_not_run", Severity.WARNING, "all checks of portal", "It cannot be looked at.", "Look.")
REFUSED = Finding("rescue_failed", Severity.ERROR, "rescue", "PANIC:  no checkpoint", "Take another backup.")


def report(
    verdict: Verdict = Verdict.CONSISTENT, strategy: StrategyName = StrategyName.ARCHIVE, **others: Any
) -> RescueReport:
    made = RescueReport(
        verdict=verdict,
        strategy=strategy,
        engine=EngineName.NATIVE,
        version=PgVersion(17, 11),
        system_identifier=1,
        workspace=Path("/srv/it.pgrescue"),
        url=None,
        shown_url=None,
        databases=(),
        recovered_to=RecoveredTo(),
        steps=(),
        findings=(),
        seconds=1.0,
    )
    return dataclasses.replace(made, **others)


def ignore(code: str = "collation_changed", *, until: date = TODAY, about: str | None = None) -> Ignore:
    return Ignore.model_validate({"code": code, "object": about, "reason": "OPS-123", "until": until})


def test_findings_are_ignored_by_code_and_object_until_a_day_inclusive() -> None:
    other = dataclasses.replace(WARNING, object="portal: public.b_idx")
    found = (ERROR, WARNING, other, NOTE)
    kept, ignored = sift(found, [ignore(about="portal: public.a_*")], TODAY)
    assert kept == (ERROR, other, NOTE)
    assert [(one.finding, one.reason, one.until) for one in ignored] == [(WARNING, "OPS-123", TODAY)]
    assert sift(found, [ignore(about="portal: public.a_*")], TODAY + timedelta(days=1)) == (found, ())
    assert sift(found, [ignore("page_checksum"), ignore()], TODAY)[0] == (NOTE,)
    assert sift(found, [ignore("page"), ignore(about="public")], TODAY) == (found, ())
    assert sift((), [ignore()], TODAY) == ((), ())


def test_of_two_rules_the_one_that_applies_counts() -> None:
    old, new = ignore(until=TODAY - timedelta(days=1)), ignore(until=TODAY + timedelta(days=1))
    _, ignored = sift([WARNING], [old, new], TODAY)
    assert [one.until for one in ignored] == [new.until]


def test_neither_those_that_count_nor_those_that_are_ignored_quote_rows() -> None:
    told = dataclasses.replace(
        WARNING,
        detail='x: invalid input syntax for type integer: "geheim"',
        remedy="Delete Key (t)=(geheim) already exists.",
    )
    kept, ignored = sift([told, dataclasses.replace(told, code="other")], [ignore()], TODAY)
    assert len(kept) == len(ignored) == 1
    for finding in (kept[0], ignored[0].finding):
        assert "geheim" not in finding.detail + finding.remedy
        assert finding.object == told.object
        assert "type integer" in finding.detail


def test_a_rule_that_has_ended_is_told_where_it_would_have_mattered() -> None:
    yesterday = TODAY - timedelta(days=1)
    ended, elsewhere = ignore(until=yesterday), ignore("page_checksum", until=yesterday)
    (words,) = expired([WARNING, NOTE], [ended, elsewhere, ignore("settings_kept_apart")], TODAY)
    assert words == "ignoring collation_changed has ended on 2026-11-21: look at it again (OPS-123)"
    assert expired([WARNING], [ignore(until=yesterday, about="portal: public.z*")], TODAY) == ()


@pytest.mark.parametrize(
    ("findings", "outcome", "seen"),
    [
        ((), PASSED, "no finding"),
        ((NOTE,), PASSED, "1 note"),
        ((WARNING, WARNING, NOTE), PASSED, "2 warnings, 1 note"),
        ((ERROR, WARNING), FAILED, "1 error, 1 warning"),
        ((UNCHECKED,), UNVERIFIED, "1 warning"),
        ((UNCHECKED, ERROR), FAILED, "1 error, 1 warning"),
    ],
)
def test_the_checks_pass_where_all_ran_and_none_found_an_error(
    findings: tuple[Finding, ...], outcome: DrillOutcome, seen: str
) -> None:
    answer = on_checks(report(), findings)
    assert (answer.outcome, answer.seen) == (outcome, seen)
    if outcome is not PASSED:
        assert f"{findings[-1].code} ({findings[-1].object})" in answer.detail or outcome is FAILED
    assert ("page_checksum (portal: public.orders)" in answer.detail) is (outcome is FAILED)


@pytest.mark.parametrize("code", sorted(NOT_RUN))
@pytest.mark.parametrize("severity", list(Severity))
def test_what_was_not_looked_at_is_no_pass_however_it_is_told(code: str, severity: Severity) -> None:
    answer = on_checks(report(), [dataclasses.replace(UNCHECKED, code=code, severity=severity)])
    assert answer.outcome is (FAILED if severity is Severity.ERROR else UNVERIFIED)


def test_every_code_for_what_was_not_looked_at_is_one_that_the_program_tells() -> None:
    sources = "".join(
        path.read_text() for path in Path(pgrescue.__file__).parent.rglob("*.py") if "drill" not in path.parts
    )
    assert [code for code in sorted(NOT_RUN) if f'"{code}"' not in sources] == []


@pytest.mark.parametrize(
    ("verdict", "strategy", "findings", "required", "outcome", "seen"),
    [
        (Verdict.CONSISTENT, StrategyName.ARCHIVE, (), Verdict.CONSISTENT, PASSED, "consistent, strategy archive"),
        (Verdict.CONSISTENT, StrategyName.CLEAN, (), Verdict.BEST_EFFORT, PASSED, "consistent, strategy clean"),
        (Verdict.BEST_EFFORT, StrategyName.RESET, (), Verdict.BEST_EFFORT, PASSED, "best-effort, strategy reset"),
        (Verdict.BEST_EFFORT, StrategyName.CRASH, (), Verdict.CONSISTENT, FAILED, "best-effort, strategy crash"),
        (Verdict.DAMAGED, StrategyName.ARCHIVE, (ERROR,), Verdict.BEST_EFFORT, FAILED, "damaged, strategy archive"),
        (
            Verdict.DAMAGED,
            StrategyName.ARCHIVE,
            (),
            Verdict.CONSISTENT,
            PASSED,
            "consistent, strategy archive (damaged with the ignored findings)",
        ),
        (
            Verdict.DAMAGED,
            StrategyName.RESET,
            (),
            Verdict.CONSISTENT,
            FAILED,
            "best-effort, strategy reset (damaged with the ignored findings)",
        ),
    ],
)
def test_the_verdict_is_that_without_the_ignored_findings(  # noqa: PLR0917 - a table of cases
    verdict: Verdict,
    strategy: StrategyName,
    findings: tuple[Finding, ...],
    required: Verdict,
    outcome: DrillOutcome,
    seen: str,
) -> None:
    answer = on_verdict(report(verdict, strategy), findings, required)
    assert (answer.outcome, answer.seen) == (outcome, seen)
    assert bool(answer.detail) is (outcome is FAILED)
    if outcome is FAILED:
        assert ("page_checksum" if findings else "name the archive with `wal`") in answer.detail


@pytest.mark.parametrize(("is_refused", "outcome"), [(True, FAILED), (False, UNVERIFIED)])
def test_without_a_server_the_backup_is_bad_or_nobody_knows(*, is_refused: bool, outcome: DrillOutcome) -> None:
    told = dataclasses.replace(REFUSED, detail='it ended: invalid value: "geheim"')
    failed = report(Verdict.FAILED, findings=(NOTE, told), is_refused=is_refused)
    for answer in (on_checks(failed, ()), on_verdict(failed, (), Verdict.BEST_EFFORT)):
        assert answer.outcome is outcome
        assert answer.detail == problem_of(failed) == 'it ended: invalid value: "…"'
    assert problem_of(report(Verdict.FAILED)) == "no server"


def test_many_findings_are_named_in_part() -> None:
    found = [dataclasses.replace(ERROR, object=f"t{number}") for number in range(10)]
    assert named(found[:1]) == "page_checksum (t0)"
    assert named(found[:8]).endswith("page_checksum (t7)")
    assert named(found).endswith("page_checksum (t7), and 2 more")
    assert named([]) == ""


def test_a_recovery_is_fast_enough_up_to_its_budget() -> None:
    budget = timedelta(minutes=15)
    found = [on_recovery_time(seconds, budget) for seconds in (899.9, 900.0, 900.1, 2000.0, None)]
    assert [one.outcome for one in found] == [PASSED, PASSED, FAILED, FAILED, UNVERIFIED]
    assert (found[0].seen, found[3].seen, found[3].detail) == ("899.9 s", "2000.0 s", "1100.0 s more than 15 min.")


def test_the_newest_commit_is_what_the_wal_or_the_shutdown_says() -> None:
    at = RecoveredTo(time=NOW - timedelta(minutes=5))
    found = newest_commit(report(recovered_to=at), NOW)
    assert found == NewestCommit(NOW - timedelta(minutes=5), 300.0, "the WAL")
    clean = newest_commit(report(strategy=StrategyName.CLEAN, recovered_to=at), NOW)
    assert clean is not None
    assert clean.source == "the checkpoint of the shutdown"
    assert newest_commit(report(), NOW) is None


@pytest.mark.parametrize(
    ("age_s", "outcome", "seen", "detail"),
    [
        (0.2, PASSED, "2026-11-22 08:14:59 UTC by the WAL, 0 s before the drill", ""),
        (900.0, PASSED, "2026-11-22 08:00:00 UTC by the WAL, 15 min before the drill", ""),
        (901.0, FAILED, "2026-11-22 07:59:59 UTC by the WAL, 15 min 1 s before the drill", "Older than 15 min."),
        (-300.0, PASSED, "2026-11-22 08:20:00 UTC by the WAL, 0 s before the drill", ""),
        (-301.0, UNVERIFIED, "2026-11-22 08:20:01 UTC by the WAL", "5 min 1 s after the drill began"),
    ],
)
def test_the_newest_commit_is_new_enough_up_to_its_budget(
    age_s: float, outcome: DrillOutcome, seen: str, detail: str
) -> None:
    commit = NewestCommit(NOW - timedelta(seconds=age_s), age_s, "the WAL")
    answer = on_age(commit, timedelta(minutes=15))
    assert (answer.outcome, answer.seen) == (outcome, seen)
    assert detail in answer.detail
    assert bool(answer.detail) is bool(detail)


def test_an_age_that_nobody_knows_says_what_would_tell() -> None:
    answer = on_age(None, timedelta(days=3650))
    assert answer.outcome is UNVERIFIED
    assert "`wal`" in answer.detail
    assert "`freshness`" in answer.detail
