"""The connection strings of a rescued server: one with the password, and one to show."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from pgrescue.steps.access import ROLE
from pgrescue.steps.connection import HOST

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pgrescue.model import Database


def server_url(port: int, password: str, databases: Sequence[Database]) -> str:
    """Return a URL that libpq understands, with the password, for the database `postgres` or another that exists."""
    return f"postgresql://{ROLE}:{quote(password, safe='')}@{HOST}:{port}/{quote(_first(databases), safe='')}"


def shown_url(port: int, pgpass: Path, databases: Sequence[Database]) -> str:
    """Return a URL that works on this machine without holding the password: it names the password file (libpq)."""
    return f"postgresql://{ROLE}@{HOST}:{port}/{quote(_first(databases), safe='')}?passfile={quote(str(pgpass))}"


def _first(databases: Sequence[Database]) -> str:
    names = [database.name for database in databases]
    return "postgres" if "postgres" in names or not names else names[0]
