"""What a rescue's findings and verdict mean for a drill."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from pgrescue.drill.duration import shown as shown_duration
from pgrescue.drill.record import Answer
from pgrescue.drill.redact import without_rows
from pgrescue.drilled import IgnoredFinding, NewestCommit
from pgrescue.model import Severity, StrategyName, Verdict
from pgrescue.strategy.verdict import judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date, datetime

    from pgrescue.drill.scenario import Ignore
    from pgrescue.model import Finding, RescueReport

NOT_RUN = frozenset({"check_not_run", "checks_skipped", "foreign_key_unchecked", "lost_rows_unchecked"})
"""Findings that say that something was not looked at: that is no pass (DESIGN.md, "Verdicts and exit statuses")."""
AHEAD = timedelta(minutes=5)
"""How far the clocks of two machines may differ; a time from further ahead says nothing about how fresh the data is."""
_MOST_NAMED = 8


def sift(
    findings: Iterable[Finding], ignores: Sequence[Ignore], today: date
) -> tuple[tuple[Finding, ...], tuple[IgnoredFinding, ...]]:
    """Return the findings that count, and those that the drill file says to ignore today; none quotes a row."""
    kept, ignored = [], []
    for finding in findings:
        clean = replace(finding, detail=without_rows(finding.detail), remedy=without_rows(finding.remedy))
        rule = next((rule for rule in ignores if rule.covers(finding, day=today)), None)
        if rule is None:
            kept.append(clean)
        else:
            ignored.append(IgnoredFinding(clean, rule.reason, rule.until))
    return tuple(kept), tuple(ignored)


def expired(findings: Sequence[Finding], ignores: Sequence[Ignore], today: date) -> tuple[str, ...]:
    """Return words for each rule that no longer holds, and that would have mattered."""
    return tuple(
        f"ignoring {rule.code} has ended on {rule.until}: look at it again ({rule.reason})"
        for rule in ignores
        if not rule.applies_on(today) and any(rule.covers(finding, day=rule.until) for finding in findings)
    )


def on_checks(report: RescueReport, findings: Sequence[Finding]) -> Answer:
    """Answer whether all that was looked at is in order; `findings` are those that count."""
    if report.verdict is Verdict.FAILED:
        return _on_no_server(report)
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if errors:
        return Answer.failed(_counted(findings), named(errors))
    if missed := [finding for finding in findings if finding.code in NOT_RUN]:
        return Answer.unknown(f"not everything was looked at: {named(missed)}", seen=_counted(findings))
    return Answer.passed(_counted(findings))


def on_verdict(report: RescueReport, findings: Sequence[Finding], required: Verdict) -> Answer:
    """Answer whether the verdict, as it is without the ignored findings, is what is required."""
    if report.verdict is Verdict.FAILED:
        return _on_no_server(report)
    verdict = judge(report.strategy, findings)
    seen = f"{verdict}, strategy {report.strategy}"
    if verdict is not report.verdict:
        seen += f" ({report.verdict} with the ignored findings)"
    if verdict.is_at_least(required):
        return Answer.passed(seen)
    return Answer.failed(seen, _why_lesser(report, findings))


def _on_no_server(report: RescueReport) -> Answer:
    """Answer without a server: a copy that PostgreSQL refuses is a bad backup, a machine at fault says nothing."""
    if report.is_refused:
        return Answer.failed("no server: the backup itself is at fault", problem_of(report))
    return Answer.unknown(problem_of(report), seen="no server")


def problem_of(report: RescueReport) -> str:
    """Return why a rescue failed."""
    return next((without_rows(found.detail) for found in report.findings if found.code == "rescue_failed"), "no server")


def _why_lesser(report: RescueReport, findings: Sequence[Finding]) -> str:
    if errors := [finding for finding in findings if finding.severity is Severity.ERROR]:
        return named(errors)
    if report.strategy in {StrategyName.RESET, StrategyName.CRASH}:
        return (
            "Only the WAL of the backup makes a copy of a running server consistent: name the archive with `wal`; "
            "`pgrescue inspect` tells which files are missing."
        )
    return ""


def named(findings: Sequence[Finding]) -> str:
    """Return findings in one line: code and object of the first ones."""
    told = [f"{finding.code} ({finding.object})" for finding in findings[:_MOST_NAMED]]
    more = len(findings) - len(told)
    return ", ".join(told) + (f", and {more} more" if more > 0 else "")


def _counted(findings: Sequence[Finding]) -> str:
    counts = Counter(finding.severity for finding in findings)
    words = [
        f"{counts[severity]} {word}{'' if counts[severity] == 1 else 's'}"
        for severity, word in ((Severity.ERROR, "error"), (Severity.WARNING, "warning"), (Severity.INFO, "note"))
        if counts[severity]
    ]
    return ", ".join(words) or "no finding"


def on_recovery_time(seconds: float | None, budget: timedelta) -> Answer:
    """Answer whether the recovery was fast enough."""
    if seconds is None:
        return Answer.unknown("no server came up", seen="no recovery")
    seen = f"{seconds:.1f} s"
    if seconds <= budget.total_seconds():
        return Answer.passed(seen)
    return Answer.failed(seen, f"{seconds - budget.total_seconds():.1f} s more than {shown_duration(budget)}.")


def newest_commit(report: RescueReport, now: datetime) -> NewestCommit | None:
    """Return the newest commit that the rescue knows of, None where only the data itself could tell."""
    time = report.recovered_to.time
    if time is None:
        return None
    by = "the checkpoint of the shutdown" if report.strategy is StrategyName.CLEAN else "the WAL"
    return NewestCommit(time, (now - time).total_seconds(), by)


def on_age(commit: NewestCommit | None, budget: timedelta) -> Answer:
    """Answer whether the newest commit is new enough."""
    if commit is None:
        return Answer.unknown(
            "neither WAL nor a freshness check tells when the newest commit was: a WAL reset loses it. Name the WAL "
            "archive with `wal`, or add a `freshness` check."
        )
    age = timedelta(seconds=round(commit.age_seconds))
    seen = f"{commit.time:%Y-%m-%d %H:%M:%S} UTC by {commit.source}"
    if age < -AHEAD:
        return Answer.unknown(f"that is {shown_duration(-age)} after the drill began: a clock is wrong", seen=seen)
    seen += f", {shown_duration(max(age, timedelta()))} before the drill"
    if age <= budget:
        return Answer.passed(seen)
    return Answer.failed(seen, f"Older than {shown_duration(budget)}.")
