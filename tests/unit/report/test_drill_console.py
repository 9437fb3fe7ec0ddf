"""The report of a drill on a terminal and in a log."""

from __future__ import annotations

import dataclasses
import io
import re

import pytest
from rich.console import Console

from pgrescue.drilled import DrillOutcome, DrillRun
from pgrescue.report.drill_console import print_drill
from pgrescue.report.drill_words import MEANINGS
from tests import drills
from tests.reports import PASSWORD
from tests.unit.report.conftest import text_of


def told(run: DrillRun, *, program: str = "pgrescue") -> str:
    console = Console(file=io.StringIO(), width=40)
    print_drill(console, run, program=program)
    return text_of(console)


def test_each_assertion_has_a_line_and_the_outcome_is_last() -> None:
    text = told(drills.FAILED, program="/opt/venv/bin/pgrescue")
    lines = text.splitlines()
    for line in (
        "✗ recovery time: expected <= 15 min, seen 18 min 08 s",
        "    recover took 10 min 55 s of it.",
        "✓ portal: every order has a customer: expected == 0, seen 0",
        "? portal: transfer to a throwaway server: expected every table equal by its hash, seen not done",
        "error page_checksum: portal: public.orders (1,834 rows), portal: public.small (1 row)",
        "(1 more of severity info in drill.json)",
        "(1 ignored finding in drill.json)",
        "worse: the verdict is damaged, it was consistent last time",
        f"✗ portal nightly: failed. {MEANINGS[DrillOutcome.FAILED]}",
        "    7 assertions: 3 failed, 1 could not be verified, 3 passed; it took 23 min 33 s.",
        "    Not verified: transfer to a throwaway server",
        "       /opt/venv/bin/pgrescue drill drills/portal.yaml --only 'portal nightly'",
        (
            "       /opt/venv/bin/pgrescue rm --yes -w /srv/drills/portal-nightly-k2v9.drill/rescue.pgrescue "
            "&& rm -r /srv/drills/portal-nightly-k2v9.drill"
        ),
    ):
        assert lines.count(line) == 1
    assert "settings_kept_apart" not in text
    assert (
        text.index("✗ recovery time")
        < text.index("error page_checksum")
        < text.index("Recovery, to an open")
        < text.index("worse: ")
        < text.index("Not verified")
    )


def test_a_drill_that_passed_is_short_and_one_that_broke_off_says_why() -> None:
    passed = told(drills.PASSED)
    assert "Keep this report" in passed
    assert "✗" not in passed
    assert "Not verified" not in passed
    unverified = told(drills.UNVERIFIED)
    for words in (
        "? billing weekly: could-not-verify. Nobody knows whether this backup is good",
        "    No assertion was judged; it took 12.4 s.",
        drills.UNVERIFIED_DRILL.problem,
        f"-> {drills.UNVERIFIED_DRILL.hint}",
        "Note: The hook of SLACK_URL could not be told",
    ):
        assert words in unverified


def test_several_drills_end_with_the_outcome_of_all() -> None:
    assert told(drills.SEVERAL).splitlines()[-1] == (
        "✗ Outcome: failed. At least one backup is not what it should be. 3 drills: 1 failed, 1 could-not-verify, "
        "1 passed. (35 min 01 s)"
    )
    assert told(drills.NOTHING).splitlines()[-1].startswith("? Outcome: could-not-verify. No drill ran")


@pytest.mark.parametrize("run", [drills.PASSED, drills.FAILED, drills.UNVERIFIED, drills.SEVERAL, drills.HARMFUL_RUN])
def test_no_control_code_and_no_password_comes_through(run: DrillRun) -> None:
    text = told(run)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", text)
    assert PASSWORD not in text


def test_a_terminal_gets_colours_and_markup_in_names_stays_text() -> None:
    name = "[bold red]x[/] \\"
    drill = dataclasses.replace(
        drills.FAILED_DRILL, name=name, assertions=(dataclasses.replace(drills.ASSERTIONS[0], name=name, seen=name),)
    )
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    print_drill(console, dataclasses.replace(drills.FAILED, drills=(drill,)))
    assert "\x1b[" in text_of(console)
    plain = re.sub("\x1b\\[[0-9;]*m", "", text_of(console))
    assert plain.count(name) >= 4


def test_a_line_end_in_a_name_begins_no_line() -> None:
    drill = dataclasses.replace(drills.PASSED_DRILL, name="x\n✓ Outcome: passed.", outcome=DrillOutcome.FAILED)
    lines = told(dataclasses.replace(drills.PASSED, drills=(drill,))).splitlines()
    assert not [line for line in lines if line.startswith("✓ Outcome")]
    assert "✗ x\\n✓ Outcome: passed.: failed. The backup is not what it should be." in lines


def test_very_long_reports_stay_readable() -> None:
    run = drills.huge_run()
    drill = dataclasses.replace(
        run.drills[0], findings=run.drills[0].findings[:-1], assertions=run.drills[0].assertions[:300]
    )
    lines = told(dataclasses.replace(run, drills=(drill,))).splitlines()
    assert max(map(len, lines)) < 2_000
    assert lines[-1].startswith("    -> 5,000 findings are ignored")
