"""What a person sees of drill.html, in a real browser: on a phone and a desk, by day and by night, and on paper."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from pgrescue.report.drill_html import drill_page
from tests import drills
from tests.e2e.browser import Browser, find_browser
from tests.e2e.test_report_in_browser import CONTRASTS, DESK, OPEN_ALL, PAGES, PHONE, TOO_WIDE, boxes
from tests.reports import HARM

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BANNERS = {"passed": "27,99,55", "failed": "160,29,20", "unverified": "122,74,0"}
RUNS = {
    "passed": drills.PASSED,
    "failed": drills.FAILED,
    "unverified": drills.UNVERIFIED,
    "several": drills.SEVERAL,
    "harmful": drills.HARMFUL_RUN,
}
# Letters of a block map lie on their cell, all other drawn text on the card; a banner's line has a rim of the card.
READABLE = CONTRASTS.replace("item.localName === 'text') return", "item.matches('text.letter')) return")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(find_browser(), tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    runs = {**RUNS, "huge": drills.huge_run()}
    for name, run in runs.items():
        (folder / f"{name}.html").write_text(drill_page(run, program=HARM if name == "harmful" else "pgrescue"))
    return {name: folder / f"{name}.html" for name in runs}


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["passed", "failed", "unverified", "several"])
def test_the_page_is_drawn_fits_and_can_be_read(
    browser: Browser, pages: dict[str, Path], name: str, scheme: str, width: int
) -> None:
    browser.open(pages[name], width=width, dark=scheme == "dark")
    (banner,) = boxes(browser, ".verdict")
    assert banner[3] < 450, "the outcome fills the screen"
    assert browser.value("document.querySelector('h1').innerText") == f"Outcome: {RUNS[name].outcome.value}"
    if width == DESK and name != "several":
        assert boxes(browser, ".next")[0][3] < 1_100, "what to do next is not at the top"

    browser.value(OPEN_ALL)
    assert browser.value("document.documentElement.scrollWidth") == width
    assert browser.value(TOO_WIDE) == []
    parts = [banner, *boxes(browser, "section"), *boxes(browser, "footer")]
    for above, below in pairwise(parts):
        assert above[3] <= below[1]
    contrasts = browser.value(READABLE)
    assert len(contrasts) > 60
    assert [item for item in contrasts if item[0] < 4.5] == []

    colours = browser.colours(browser.screenshot())
    assert colours[PAGES[scheme]] > 0.01
    assert PAGES["dark" if scheme == "light" else "light"] not in list(colours)[:5]
    if name in BANNERS:
        assert colours[BANNERS[name]] > 0.005


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_columns_stand_on_the_axis_and_the_budget_is_where_it_belongs(
    browser: Browser, pages: dict[str, Path], width: int
) -> None:
    browser.open(pages["failed"], width=width)
    charts = boxes(browser, ".chart svg")
    assert len(charts) == 3
    for left, top, right, bottom in charts:
        assert right - left > 280
        assert bottom - top > 150
    chart = ".chart:nth-of-type(1)"
    columns = boxes(browser, f"{chart} .column rect")
    assert len(columns) == 7
    ((_, axis, _, _),) = boxes(browser, f"{chart} .axis")
    ((left, budget, right, _),) = boxes(browser, f"{chart} path.budget")
    for column, after in pairwise(columns):
        assert column[2] < after[0]
    for column in columns:
        assert column[3] == pytest.approx(axis, abs=1.5)
        assert left <= column[0] < column[2] <= right
    heights = [column[3] - column[1] for column in columns]
    assert heights[-1] / heights[0] == pytest.approx(1_088 / 371, rel=0.02)
    # 18 min 08 s are above the budget of 15 min, all that went before below.
    assert columns[-1][1] < budget < min(column[1] for column in columns[:-1])
    texts = browser.value(
        f"[...document.querySelectorAll('{chart} text')].map(item => item.getBoundingClientRect())"
        ".map(box => [box.left, box.top, box.right, box.bottom])"
    )
    for text in texts:
        assert charts[0][0] - 1 <= text[0] < text[2] <= charts[0][2] + 1
        assert text[3] - text[1] > 10, "too small to be read"
    dates = boxes(browser, f"{chart} .date")
    assert len(dates) == 4
    for date, after in pairwise(dates):
        assert date[2] < after[0]
    pointed = browser.value(
        f"""(() => {{
          const column = [...document.querySelectorAll('{chart} .column rect')].pop();
          column.scrollIntoView({{block: 'center'}});
          const box = column.getBoundingClientRect();
          const met = document.elementFromPoint((box.left + box.right) / 2, (box.top + box.bottom) / 2);
          return met.parentElement.textContent;
        }})()"""
    )
    assert "this run: 18 min 08 s (drill failed)" in pointed


def test_a_screen_reader_gets_an_outline_and_the_numbers(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["failed"], width=DESK)
    headings = browser.headings()
    assert [text for level, text in headings if level == 1] == ["Outcome: failed"]
    assert len([text for level, text in headings if level == 2]) == 1
    assert [text for level, text in headings if level == 3] == [
        "What to do next",
        "Assertions",
        "Worse than in earlier runs",
        "Findings",
        "Damaged blocks",
        "Trend",
        "Time line",
        "Facts",
    ]
    assert all(after <= before + 1 for (before, _), (after, _) in pairwise(headings))
    rows = "[...document.querySelectorAll('#d1-trend details:first-of-type tbody tr')].map(row => row.innerText)"
    browser.value(OPEN_ALL)
    runs = browser.value(rows)
    assert len(runs) == 8
    assert "18 min 08 s" in runs[0]
    assert "not known" in runs[2]


def test_paper_is_white_and_has_everything(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["failed"], width=DESK, dark=True)
    browser.on_paper()
    assert browser.value("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert min(browser.value(READABLE))[0] >= 4.5
    assert browser.value("document.querySelector('#d1-trend details').getBoundingClientRect().height") > 150
    assert browser.printed().startswith(b"%PDF-")


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("name", [*RUNS, "huge"])
def test_nothing_is_loaded_nothing_runs_and_all_fits(
    browser: Browser, pages: dict[str, Path], name: str, width: int
) -> None:
    browser.open(pages[name], width=width)
    text = browser.value(f"{OPEN_ALL}; document.body.innerText")
    assert browser.requested() == [pages[name].as_uri()]
    assert browser.complaints() == []
    assert browser.value("window.harmed === undefined && document.scripts.length + document.images.length") == 0
    assert browser.value("document.documentElement.scrollWidth") == width
    assert browser.value(TOO_WIDE) == []
    if name == "harmful":
        assert text.count("<script>window.harmed=1</script>") > 50
    if name == "huge":
        assert "Errors (3,334)" in text
