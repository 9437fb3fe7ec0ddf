"""Servers for the checks to look at: sessions as a rescue opens them, and pages to be changed while one is down."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from pgrescue.model import VerifyLevel
from pgrescue.pipeline import Silent
from pgrescue.steps.connection import SessionError
from pgrescue.verify.checks import run_checks
from pgrescue.verify.target import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fixtures import Server
    from pgrescue.model import Finding
    from pgrescue.pipeline import Observer
    from pgrescue.verify.target import Connection, Opener
    from pgrescue.verify.verified import Verified

BLOCK = 8192
SETTINGS = {"autovacuum": "off"}
"""As pgrescue runs a copy while it is checked."""


def opener_of(server: Server, *, options: str = "") -> Opener:
    """Return what opens sessions as `pgrescue.steps.connection.session` does."""

    @contextlib.contextmanager
    def opener(database: str, /) -> Iterator[Connection]:
        try:
            with psycopg.connect(server.conninfo(database), autocommit=True, options=f"{OPTIONS} {options}") as opened:
                yield opened
        except psycopg.Error as error:
            raise SessionError(str(error).strip()) from error

    return opener


def check(server: Server, level: VerifyLevel = VerifyLevel.FULL, observer: Observer | None = None) -> Verified:
    """Run all checks; what waits for a lock waits 0.2 s at most."""
    opener = opener_of(server, options="-c lock_timeout=200ms")
    return run_checks(opener, pgdata=server.pgdata, level=level, observer=observer or Silent())


def found(verified: Verified, code: str, of: str) -> Finding:
    """Return the only finding of this kind about an object, whose name ends so."""
    (finding,) = [item for item in verified.findings if item.code == code and item.object.endswith(of)]
    return finding


def execute(server: Server, database: str, *statements: str) -> None:
    """Run statements, each in a transaction of its own."""
    with server.connect(database) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def one(server: Server, database: str, query: str) -> Any:
    """Return the one value that a query gives."""
    with server.connect(database) as connection:
        return connection.execute(query.encode()).fetchall()[0][0]


def file_of(server: Server, database: str, relation: str) -> Path:
    """Return a relation's first file."""
    return server.pgdata / Path(one(server, database, f"select pg_relation_filepath('{relation}')"))


def run_script(server: Server, database: str, script: Path) -> None:
    """Run a file of statements, each of which ends at the end of a line."""
    execute(server, database, *(part for part in script.read_text().split(";\n") if part.strip()))


def overwrite(file: Path, at: int, content: bytes) -> None:
    """Change bytes of a file in place."""
    with file.open("r+b") as target:
        target.seek(at)
        target.write(content)


def page(file: Path, block: int) -> bytes:
    """Return one page."""
    return file.read_bytes()[block * BLOCK : (block + 1) * BLOCK]


def age_rows(file: Path, block: int, xmin: int) -> None:
    """Give all rows of a heap page another xmin, without any hint about it."""
    data = bytearray(page(file, block))
    lower = struct.unpack_from("<H", data, 12)[0]
    struct.pack_into("<H", data, 10, 0)
    for at in range(24, lower, 4):
        offset = struct.unpack_from("<I", data, at)[0] & 0x7FFF
        struct.pack_into("<I", data, offset, xmin)
        infomask = struct.unpack_from("<H", data, offset + 20)[0]
        struct.pack_into("<H", data, offset + 20, infomask & ~0x0300)
    overwrite(file, block * BLOCK, bytes(data))
