"""Which WAL of an archive lies behind the end of a replay that was to use all of it, and why it was not used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgrescue.model import Latest, Lsn, Timeline
from pgrescue.snapshot.contents import CONTROL
from pgrescue.snapshot.timeline_history import (
    TimelineHistory,
    parse_timeline_history,
    read_histories,
    segments_along,
)
from pgrescue.snapshot.wal import SegmentName
from pgrescue.snapshot.wal_segment import check_segment
from pgrescue.steps.control import read_control
from pgrescue.steps.replay_log import is_damage, logged_replay

if TYPE_CHECKING:
    from pgrescue.run import Run
    from pgrescue.snapshot.wal_archive import WalArchive
    from pgrescue.snapshot.wal_segment import SegmentReport
    from pgrescue.steps.wal_service import Served


def unreplayed(run: Run, served: Served) -> dict[str, Any]:
    """Return, ready for JSON, where the replay ended, the archive's files behind it, and what kept them from use.

    `behind` and `why` are empty where all WAL was used, where a target was to be reached, and without an archive.
    """
    end = end_of_replay(run)
    document: dict[str, Any] = {"end": str(end or ""), "archive": "", "behind": [], "why": ""}
    archive = run.wal.archive
    if archive is None or end is None or not isinstance(run.wal.until, Latest):
        return document
    history = _followed(run, archive)
    behind = _behind(run, archive, history, end)
    reasons = list(served.unusable.values()) or _reasons(run, archive, history, end, goes_on=bool(behind))
    return {**document, "archive": str(archive.root), "behind": behind, "why": "; ".join(reasons)}


def end_of_replay(run: Run) -> Lsn | None:
    """Return the position behind the last record that was replayed: there the server began a timeline of its own."""
    pgdata = run.workspace.pgdata
    timeline = read_control(pgdata / CONTROL).timeline
    file = pgdata / "pg_wal" / TimelineHistory(timeline).name
    if not file.exists():
        return None
    entries = parse_timeline_history(timeline, file.read_text(errors="replace")).entries
    return entries[-1].switch_lsn if entries else None


def _size(run: Run) -> int:
    return run.snapshot.chosen.control.wal_segment_size


def _followed(run: Run, archive: WalArchive) -> TimelineHistory:
    timeline = run.wal.timeline or run.snapshot.chosen.control.timeline
    known = {history.timeline: history for history in read_histories(archive)}
    return known.get(timeline, TimelineHistory(timeline))


def _behind(run: Run, archive: WalArchive, history: TimelineHistory, end: Lsn) -> list[str]:
    """Name the files that begin at the end of the replay or behind it, on the way that it was to take."""
    found = []
    for name in archive.segments:
        start = SegmentName.parse(name).start_lsn(_size(run))
        if start >= end and Timeline(int(name[:8], 16)) in {history.timeline, history.timeline_at(start)}:
            found.append(name)
    return found


def _reasons(run: Run, archive: WalArchive, history: TimelineHistory, end: Lsn, *, goes_on: bool) -> list[str]:
    """Say why the replay ended where it did; empty where that is the end of what was written.

    `goes_on` tells that the archive has files behind it.
    """
    complaint = logged_replay(run.workspace).complaint
    said = f" (the server says: {complaint})" if complaint else ""
    names = next(iter(segments_along(history, end, Lsn(end.position + 1), _size(run))))
    name = next((name for name in names if str(name) in archive.segments), None)
    if name is None:
        is_partial = any(f"{name}.partial" in archive.partial_segments for name in names)
        missing = names[0].next(_size(run)) if is_partial else names[0]
        return [f"{missing} is missing"] if goes_on else []
    following = {str(name.next(_size(run))) for name in names}
    report = _report(run, archive, name)
    if is_damage(complaint) or _has_hole(run, archive, name, report, end):
        return [f"The WAL is damaged at {end}{said}"]
    if not goes_on:
        return []
    if following.isdisjoint(archive.segments):
        return [f"{names[0].next(_size(run))} is missing"]
    return [f"{name} {report.problem}" if report.problem else f"The server could not read on at {end}{said}"]


def _report(run: Run, archive: WalArchive, name: SegmentName) -> SegmentReport:
    control = run.snapshot.chosen.control
    return check_segment(
        name,
        archive.read(str(name), limit_bytes=control.wal_segment_size),
        system_identifier=control.system_identifier,
        major=control.major,
        segment_size=control.wal_segment_size,
    )


def _has_hole(run: Run, archive: WalArchive, name: SegmentName, report: SegmentReport, end: Lsn) -> bool:
    """Tell whether zeros where the next record should be have pages of WAL behind them in the same file."""
    size, block = _size(run), run.snapshot.chosen.control.block_size
    at = end.position - name.start_lsn(size).position
    rest_of_page = archive.read(str(name), limit_bytes=size)[at : -(-at // block) * block]
    is_empty = bool(rest_of_page) and not any(rest_of_page)
    return is_empty and report.valid_until > Lsn(end.position + len(rest_of_page))
