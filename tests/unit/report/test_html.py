"""The report as a page: what it says, that nothing in it can act, and that it stays small."""

from __future__ import annotations

import dataclasses
import html
from typing import Any

import pytest

from pgrescue.model import (
    BlockMap,
    DamagedBlocks,
    Outcome,
    RecoveredTo,
    RescueReport,
    Severity,
    StepReport,
    StrategyName,
    Verdict,
)
from pgrescue.report.cells import COLUMNS, grid_of, kinds_of
from pgrescue.report.html import report_page
from pgrescue.report.shown import duration, size
from pgrescue.report.words import OUTCOMES, STRATEGIES, VERDICTS
from tests import reports
from tests.pages import REFERRING, Page, words_of
from tests.unit.builders import finding
from tests.unit.report.conftest import PASSWORD


def page_of(report: RescueReport, *blocks: BlockMap, program: str = "pgrescue") -> str:
    return report_page(report, blocks=blocks, program=program)


def test_it_tells_what_to_believe_what_to_do_and_where_things_are(report: RescueReport) -> None:
    text = words_of(page_of(report))
    workspace = "'/rescue/my data.pgrescue'"
    for words in (
        "Verdict: best-effort",
        VERDICTS[Verdict.BEST_EFFORT],
        f"pgrescue psql -w {workspace}",
        f"pgrescue stop -w {workspace}",
        f"pgrescue logs -w {workspace}",
        f"pgrescue rm -w {workspace}",
        report.shown_url or "",
        "PostgreSQL 17.11",
        "System identifier 18446744073709551615",
        "Engine native",
        f"Strategy crash: {STRATEGIES['crash']}",
        "WAL position 0/900028; last transaction at 2026-11-22 08:18:51 UTC",
        "app 5.0 MiB",
        "2 databases, 12.0 MiB",
        "7 rows",
        "[bold]not markup[/]",
        "What to do: remedy",
        "unpack ✓ done 1.2 s",
        "start = done before 0.0 s",
    ):
        assert words in text
    parts = ("Verdict:", "Change nothing", "Facts Connect", "Findings Errors", "No damaged block is", "Steps One after")
    assert sorted(parts, key=text.index) == list(parts)
    assert text.index("an_error") < text.index("a_warning") < text.index("an_info")


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_has_three_lines_of_advice_and_no_password(report: RescueReport, verdict: Verdict) -> None:
    urls: dict[str, Any] = {"url": None, "shown_url": None} if verdict is Verdict.FAILED else {}
    text = page_of(dataclasses.replace(report, verdict=verdict, **urls), program="/opt/my/pgrescue")
    Page(text)
    assert text.startswith("<!DOCTYPE html>\n")
    advice = text[text.index("<ol>") : text.index("</ol>")]
    assert advice.count("<li>") == 3
    assert f"Verdict: {verdict.value}" in text
    assert VERDICTS[verdict] in html.unescape(text)
    assert PASSWORD not in text
    assert "/opt/my/pgrescue logs -w" in text


def test_a_failed_rescue_has_nothing_to_connect_to(report: RescueReport) -> None:
    failed = dataclasses.replace(
        report, verdict=Verdict.FAILED, url=None, shown_url=None, databases=(), recovered_to=RecoveredTo()
    )
    text = words_of(page_of(failed))
    for words in ("Connect no server runs", "Recovered to not known", "No database could be listed."):
        assert words in text
    assert "pgrescue psql" not in text
    assert "pgrescue stop" not in text


@pytest.mark.parametrize(
    ("recovered", "words"),
    [
        (RecoveredTo(lsn=reports.DAMAGED.recovered_to.lsn), "Recovered to WAL position 16/B374D848 Workspace"),
        (RecoveredTo(time=reports.DAMAGED.recovered_to.time), "Recovered to last transaction at 2026-11-22 01:14:09"),
    ],
)
def test_half_of_what_was_reached_is_told_too(report: RescueReport, recovered: RecoveredTo, words: str) -> None:
    assert words in words_of(page_of(dataclasses.replace(report, recovered_to=recovered)))


def test_every_word_has_its_place() -> None:
    assert set(VERDICTS) == set(Verdict)
    assert set(OUTCOMES) == set(Outcome)
    assert set(StrategyName) <= set(STRATEGIES)


def test_names_that_mean_harm_stay_text() -> None:
    text = page_of(reports.HARMFUL, *reports.HARMFUL_MAPS, program=reports.HARM)
    page = Page(text)
    assert not page.tags & {"script", "img", "iframe", "object", "link", "base", "form", "embed"}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert page.text["style"].count("{") == page.text["style"].count("}")
    shown = reports.HARM.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    assert html.unescape(text).count(shown) > 20


def test_names_that_are_no_utf_8_and_control_characters_are_shown_as_escapes(report: RescueReport) -> None:
    odd = "a\udcffb\x00c\x85d\u2067e\ufffef\r\ng\th"
    text = page_of(dataclasses.replace(report, findings=(finding(detail=odd, object="Käse ‍🧀"),)))
    assert "a\\udcffb\\x00c\\x85d\\u2067e\\ufffef\ng\th" in text
    assert "Käse ‍🧀" in text
    text.encode()


def test_it_refers_to_nothing_outside_and_forbids_it_too() -> None:
    text = page_of(reports.HARMFUL, *reports.MAPS, *reports.HARMFUL_MAPS)
    page = Page(text)
    ids = [str(attributes["id"]) for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [str(value) for _, attributes in page.elements for name, value in attributes.items() if name in REFERRING]
    assert len(links) == 5
    assert {link[:1] for link in links} == {"#"}
    assert {link[1:] for link in links} <= set(ids)
    style = page.text["style"] + "".join(str(attributes.get("style", "")) for _, attributes in page.elements)
    assert "url(" not in style
    assert "@import" not in style
    refreshing = [attributes for tag, attributes in page.elements if tag == "meta" and "http-equiv" in attributes]
    assert [attributes["http-equiv"] for attributes in refreshing] == ["Content-Security-Policy"]
    assert "default-src 'none'" in str(refreshing[0]["content"])
    labels = [str(attributes["aria-labelledby"]) for _, attributes in page.elements if "aria-labelledby" in attributes]
    assert set(labels) <= set(ids)
    assert all("scope" in attributes for tag, attributes in page.elements if tag == "th")


def test_lines_of_a_detail_stay_lines(report: RescueReport) -> None:
    text = page_of(dataclasses.replace(report, findings=(finding(detail="one\n  two\n\nthree"),)))
    assert '<p class="detail">one\n  two\n\nthree</p>' in text


def test_notes_are_folded_and_nothing_else_of_the_findings(report: RescueReport) -> None:
    text = page_of(report)
    findings = text[text.index('id="findings"') : text.index('id="blocks"')]
    folded = findings[findings.index("<details>") :]
    assert "an_info" in folded
    assert "an_error" not in folded
    assert "a_warning" not in folded


def test_without_damage_it_says_so_and_claims_no_more(report: RescueReport) -> None:
    nothing = words_of(page_of(report))
    assert "No damaged block is known." in nothing
    assert "the findings say what was left out" in nothing
    healthy = words_of(page_of(report, *(BlockMap(name, "base/1/2", 7, ()) for name in ("a", "b"))))
    assert "No damaged block is known: 2 relations were looked at." in healthy
    none = words_of(page_of(dataclasses.replace(report, findings=(), steps=(), databases=())))
    assert "There are none." in none
    assert "No step was taken." in none


def test_damage_is_drawn_and_told() -> None:
    text = page_of(reports.DAMAGED, *reports.MAPS)
    words = words_of(text)
    assert text.count('class="map"') == 2
    assert "public.healthy" not in text
    assert words.index("public.orders: ") < words.index("public.small: 1 of 5 blocks")
    assert "from block 0 to 95,999. A square is 96 blocks, and marked where at least one is damaged." in words
    assert "A square is one block." in words
    assert "M: missing, 1 block" in words
    assert "block 4: missing 4" in words
    assert "4 1 M: missing" in words


def blocks(size: int, *runs: tuple[int, int, str]) -> BlockMap:
    return BlockMap("public.t", "base/1/2", size, tuple(DamagedBlocks(*run) for run in runs))


def test_a_small_relation_has_a_cell_for_each_block() -> None:
    relation = blocks(42, (39, 40, "zeroed"), (0, 0, "checksum"))
    grid = grid_of(relation, kinds_of([relation]))
    assert (grid.blocks_per_cell, grid.count, grid.full_rows, grid.last_row, grid.rows) == (1, 42, 1, 2, 2)
    assert [(cell.row, cell.column, cell.title) for cell in grid.cells] == [
        (0, 0, "block 0: checksum 0"),
        (0, 39, "block 39: zeroed 39"),
        (1, 0, "block 40: zeroed 40"),
    ]
    assert [(kind.name, kind.letter, number) for kind, number in grid.kinds] == [
        ("zeroed", "Z", 2),
        ("checksum", "C", 1),
    ]


@pytest.mark.parametrize("size", [1, 999, 1_000, 1_001, 100_000_000, 1 << 32])
def test_no_block_is_left_out_however_large_the_relation_is(size: int) -> None:
    relation = blocks(size, (0, 0, "first"), (size - 1, size - 1, "last"))
    grid = grid_of(relation, kinds_of([relation]))
    assert grid.count <= 1_000
    assert (grid.count - 1) * grid.blocks_per_cell < size <= grid.count * grid.blocks_per_cell
    last = grid.cells[-1]
    assert last.row * COLUMNS + last.column == grid.count - 1
    assert "last" in last.title


def test_a_cell_shows_the_most_frequent_kind_and_names_some_runs() -> None:
    relation = blocks(100_000, (0, 0, "a"), (5, 9, "b"), (20, 20, "a"), (22, 22, "a"), (96, 250, "c"))
    grid = grid_of(relation, kinds_of([relation]))
    assert [(cell.kind.name, cell.title) for cell in grid.cells] == [
        ("b", "blocks 0\N{EN DASH}99: a 0, b 5\N{EN DASH}9, a 20, 2 more"),
        ("c", "blocks 100\N{EN DASH}199: c 100\N{EN DASH}199"),
        ("c", "blocks 200\N{EN DASH}299: c 200\N{EN DASH}250"),
    ]


def test_missing_blocks_past_the_end_lengthen_the_map() -> None:
    relation = blocks(3, (3, 9, "missing"))
    grid = grid_of(relation, kinds_of([relation]))
    assert (grid.blocks, grid.count, len(grid.cells)) == (10, 10, 7)
    empty = blocks(0, (0, 0, "missing"))
    assert grid_of(empty, kinds_of([empty])).count == 1


def test_a_kind_has_the_same_letter_in_all_relations_and_shares_it_with_no_other() -> None:
    names = [*(f"zeroed {number}" for number in range(40)), "éé", "checksum"]
    relations = [blocks(9, (1, 1, name)) for name in names]
    kinds = kinds_of([*relations, blocks(9, (1, 5, "checksum"))])
    assert kinds["checksum"].letter == "C"
    assert [kind.place for kind in kinds.values()] == list(range(42))
    letters = [kind.letter for kind in kinds.values() if kind.letter != "?"]
    assert len(letters) == len(set(letters)) == 36


def test_a_huge_report_stays_a_page_that_opens() -> None:
    report, maps = reports.huge()
    text = page_of(report, *maps)
    Page(text)
    assert len(text.encode()) < 2_000_000
    words = words_of(text)
    for expected in (
        "Errors (3,333)",
        "3,033 more of severity error in report.json.",
        "3,000 databases",
        "2,800 more in report.json.",
        "200,000 of 100,000,000 blocks",
        "49,900 more runs of blocks are not listed here.",
        "681 more damaged relations",
        "201 more are not listed here.",
    ):
        assert expected in words
    assert text.count('class="cell') <= 1_000 + 19 * 2


def test_the_worst_relation_alone_stays_small(report: RescueReport) -> None:
    size = 100_000_000
    worst = blocks(size, *((at, at, f"kind {at % 7}") for at in range(0, size, 1_000)))
    assert len(page_of(report, worst).encode()) < 500_000
    whole = blocks(size, (0, size - 1, "zeroed"))
    assert len(page_of(report, whole).encode()) < 300_000


def test_a_very_long_text_is_cut_and_says_so(report: RescueReport) -> None:
    long = finding(Severity.ERROR, detail="x" * 1_000_000, object="y" * 1_000_000)
    text = page_of(dataclasses.replace(report, findings=(long,)))
    assert len(text) < 60_000
    assert "994,000 more characters in report.json" in text


def test_bars_follow_one_another_and_stay_within(report: RescueReport) -> None:
    steps = (StepReport("a", Outcome.DONE, 3.0), StepReport("b", Outcome.FAILED, 1.0), StepReport("c", Outcome.HELD, 0))
    page = Page(page_of(dataclasses.replace(report, steps=steps)))
    bars = [
        (float(str(attributes["x"])), float(str(attributes["width"])))
        for tag, attributes in page.elements
        if tag == "rect" and attributes.get("class") in set(Outcome)
    ]
    assert bars == [(0, 75), (75, 25), (99.4, 0.6)]
    instant = dataclasses.replace(report, steps=(StepReport("a", Outcome.HELD, 0.0),))
    assert 'x="0.00" y="1" width="0.60"' in page_of(instant)


def test_sizes_and_durations_are_for_persons() -> None:
    assert [size(size_bytes) for size_bytes in (0, 1023, 1024, 5 << 20, 200 << 30, 3 << 50, 3 << 70)] == [
        "0 bytes",
        "1,023 bytes",
        "1.0 KiB",
        "5.0 MiB",
        "200 GiB",
        "3.0 PiB",
        "3,145,728 PiB",
    ]
    assert [duration(seconds) for seconds in (0, 1.25, 59.94, 59.96, 187, 3599.7, 7500, 172_800, 1e6, -90)] == [
        "0.0 s",
        "1.2 s",
        "59.9 s",
        "1 min 00 s",
        "3 min 07 s",
        "1 h 00 min",
        "2 h 05 min",
        "2 d 00 h",
        "11 d 13 h",
        "\N{MINUS SIGN}1 min 30 s",
    ]
