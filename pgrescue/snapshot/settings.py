"""postgresql.conf's syntax, to know what a snapshot's configuration says; the server never starts with it.

The scanner follows guc-file.l, the includes conffiles.c.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pgrescue.errors import SnapshotError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

# Every character above ASCII is a letter to the server's scanner (guc-file.l, [\200-\377]). The classes name what they
# exclude: with a range up to the last character they took 0.07 s to compile, at every start of the program.
_LETTER = r"[^\x00-\x40\x5b-\x5e\x60\x7b-\x7f]"
_LETTER_OR_DIGIT = r"[^\x00-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f]"
_UNQUOTED = r"[^\x00-\x2c\x3b-\x40\x5b-\x5e\x60\x7b-\x7f]"  # letters, digits and - . _ : /
_TOKEN: Final = re.compile(
    rf"""[ \t\r]+ | \#[^\n]*
    | (?P<string> '(?: [^'\\\n] | \\[^\n] | '' )*' )
    | (?P<word> {_LETTER}{_UNQUOTED}* )
    | (?P<number> [+-]? (?: \d*\.\d*(?:[Ee][+-]?\d+)? | (?:0x[0-9A-Fa-f]+ | \d+)[a-zA-Z]* ) )
    | (?P<equals> = )""",
    re.VERBOSE | re.ASCII,
)
_NAME: Final = re.compile(rf"{_LETTER}{_LETTER_OR_DIGIT}*(\.{_LETTER}{_LETTER_OR_DIGIT}*)?", re.ASCII)
_ESCAPE: Final = re.compile(r"\\([0-7]{1,3}|.)|''", re.DOTALL)
_LETTERS: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_MAX_DEPTH: Final = 10
INCLUDES: Final = frozenset({"include", "include_if_exists", "include_dir"})


@dataclass(frozen=True)
class Setting:
    """One line: its name in lower case, its value without quotes, its number from 1. Includes are lines like others."""

    name: str
    value: str
    line: int


def parse_conf(text: str) -> tuple[Setting, ...]:
    """Read one file, its includes as lines; raise SnapshotError naming the line that the server would refuse."""
    settings = []
    for number, line in enumerate(text.split("\n"), start=1):
        match list(_tokens(line, number)):
            case []:
                continue
            case [("word", name), ("equals", _), (kind, value)] | [("word", name), (kind, value)] if _NAME.fullmatch(
                name
            ) and _is_value(kind, value):
                settings.append(Setting(name.lower(), _unquote(value) if kind == "string" else value, number))
            case _:
                raise _syntax_error(line, number)
    return tuple(settings)


def effective(
    files: Callable[[str], str | None],
    top: str = "postgresql.conf",
    *,
    auto: str = "postgresql.auto.conf",
    directory: Callable[[str], Collection[str]] | None = None,
) -> dict[str, str]:
    """Return what each setting is after `top`, its includes and then `auto`; the last line of a name counts.

    `files` gives a file's text by its path, as written where that is absolute and else relative to where `top` is
    (with `..` resolved), or None where it does not have it: such an include is passed over, though the server would
    not start. `directory` lists the file names in a directory for include_dir; without it, those are passed over too.
    Raises SnapshotError for lines that the server would refuse, and for includes that never end.
    """
    found: dict[str, str] = {}
    for path in (top, auto):
        for setting in _follow(files, directory, path, depth=0):
            found[setting.name] = setting.value
    return found


def _follow(
    files: Callable[[str], str | None],
    directory: Callable[[str], Collection[str]] | None,
    path: str,
    *,
    depth: int,
) -> Iterator[Setting]:
    """Yield a file's settings with its includes in their places."""
    if depth > _MAX_DEPTH:
        raise SnapshotError(
            f"configuration files include each other more than {_MAX_DEPTH} deep, last {path}",
            hint="One of them includes itself; PostgreSQL refuses that too.",
        )
    text = files(path)
    if text is None:
        return
    try:
        settings = parse_conf(text)
    except SnapshotError as error:
        raise SnapshotError(f"{path}: {error.problem}", hint=error.hint) from error
    for setting in settings:
        if setting.name not in INCLUDES:
            yield setting
            continue
        if not setting.value.strip():
            raise SnapshotError(f"{path}: line {setting.line} includes a file without a name")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), setting.value))
        targets = [target]
        if setting.name == "include_dir":
            names = sorted(directory(target)) if directory else []
            targets = [posixpath.join(target, name) for name in names if _is_included(name)]
        for included in targets:
            yield from _follow(files, directory, included, depth=depth + 1)


def _is_included(name: str) -> bool:
    return name.endswith(".conf") and not name.startswith(".") and len(name) > len(".conf")


def _tokens(line: str, number: int) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(line):
        match = _TOKEN.match(line, position)
        if match is None:
            raise _syntax_error(line, number)
        position = match.end()
        if match.lastgroup is not None:
            yield match.lastgroup, match[0]


def _is_value(kind: str, text: str) -> bool:
    """Tell whether a token may be a value; `a.b` without quotes is a name to the server, and no value."""
    return kind in {"string", "number"} or (kind == "word" and not ("." in text and _NAME.fullmatch(text)))


def _unquote(text: str) -> str:
    """Take the quotes off and the escapes out (DeescapeQuotedString)."""

    def replacement(match: re.Match[str]) -> str:
        code = match[1]
        if code is None:
            return "'"
        if code[0] in "01234567":
            return chr(int(code, 8) & 0xFF)
        return _LETTERS.get(code, code)

    return _ESCAPE.sub(replacement, text[1:-1])


def _syntax_error(line: str, number: int) -> SnapshotError:
    return SnapshotError(
        f"line {number} is not PostgreSQL's configuration syntax: {line.strip()[:80]!r}",
        hint="The file was damaged or edited after the server last read it.",
    )
