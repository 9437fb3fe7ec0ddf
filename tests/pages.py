"""Reading the pages that pgrescue makes, as strictly as a test must."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

_ALONE = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
REFERRING = {"src", "href", "xlink:href", "srcset", "action", "formaction", "data", "poster", "background", "ping"}


class Page(HTMLParser):
    """A page as a browser takes it: its elements, its text, and whatever is not well-formed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: dict[str, str] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in _ALONE:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        place = self.open[-1] if self.open else ""
        self.text[place] = self.text.get(place, "") + data

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}


def words_of(text: str) -> str:
    """Return what a person reads, without the markup, each run of white space as one space."""
    text = re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"</?(b|bdi|code|time)\b[^>]*>", "", text)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())
