"""`backup_label` of an online backup: where its recovery must begin.

The same lines, and more, stand in the `<segment>.<offset>.backup` history file that the WAL archive keeps.
Written by `build_backup_content` (xlogbackup.c), read by `read_backup_label` (xlogrecovery.c).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, NoReturn

from pgrescue.errors import SnapshotError
from pgrescue.model import Lsn, Timeline
from pgrescue.snapshot.wal import SegmentName

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEX_LSN: Final = r"([0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8})"
_LOCATION: Final = re.compile(_HEX_LSN + r" \(file ([0-9A-F]{24})\)")
_LSN: Final = re.compile(_HEX_LSN)
_TIMELINE: Final = re.compile(r"\d{1,10}", re.ASCII)
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (UTC|GMT|[+-]\d\d(?::?\d\d)?)", re.ASCII)
_MAX_TIMELINE: Final = 0xFFFFFFFF


@dataclass(frozen=True, kw_only=True)
class BackupLabel:
    """What one backup says of itself; the `stop_…` values only stand in a history file.

    `method` is `streamed`, `pg_start_backup` (12 to 14) or `pg_rewind`. `start_time` is None where the zone is an
    abbreviation such as CET, which does not name an offset; `start_time_text` is the line as written.
    """

    start_lsn: Lsn
    start_segment: str
    checkpoint: Lsn
    start_timeline: Timeline
    method: str | None
    from_standby: bool
    start_time_text: str | None
    start_time: datetime | None
    label: str | None
    incremental_from_lsn: Lsn | None
    incremental_from_timeline: Timeline | None
    stop_lsn: Lsn | None
    stop_segment: str | None
    stop_timeline: Timeline | None

    @property
    def is_incremental(self) -> bool:
        """Tell whether the backup holds only changes, so that pg_combinebackup must join it to its parents first."""
        return self.incremental_from_lsn is not None


def parse_backup_label(text: str) -> BackupLabel:
    """Read backup_label or a backup history file of PostgreSQL 12 to 18.

    START WAL LOCATION and CHECKPOINT LOCATION must be there, as for the server; every line that is there must be
    right. Line ends may be CRLF here; the server itself refuses those. Raises SnapshotError naming the line.
    """
    lines = _lines(text)
    start_lsn, start_segment = _location(lines, "START WAL LOCATION")
    segment_timeline = SegmentName.parse(start_segment).timeline
    checkpoint = _lsn(lines, "CHECKPOINT LOCATION")
    if checkpoint is None:
        raise _missing("CHECKPOINT LOCATION")
    start_timeline = _timeline(lines, "START TIMELINE")
    if start_timeline is None:
        start_timeline = segment_timeline
    if start_timeline != segment_timeline:
        _refuse("START TIMELINE", f"{start_timeline}, and START WAL LOCATION names timeline {segment_timeline}")
    stop = _location(lines, "STOP WAL LOCATION") if "STOP WAL LOCATION" in lines else None
    source = lines.get("BACKUP FROM", "primary")
    if source not in {"primary", "standby"}:
        _refuse("BACKUP FROM", repr(source))
    return BackupLabel(
        start_lsn=start_lsn,
        start_segment=start_segment,
        checkpoint=checkpoint,
        start_timeline=start_timeline,
        method=lines.get("BACKUP METHOD"),
        from_standby=source == "standby",
        start_time_text=lines.get("START TIME"),
        start_time=_time(lines.get("START TIME", "")),
        label=lines.get("LABEL"),
        incremental_from_lsn=_lsn(lines, "INCREMENTAL FROM LSN"),
        incremental_from_timeline=_timeline(lines, "INCREMENTAL FROM TLI"),
        stop_lsn=None if stop is None else stop[0],
        stop_segment=None if stop is None else stop[1],
        stop_timeline=_timeline(lines, "STOP TIMELINE"),
    )


def _lines(text: str) -> Mapping[str, str]:
    """Split into `KEY: value`; the first line of a key counts, since a label may hold line breaks of its own."""
    found: dict[str, str] = {}
    for line in text.split("\n"):
        key, colon, value = line.removesuffix("\r").partition(": ")
        if colon:
            found.setdefault(key, value)
    return found


def _location(lines: Mapping[str, str], key: str) -> tuple[Lsn, str]:
    if key not in lines:
        raise _missing(key)
    match = _LOCATION.fullmatch(lines[key])
    if match is None:
        _refuse(key, repr(lines[key]))
    return Lsn.parse(match[1]), match[2]


def _lsn(lines: Mapping[str, str], key: str) -> Lsn | None:
    if key not in lines:
        return None
    if _LSN.fullmatch(lines[key]) is None:
        _refuse(key, repr(lines[key]))
    return Lsn.parse(lines[key])


def _timeline(lines: Mapping[str, str], key: str) -> Timeline | None:
    if key not in lines:
        return None
    if _TIMELINE.fullmatch(lines[key]) is None or not 0 < int(lines[key]) <= _MAX_TIMELINE:
        _refuse(key, repr(lines[key]))
    return Timeline(int(lines[key]))


def _time(text: str) -> datetime | None:
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    zone = "+00:00" if match[2] in {"UTC", "GMT"} else match[2]
    try:
        return datetime.fromisoformat(match[1] + zone)
    except ValueError:
        return None


def _missing(key: str) -> SnapshotError:
    return SnapshotError(
        f"backup_label has no line {key!r}",
        hint="It is cut short or is no backup_label; the backup's .backup file in the WAL archive has the same lines.",
    )


def _refuse(key: str, found: str) -> NoReturn:
    raise SnapshotError(
        f"backup_label has a line {key!r} that makes no sense: {found}",
        hint="The file was edited or damaged; the backup's .backup file in the WAL archive has the same lines.",
    )
