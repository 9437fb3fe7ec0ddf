"""Make the picture of a drill's report that CONTRIBUTING.md shows: `python -m tests.e2e.screenshot docs/drill.png`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from pgrescue.report.drill_html import drill_page
from tests import drills
from tests.e2e.browser import Browser, find_browser

_WIDTH = 1000

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home, Browser(find_browser(), Path(home)) as browser:
        page = Path(home, "drill.html")
        page.write_text(drill_page(drills.FAILED, program="pgrescue"))
        browser.open(page, width=_WIDTH)
        Path(sys.argv[1]).write_bytes(browser.screenshot())
