"""The schema of a source as pg_dump tells it, entry by entry."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgrescue.errors import RescueError
from pgrescue.transfer.facts import OWN_SCHEMAS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.transfer.endpoint import Connection
    from pgrescue.transfer.source import Source

# What `pg_dump --verbose` writes before each entry (pg_backup_archiver.c, _printTocEntry).
_HEADER = re.compile(
    r"^--\n-- TOC entry (?P<id>\d+) \(class (?P<class>\d+) OID (?P<oid>\d+)\)\n"
    r"(?:-- Dependencies:(?P<depends>[ \d]*)\n)?"
    r"-- Name: (?P<name>.*); Type: (?P<type>[A-Z ]+); Schema: (?P<schema>.*); Owner: (?P<owner>.*?)\n--\n",
    re.MULTILINE,
)
# Settings that pg_dump changes between entries; a session that begins in the middle would not have them.
_ACCESS_METHOD = re.compile(r"^SET default_table_access_method = (.*);\n", re.MULTILINE)
_SETTING = re.compile(r"^(?:SET default_tablespace = .*|SET SESSION AUTHORIZATION .*);\n", re.MULTILINE)
_END = re.compile(r"^-- Completed on .*", re.MULTILINE)

# pg_dump writes these after the data (pg_dump.c, SECTION_POST_DATA; getTocEntry's restore passes for the last ones).
POST_DATA = frozenset(
    {
        "INDEX",
        "INDEX ATTACH",
        "CONSTRAINT",
        "CHECK CONSTRAINT",
        "FK CONSTRAINT",
        "TRIGGER",
        "RULE",
        "POLICY",
        "ROW SECURITY",
        "STATISTICS",
        "PUBLICATION",
        "PUBLICATION TABLE",
        "PUBLICATION TABLES IN SCHEMA",
        "SUBSCRIPTION",
        "SUBSCRIPTION TABLE",
        "EVENT TRIGGER",
        "DEFAULT ACL",
        "ACL",
    }
)


@dataclass(frozen=True)
class Entry:
    """One object of the schema: `oid` is its own in the source, `sql` makes it, with owner and the like.

    `depends` are the numbers of entries that must be there before it; `schema` and `owner` are empty where it has none.
    `dumped` is pg_dump's own text where `sql` is not it.
    """

    number: int
    class_oid: int
    oid: int
    name: str
    type: str
    schema: str
    owner: str
    depends: tuple[int, ...]
    sql: str
    dumped: str = ""

    @property
    def key(self) -> str:
        """A name that is the same in every dump of the same schema."""
        return f"schema:{self.number}:{hashlib.sha256((self.dumped or self.sql).encode()).hexdigest()[:16]}"

    def __str__(self) -> str:
        where = f"{self.schema}." if self.schema else ""
        return f"{self.type.lower()} {where}{self.name}"


@dataclass(frozen=True)
class Schema:
    """All entries in pg_dump's order: those before the data, and those after it."""

    before: tuple[Entry, ...]
    after: tuple[Entry, ...]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All of them."""
        return (*self.before, *self.after)

    @property
    def fingerprint(self) -> str:
        """A hash of all that pg_dump said."""
        return hashlib.sha256("\0".join(entry.dumped or entry.sql for entry in self.entries).encode()).hexdigest()


def dump_schema(source: Source, connection: Connection, snapshot: str | None, *, with_owners: bool) -> Schema:
    """Have pg_dump read the schema as of an exported snapshot; without owners, without privileges too."""
    args = [
        "--schema-only",
        "--verbose",
        "--encoding=UTF8",
        "--no-tablespaces",
        "--no-subscriptions",
        f"--exclude-schema={OWN_SCHEMAS}",
        *([f"--snapshot={snapshot}"] if snapshot else []),
        *([] if with_owners else ["--no-owner", "--no-privileges"]),
    ]
    return parse_schema(source.pg_dump(args, connection).stdout)


def parse_schema(text: str) -> Schema:
    """Take apart what pg_dump wrote with --verbose.

    Raises RescueError where it holds something that cannot be moved so, instead of leaving it out.
    """
    entries = tuple(_entries(text))
    after = next((index for index, entry in enumerate(entries) if entry.type in POST_DATA), len(entries))
    return Schema(entries[:after], entries[after:])


def _entries(text: str) -> Iterator[Entry]:
    headers = list(_outside(_HEADER.finditer(text), _quoted(text)))
    if not headers and "CREATE " in text:
        raise RescueError("pg_dump wrote its schema in a form that is not understood", hint="Please report this.")
    method = "heap"
    if headers and (told := _ACCESS_METHOD.findall(text[: headers[0].start()])):
        method = told[-1]
    for index, header in enumerate(headers):
        last = index + 1 == len(headers)
        sql = text[header.end() : len(text) if last else headers[index + 1].start()]
        if last:
            sql = sql[: ends[-1].start()] if (ends := list(_END.finditer(sql))) else sql
        used = method
        tail = _tail(sql)
        if told := _ACCESS_METHOD.findall(sql[tail:]):
            method = told[-1]
        sql = sql[:tail].strip()
        if used != "heap" and sql:
            sql = f"SET LOCAL default_table_access_method = {used};\n{sql}"
        yield Entry(
            number=int(header["id"]),
            class_oid=int(header["class"]),
            oid=int(header["oid"]),
            name=header["name"],
            type=header["type"].strip(),
            schema="" if header["schema"] == "-" else header["schema"],
            owner="" if header["owner"] in {"-", ""} else header["owner"],
            depends=tuple(map(int, (header["depends"] or "").split())),
            sql="" if _is_comment(sql) else sql,
        )


# What hides other text: comments, strings, quoted names, and dollar quotes (the manual, "Lexical Structure").
_OPENING = re.compile(r"--[^\n]*+|/\*|(?<![\w$])[eE]'|'|\"|(?<![\w$])\$(?:[^\W\d]\w*)?\$")
_CLOSING = {
    "/*": re.compile(r".*?\*/", re.DOTALL),
    "'": re.compile(r"[^']*+(?:''[^']*+)*+'"),
    "e'": re.compile(r"[^'\\]*+(?:(?:''|\\.)[^'\\]*+)*+'", re.DOTALL),
    '"': re.compile(r'[^"]*+(?:""[^"]*+)*+"'),
}


def _quoted(text: str) -> Iterator[tuple[int, int]]:
    """Yield where quotes of any kind begin and end: a function's body may hold what once was a dump."""
    position = 0
    while (opened := _OPENING.search(text, position)) is not None:
        word, position = opened[0].lower(), opened.end()
        if word.startswith("--"):
            continue
        if word.startswith("$"):
            found = text.find(opened[0], position)
            end = len(text) if found < 0 else found + len(word)
        else:
            closed = _CLOSING[word].match(text, position)
            end = len(text) if closed is None else closed.end()
        yield opened.start(), end
        position = end


def _outside(headers: Iterator[re.Match[str]], quoted: Iterator[tuple[int, int]]) -> Iterator[re.Match[str]]:
    """Yield the headers that are not within quotes; both come in their order."""
    begin, end = -1, -1
    for header in headers:
        while end <= header.start():
            begin, end = next(quoted, (len(header.string), len(header.string) + 1))
        if header.start() < begin:
            yield header


def _tail(sql: str) -> int:
    """Return where the settings for the entries that follow begin: lines at the very end, and nothing else."""
    end = len(sql)
    while True:
        stripped = len(sql[:end].rstrip())
        begin = sql.rfind("\n", 0, stripped) + 1
        line = f"{sql[begin:stripped]}\n"
        if not (_ACCESS_METHOD.fullmatch(line) or _SETTING.fullmatch(line) or line.startswith(("\\unrestrict", "--"))):
            return end
        if begin == 0:
            return 0
        end = begin


def _is_comment(sql: str) -> bool:
    """Tell whether nothing is to be run, as for a schema that initdb makes."""
    return all(not line.strip() or line.startswith("--") for line in sql.splitlines())
