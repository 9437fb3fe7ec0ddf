"""Step: every page of the copy's files was looked at, while nothing was changing them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgrescue.engine.interface import ServerState
from pgrescue.files import write_atomically
from pgrescue.model import BlockMap, DamagedBlocks, Finding, VerifyLevel
from pgrescue.pipeline import Observer, Unit
from pgrescue.snapshot.contents import CONTROL
from pgrescue.snapshot.control import DatabaseState
from pgrescue.snapshot.page_damage import BlockDamage
from pgrescue.steps.control import read_control
from pgrescue.steps.single_user import single_user
from pgrescue.verify.files import PG_CHECKSUMS, checksum_arguments, checksum_findings, page_findings

if TYPE_CHECKING:
    from pgrescue.run import Run
    from pgrescue.snapshot.control import ControlFile
    from pgrescue.snapshot.page_damage import DamagedFile, PageCheck
    from pgrescue.workspace import Workspace


@dataclass(frozen=True)
class FileCheck:
    """What was found: findings whose objects are paths, and the damaged blocks of each file."""

    findings: tuple[Finding, ...]
    blocks: tuple[BlockMap, ...]

    @classmethod
    def load(cls, workspace: Workspace) -> FileCheck:
        """Read what the last check wrote; nothing where none ran."""
        if not workspace.checked_files.exists():
            return cls((), ())
        document: dict[str, Any] = json.loads(workspace.checked_files.read_text())
        return cls(
            tuple(Finding.from_document(found) for found in document["findings"]),
            tuple(
                BlockMap(
                    item["relation"],
                    item["file"],
                    item["blocks"],
                    tuple(DamagedBlocks(**run) for run in item["damaged"]),
                )
                for item in document["blocks"]
            ),
        )


class CheckFiles:
    """One pass over all pages, and pg_checksums where the cluster has checksums; both want a server that is down."""

    name = "check-files"
    title = "Check every page of the files"

    def holds(self, run: Run) -> bool:
        """Tell whether it was done, or is not wanted."""
        return run.verify is VerifyLevel.NONE or run.workspace.checked_files.exists()

    def apply(self, run: Run, observer: Observer) -> None:
        """Stop the server where one runs, and look at all files."""
        if run.engine.status().state is ServerState.RUNNING:
            run.engine.stop()
        control = _shut_down(run)
        total_bytes = run.snapshot.chosen.size_bytes
        read_bytes = 0

        def advance(more: int) -> None:
            nonlocal read_bytes
            read_bytes += more
            observer.advanced(read_bytes, max(total_bytes, read_bytes), Unit.BYTES)

        from pgrescue.snapshot.page_check import check_pages  # noqa: PLC0415 - numpy takes 0.2 s to import

        def look(*, checksums: bool) -> PageCheck:
            return check_pages(
                run.workspace.pgdata,
                block_size=control.block_size,
                segment_blocks=control.relation_segment_blocks,
                end_of_wal=control.checkpoint,
                checksums=checksums,
                on_progress=advance,
            )

        pages = look(checksums=False)
        told: tuple[Finding, ...] = ()
        if control.has_checksums:
            pgdata = run.engine.path(run.workspace.pgdata)
            done = run.engine.run(PG_CHECKSUMS, checksum_arguments(pgdata))
            told = checksum_findings(done, pgdata=pgdata)
            if told:
                # It found damage, of which this pass says where, or a file that is none of PostgreSQL's stopped it.
                pages = look(checksums=True)
                told = () if BlockDamage.CHECKSUM in pages.counts or _could_not_run(told) else told
        document = {
            "findings": [dataclasses.asdict(finding) for finding in (*page_findings(pages), *told)],
            "blocks": [dataclasses.asdict(_block_map(file)) for file in pages.damaged],
        }
        write_atomically(run.workspace.checked_files, json.dumps(document, indent=1) + "\n")

    def findings(self, run: Run) -> tuple[Finding, ...]:  # noqa: ARG002 - every step is asked the same
        """Nothing yet: the server has to say which tables the damaged files belong to (NameDamage)."""
        return ()


def _shut_down(run: Run) -> ControlFile:
    """Return pg_control of a server that was shut down; one that was killed meanwhile is recovered first."""
    control = read_control(run.workspace.pgdata / CONTROL)
    if control.state is DatabaseState.SHUT_DOWN:
        return control
    single_user(run, "", log="check-files.log")
    return read_control(run.workspace.pgdata / CONTROL)


def _could_not_run(findings: tuple[Finding, ...]) -> bool:
    return all(finding.code == "check_not_run" for finding in findings)


def _block_map(file: DamagedFile) -> BlockMap:
    damaged = tuple(DamagedBlocks(run.first, run.last, run.kind.value) for run in file.runs)
    # Of a file that ends too early, the blocks that should be there count.
    return BlockMap(file.path, file.path, max(file.blocks, *(run.last + 1 for run in file.runs), 1), damaged)
