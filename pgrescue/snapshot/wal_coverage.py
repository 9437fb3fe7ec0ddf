"""Whether a WAL archive has what the recovery of a backup reads, and what the archive knows of the backup."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pgrescue.errors import SnapshotError
from pgrescue.model import Lsn
from pgrescue.snapshot.backup_label import parse_backup_label
from pgrescue.snapshot.timeline_history import TimelineHistory, parse_timeline_history, segments_along
from pgrescue.snapshot.wal_segment import SegmentReport, check_segment

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgrescue.model import Timeline
    from pgrescue.snapshot.backup_label import BackupLabel
    from pgrescue.snapshot.wal import SegmentName
    from pgrescue.snapshot.wal_archive import WalArchive

_ONLY_IN_HISTORY: Final = ("STOP WAL LOCATION: ", "STOP TIME: ", "STOP TIMELINE: ")
_SMALLEST_SEGMENT: Final = 1 << 20
_LAST_LSN: Final = Lsn((1 << 64) - 1)


@dataclass(frozen=True)
class Gap:
    """A file of the archive that recovery needs and cannot use; `reason` follows its name in a sentence."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How much of what recovery reads the archive has.

    `segments` are the names that were found usable, in the order of reading. `gaps` are the files that are missing or
    damaged between start and end. `valid_until` is how far the pages reach from the start without a gap, as far as
    was looked.

    Where nobody knows the end, `is_open` is true: `segments` are the run from the start, and the only gap is the file
    that ends it. That may be nothing worse than the end of what was archived.
    """

    start_lsn: Lsn
    end_lsn: Lsn | None
    timeline: Timeline
    segments: tuple[str, ...]
    gaps: tuple[Gap, ...]
    valid_until: Lsn

    @property
    def is_open(self) -> bool:
        """Tell whether the end was unknown, so that nobody can say whether the run reaches it."""
        return self.end_lsn is None

    @property
    def is_complete(self) -> bool:
        """Tell whether recovery finds all it needs up to a known end."""
        return self.end_lsn is not None and not self.gaps


def covers(
    archive: WalArchive,
    *,
    start_lsn: Lsn,
    start_timeline: Timeline,
    target_timeline: Timeline,
    end_lsn: Lsn | None,
    system_identifier: int,
    major: int,
    segment_size: int,
    on_segment: Callable[[SegmentName], None] | None = None,
) -> Coverage:
    """Read every segment from `start_lsn` (START WAL LOCATION) to `end_lsn`, the first byte that is not needed.

    Without `end_lsn`, as far as they reach without a gap. `on_segment` hears of each before it is read: one takes
    about as long as a copy of it, and one at a time is in memory. Raises SnapshotError where the range is none, where
    the history file of `target_timeline` makes no sense, or where it does not go through `start_lsn` on
    `start_timeline`; whatever is wrong with a segment is a gap.
    """
    if end_lsn is not None and end_lsn <= start_lsn:
        raise SnapshotError(
            f"the backup ends at {end_lsn}, before or where it begins ({start_lsn})",
            hint="Its label and what the archive says of it do not belong together, or are damaged.",
        )
    found = _Found(start_lsn)
    history = _history(archive, target_timeline, start_timeline)
    if history is None:
        found.gaps.append(Gap(TimelineHistory(target_timeline).name, "is missing"))
    elif history.timeline_at(start_lsn) != start_timeline:
        raise SnapshotError(
            f"timeline {target_timeline} does not descend from position {start_lsn} of timeline {start_timeline}",
            hint="Recover along another timeline: the backup's own, or one that left it after the backup.",
        )
    else:
        judge = _Judge(archive, system_identifier, major, segment_size, on_segment)
        for names in segments_along(history, start_lsn, end_lsn or _LAST_LSN, segment_size):
            found.add(judge.judge(names), end_lsn)
            if found.gaps and end_lsn is None:
                break
    return Coverage(
        start_lsn=start_lsn,
        end_lsn=end_lsn,
        timeline=target_timeline,
        segments=tuple(found.segments),
        gaps=tuple(found.gaps),
        valid_until=found.valid_until,
    )


def backup_end(archive: WalArchive, label: BackupLabel) -> Lsn | None:
    """Return where the backup of `label` ended, from its backup history file; None where the archive has none.

    A backup taken from a standby leaves none (do_pg_backup_stop, xlog.c). Raises SnapshotError where the file makes no
    sense.
    """
    for name in archive.backup_histories:
        segment, offset, _ = name.split(".")
        # The offset within the segment is the start's lowest bits, at least as many as the smallest segment has.
        if segment != label.start_segment or (int(offset, 16) - label.start_lsn.position) % _SMALLEST_SEGMENT:
            continue
        try:
            found = parse_backup_label(archive.read_text(name))
        except SnapshotError as error:
            raise SnapshotError(f"{name} in the WAL archive: {error.problem}", hint=error.hint) from error
        if (found.start_lsn, found.checkpoint) == (label.start_lsn, label.checkpoint):
            return found.stop_lsn
    return None


def label_from_history(text: str) -> str:
    """Return the backup_label of the backup that a backup history file tells of (reference/formats.md §5).

    It has the same lines without those of the stop, and line ends as the server wants them. Raises SnapshotError for
    what is no backup history file.
    """
    if parse_backup_label(text).stop_lsn is None:
        raise SnapshotError(
            "the backup history file has no line 'STOP WAL LOCATION'",
            hint="It is cut short: without the end, nobody knows whether the backup ended well.",
        )
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return "\n".join(line for line in lines if not line.startswith(_ONLY_IN_HISTORY)).rstrip("\n") + "\n"


def _history(archive: WalArchive, target: Timeline, start: Timeline) -> TimelineHistory | None:
    """Read the target's history; without a file a timeline has no ancestors, which will do for the start's only."""
    name = TimelineHistory(target).name
    if name in archive.histories:
        return parse_timeline_history(target, archive.read_text(name))
    return TimelineHistory(target) if target == start else None


@dataclass
class _Found:
    """What was found on the way from the start; see Coverage."""

    valid_until: Lsn
    segments: list[str] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)

    def add(self, report: SegmentReport | Gap, end_lsn: Lsn | None) -> None:
        """Take in the next segment, which must be whole unless the end lies in it."""
        if isinstance(report, Gap):
            self.gaps.append(report)
            return
        in_run = not self.gaps
        is_enough = report.is_whole if end_lsn is None else report.holds(end_lsn)
        if not is_enough:
            self.gaps.append(Gap(str(report.name), report.problem))
        if in_run and report.valid_until > self.valid_until:
            self.valid_until = report.valid_until
            is_enough = is_enough or end_lsn is None  # an open run goes as far into its last segment as that is valid
        if is_enough:
            self.segments.append(str(report.name))


@dataclass(frozen=True)
class _Judge:
    """The archive's segments, against what pg_control says."""

    archive: WalArchive
    system_identifier: int
    major: int
    segment_size: int
    on_segment: Callable[[SegmentName], None] | None

    def judge(self, names: tuple[SegmentName, ...]) -> SegmentReport | Gap:
        """Judge the file that the server would read: the first of the names that the archive has."""
        name = next((name for name in names if str(name) in self.archive.segments), None)
        if name is None:
            partial = next((name for name in names if f"{name}.partial" in self.archive.partial_segments), None)
            only = "" if partial is None else f"; {partial}.partial is there, which a server does not ask for"
            return Gap(str(names[0]), f"is missing{only}")
        if self.on_segment is not None:
            self.on_segment(name)
        try:
            data = self.archive.read(str(name), limit_bytes=self.segment_size)
        except SnapshotError as error:
            return Gap(str(name), f"cannot be read: {error.problem}")
        return check_segment(
            name,
            data,
            system_identifier=self.system_identifier,
            major=self.major,
            segment_size=self.segment_size,
        )
