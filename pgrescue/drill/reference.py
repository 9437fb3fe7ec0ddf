"""A committed reference of a database's schema, and what differs from it."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from pgrescue.drill.record import Answer
from pgrescue.errors import RescueError
from pgrescue.files import write_atomically
from pgrescue.transfer.schema import dump_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pgrescue.transfer.source import Source

_TITLE = (
    "-- pgrescue: the schema of a database, for `schema` in a drill file. Write it anew: pgrescue drill --write-schema"
)
_OBJECT = "-- pgrescue object: "
_MARK = re.compile(rf"^{_OBJECT}(\[.*\])$", re.MULTILINE)
# Before a line of an object's own text that could be taken for a mark, such as one in a function's body.
_QUOTED = "-- pgrescue text: "
_TO_QUOTE = re.compile(rf"^(?={_OBJECT}|{_QUOTED})", re.MULTILINE)
_TO_UNQUOTE = re.compile(rf"^{_QUOTED}", re.MULTILINE)
_MOST_NAMED = 20


class Key(NamedTuple):
    """What an object of the schema is called: its type in pg_dump's words, its schema (or nothing), its name."""

    type: str
    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.type.lower()} {f'{self.schema}.' if self.schema else ''}{self.name}"


Objects = dict[Key, Counter[str]]
"""The statements that make each object; several objects may share a name, such as privileges on one table."""


def read_objects(source: Source) -> Objects:
    """Have pg_dump read the schema, with owners and privileges; raises RescueError.

    Lines end as in the reference: with a line feed alone.
    """
    with source.endpoint.connect(purpose="drill") as connection:
        schema = dump_schema(source, connection, None, with_owners=True)
    found: Objects = {}
    for entry in schema.entries:
        if text := _plain(entry.dumped or entry.sql).strip():
            found.setdefault(Key(entry.type, entry.schema, entry.name), Counter())[text] += 1
    return found


def write_reference(path: Path, objects: Objects) -> None:
    """Write the reference, sorted by name, so that a change of the schema is a small change of the file."""
    parts = [_TITLE, ""]
    for key in sorted(objects):
        for text in sorted(objects[key].elements()):
            parts += [f"{_OBJECT}{json.dumps(key, ensure_ascii=False)}", _TO_QUOTE.sub(_QUOTED, text), ""]
    try:
        write_atomically(path, "\n".join(parts), mode=0o644)
    except OSError as error:
        raise RescueError(
            f"the reference {path} cannot be written: {error.strerror}", hint="See whether its directory exists."
        ) from error


def read_reference(path: Path) -> Objects:
    """Read what `write_reference` wrote; raise RescueError for a file that is not there, or is something else."""
    again = "Write it, look at it, commit it: pgrescue drill FILE --write-schema"
    try:
        text = _plain(path.read_bytes().decode())
    except FileNotFoundError as error:
        raise RescueError(f"there is no reference {path}", hint=again) from error
    except (OSError, UnicodeDecodeError) as error:
        raise RescueError(f"the reference {path} cannot be read: {error}", hint=again) from error
    marks = list(_MARK.finditer(text))
    if not text.startswith(_TITLE):
        raise RescueError(f"{path} is no reference that pgrescue wrote", hint=again)
    found: Objects = {}
    ends = [*[mark.start() for mark in marks], len(text)][1:]
    try:
        for mark, end in zip(marks, ends, strict=True):
            key = Key(*map(str, json.loads(mark[1])))
            found.setdefault(key, Counter())[_TO_UNQUOTE.sub("", text[mark.end() : end]).strip()] += 1
    except (ValueError, TypeError) as error:
        raise RescueError(f"the reference {path} is damaged: {error}", hint=again) from error
    return found


def _plain(text: str) -> str:
    """Return it as it is where Git, or who wrote a function's body, ends lines in no other way."""
    return text.replace("\r\n", "\n")


def compare_schema(objects: Objects, expected: Objects) -> Answer:
    """Tell which objects are missing, new, or not the same."""
    missing = sorted(key for key in expected if key not in objects)
    new = sorted(key for key in objects if key not in expected)
    changed = sorted(key for key in expected if key in objects and objects[key] != expected[key])
    if not (missing or new or changed):
        return Answer.passed(f"{_count(objects)} objects, all the same")
    seen = ", ".join(
        f"{len(keys)} {word}" for word, keys in (("missing", missing), ("changed", changed), ("new", new)) if keys
    )
    lines = [*_named("missing", missing), *_named("changed", changed), *_named("new", new)]
    more = [f"and {len(lines) - _MOST_NAMED} more"] if len(lines) > _MOST_NAMED else []
    return Answer.failed(seen, "\n".join([*lines[:_MOST_NAMED], *more]))


def _count(objects: Mapping[Key, Counter[str]]) -> int:
    return sum(texts.total() for texts in objects.values())


def _named(word: str, keys: Iterable[Key]) -> list[str]:
    return [f"{word}: {key}" for key in keys]
