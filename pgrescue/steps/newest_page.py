"""The newest page of the copy, which tells how far the WAL position must be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgrescue.model import Finding, Severity
from pgrescue.pipeline import Observer, Unit
from pgrescue.snapshot.contents import CONTROL
from pgrescue.steps.control import read_control

if TYPE_CHECKING:
    from pgrescue.run import Run
    from pgrescue.snapshot.pages import PageScan


def scan(run: Run, observer: Observer) -> PageScan:
    """Read every page of the copy once; see `scan_pages`."""
    from pgrescue.snapshot.pages import scan_pages  # noqa: PLC0415 - numpy takes 0.2 s to import; few commands scan

    control = read_control(run.workspace.pgdata / CONTROL)
    total_bytes = run.snapshot.chosen.size_bytes
    read_bytes = 0

    def advance(more: int) -> None:
        nonlocal read_bytes
        read_bytes += more
        observer.advanced(read_bytes, total_bytes, Unit.BYTES)

    return scan_pages(run.workspace.pgdata, block_size=control.block_size, near=control.checkpoint, on_progress=advance)


def outliers_document(found: PageScan) -> list[dict[str, Any]]:
    """Return the damaged pages of a scan, ready for JSON."""
    return [{"lsn": str(item.lsn), "at": item.at, "pages": item.pages} for item in found.outliers]


def implausible_pages(outliers: list[dict[str, Any]]) -> tuple[Finding, ...]:
    """Name the files whose pages were left out because their LSN cannot be true."""
    return tuple(
        Finding(
            "page_lsn_implausible",
            Severity.WARNING,
            item["at"],
            f"{item['pages']} pages of this file claim WAL positions up to {item['lsn']}, far past those of all other "
            "files: they are damaged, and were left out when the newest page was looked for.",
            "Look at the table or index that the file belongs to (pg_filenode_relation).",
        )
        for item in outliers
    )
