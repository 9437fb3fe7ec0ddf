"""Values that many tests need: a pg_control, a data directory, a run on an engine that runs nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgrescue.command import Completed
from pgrescue.engine.interface import Installation, ServerState, ServerStatus
from pgrescue.ledger import EngineRecord
from pgrescue.model import EngineName, Finding, PgVersion, Severity, StrategyName
from pgrescue.run import Run
from pgrescue.snapshot.contents import DataDirectory, Snapshot, WalFile
from pgrescue.snapshot.control import ControlFile, parse_control
from pgrescue.snapshot.directory import DirectorySource
from pgrescue.snapshot.wal import SegmentName, WalPageHeader
from pgrescue.workspace import Workspace
from tests.unit.snapshot.conftest import DATA, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pgrescue.model import Owner
    from pgrescue.snapshot.backup_info import BackupInfo

CONTROL = (DATA / "pg_control_17.bin").read_bytes()
RUNNING = (DATA / "pg_control_17_running.bin").read_bytes()
LABEL = (DATA / "backup_label_17.txt").read_text()


def control(template: bytes = CONTROL, **changes: int) -> ControlFile:
    """Return a real pg_control with some fields changed."""
    return parse_control(encode(template, **changes))


def wal_file(at: ControlFile, *, size_bytes: int | None = None, **header: Any) -> WalFile:
    """Return the segment with the redo position of a pg_control."""
    name = SegmentName.from_lsn(at.redo, at.timeline, at.wal_segment_size)
    magic = 0xD116
    page = WalPageHeader(
        magic=magic,
        info=6,
        timeline=at.timeline,
        page_address=name.start_lsn(at.wal_segment_size),
        system_identifier=at.system_identifier,
        segment_size=at.wal_segment_size,
        block_size=8192,
    )
    size = at.wal_segment_size if size_bytes is None else size_bytes
    return WalFile(str(name), size, dataclasses.replace(page, **header))


def data_directory(found: ControlFile | None = None, **fields: Any) -> DataDirectory:
    """Return a healthy data directory, stopped unless `found` says otherwise, with the WAL of its checkpoint."""
    found = found or control()
    values: dict[str, Any] = {
        "prefix": "",
        "major": found.major,
        "control": found,
        "size_bytes": 1 << 20,
        "files": 900,
        "texts": {"PG_VERSION": f"{found.major}\n"},
        "links": {},
        "wal": (wal_file(found),),
        "tablespaces": (),
    }
    return DataDirectory(**{**values, **fields})


def snapshot(
    chosen: DataDirectory | None = None, *, others: Sequence[DataDirectory] = (), info: BackupInfo | None = None
) -> Snapshot:
    """Return a snapshot of one healthy data directory."""
    return Snapshot(DirectorySource(Path("/nowhere")), "fingerprint", chosen or data_directory(), tuple(others), info)


class FakeEngine:
    """An engine that remembers what it was asked, and answers as it was told."""

    def __init__(self, *, owner: Owner | None = None, record: EngineRecord | None = None) -> None:
        record = record or EngineRecord(EngineName.NATIVE, bindir="/usr/lib/postgresql/17/bin")
        self.installation = Installation(record.name, PgVersion(17, 11), owner, "a fake", record)
        self.answer = Completed(("postgres",), 0, "", "")
        self.present: frozenset[str] = frozenset()
        self.server = ServerStatus(ServerState.STOPPED)
        self.log: tuple[str, ...] = ()
        self.asked: list[tuple[str, ...]] = []
        self.scripts: list[str] = []

    def path(self, path: Path) -> str:
        """Name the path as a container would."""
        return f"/engine{path}"

    def run(
        self,
        program: str,
        args: Sequence[str],
        *,
        stdin: Path | None = None,
        env: Mapping[str, str] | None = None,  # noqa: ARG002 - the contract's
        timeout_s: float | None = None,  # noqa: ARG002 - the contract's
        on_stderr: Callable[[str], None] | None = None,
        online: bool = False,  # noqa: ARG002 - the contract's
    ) -> Completed:
        """Remember the program and what it was given; give the prepared answer."""
        if on_stderr is not None:
            for line in self.answer.stderr.splitlines():
                on_stderr(line)
        self.asked.append((program, *args))
        if stdin is not None:
            self.scripts.append(stdin.read_text())
        return self.answer

    def libraries(self) -> frozenset[str]:
        """Give the prepared names."""
        return self.present

    def start(self, settings: Mapping[str, str], *, port: int) -> None:
        """Remember the settings."""
        self.asked.append(("start", str(port), *(f"{name}={value}" for name, value in settings.items())))

    def status(self) -> ServerStatus:
        """Give the prepared status."""
        return self.server

    def stop(self, *, timeout_s: float = 600) -> None:  # noqa: ARG002 - the contract's
        """Stop the server that never ran."""
        self.asked.append(("stop",))
        self.server = ServerStatus(ServerState.STOPPED)

    def logs(self, *, tail: int | None = None, follow: bool = False) -> Iterator[str]:  # noqa: ARG002 - the contract's
        """Give the prepared log."""
        return iter(self.log[-tail:] if tail else self.log)

    def remove(self) -> None:
        """Remember it."""
        self.asked.append(("remove",))


def make_run(root: Path, engine: FakeEngine | None = None, *, of: Snapshot | None = None) -> Run:
    """Return a run in a new workspace below `root` that has an empty copy."""
    workspace = Workspace(root / "rescue.pgrescue")
    workspace.create(shared=False)
    workspace.pgdata.mkdir()
    return Run(of or snapshot(), workspace, engine or FakeEngine(), StrategyName.CLEAN, 54321)


def finding(severity: Severity = Severity.INFO, **fields: Any) -> Finding:
    """Return a finding."""
    values = {"code": "code", "object": "object", "detail": "detail", "remedy": "remedy"}
    return Finding(**{**values, "severity": severity, **fields})


def let_others_pass(directory: Path) -> None:
    """Let every user enter a directory of a test's own, and read in it."""
    for above in (directory, *directory.parents):
        mode = above.stat().st_mode
        if not mode & 0o001:
            above.chmod(mode | 0o055)
