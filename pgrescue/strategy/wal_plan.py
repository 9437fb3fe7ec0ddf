"""The WAL for a snapshot: where it lies, whether it is enough, which timeline to follow, how far it goes."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgrescue.errors import SnapshotError
from pgrescue.model import Latest, Lsn, Timeline
from pgrescue.run import WalPlan
from pgrescue.snapshot.backup_label import BackupLabel, parse_backup_label
from pgrescue.snapshot.timeline_history import choose_timeline, read_histories
from pgrescue.snapshot.wal import (
    HEADER_SIZE,
    SegmentName,
    SegmentState,
    parse_long_page_header,
    segment_state,
    segments_between,
)
from pgrescue.snapshot.wal_archive import WalArchive, read_archive
from pgrescue.snapshot.wal_beside import find_wal_beside, find_wal_tar_beside
from pgrescue.snapshot.wal_coverage import Coverage, backup_end, covers, label_from_history

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pgrescue.model import Until
    from pgrescue.snapshot.contents import DataDirectory, Snapshot

_MANIFEST = "backup_manifest"
_CUT = "is valid only up to"  # SegmentReport.problem of a file whose first pages can be replayed


@dataclass(frozen=True)
class WalRequest:
    """What the user asked for: `path` is where WAL lies, None to look beside the snapshot."""

    path: Path | None = None
    until: Until = field(default_factory=Latest)


def plan_wal(
    snapshot: Snapshot, request: WalRequest, *, on_segment: Callable[[SegmentName], None] | None = None
) -> WalPlan:
    """Find the WAL, and read what the backup needs of it from its beginning to its end.

    `on_segment` hears of each segment before it is read. Raises SnapshotError where the path that the user named holds
    no WAL; WAL that was only found beside the snapshot, and cannot be understood, counts as none.
    """
    if request.path is not None:
        return _plan(snapshot, read_archive(request.path.absolute()), request.until, on_segment)
    plans: list[WalPlan] = []
    for path in (find_wal_beside(snapshot.path), find_wal_tar_beside(snapshot.path)):
        if path is not None and _needs_archive(snapshot.chosen):
            with contextlib.suppress(SnapshotError):
                plans.append(_plan(snapshot, read_archive(path), request.until, on_segment))
    covered = (plan for plan in plans if plan.is_covered)
    found = next(covered, None) or next(iter(plans), None)
    if found is None or (found.is_inside and _is_strangers(found.archive, snapshot.chosen)):
        return _plan(snapshot, None, request.until, on_segment)
    return found


def _is_strangers(archive: WalArchive | None, directory: DataDirectory) -> bool:
    """Tell whether an archive's last file is another cluster's: then its history files are, too."""
    control = directory.control
    if archive is None or not archive.segments:
        return False
    name = max(archive.segments, key=lambda name: name[8:])
    try:
        head = archive.read(name, limit_bytes=control.wal_segment_size)[:HEADER_SIZE]
    except SnapshotError:
        return False
    header = parse_long_page_header(head)
    return header is not None and header.system_identifier != control.system_identifier


def _needs_archive(directory: DataDirectory) -> bool:
    """Tell whether WAL that merely lies near may be the copy's: without a label, nothing proves that it goes on there.

    What the user names is another matter.
    """
    return directory.backup_label is not None or directory.control.is_pgbackrest_mark


def _plan(
    snapshot: Snapshot, archive: WalArchive | None, until: Until, on_segment: Callable[[SegmentName], None] | None
) -> WalPlan:
    directory = snapshot.chosen
    label, text = _label(directory, archive)
    if label is None:
        size = directory.control.wal_segment_size
        first = SegmentName.from_lsn(directory.control.redo, directory.control.timeline, size)
        return WalPlan(archive, until, str(first), reaches=_run_from(first, _held(directory, archive), size))
    end = _end(snapshot, archive, label)
    timeline = label.start_timeline
    if archive is not None:
        histories = read_histories(archive)
        timeline = choose_timeline(
            histories, start_timeline=label.start_timeline, start_lsn=label.start_lsn, end_lsn=end
        )
    inside = _wrong_inside(directory, label, end)
    coverage = None
    if archive is not None:
        # Where the end is unknown, the first file is all that is known to be needed: the server finds out the rest.
        first = SegmentName.parse(label.start_segment)
        size = directory.control.wal_segment_size
        coverage = covers(
            archive,
            start_lsn=label.start_lsn,
            start_timeline=label.start_timeline,
            target_timeline=timeline,
            end_lsn=end or first.next(size).start_lsn(size),
            system_identifier=directory.control.system_identifier,
            major=directory.control.major,
            segment_size=size,
            on_segment=on_segment,
        )
    # Where the archive has nothing of use, the server looks into pg_wal.
    sound_inside = _sound_inside(directory)
    gaps = () if coverage is None else tuple(str(gap) for gap in coverage.gaps if gap.name not in sound_inside)
    missing = inside if coverage is None or not inside else gaps
    return WalPlan(
        archive=archive,
        until=until,
        first_segment=label.start_segment,
        timeline=timeline,
        backup_end=end,
        reaches=_reach(archive, directory, label, coverage),
        missing=missing,
        is_inside=not inside,
        is_covered=coverage is not None and not gaps,
        run_from_start=_run_from_start(label, sound_inside | _usable(archive, coverage), directory),
        label=text,
    )


def _usable(archive: WalArchive | None, coverage: Coverage | None) -> set[str]:
    """Name the archive's files but for those that were read and are of no use."""
    if archive is None or coverage is None:
        return set()
    return set(archive.segments) - {gap.name for gap in coverage.gaps if _CUT not in gap.reason}


def _run_from_start(label: BackupLabel, held: set[str], directory: DataDirectory) -> tuple[str, ...]:
    """Name the files from the backup's first one up to the first gap, on the backup's own timeline."""
    names: list[str] = []
    segment = SegmentName.parse(label.start_segment)
    while str(segment) in held:
        names.append(str(segment))
        segment = segment.next(directory.control.wal_segment_size)
    return tuple(names)


def _label(directory: DataDirectory, archive: WalArchive | None) -> tuple[BackupLabel | None, str | None]:
    """Return the backup's label, and its text where only the archive still has it.

    pgBackRest marks a copy that must start from its label (formats.md §5): then the backup is the one whose start and
    end enclose pg_control's redo position.
    """
    if directory.backup_label is not None:
        return directory.backup_label, None
    if archive is None or not directory.control.is_pgbackrest_mark:
        return None, None
    fitting = []
    for name in archive.backup_histories:
        text = archive.read_text(name)
        label = parse_backup_label(text)
        if label.stop_lsn is not None and label.start_lsn <= directory.control.redo <= label.stop_lsn:
            fitting.append((label.start_lsn, label_from_history(text)))
    if not fitting:
        return None, None
    text = max(fitting)[1]
    return parse_backup_label(text), text


def _end(snapshot: Snapshot, archive: WalArchive | None, label: BackupLabel) -> Lsn | None:
    """Return where the backup becomes consistent: as its tool, its history file or, from a standby, pg_control says."""
    info, control = snapshot.backup_info, snapshot.chosen.control
    if info is not None and info.end_lsn:
        return info.end_lsn
    if label.from_standby and control.min_recovery_point > label.start_lsn:
        return control.min_recovery_point
    if archive is not None and (told := backup_end(archive, label)):
        return told
    return _end_in_manifest(snapshot.path, label)


def _end_in_manifest(path: Path, label: BackupLabel) -> Lsn | None:
    """Read the end from pg_basebackup's backup_manifest beside base.tar, or in the directory that it wrote.

    A manifest of another backup lies in copies of servers that were restored from one: its start tells.
    """
    beside = (path if path.is_dir() else path.parent) / _MANIFEST
    try:
        ranges = json.loads(beside.read_text())["WAL-Ranges"]
        starts = [Lsn.parse(str(item["Start-LSN"])) for item in ranges]
        ends = [Lsn.parse(str(item["End-LSN"])) for item in ranges]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return max(ends) if starts and min(starts) == label.start_lsn else None


def _wrong_inside(directory: DataDirectory, label: BackupLabel, end: Lsn | None) -> tuple[str, ...]:
    """Name the WAL files from the backup's start to its end that pg_wal lacks; the end's first byte is not needed."""
    last = label.start_lsn if end is None else Lsn(max(end.position - 1, label.start_lsn.position))
    return wrong_segments(directory, label.start_lsn, last, label.start_timeline)


def wrong_segments(
    directory: DataDirectory, first: Lsn, last: Lsn, timeline: Timeline, archive: WalArchive | None = None
) -> tuple[str, ...]:
    """Name the WAL files between two positions that neither pg_wal nor `archive` holds, each with what is wrong."""
    control = directory.control
    if first > last:
        return (f"pg_control's redo position {first} lies after its checkpoint {last}",)
    held = {file.name: file for file in directory.wal}
    size = control.wal_segment_size
    wrong = []
    for segment in segments_between(
        SegmentName.from_lsn(first, timeline, size), SegmentName.from_lsn(last, timeline, size), size
    ):
        file = held.get(str(segment))
        if file is None:
            if archive is None or str(segment) not in archive.segments:
                wrong.append(f"{segment} is missing")
            continue
        state = segment_state(
            segment,
            file.header,
            system_identifier=control.system_identifier,
            major=control.major,
            segment_size=size,
        )
        if state is not SegmentState.VALID:
            wrong.append(f"{segment} {state.value}")
        elif file.size_bytes != size:
            wrong.append(f"{segment} has {file.size_bytes} of {size} bytes")
    return tuple(wrong)


def _sound_inside(directory: DataDirectory) -> set[str]:
    """Name the files in pg_wal that are what their names say."""
    control = directory.control
    return {
        file.name
        for file in directory.wal
        if (name := SegmentName.find(file.name)) is not None
        and not name.partial
        and file.size_bytes == control.wal_segment_size
        and segment_state(
            name,
            file.header,
            system_identifier=control.system_identifier,
            major=control.major,
            segment_size=control.wal_segment_size,
        )
        is SegmentState.VALID
    }


def _held(directory: DataDirectory, archive: WalArchive | None) -> set[str]:
    return {file.name for file in directory.wal if file.header is not None} | set(archive.segments if archive else ())


def _reach(archive: WalArchive | None, directory: DataDirectory, label: BackupLabel, coverage: Coverage | None) -> Lsn:
    """Return how far the WAL goes without a gap, by the files' names, on whatever timeline."""
    last = coverage.segments[-1] if coverage is not None and coverage.segments else label.start_segment
    return _run_from(SegmentName.parse(last), _held(directory, archive), directory.control.wal_segment_size)


def _run_from(first: SegmentName, held: set[str], size: int) -> Lsn:
    """Return the end of the unbroken run of files that begins with `first`."""
    places = {name[8:] for name in held}
    last = first
    while str(last.next(size))[8:] in places:
        last = last.next(size)
    return last.next(size).start_lsn(size)
