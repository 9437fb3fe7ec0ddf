"""Timeline history files (`00000003.history`): from which timelines a timeline descends, and where it left each.

The rules are those of `readTimeLineHistory` and `tliOfPointInHistory` (timeline.c), and of `XLogFileReadAnyTLI`
(xlogrecovery.c).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pgrescue.errors import SnapshotError
from pgrescue.model import Lsn, Timeline
from pgrescue.snapshot.wal import SegmentName

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pgrescue.snapshot.wal_archive import WalArchive

_LINE: Final = re.compile(r"\s*(\d{1,10})\s+([0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8})(?:\s+(.*))?", re.ASCII)
_MAX_TIMELINE: Final = 0xFFFFFFFF


@dataclass(frozen=True)
class TimelineSwitch:
    """An ancestor timeline, the first position that is not on it any more, and why the server left it."""

    timeline: Timeline
    switch_lsn: Lsn
    reason: str = ""


@dataclass(frozen=True)
class TimelineHistory:
    """A timeline and its ancestors, the oldest first; a timeline without ancestors has no entries."""

    timeline: Timeline
    entries: tuple[TimelineSwitch, ...] = ()

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.timeline:08X}.history"

    def timeline_at(self, lsn: Lsn) -> Timeline:
        """Return the timeline that the byte at `lsn` belongs to; a switch position belongs to the new timeline."""
        return next((entry.timeline for entry in self.entries if lsn < entry.switch_lsn), self.timeline)

    def switch_from(self, timeline: Timeline) -> Lsn | None:
        """Return where `timeline` was left; None where it is no ancestor."""
        return next((entry.switch_lsn for entry in self.entries if entry.timeline == timeline), None)


def parse_timeline_history(timeline: Timeline, text: str) -> TimelineHistory:
    r"""Read the history file of `timeline`: lines of `parent<tab>switch position<tab>reason`, comments, empty lines.

    Timelines must ascend to `timeline`, as for the server. Raises SnapshotError naming the line, counted from 1.
    """
    entries: list[TimelineSwitch] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            raise _wrong(timeline, number, f"expected a timeline and a position such as 0/3000000, found {line!r}")
        parent = int(match[1])
        if not 0 < parent <= _MAX_TIMELINE or (entries and parent <= entries[-1].timeline):
            raise _wrong(timeline, number, f"timeline {parent} does not follow the one before it")
        if parent >= timeline:
            raise _wrong(timeline, number, f"timeline {parent} is no ancestor of timeline {timeline}")
        entries.append(TimelineSwitch(Timeline(parent), Lsn.parse(match[2]), match[3] or ""))
    return TimelineHistory(timeline, tuple(entries))


def read_histories(archive: WalArchive) -> tuple[TimelineHistory, ...]:
    """Read all history files of an archive, in ascending order; raise SnapshotError for one that makes no sense."""
    return tuple(
        parse_timeline_history(Timeline(int(name[:8], 16)), archive.read_text(name)) for name in archive.histories
    )


def choose_timeline(
    histories: Iterable[TimelineHistory], *, start_timeline: Timeline, start_lsn: Lsn, end_lsn: Lsn | None = None
) -> Timeline:
    """Return the newest timeline to which recovery can go from `start_lsn` on `start_timeline`, else that one itself.

    It must have left `start_timeline` after `start_lsn`, and not before `end_lsn`, the end of the backup, where that
    is known: else the server refuses it (`requested timeline … is not a child of this server's history`, or
    `… does not contain minimum recovery point`). `recovery_target_timeline = 'latest'` is not the same: the server
    then takes the last of unbroken numbers, child or not (findNewestTimeLine), so name the timeline that this returns.
    """

    def leads_on(history: TimelineHistory) -> bool:
        left_at = history.switch_from(start_timeline)
        return (
            left_at is not None
            and history.timeline_at(start_lsn) == start_timeline
            and (end_lsn is None or left_at >= end_lsn)
        )

    return max((history.timeline for history in histories if leads_on(history)), default=start_timeline)


def segments_along(
    history: TimelineHistory, first_lsn: Lsn, last_lsn: Lsn, segment_size: int
) -> Iterator[tuple[SegmentName, ...]]:
    """Yield, for every segment from the byte at `first_lsn` to the byte before `last_lsn`, the names it may be under.

    The server takes the first of these that the archive has: the newest timeline's that began in the segment or before
    it. An older timeline's will do where that one was left only at the end of what is needed of the segment, or behind
    it. Nothing is yielded for an empty range. Raises SnapshotError for an impossible segment size.
    """
    first = SegmentName.from_lsn(first_lsn, history.timeline, segment_size).number(segment_size)
    begin = 0
    spans: list[tuple[Timeline, int, int | None]] = []
    for entry in history.entries:
        spans.append((entry.timeline, begin, entry.switch_lsn.position))
        begin = entry.switch_lsn.position
    spans.append((history.timeline, begin, None))
    for number in range(first, -(-last_lsn.position // segment_size)):
        end = min((number + 1) * segment_size, last_lsn.position)
        yield tuple(
            SegmentName.from_number(number, timeline, segment_size)
            for timeline, begins_at, left_at in reversed(spans)
            if begins_at // segment_size <= number and (left_at is None or left_at >= end)
        )


def _wrong(timeline: Timeline, number: int, problem: str) -> SnapshotError:
    return SnapshotError(
        f"{timeline:08X}.history, line {number}: {problem}",
        hint="The file was edited or damaged: take it from the server's pg_wal, or from a copy of the archive.",
    )
