"""Sessions on the rescued server, as its role `pgrescue`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from pgrescue.steps.access import ROLE, read_password

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from pgrescue.workspace import Workspace

HOST = "127.0.0.1"
_CONNECT_TIMEOUT_S = 10
_CATALOG_DATABASE = "template1"  # the only one that every server has


class SessionError(Exception):
    """The server did not let the session in, or failed one of its statements; the text is the server's or libpq's."""


@contextlib.contextmanager
def session(
    workspace: Workspace, port: int, database: str = _CATALOG_DATABASE, *, options: str = ""
) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """Open a session in autocommit mode for the block; every database error in it becomes a SessionError.

    `options` are settings for the session as on the server's command line, such as `-c ignore_system_indexes=on`.
    """
    # It takes 0.3 s to import: a rescue does so while its server starts, and most commands never do.
    import psycopg  # noqa: PLC0415 - see above

    try:
        with psycopg.connect(
            host=HOST,
            port=port,
            user=ROLE,
            password=read_password(workspace),
            dbname=database,
            connect_timeout=_CONNECT_TIMEOUT_S,
            options=options,
            application_name="pgrescue",
            sslmode="disable",
            gssencmode="disable",
            autocommit=True,
        ) as connection:
            yield connection
    except psycopg.Error as error:
        raise SessionError(str(error).strip()) from error
