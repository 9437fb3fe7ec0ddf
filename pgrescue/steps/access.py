"""Step: the server has the role `pgrescue`, a superuser with a password of this workspace's own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING

from pgrescue.engine.interface import ServerState
from pgrescue.errors import CopyRefusedError, WorkspaceError
from pgrescue.files import write_atomically
from pgrescue.model import StrategyName
from pgrescue.steps.single_user import single_user

if TYPE_CHECKING:
    from pgrescue.model import Finding
    from pgrescue.pipeline import Observer
    from pgrescue.run import Run
    from pgrescue.workspace import Workspace

ROLE = "pgrescue"
_ITERATIONS = 4096  # PostgreSQL's own (scram_iterations)
_SALT_BYTES = 16
_GRANTED = "access granted"
_LOGIN_EVENTS_SINCE = 17
_NEEDED_FOR_ROLES = ("pg_authid", "pg_auth_members", "pg_db_role_setting", "pg_shdepend")
_PRELOADS = ("session_preload_libraries", "local_preload_libraries")


class Access:
    """The role is made in single-user mode, where no password and no configuration of the snapshot is in the way."""

    name = "access"
    title = "Make the role pgrescue"

    def holds(self, run: Run) -> bool:
        """Tell whether the password file is there: it is written last, when the role has the password."""
        return run.workspace.pgpass.exists()

    def apply(self, run: Run, observer: Observer) -> None:  # noqa: ARG002 - nothing to watch
        """Give the role a new password; the server itself only ever sees its SCRAM verifier."""
        if run.engine.status().state is ServerState.RUNNING:
            run.engine.stop()
        password = secrets.token_urlsafe(24)
        verifier = scram_verifier(password, secrets.token_bytes(_SALT_BYTES))
        statements = role_statements(run.snapshot.chosen.major, verifier)
        settings = {}
        if run.strategy is StrategyName.RESET and run.repairs:
            # The repair needs a session, a session needs these; it rebuilds all others itself.
            statements = (*(f"REINDEX TABLE pg_catalog.{name}" for name in _NEEDED_FOR_ROLES), *statements)
            settings = {"ignore_system_indexes": "on"}
        script = "".join(f"{line}\n" for line in statements)
        done = single_user(run, script, log="access.log", settings=settings)
        if _GRANTED not in done.stdout:
            raise CopyRefusedError(
                f"the role {ROLE} could not be made:\n{done.stderr.strip()[-1500:]}",
                hint="The catalogs of the copy may be damaged; the server's own words are above.",
            )
        write_atomically(run.workspace.pgpass, f"127.0.0.1:*:*:{ROLE}:{password}\n")

    def findings(self, run: Run) -> tuple[Finding, ...]:  # noqa: ARG002 - every step is asked the same
        """Nothing is worth telling."""
        return ()


def role_statements(major: int, verifier: str) -> tuple[str, ...]:
    """Return the statements that make or mend the role; the first one fails harmlessly where it exists.

    Settings of the role win over those of a database or of all roles, so that none of these can break its login
    (formats.md §0.7): a preloaded library that is missing here, a login event trigger, a timeout.
    """
    settings = {
        "statement_timeout": "0",
        "lock_timeout": "0",
        "idle_in_transaction_session_timeout": "0",
        "idle_session_timeout": "0",
        "default_transaction_read_only": "off",
        "default_transaction_isolation": "'read committed'",
        "search_path": '"$user", public',
        "role": "'none'",
    }
    if major < 14:  # noqa: PLR2004 - idle_session_timeout came with 14
        del settings["idle_session_timeout"]
    if major >= _LOGIN_EVENTS_SINCE:
        settings |= {"event_triggers": "off", "transaction_timeout": "0"}
    return (
        f"CREATE ROLE {ROLE}",
        f"ALTER ROLE {ROLE} SUPERUSER LOGIN INHERIT CONNECTION LIMIT -1 PASSWORD '{verifier}' VALID UNTIL 'infinity'",
        f"ALTER ROLE {ROLE} RESET ALL",
        # An empty list can only be stored from the session's own empty value: '' would become a list of one empty name,
        # and the server looks for a library of that name at every login.
        *(f"ALTER ROLE {ROLE} SET {name} FROM CURRENT" for name in _PRELOADS),
        *(f"ALTER ROLE {ROLE} SET {name} = {value}" for name, value in settings.items()),
        (
            f"SELECT '{_GRANTED}' FROM pg_authid WHERE rolname = '{ROLE}' AND rolsuper AND rolcanlogin "  # noqa: S608
            f"AND rolpassword = '{verifier}'"
        ),
    )


def scram_verifier(password: str, salt: bytes) -> str:
    """Return what PostgreSQL stores for an ASCII password (RFC 5803, `src/common/scram-common.c`)."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, _ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")

    def text(raw: bytes) -> str:
        return base64.b64encode(raw).decode("ascii")

    return f"SCRAM-SHA-256${_ITERATIONS}:{text(salt)}${text(stored_key)}:{text(server_key)}"


def read_password(workspace: Workspace) -> str:
    """Return the password of the workspace's role; raise WorkspaceError where there is none yet."""
    try:
        return workspace.pgpass.read_text().rstrip("\n").rpartition(":")[2]
    except OSError as error:
        raise WorkspaceError(
            f"{workspace.root} has no server that can be logged in to yet",
            hint="Finish the rescue first: run pgrescue local again with the same snapshot.",
        ) from error
