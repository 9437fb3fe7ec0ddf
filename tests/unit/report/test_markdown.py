"""The report of a drill as Markdown, rendered as a reader would, since what counts is what is shown."""

from __future__ import annotations

import dataclasses
import html
import re

import pytest
from markdown_it import MarkdownIt

from pgrescue.drilled import DrillOutcome, DrillReport, DrillRun
from pgrescue.report.drill_words import MEANINGS
from pgrescue.report.markdown import MOST_BYTES, drill_markdown
from tests import drills
from tests.reports import HARM, PASSWORD

RUNS = [drills.PASSED, drills.FAILED, drills.UNVERIFIED, drills.SEVERAL, drills.NOTHING, drills.HARMFUL_RUN]
OWN_TAGS = {
    *("h2", "h3", "h4", "p", "strong", "ol", "ul", "li", "code", "br", "span", "blockquote", "details", "summary"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}


def rendered(run: DrillRun, *, most_bytes: int = MOST_BYTES) -> str:
    # As GitHub does: tables, and HTML that is let through.
    return str(
        MarkdownIt("commonmark", {"html": True}).enable("table").render(drill_markdown(run, most_bytes=most_bytes))
    )


def words_of(run: DrillRun, *, most_bytes: int = MOST_BYTES) -> str:
    text = re.sub(r"</?(code|strong|span)\b[^>]*>", "", rendered(run, most_bytes=most_bytes))
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).replace("\u200b", "").split())


def with_name(name: str) -> DrillRun:
    drill = dataclasses.replace(
        drills.FAILED_DRILL, name=name, assertions=(dataclasses.replace(drills.ASSERTIONS[0], name=name, seen=name),)
    )
    return dataclasses.replace(drills.FAILED, drills=(drill,))


@pytest.mark.parametrize("run", RUNS)
def test_the_outcome_comes_first_and_the_markup_is_its_own(run: DrillRun) -> None:
    page = rendered(run)
    assert words_of(run)[2:].startswith(f"Restore drill: {run.outcome.value}")
    assert set(re.findall(r"<([a-z]\w*)", page)) <= OWN_TAGS
    for tag in OWN_TAGS - {"br"}:
        assert len(re.findall(rf"<{tag}\b", page)) == page.count(f"</{tag}>")
    assert PASSWORD not in page


def test_what_was_expected_and_seen_is_in_a_table() -> None:
    words = words_of(drills.FAILED)
    for expected in (
        MEANINGS[DrillOutcome.FAILED],
        "7 assertions: 3 failed, 1 could not be verified, 3 passed",
        "❌ failed recovery time <= 15 min 18 min 08 s recover took 10 min 55 s of it.",
        "❔ could-not-verify transfer to a throwaway server portal every table equal by its hash not done",
        "✅ passed every order has a customer portal == 0 0",
        "Worse than before: the verdict is damaged, it was consistent last time",
        "Recovery, to an open server 18 min 08 s 6 min 23 s (the last 6 runs) +184 %",
        "Errors (2) page_checksum: portal: public.orders (1,834 rows), portal: public.small (1 row)",
        "What to do: REINDEX INDEX public.customers_name_idx;",
        "glibc is upgraded with the next release, OPS-1187 2026-12-31",
        "transfer to a throwaway server FAILED 41.0 s",
        "rescue: recover done 10 min 55 s",
        "pgrescue drill drills/portal.yaml --only 'portal nightly'",
        (
            "pgrescue rm --yes -w /srv/drills/portal-nightly-k2v9.drill/rescue.pgrescue "
            "&& rm -r /srv/drills/portal-nightly-k2v9.drill"
        ),
    ):
        assert expected in words
    # Every row has as many cells as its head, whatever is in them.
    for table in re.findall(r"<table>.*?</table>", rendered(drills.HARMFUL_RUN), flags=re.DOTALL):
        numbers = {len(re.findall(r"<t[hd]\b", row)) for row in table.split("</tr>")[:-1]}
        assert len(numbers) == 1


def test_a_drill_that_broke_off_says_why() -> None:
    words = words_of(drills.UNVERIFIED)
    assert f"Broke off: {drills.UNVERIFIED_DRILL.problem}" in words
    assert drills.UNVERIFIED_DRILL.hint in words
    assert "Note: The hook of SLACK_URL could not be told" in words
    assert "Assertions Outcome" not in words


def test_several_drills_have_an_overview_first() -> None:
    words = words_of(drills.SEVERAL)
    assert words.index("billing weekly ❔ could-not-verify no rescue") < words.index("✅ portal nightly: passed")
    assert words_of(drills.NOTHING).count("nothing is known of any backup") == 1


@pytest.mark.parametrize(
    "name",
    [
        HARM.replace("\x1b", "").replace("\u202e", ""),
        "a | b || c \\| d \\",
        "`code` ``` **bold** _it_ ~~gone~~ [link](http://192.0.2.1) ![picture](x) <!-- gone",
        "$x$ &amp; &#124; :tada: a_b_c # 1. > - +",
        "# heading",
        "user@example.org @octocat #12 GH-7 www.example.org https://example.org",
    ],
)
def test_names_are_shown_as_they_are(name: str) -> None:
    words = words_of(with_name(name))
    assert words.count(name) >= 3
    # In code GitHub finds nothing, and what is a command must stay one.
    page = re.sub("<code>.*?</code>", "", rendered(with_name(name)))
    assert not re.search("<(a|img|em|del|script|h1)\\b", page)
    assert "@octocat" not in page
    assert not re.search(r"#\d", html.unescape(page))
    assert ":tada:" not in page
    assert "://" not in drill_markdown(with_name(name))


def test_lines_and_control_characters_do_not_leave_their_cell() -> None:
    page = rendered(with_name("one\n\n| two |\r\nthree\x1b\x00"))
    assert "<td>one<br>| two |<br>three\\x1b\\x00</td>" in page


@pytest.mark.parametrize("most_bytes", [3_000, 5_000, 6_000, 50_000, MOST_BYTES])
def test_a_long_report_is_cut_with_a_note(most_bytes: int) -> None:
    run = drills.huge_run() if most_bytes > 10_000 else drills.FAILED
    whole = drill_markdown(run, most_bytes=1 << 40)
    text = drill_markdown(run, most_bytes=most_bytes)
    assert len(text.encode()) <= most_bytes
    if len(whole.encode()) > most_bytes:
        assert "longer than a summary may be" in text
        assert len(text.encode()) > most_bytes * 0.5
    assert text.count("<details>") == text.count("</details>")


def test_github_takes_the_longest_report() -> None:
    several = dataclasses.replace(drills.FAILED, drills=drills.huge_run().drills * 3)
    assert 500_000 < len(drill_markdown(several).encode()) < 1 << 20


def test_what_is_left_out_is_counted() -> None:
    drill: DrillReport = drills.huge_run().drills[0]
    words = words_of(dataclasses.replace(drills.FAILED, drills=(drill,)), most_bytes=1 << 40)
    assert f"{len(drill.assertions) - 200:,} more assertions in drill.json." in words
    assert "4,800 more ignored findings in drill.json." in words
    assert "more characters in drill.json" in words
