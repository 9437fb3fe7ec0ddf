"""`tablespace_map` of an online backup: which links in pg_tblspc led where.

Written by `do_pg_backup_start` (xlog.c), read by `read_tablespace_map` (xlogrecovery.c), whose rules these are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from pgrescue.errors import SnapshotError

# A backslash with nothing behind it falls to the second half, and so leaves a line without an end.
_UNIT: Final = re.compile(r"\\(.)|(.)", re.DOTALL)
_OID: Final = re.compile(r"\d{1,10}", re.ASCII)
_MAX_OID: Final = 0xFFFFFFFF


@dataclass(frozen=True)
class TablespaceLink:
    """One tablespace: the name of its link in pg_tblspc, and the directory on the original machine."""

    oid: int
    location: str


def parse_tablespace_map(text: str) -> tuple[TablespaceLink, ...]:
    """Read the file: lines of an OID, one space and a path; an empty file is right and names none.

    A backslash makes the character after it part of the path, so that a path may hold line breaks and backslashes.
    Decode the bytes with `surrogateescape`: paths have no encoding. Raises SnapshotError naming the line.
    """
    links = []
    lines = _logical_lines(text)
    for number, line in enumerate(lines, start=1):
        oid, space, location = line.partition(" ")
        if not space or not location or _OID.fullmatch(oid) is None or not 0 < int(oid) <= _MAX_OID:
            raise SnapshotError(
                f"tablespace_map line {number} is not an OID and a path: {line[:80]!r}",
                hint="The file is damaged; take it from another copy of the same backup.",
            )
        links.append(TablespaceLink(int(oid), location))
    return tuple(links)


def _logical_lines(text: str) -> list[str]:
    """Split at the line ends that no backslash protects, and take the backslashes out; empty lines do not count."""
    lines: list[str] = []
    current: list[str] = []
    for match in _UNIT.finditer(text):
        escaped, plain = match.groups()
        if plain is not None and plain in "\r\n":
            if current:
                lines.append("".join(current))
            current = []
        else:
            current.append(escaped if plain is None else plain)
    if current:
        raise SnapshotError(
            "tablespace_map does not end with a line end", hint="The file is cut short; take it from another copy."
        )
    return lines
