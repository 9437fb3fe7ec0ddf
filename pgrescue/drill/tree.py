"""A YAML text as a tree that knows its places, read so that YAML 1.1 and 1.2 agree on every value.

Where the two take a plain word for different things, such as `no`, `5:30`, `010` and `1_000`, it is `Disputed`. Tags,
merge keys and more than one document are errors. Aliases are read, but not without end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import yaml

from pgrescue.drill.fields import Disputed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from yaml.events import _Mark as Mark

_DEEPEST = 40
_MOST_SHOWN = 60
_MOST_NODES = 20_000
_NULLS = {"", "~", "null", "Null", "NULL"}
_FLAGS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_OLD_FLAG = re.compile(r"yes|no|on|off", re.IGNORECASE)
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})", re.ASCII)
_FLOAT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})\.[0-9]{1,17}", re.ASCII)
# What one of the two takes for a number: with underscores, in other bases, in base 60, with exponents, very long.
_NUMBER_LIKE = re.compile(
    r"[-+]?([0-9][0-9_]*|0b[01_]+|0o[0-7]+|0x[0-9a-f_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"
    r"|([0-9][0-9_]*)?\.[0-9_]*(e[-+]?[0-9]+)?|[0-9][0-9_]*e[-+]?[0-9]+|\.inf)|\.nan",
    re.ASCII | re.IGNORECASE,
)
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+")


@dataclass(frozen=True, order=True)
class Place:
    """A place in a text: line and column, both counted from 1."""

    line: int
    column: int


@dataclass(frozen=True, order=True)
class Problem:
    """What is wrong at a place: what was found, what is expected."""

    place: Place
    text: str


@dataclass(frozen=True)
class Scalar:
    """A text, number, flag or nothing; `style` is the character that its quotes or block begin with, if any."""

    place: Place
    value: object
    style: str = ""


@dataclass(frozen=True)
class Items:
    """A list."""

    place: Place
    items: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A key's place, and its value."""

    place: Place
    node: Node


@dataclass(frozen=True)
class Mapping:
    """A mapping, in the order of the text."""

    place: Place
    entries: dict[str, Entry] = field(default_factory=dict)


Node = Scalar | Items | Mapping


@dataclass(frozen=True)
class Tree:
    """A text's only document, None where it is empty or cannot be read on, and what is wrong with it as YAML."""

    root: Node | None
    problems: tuple[Problem, ...]


class _BrokenOffError(ValueError):
    """What follows cannot be read."""

    def __init__(self, place: Place, text: str) -> None:
        super().__init__(text)
        self.problem = Problem(place, text)


def read_tree(text: str) -> Tree:
    """Read a text as YAML; whatever it holds, nothing is raised."""
    reader = _Reader(text)
    try:
        return Tree(reader.document(), tuple(reader.problems))
    except _BrokenOffError as error:
        problem = error.problem
    except yaml.MarkedYAMLError as error:
        problem = _marked(error, text)
    except yaml.reader.ReaderError as error:
        problem = Problem(_place_of(text, error.position), _control(error.character))
    except (ValueError, OverflowError):
        # PyYAML itself has no words for an escape such as "\U00110000".
        problem = Problem(reader.place, "an escape that is no character, after this")
    return Tree(None, (*reader.problems, problem))


def plain(node: Node) -> object:
    """Return what a node holds without its places."""
    match node:
        case Scalar():
            return node.value
        case Items():
            return [plain(item) for item in node.items]
        case Mapping():
            return {key: plain(entry.node) for key, entry in node.entries.items()}


def nodes(node: Node, name: str = "") -> Iterator[tuple[str, Node]]:
    """Give a node and all below it, each with the key that it stands behind."""
    yield name, node
    match node:
        case Scalar():
            pass
        case Items():
            for item in node.items:
                yield from nodes(item, name)
        case Mapping():
            for key, entry in node.entries.items():
                yield from nodes(entry.node, key)


class _Reader:
    """Builds nodes from the parser's events; `place` is that of the latest."""

    def __init__(self, text: str) -> None:
        self._events = yaml.parse(text, yaml.SafeLoader)
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._count = 0
        self.place = Place(1, 1)
        self.problems: list[Problem] = []

    def document(self) -> Node | None:
        self._next()
        if not isinstance(self._next(), yaml.DocumentStartEvent):
            return None
        root = self._node(self._next(), 0)
        self._next()
        if isinstance(self._next(), yaml.DocumentStartEvent):
            raise _BrokenOffError(self.place, "a second document, one is expected: `drills` holds several drills")
        return root

    def _next(self) -> yaml.Event:
        event = next(self._events)
        if event.start_mark is not None:
            self.place = _here(event.start_mark)
        return event

    def _node(self, event: yaml.Event, depth: int) -> Node:
        place = self.place
        if depth > _DEEPEST:
            raise _BrokenOffError(place, f"more than {_DEEPEST} levels, a drill file has few")
        assert isinstance(event, yaml.NodeEvent)  # noqa: S101 - the grammar of events
        anchor = event.anchor
        if isinstance(event, yaml.AliasEvent):
            return self._alias(anchor or "", place)
        before = self._count
        self._add(1, place)
        node = self._content(event, place, depth)
        if anchor is not None:
            self._anchors[anchor] = node, self._count - before
        return node

    def _content(self, event: yaml.NodeEvent, place: Place, depth: int) -> Node:
        tag = event.tag if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) else None
        if tag is not None:
            self.problems.append(Problem(place, _tagged(tag)))
        match event:
            case yaml.ScalarEvent():
                style = event.style or ""
                return Scalar(place, event.value if style else _resolved(event.value), style)
            case yaml.SequenceStartEvent():
                return Items(place, self._items(depth))
            case _:
                return Mapping(place, self._entries(depth))

    def _items(self, depth: int) -> tuple[Node, ...]:
        items = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return tuple(items)

    def _entries(self, depth: int) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            place = self.place
            self._node(event, depth + 1)
            node = self._node(self._next(), depth + 1)
            key = event.value if isinstance(event, yaml.ScalarEvent) else None
            if key is None:
                self.problems.append(Problem(place, "a key that is no word, a word is expected"))
            elif key == "<<":
                self.problems.append(Problem(place, "a merge key, which is not read: write the fields themselves"))
            elif key in entries:
                first = entries[key].place
                self.problems.append(Problem(place, f"the key {cut(key)} again, it is in line {first.line} already"))
            else:
                entries[key] = Entry(place, node)
        return entries

    def _alias(self, anchor: str, place: Place) -> Node:
        if anchor not in self._anchors:
            raise _BrokenOffError(place, f"the alias *{cut(anchor)}, no anchor of this name ends before it")
        node, size = self._anchors[anchor]
        self._add(size, place)
        return node

    def _add(self, count: int, place: Place) -> None:
        self._count += count
        if self._count > _MOST_NODES:
            raise _BrokenOffError(place, f"more than {_MOST_NODES:,} values, a drill file has few")


def _resolved(text: str) -> object:
    """Return what YAML 1.1 and 1.2 both take a plain text for."""
    if text in _NULLS:
        return None
    if text in _FLAGS:
        return _FLAGS[text]
    if _OLD_FLAG.fullmatch(text):
        return Disputed(text, "true" if text.lower() in {"yes", "on"} else "false")
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NUMBER_LIKE.fullmatch(text) and any(character.isalnum() for character in text):
        return Disputed(text, "a number to the base 60" if _BASE_60.match(text) else "a number")
    return text


def _tagged(tag: str) -> str:
    if tag.startswith("!=") or tag == "!":
        return '"!=" without quotes is a tag of YAML: quote the whole comparison, as in "!= null"'
    return "a tag, which is not read: leave it out, or quote the text if `!` belongs to it"


def _marked(error: yaml.MarkedYAMLError, text: str) -> Problem:
    """Say in words of ours what the parser met, where it is one of the usual traps."""
    mark = error.problem_mark or error.context_mark
    place = Place(1, 1) if mark is None else _here(mark)
    context, problem = error.context or "", error.problem or "this is none"
    line = "" if mark is None else _line_of(text, mark.index)
    match context, problem:
        case "while scanning a block scalar", _ if re.search(r":\s*>", line):
            said = '">" without quotes, which begins a block of text in YAML: quote the comparison, as in ">= 1000"'
        case "while scanning a tag" | "while parsing a tag", _ if "!=" in line:
            said = _tagged("!=")
        case _, str() if "\\t" in problem:
            said = "a tab, spaces are expected for the indentation"
        case "while scanning for the next token", _:
            said = "a sign that no plain text begins with in YAML: quote the text"
        case _, str() if problem.startswith("mapping values are not allowed"):
            said = "a colon after a text, or a wrong indentation: quote the text, or mend the indentation"
        case _:
            said = " ".join(f"not YAML, {context} {problem}".replace(" ,", ",").split())
    return Problem(place, said)


def _control(character: str | int | bytes) -> str:
    code = character if isinstance(character, int) else ord(character)
    return f"the character U+{code:04X}, which no YAML text holds"


def _line_of(text: str, index: int) -> str:
    start = text.rfind("\n", 0, index) + 1
    end = text.find("\n", index)
    return text[start : len(text) if end < 0 else end]


def _place_of(text: str, index: int) -> Place:
    return Place(text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index))


def _here(mark: Mark) -> Place:
    return Place(mark.line + 1, mark.column + 1)


def cut(key: str) -> str:
    """Return a key for a message: not too long, and with nothing that a terminal obeys."""
    shortened = key if len(key) <= _MOST_SHOWN else f"{key[:_MOST_SHOWN]}…"
    return shortened if shortened.isprintable() else ascii(shortened)
