"""What the reports of a drill call things and advise, so that terminal, page and summary say the same."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from pgrescue.drilled import DrillOutcome
from pgrescue.model import Verdict
from pgrescue.report.shown import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pgrescue.drilled import DrillReport, DrillRun

MEANINGS: Mapping[DrillOutcome, str] = {
    DrillOutcome.PASSED: "The backup was restored, and everything that was asked of it holds.",
    DrillOutcome.UNVERIFIED: "Nobody knows whether this backup is good: not everything could be checked.",
    DrillOutcome.FAILED: "The backup is not what it should be.",
}
_OF_SEVERAL: Mapping[DrillOutcome, str] = {
    DrillOutcome.PASSED: "Every backup was restored, and everything that was asked of it holds.",
    DrillOutcome.UNVERIFIED: "Nobody knows whether every backup is good: not everything could be checked.",
    DrillOutcome.FAILED: "At least one backup is not what it should be.",
}
MARKS: Mapping[DrillOutcome, str] = {
    DrillOutcome.PASSED: "✓",
    DrillOutcome.UNVERIFIED: "?",
    DrillOutcome.FAILED: "✗",
}
_SUMS: Mapping[DrillOutcome, str] = {
    DrillOutcome.PASSED: "passed",
    DrillOutcome.UNVERIFIED: "could not be verified",
    DrillOutcome.FAILED: "failed",
}
_MOST_NAMED = 3


@dataclass(frozen=True)
class Advice:
    """One thing to do next, and the command for it where there is one."""

    text: str
    command: str = ""


def meaning(run: DrillRun) -> str:
    """Say in a sentence what all drills of a run came to."""
    if not run.drills:
        return "No drill ran, so nothing is known of any backup."
    return (MEANINGS if len(run.drills) == 1 else _OF_SEVERAL)[run.outcome]


def tally(drill: DrillReport) -> str:
    """Count the assertions: `7 assertions: 2 failed, 1 could not be verified, 4 passed`."""
    if not drill.assertions:
        return "no assertion was judged"
    numbers = Counter(one.outcome for one in drill.assertions)
    sums = [f"{numbers[outcome]:,} {_SUMS[outcome]}" for outcome in reversed(DrillOutcome) if numbers[outcome]]
    return f"{counted(len(drill.assertions), 'assertion')}: {', '.join(sums)}"


def advice(drill: DrillReport, *, file: str, program: str) -> Iterator[Advice]:
    """Say what to do after a drill, the most urgent first."""
    again = f"{program} drill {shlex.quote(file)} --only {shlex.quote(drill.name)}"
    match drill.outcome:
        case DrillOutcome.PASSED:
            yield from _after_a_pass(drill)
        case DrillOutcome.UNVERIFIED:
            yield Advice(drill.hint or "Mend what kept the drill from being judged; it is named below.")
            yield Advice("Until then, count this backup as not tested. Run the drill again.", again)
        case DrillOutcome.FAILED:
            yield Advice("Keep the older backups, whatever the retention policy says, until a drill has passed.")
            yield Advice(f"Look at what failed: {_failed(drill)}.{f' {drill.hint}' if drill.hint else ''}")
            yield Advice("Mend the cause, and drill again: where the backup is bad, a new one.", again)
        case _:
            assert_never(drill.outcome)
    yield from _about_the_copy(drill, again, program)
    if drill.ignored:
        first = min(drill.ignored, key=lambda one: one.until)
        yield Advice(
            f"{counted(len(drill.ignored), 'finding is', 'findings are')} ignored; the first counts again after "
            f"{first.until.isoformat()}."
        )


def _after_a_pass(drill: DrillReport) -> Iterator[Advice]:
    """Say what a pass does not mean."""
    if drill.rescue is not None and drill.rescue.verdict is Verdict.BEST_EFFORT:
        yield Advice(
            "The verdict is best-effort, as the drill file allows: nobody can prove that all data is there. Read the "
            "warnings, and name the WAL archive with `wal`: only the WAL makes a copy of a running server consistent."
        )
    elif drill.regressions:
        yield Advice("Look at what is worse than in earlier runs, before it fails.")
    else:
        yield Advice("Nothing is to be done for this backup. Keep this report: it shows that the restore works.")


def _failed(drill: DrillReport) -> str:
    names = [one.name for one in drill.assertions if one.outcome is DrillOutcome.FAILED]
    if not names:
        return drill.problem.rstrip(".") or "the errors among the findings"
    more = f", and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    return "; ".join(names[:_MOST_NAMED]) + more


def _about_the_copy(drill: DrillReport, again: str, program: str) -> Iterator[Advice]:
    """Say how to look at the rescued copy, and that it is to be removed."""
    if drill.kept is not None:
        home = shlex.quote(str(drill.kept))
        end = ""
        if drill.rescue is not None:
            workspace = f"-w {shlex.quote(str(drill.rescue.workspace))}"
            end = f"{program} rm --yes {workspace} && "
            yield Advice(
                "The restored copy was kept. See where it is and what runs of it.", f"{program} status {workspace}"
            )
        yield Advice("Remove it when you are done: it holds all data of the backup.", f"{end}rm -r {home}")
    elif drill.outcome is DrillOutcome.FAILED:
        yield Advice("To look at the restored copy, let the next run keep it.", f"{again} --keep-on-failure")
