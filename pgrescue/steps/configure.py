"""Step: the server will run with pgrescue's own configuration, in quarantine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgrescue.errors import SnapshotError
from pgrescue.files import write_atomically
from pgrescue.model import Finding, Severity
from pgrescue.snapshot.settings import effective
from pgrescue.steps.access import ROLE
from pgrescue.steps.ownership import hand_over

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pgrescue.pipeline import Observer
    from pgrescue.run import Run
    from pgrescue.snapshot.contents import DataDirectory

CONFIG, HBA, IDENT = "postgresql.conf", "pg_hba.conf", "pg_ident.conf"

OPENED = "opened.conf"
"""Settings from the time on when the checks are over; until then the file is empty."""

# They start work of their own as soon as they are loaded: jobs, replication, fail-over.
_ACT_ON_THEIR_OWN = frozenset(
    {"pg_cron", "pg_partman_bgw", "pg_timetable", "pglogical", "pg_failover_slots", "bdr", "spock", "repmgr", "bg_mon"}
)
_IN_PLACE_TABLESPACES_SINCE = 15
_LEAST_CONNECTIONS = 100
_LEAST_WORKERS = 8

HBA_RULES = f"""\
# Written by pgrescue. Only the role {ROLE} may log in, with its password, and only from this machine; the second line
# is for the server in a container, whose port is published on 127.0.0.1 and whose clients come from its own network.
host all {ROLE} 127.0.0.1/32 scram-sha-256
host all {ROLE} samenet scram-sha-256
"""
_IDENT = "# Written by pgrescue: no maps.\n"


class Configure:
    """The copy must not act like production: nothing of the snapshot's configuration is in force (formats.md §0)."""

    name = "configure"
    title = "Write the server's configuration"

    def holds(self, run: Run) -> bool:
        """Tell whether the files say what they should."""
        server = run.workspace.server
        return (server / OPENED).exists() and all(_reads(server / name, text) for name, text in _files(run).items())

    def apply(self, run: Run, observer: Observer) -> None:  # noqa: ARG002 - nothing to watch
        """Write them where the identity that runs PostgreSQL can read them."""
        server = run.workspace.server
        server.mkdir(mode=0o700, exist_ok=True)
        for name, text in _files(run).items():
            write_atomically(server / name, text)
        if not (server / OPENED).exists():
            write_atomically(server / OPENED, "")
        hand_over(run.engine, server, *server.iterdir())

    def findings(self, run: Run) -> tuple[Finding, ...]:
        """Tell which libraries are not loaded, and which replication slots were dropped."""
        _, left_out = preload(run)
        found = [
            Finding(
                "preload_library_left_out",
                Severity.WARNING if reason is _MISSING else Severity.INFO,
                library,
                f"The snapshot's shared_preload_libraries names it; it is not loaded: {reason}.",
                "If tables need it to be read, use an image or a bindir that has it (--image, --bindir)."
                if reason is _MISSING
                else "Nothing to do.",
            )
            for library, reason in left_out
        ]
        slots = run.workspace.removed / "pg_replslot"
        names = sorted(slot.name for slot in slots.iterdir()) if slots.is_dir() else []
        if names:
            found.append(
                Finding(
                    "replication_slots_dropped",
                    Severity.INFO,
                    ", ".join(names),
                    "A copy's slots would hold WAL back for ever, or keep the server from starting.",
                    "Nothing to do; their state lies in removed/pg_replslot.",
                )
            )
        return tuple(found)


_MISSING = "this machine's PostgreSQL does not have it"
_ACTIVE = "it would start work of its own"


def preload(run: Run) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Return the snapshot's preloaded libraries in two parts: those to load, and those left out with the reason."""
    wanted = preload_wanted(run.snapshot.chosen)
    if not wanted:
        return (), ()
    present = run.engine.libraries()
    left_out = {name: _ACTIVE for name in wanted if name in _ACT_ON_THEIR_OWN}
    left_out |= {name: _MISSING for name in wanted if name not in present and name not in left_out}
    return tuple(name for name in wanted if name not in left_out), tuple(left_out.items())


def preload_wanted(directory: DataDirectory) -> tuple[str, ...]:
    """Return the names in the snapshot's shared_preload_libraries; none where its configuration cannot be read."""
    try:
        value = effective(directory.texts.get).get("shared_preload_libraries", "")
    except SnapshotError:
        return ()
    names = (name.strip().strip('"').rpartition("/")[2].removesuffix(".so") for name in value.split(","))
    return tuple(name for name in names if name)


def settings(
    directory: DataDirectory, libraries: Iterable[str], *, has_tablespaces: bool, prepared: int = 0
) -> dict[str, str]:
    """Return the server's settings: at least as large as pg_control's where recovery insists, otherwise quiet.

    `prepared` is how many prepared transactions the copy holds: a server with fewer places for them does not start.
    """
    control = directory.control
    values = {
        "max_connections": str(max(control.max_connections, _LEAST_CONNECTIONS)),
        "max_worker_processes": str(max(control.max_worker_processes, _LEAST_WORKERS)),
        "max_wal_senders": str(control.max_wal_senders),
        "max_prepared_transactions": str(max(control.max_prepared_xacts, prepared)),
        "max_locks_per_transaction": str(max(control.max_locks_per_xact, 256)),
        "shared_preload_libraries": ",".join(libraries),
        "wal_level": "replica",
        "archive_mode": "off",
        "restore_command": "",
        "primary_conninfo": "",
        "synchronous_standby_names": "",
        "max_logical_replication_workers": "0",
        "autovacuum": "off",
        "ssl": "off",
        "shared_buffers": "256MB",
        "maintenance_work_mem": "256MB",
        "max_wal_size": "4GB",
        "log_destination": "stderr",
        "logging_collector": "off",
        "log_line_prefix": "%m [%p] ",
        "log_timezone": "UTC",
        "timezone": "UTC",
        "lc_messages": "C",
        "cluster_name": "pgrescue",
    }
    if has_tablespaces and directory.major >= _IN_PLACE_TABLESPACES_SINCE:
        values["allow_in_place_tablespaces"] = "on"
    return values


def render(values: Mapping[str, str]) -> str:
    """Return a postgresql.conf with these settings."""
    lines = (f"{name} = '{value.replace(chr(39), chr(39) * 2)}'" for name, value in values.items())
    return (
        "# Written by pgrescue, anew at every rescue. The server gets its port, its addresses and the paths of\n"
        "# pg_hba.conf and pg_ident.conf on its command line.\n"
        + "".join(f"{line}\n" for line in lines)
        + f"include = '{OPENED}'\n"
    )


def _files(run: Run) -> dict[str, str]:
    libraries, _ = preload(run)
    tablespaces = run.workspace.pgdata / "pg_tblspc"
    has_tablespaces = tablespaces.is_dir() and any(tablespaces.iterdir())
    twophase = run.workspace.pgdata / "pg_twophase"
    prepared = len(list(twophase.iterdir())) if twophase.is_dir() else 0
    values = settings(run.snapshot.chosen, libraries, has_tablespaces=has_tablespaces, prepared=prepared)
    return {CONFIG: render(values), HBA: HBA_RULES, IDENT: _IDENT}


def _reads(path: Path, text: str) -> bool:
    try:
        return path.read_text() == text
    except FileNotFoundError:
        return False
