"""What a person sees of report.html, in a real browser: on a phone and a desk, by day and by night, and on paper."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pgrescue.report.html import report_page
from pgrescue.report.words import VERDICTS
from tests import reports
from tests.e2e.browser import Browser, find_browser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PHONE, DESK = 400, 1280
BANNERS = {"damaged": "160,29,20", "consistent": "27,99,55"}
PAGES = {"light": "244,245,247", "dark": "17,20,24"}
OPEN_ALL = "document.querySelectorAll('details').forEach(item => item.open = true)"
# All that is drawn, except for what lies in a box that scrolls by itself, and what is for screen readers only.
TOO_WIDE = """[...document.body.querySelectorAll('*')].filter(item => {
  const box = item.getBoundingClientRect();
  return box.width > 1 && !item.closest('.scroll *') && (box.left < -0.5 || box.right > innerWidth + 0.5);
}).map(item => item.outerHTML.slice(0, 200))"""
BOXES = """[...document.querySelectorAll('%s')].map(item => {
  const box = item.getBoundingClientRect();
  return [box.left, box.top, box.right, box.bottom];
})"""
# Contrast as WCAG 2 defines it, of every text that is drawn against what lies behind it.
CONTRASTS = """(() => {
  const parse = colour => colour.match(/[0-9.]+/g).map(Number);
  const light = colour => {
    const [r, g, b] = parse(colour).map(part => part / 255).map(
      part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = item => {
    if (item.localName === 'text') return getComputedStyle(item.previousElementSibling).fill;
    for (; item; item = item.parentElement) {
      const colour = getComputedStyle(item).backgroundColor, parts = parse(colour);
      if (parts.length === 3 || parts[3] === 1) return colour;
    }
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {
    const item = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
    if (!text || item.localName === 'title' || !item.checkVisibility()) continue;
    const style = getComputedStyle(item), own = item.localName === 'text' ? style.fill : style.color;
    const [dark, bright] = [light(own), light(behind(item))].sort((a, b) => a - b);
    found.push([(bright + 0.05) / (dark + 0.05), text.slice(0, 60)]);
  }
  return found;
})()"""


class View(NamedTuple):
    """A page as it is open now."""

    browser: Browser
    verdict: str
    width: int
    scheme: str


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(find_browser(), tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a page for each kind of report."""
    folder = tmp_path_factory.mktemp("pages")
    huge, huge_maps = reports.huge()
    made = {
        "damaged": report_page(reports.DAMAGED, blocks=reports.MAPS, program="pgrescue"),
        "consistent": report_page(reports.CONSISTENT, blocks=reports.MAPS[:1], program="pgrescue"),
        "harmful": report_page(reports.HARMFUL, blocks=reports.HARMFUL_MAPS, program=reports.HARM),
        "huge": report_page(huge, blocks=huge_maps, program="pgrescue"),
    }
    for name, text in made.items():
        (folder / f"{name}.html").write_text(text)
    return {name: folder / f"{name}.html" for name in made}


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[PHONE, DESK])
def width(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(params=["damaged", "consistent"])
def view(request: pytest.FixtureRequest, browser: Browser, pages: dict[str, Path], width: int, scheme: str) -> View:
    """Open each report at each width in each scheme."""
    verdict = str(request.param)
    browser.open(pages[verdict], width=width, dark=scheme == "dark")
    return View(browser, verdict, width, scheme)


def boxes(browser: Browser, selector: str) -> list[tuple[float, float, float, float]]:
    """Return left, top, right and bottom of the elements."""
    return [tuple(box) for box in browser.value(BOXES % selector)]


def test_the_page_is_drawn_fits_and_can_be_read(view: View) -> None:
    browser = view.browser
    (banner,) = boxes(browser, ".verdict")
    assert banner[1] >= 0
    assert banner[3] < 450, "the verdict fills the screen"
    assert browser.value("document.querySelector('h1').innerText") == f"Verdict: {view.verdict}"
    assert browser.value("document.querySelector('.meaning').innerText") in VERDICTS.values()
    assert boxes(browser, "#next")[0][3] < 900, "what to do next is not on the first screen"

    assert browser.value("innerWidth") == view.width
    browser.value(OPEN_ALL)
    assert browser.value("document.documentElement.scrollWidth") == view.width
    assert browser.value(TOO_WIDE) == []
    parts = [banner, *boxes(browser, "section"), *boxes(browser, "footer")]
    assert len(parts) == 7
    for above, below in pairwise(parts):
        assert above[3] <= below[1]

    contrasts = browser.value(CONTRASTS)
    assert len(contrasts) > 60
    assert [item for item in contrasts if item[0] < 4.5] == []

    colours = browser.colours(browser.screenshot())
    assert len(colours) > 50
    assert colours[PAGES[view.scheme]] > 0.01
    assert colours[BANNERS[view.verdict]] > 0.01
    assert PAGES["dark" if view.scheme == "light" else "light"] not in list(colours)[:5]


def test_damaged_blocks_are_drawn_where_they_are(browser: Browser, pages: dict[str, Path], width: int) -> None:
    browser.open(pages["damaged"], width=width)
    maps = boxes(browser, ".map")
    assert len(maps) == 2
    left, top, right, bottom = maps[0]
    assert right - left > width * 0.6
    assert bottom - top < 560
    cells = boxes(browser, ".relation:nth-of-type(1) .cell")
    assert len(cells) > 50
    for cell in cells:
        assert cell[2] - cell[0] > 8
        assert cell[3] - cell[1] > 8
        assert left - 0.5 <= cell[0] < cell[2] <= right + 0.5
        assert top - 0.5 <= cell[1] < cell[3] <= bottom + 0.5
    # A pointer on a cell meets the rectangle with the tooltip, not the letter or the rules upon it.
    met = browser.value(
        """(() => {
          const cell = document.querySelector('.cell');
          cell.scrollIntoView();
          const box = cell.getBoundingClientRect();
          return document.elementFromPoint((box.left + box.right) / 2, (box.top + box.bottom) / 2).textContent;
        })()"""
    )
    assert met.startswith("blocks 480\N{EN DASH}575: ")
    assert browser.value("getComputedStyle(document.querySelector('.letter')).fontSize") == "7.5px"
    small = boxes(browser, ".relation:nth-of-type(2) .cell")
    assert len(small) == 1


def test_steps_are_bars_one_after_another(browser: Browser, pages: dict[str, Path], width: int) -> None:
    browser.open(pages["damaged"], width=width)
    bars = boxes(browser, ".bar rect:last-child")
    assert len(bars) == 5
    tracks = boxes(browser, ".bar")
    for bar, track in zip(bars, tracks, strict=True):
        assert track[0] - 1 <= bar[0] < bar[2] <= track[2] + 1
    assert [bar[0] for bar in bars] == sorted(bar[0] for bar in bars)
    assert [bar[1] for bar in bars] == sorted(bar[1] for bar in bars)
    assert bars[0][2] - bars[0][0] > 2 * (bars[4][2] - bars[4][0]) > 0


def test_a_screen_reader_gets_an_outline(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["damaged"], width=DESK)
    headings = browser.headings()
    assert [text for level, text in headings if level == 1] == ["Verdict: damaged"]
    assert [text for level, text in headings if level == 2] == [
        "What to do next",
        "Facts",
        "Findings",
        "Damaged blocks",
        "Steps",
    ]
    levels = [level for level, _ in headings]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    outline = [text for _, text in headings]
    assert outline.index("Errors (1)") < outline.index("Warnings (1)") < outline.index("Notes (1)")


def test_notes_are_folded_until_asked_for_and_always_printed(browser: Browser, pages: dict[str, Path]) -> None:
    # The height, as checkVisibility() takes the content of every closed <details> for invisible.
    height = "document.querySelector('#findings details').getBoundingClientRect().height"
    browser.open(pages["damaged"], width=DESK, dark=True)
    assert browser.value(height) < 50
    browser.on_paper()
    assert browser.value(height) > 100
    assert browser.value("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert min(browser.value(CONTRASTS))[0] >= 4.5
    assert browser.printed().startswith(b"%PDF-")
    browser.open(pages["damaged"], width=DESK)
    browser.value("document.querySelector('#findings summary').click()")
    assert browser.value(height) > 100
    assert "-x 0x300000: next\n-l 00000001: next" in browser.value("document.body.innerText")


@pytest.mark.parametrize("name", ["damaged", "consistent", "harmful", "huge"])
def test_nothing_is_loaded_and_nothing_runs(browser: Browser, pages: dict[str, Path], name: str) -> None:
    browser.open(pages[name], width=PHONE)
    text: Any = browser.value(f"{OPEN_ALL}; document.body.innerText")
    assert browser.requested() == [pages[name].as_uri()]
    assert browser.complaints() == []
    assert browser.value("window.harmed === undefined && document.scripts.length + document.images.length") == 0
    assert browser.value("document.documentElement.scrollWidth") == PHONE
    assert browser.value(TOO_WIDE) == []
    if name == "harmful":
        assert text.count("<script>window.harmed=1</script>") > 10
    if name == "huge":
        assert "Errors (3,333)" in text
        assert all(right - left > 8 for left, _, right, _ in boxes(browser, ".cell"))


def test_without_a_browser_the_tests_are_skipped_unless_one_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("PGRESCUE_REQUIRE_BROWSER", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no browser"):
        find_browser()
    monkeypatch.setenv("PGRESCUE_REQUIRE_BROWSER", "1")
    with pytest.raises(pytest.fail.Exception, match="no browser"):
        find_browser()
