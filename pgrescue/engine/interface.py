"""The contract of an engine; tests/contract runs the same suite over every one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pgrescue.command import Completed
    from pgrescue.ledger import EngineRecord
    from pgrescue.model import EngineName, Owner, PgVersion


class ServerState(StrEnum):
    """Whether the workspace's server runs."""

    RUNNING = "running"
    STOPPED = "stopped"


@dataclass(frozen=True)
class ServerStatus:
    """The workspace's server as the engine sees it now.

    `port` is where it listens on 127.0.0.1, None when it is stopped. `where` names the container or the process.
    """

    state: ServerState
    port: int | None = None
    where: str = ""


@dataclass(frozen=True)
class Installation:
    """PostgreSQL's programs as an engine has them: version, kind of place, and words for the user.

    `owner` is the identity that must own the data directory and all that PostgreSQL reads; None when it is the
    caller. `described` says in one line what was chosen, such as `docker, image postgres:17 (PostgreSQL 17.11)`.
    """

    name: EngineName
    version: PgVersion
    owner: Owner | None
    described: str
    record: EngineRecord


class Engine(Protocol):
    """Runs PostgreSQL's programs on one workspace. All methods may be called again after any interruption."""

    @property
    def installation(self) -> Installation:
        """What this engine runs."""

    def path(self, path: Path) -> str:
        """Return how the engine's programs name a path that lies in the workspace."""

    def run(
        self,
        program: str,
        args: Sequence[str],
        *,
        stdin: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        on_stderr: Callable[[str], None] | None = None,
        online: bool = False,
    ) -> Completed:
        """Run one of PostgreSQL's programs (pg_resetwal, postgres --single, pg_dump …) to its end.

        `on_stderr` is told each line of stderr as it comes; it and `timeout_s` exclude each other. A client program
        that goes `online` has the network of this machine, to reach other servers than the workspace's.
        It runs as the owner of the data directory, with the workspace within reach; `stdin` is a file of the
        workspace. Its exit status is in the answer. Raises EngineError or ToolError when it cannot be run at all.
        It never outlives the call, Ctrl-C included; what `kill -9` leaves of it, the next call or `remove` ends.
        """

    def libraries(self) -> frozenset[str]:
        """Return the names of the loadable modules, without suffix, that `shared_preload_libraries` could name."""

    def start(self, settings: Mapping[str, str], *, port: int) -> None:
        """Start `postgres` on the workspace's pgdata, reachable on 127.0.0.1:`port` only, and return at once.

        `settings` become `-c name=value`, after the engine's own listen_addresses, port and socket settings. The
        server outlives this process. Does nothing when it runs already. Raises ServerError when the port is taken.
        """

    def status(self) -> ServerStatus:
        """Tell whether the server runs, by looking."""

    def stop(self, *, timeout_s: float = 600) -> None:
        """Shut the server down (fast mode), by force when that takes longer than `timeout_s`; idempotent."""

    def logs(self, *, tail: int | None = None, follow: bool = False) -> Iterator[str]:
        """Yield the server's log, line by line: the last `tail` lines, then, with `follow`, what comes."""

    def remove(self) -> None:
        """Stop the server and remove everything that the engine holds for the workspace outside of it; idempotent.

        Afterwards the caller may delete every file of the workspace.
        """
