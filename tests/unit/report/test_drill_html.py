"""The report of a drill as a page: what it says, that nothing in it can act, and that it stays small."""

from __future__ import annotations

import dataclasses
import html
from pathlib import Path

import pytest

from pgrescue.drilled import Assertion, AssertionKind, DrillOutcome, DrillRun
from pgrescue.model import StepReport, Verdict
from pgrescue.report.drill_html import drill_page
from pgrescue.report.drill_words import MARKS, MEANINGS, advice, meaning
from tests import drills, reports
from tests.pages import REFERRING, Page, words_of

RUNS = [drills.PASSED, drills.FAILED, drills.UNVERIFIED, drills.SEVERAL, drills.NOTHING, drills.HARMFUL_RUN]


def page_of(run: DrillRun, *, program: str = "pgrescue") -> str:
    return drill_page(run, program=program)


def test_a_failed_drill_tells_everything_in_its_order() -> None:
    words = words_of(page_of(drills.FAILED, program="/opt/pgrescue"))
    order = (
        "Outcome: failed",
        "portal nightly ✗ failed",
        "Verdict ✗ damaged expected at least consistent",
        "Recovery time ✗ 18 min 08 s expected <= 15 min usually 6 min 23 s (+184 %)",
        "Age of the newest commit ✓ 8 min 25 s",
        "Data directory 31.2 GiB usually 44.5 GiB (\N{MINUS SIGN}30 %)",
        "What to do next",
        "/opt/pgrescue drill drills/portal.yaml --only 'portal nightly'",
        (
            "/opt/pgrescue rm --yes -w /srv/drills/portal-nightly-k2v9.drill/rescue.pgrescue "
            "&& rm -r /srv/drills/portal-nightly-k2v9.drill"
        ),
        "Assertions 7 assertions: 3 failed, 1 could not be verified, 3 passed.",
        "✗ failed recovery time rto_budget expected: <= 15 min seen: 18 min 08 s recover took 10 min 55 s of it.",
        "✓ passed every order has a customer sql in portal, 3.2 s expected: == 0 seen: 0",
        "? could-not-verify transfer to a throwaway server",
        "Worse than in earlier runs recovery took 1,088 s",
        "Findings Errors (2)",
        "error page_checksum portal: public.orders",
        "Ignored (1)",
        "collation_version (warning) portal: public.customers_name_idx glibc is upgraded with the next release",
        "1,543 blocks in 2 relations",
        "Trend Recovery, to an open server This run: 18 min 08 s, +184 %",
        "budget: <= 15 min",
        "2026-11-22 03:00:05 UTC (this run) ✗ failed damaged 18 min 08 s 23 min 33 s 31.2 GiB 8 min 25 s old",
        "? could-not-verify no rescue not known 12.4 s not known not known",
        "public.orders portal 611,204 1,830,000 \N{MINUS SIGN}66.6 %",
        "The drill, 23 min 33 s",
        "transfer to a throwaway server ✗ FAILED 41.0 s",
        "The rescue in it, 18 min 08 s",
        "recover ✓ done 10 min 55 s",
        "System identifier 7421337712345678901",
        "Restored copy kept in /srv/drills/portal-nightly-k2v9.drill",
    )
    at = 0
    for part in order:
        assert part in words[at:], f"{part!r} after {words[at - 80 : at]!r}"
        at = words.index(part, at)


def test_a_drill_that_broke_off_says_why_and_claims_nothing() -> None:
    words = words_of(page_of(drills.UNVERIFIED))
    for part in (
        "Outcome: could-not-verify",
        f"The drill broke off. {drills.UNVERIFIED_DRILL.problem}",
        drills.UNVERIFIED_DRILL.hint,
        "The hook of SLACK_URL could not be told: it answered 404.",
        "No assertion was judged.",
        "Nobody looked: there was no rescue.",
        "Restored copy there was none",
    ):
        assert part in words
    assert "No findings" not in words
    assert "No damaged block" not in words
    assert "Strategy" not in words
    without_past = dataclasses.replace(drills.UNVERIFIED_DRILL, past=(), phases=())
    bare = words_of(page_of(dataclasses.replace(drills.UNVERIFIED, drills=(without_past,))))
    assert "No run has come so far that there is a number to compare." in bare
    assert "No phase was begun." in bare


def test_a_drill_that_passed_says_so_once_and_asks_for_nothing() -> None:
    words = words_of(page_of(drills.PASSED))
    assert words.count(MEANINGS[DrillOutcome.PASSED]) == 1
    assert "Keep this report: it shows that the restore works." in words
    assert "Worse than in earlier runs" not in words
    assert "Restored copy removed" in words
    assert "11 runs as a table" in words


def test_several_drills_begin_with_an_overview() -> None:
    text = page_of(drills.SEVERAL)
    words = words_of(text)
    assert meaning(drills.SEVERAL) in words
    assert (
        "portal weekly ✗ failed damaged 7 assertions: 3 failed, 1 could not be verified, 3 passed 18 min 08 s +184 %"
        in words
    )
    assert "billing weekly ? could-not-verify no rescue no assertion was judged not known" in words
    assert words.index("3 drills in 35 min 01 s") < words.index("What to do next")
    assert text.count('<article class="drill"') == 3
    nothing = words_of(page_of(drills.NOTHING))
    assert "Outcome: could-not-verify No drill ran, so nothing is known of any backup." in nothing


@pytest.mark.parametrize("run", RUNS)
def test_it_refers_to_nothing_outside_runs_nothing_and_holds_no_password(run: DrillRun) -> None:
    text = page_of(run)
    page = Page(text)
    assert not page.tags & {"script", "img", "iframe", "object", "link", "base", "form", "embed"}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    ids = [str(attributes["id"]) for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [str(value) for _, attributes in page.elements for name, value in attributes.items() if name in REFERRING]
    assert {link[:1] for link in links} <= {"#"}
    assert {link[1:] for link in links} <= set(ids)
    labels = [str(attributes["aria-labelledby"]) for _, attributes in page.elements if "aria-labelledby" in attributes]
    assert set(labels) <= set(ids)
    assert all("scope" in attributes for tag, attributes in page.elements if tag == "th")
    style = page.text["style"]
    assert "url(" not in style
    assert "@import" not in style
    assert style.count("{") == style.count("}")
    (refreshing,) = [attributes for tag, attributes in page.elements if tag == "meta" and "http-equiv" in attributes]
    assert "default-src 'none'" in str(refreshing["content"])
    assert reports.PASSWORD not in text


def test_names_that_mean_harm_stay_text() -> None:
    text = page_of(drills.HARMFUL_RUN, program=reports.HARM)
    assert "\x1b" not in text
    assert "\u202e" not in text
    shown = reports.HARM.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    assert html.unescape(text).count(shown) > 100
    page_of(dataclasses.replace(drills.PASSED, file="a\udcff")).encode()


def test_a_huge_run_stays_a_page_that_opens() -> None:
    run = drills.huge_run()
    text = page_of(run)
    words = words_of(text)
    assert len(text.encode()) < 3_500_000
    for part in (
        "Errors (3,334)",
        "3,034 more of severity error in drill.json.",
        "7,200 more assertions in drill.json.",
        "4,800 more ignored findings in drill.json.",
        "900 more regressions in drill.json.",
        "1,800 more phases in drill.json.",
        "4,800 more tables in drill.json.",
        "1 more run in drill.json.",
        "400 more notes in drill.json.",
        "more characters in drill.json",
        "201 more are not listed here.",
    ):
        assert part in words
    assert text.count('<g class="column') == 3 * 30
    Page(text)


def test_charts_have_a_budget_line_only_where_there_is_a_budget() -> None:
    assert page_of(drills.FAILED).count('class="budget"') == 2
    without = dataclasses.replace(drills.FAILED_DRILL, assertions=())
    assert page_of(dataclasses.replace(drills.FAILED, drills=(without,))).count('class="budget"') == 0


def test_what_was_asked_and_is_not_known_is_not_passed_over() -> None:
    asked = Assertion(AssertionKind.RPO, "newest commit", DrillOutcome.UNVERIFIED, "<= 1 h", "", "The WAL was reset.")
    drill = dataclasses.replace(drills.FAILED_DRILL, newest_commit=None, assertions=(asked,))
    words = words_of(page_of(dataclasses.replace(drills.FAILED, drills=(drill,))))
    assert "Age of the newest commit ? not known expected <= 1 h" in words
    assert "? could-not-verify newest commit rpo_budget expected: <= 1 h seen: nothing The WAL was reset." in words


def test_time_lines_are_cut_to_the_drill() -> None:
    phases = tuple(StepReport(f"phase {number}", one.outcome, 1.0) for number, one in enumerate(drills.PHASES))
    text = page_of(
        dataclasses.replace(drills.PASSED, drills=(dataclasses.replace(drills.PASSED_DRILL, phases=phases),))
    )
    page = Page(text)
    bars = [attributes for tag, attributes in page.elements if tag == "rect" and attributes.get("y") == "1"]
    assert [attributes["x"] for attributes in bars[:5]] == ["0.00", "20.00", "40.00", "60.00", "80.00"]


@pytest.mark.parametrize("outcome", DrillOutcome)
@pytest.mark.parametrize("kept", [None, Path("/srv/a b.drill")])
def test_every_outcome_has_advice(outcome: DrillOutcome, kept: Path | None) -> None:
    drill = dataclasses.replace(drills.PASSED_DRILL, outcome=outcome, kept=kept, ignored=(), name="it's")
    lines = list(advice(drill, file="a b.yaml", program="pgrescue"))
    commands = [line.command for line in lines if line.command]
    again = "pgrescue drill 'a b.yaml' --only 'it'\"'\"'s'"
    assert (commands[:1] == [again]) is (outcome is not DrillOutcome.PASSED)
    assert any(command.endswith("&& rm -r '/srv/a b.drill'") for command in commands) is (kept is not None)
    assert (f"{again} --keep-on-failure" in commands) is (outcome is DrillOutcome.FAILED and kept is None)


def test_every_outcome_has_its_words() -> None:
    assert set(MEANINGS) == set(MARKS) == set(DrillOutcome)


def test_a_pass_without_proof_is_not_called_good() -> None:
    rescue = drills.PASSED_DRILL.rescue
    assert rescue is not None
    drill = dataclasses.replace(
        drills.PASSED_DRILL, rescue=dataclasses.replace(rescue, verdict=Verdict.BEST_EFFORT), regressions=()
    )
    (first, *_) = advice(drill, file="drill.yaml", program="pgrescue")
    assert "nobody can prove" in first.text
    (first, *_) = advice(dataclasses.replace(drill, rescue=rescue), file="drill.yaml", program="pgrescue")
    assert "Nothing is to be done" in first.text
