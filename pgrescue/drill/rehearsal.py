"""Rehearsing what comes after a rescue: the move into a cluster, and the app's next migration."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from pgrescue.command import attend
from pgrescue.drill.duration import shown as shown_duration
from pgrescue.drill.record import Answer
from pgrescue.drill.throwaway import throwaway
from pgrescue.errors import RescueError
from pgrescue.model import Finding, Severity, TransferOutcome
from pgrescue.signals import shielded
from pgrescue.transfer.compare import CompareLevel
from pgrescue.transfer.endpoint import Endpoint
from pgrescue.transfer.site import TransferPlan
from pgrescue.transfer.transfer import look_early, transfer
from pgrescue.transfer.undo import require_no_other, undo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from pgrescue.drill.home import Home
    from pgrescue.drill.scenario import After, Transfer
    from pgrescue.model import TransferReport
    from pgrescue.pipeline import Observer
    from pgrescue.transfer.source import Source

_MOST_JOBS = 8


def rehearse_transfer(
    asked: Transfer, source: Source, home: Home, env: Mapping[str, str], observer: Observer
) -> tuple[Answer, tuple[Finding, ...]]:
    """Move the database as to-cluster does, compare, and take everything back; return what to tell of it.

    A target that is not there, or not empty, is no fault of the backup: nothing is known then.
    """
    try:
        with _target(asked, source, home, env) as endpoint:
            plan = TransferPlan(
                jobs=min(max(os.cpu_count() or 2, 2), _MOST_JOBS),
                compare=CompareLevel(asked.compare),
                role=asked.role,
                # A throwaway target has no role but its own.
                makes_roles=asked.roles or (asked.target_url_env is None and asked.role is None),
                keeps_mark=True,
            )
            report = transfer(source, endpoint, plan, observer)
    except RescueError as error:
        return Answer.broken_off(error, database=source.database), ()
    return _answer(report), report.findings


def given_target(variable: str, env: Mapping[str, str]) -> Endpoint:
    """Return the target whose URL a variable holds; raise RescueError where it cannot be reached or is not empty."""
    url = env.get(variable)
    if not url:
        raise RescueError(
            f"the variable {variable}, which is to hold the target's URL, is not set",
            hint="Set it where the drill runs.",
        )
    endpoint = Endpoint.parse(url, variable)
    look_early(endpoint)
    return endpoint


@contextlib.contextmanager
def _target(asked: Transfer, source: Source, home: Home, env: Mapping[str, str]) -> Iterator[Endpoint]:
    if asked.target_url_env is None:
        with _leaving(home.end_target), throwaway(home.target, home.workspace, source) as endpoint:
            yield endpoint
        return
    endpoint = given_target(asked.target_url_env, env)
    require_no_other(endpoint)
    with _leaving(lambda: undo(endpoint)):
        yield endpoint


@contextlib.contextmanager
def _leaving(clear_away: Callable[[], object]) -> Iterator[None]:
    """Clear away at the end of the block, whatever ends it, and let that not get lost: Ctrl-C least of all."""
    try:
        yield
    except BaseException as error:
        with shielded():
            try:
                clear_away()
            except RescueError as left:
                error.add_note(left.problem)
        raise
    with shielded():
        clear_away()


def _answer(report: TransferReport) -> Answer:
    rows = sum(table.rows for table in report.tables)
    how = "every row by its hash" if report.compare == "hash" else "by the number of rows"
    seen = f"{len(report.tables)} tables, {rows:,} rows, in {report.seconds:.1f} s, compared {how}"
    errors = [finding for finding in report.findings if finding.severity is Severity.ERROR]
    told = "; ".join(f"{finding.code}: {finding.object}" for finding in errors[:5])
    match report.outcome:
        case TransferOutcome.MOVED:
            return Answer.passed(seen, database=report.database)
        case TransferOutcome.FAILED:
            return Answer.failed(f"{seen}: not the same", told, database=report.database)
        case TransferOutcome.REFUSED:
            return Answer.failed("the preflight refused it", told, database=report.database)
        case TransferOutcome.ALREADY_THERE | TransferOutcome.READY:
            return Answer.unknown("the target was not empty: nothing was moved", database=report.database)


def run_after(asked: After, source: Source, directory: Path, observer: Observer) -> Answer:
    """Run the user's command in `directory` on the recovered copy, which it may change.

    Its output goes to stderr, never to a report. The URL with the password is in its environment only.
    """
    with source.endpoint.connect(purpose="drill") as connection:
        url = source.endpoint.url(connection)
    observer.noted(f"Running: {asked.command}")
    try:
        status = attend(
            ["sh", "-c", asked.command],
            env={"DATABASE_URL": url, asked.env: url},
            cwd=directory,
            timeout_s=asked.timeout.total_seconds(),
        )
    except RescueError as error:
        return Answer.broken_off(error, database=source.database)
    if status is None:
        return Answer.failed(f"still running after {shown_duration(asked.timeout)}", database=source.database)
    seen = f"exit status {status}" if status >= 0 else f"ended by signal {-status}"
    if status:
        return Answer.failed(seen, "Its output is in the drill's log (stderr).", database=source.database)
    return Answer.passed(seen, database=source.database)
