"""Which strategies a snapshot allows, and what would make a better one possible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgrescue.model import Lsn, StrategyName
from pgrescue.snapshot.control import DatabaseState
from pgrescue.snapshot.wal import SegmentName, SegmentState, segment_state, segments_between

if TYPE_CHECKING:
    from pgrescue.snapshot.contents import DataDirectory, Snapshot

_MOST_NAMED = 20


@dataclass(frozen=True)
class Option:
    """A strategy, whether the snapshot allows it, and why or why not in one sentence."""

    strategy: StrategyName
    reason: str
    possible: bool


@dataclass(frozen=True)
class Assessment:
    """All strategies, best first, and the WAL files whose presence would allow a consistent recovery.

    `missing_wal` ends early, with `missing_wal_is_open` set, where nobody can know the last file that is needed.
    """

    options: tuple[Option, ...]
    missing_wal: tuple[str, ...]
    missing_wal_is_open: bool

    @property
    def best(self) -> StrategyName:
        """The first strategy that is possible."""
        return next(option.strategy for option in self.options if option.possible)

    def after(self, strategy: StrategyName) -> StrategyName | None:
        """Return the next possible strategy after one that failed, None when there is none."""
        order = [option.strategy for option in self.options]
        later = self.options[order.index(strategy) + 1 :]
        return next((option.strategy for option in later if option.possible), None)


def assess(snapshot: Snapshot) -> Assessment:
    """Judge every strategy by what the snapshot holds; nothing is run."""
    directory = snapshot.chosen
    missing, is_open = _missing_wal(snapshot)
    options = (_clean(directory), _crash(directory), Option(StrategyName.RESET, "It needs nothing.", possible=True))
    return Assessment(options, missing, is_open)


def _clean(directory: DataDirectory) -> Option:
    control = directory.control
    obstacle = _made_by_backup(directory)
    if obstacle is None and control.state is not DatabaseState.SHUT_DOWN:
        obstacle = f"The server was not shut down: pg_control says {control.state.value!r}."
    if obstacle is None and (wrong := _wrong_segments(directory, control.redo, control.checkpoint)):
        obstacle = f"The WAL file with the shutdown checkpoint is not there: {wrong[0]}."
    reason = obstacle or "The server was shut down cleanly, and there is no backup_label."
    return Option(StrategyName.CLEAN, reason, possible=obstacle is None)


def _crash(directory: DataDirectory) -> Option:
    control = directory.control
    obstacle = _made_by_backup(directory)
    if obstacle is None and (wrong := _wrong_segments(directory, control.redo, control.checkpoint)):
        obstacle = f"The WAL from {control.redo} on is not complete: {', '.join(wrong[:_MOST_NAMED])}."
    reason = obstacle or f"There is no backup_label, and pg_wal holds the WAL from {control.redo} on."
    return Option(StrategyName.CRASH, reason, possible=obstacle is None)


def _made_by_backup(directory: DataDirectory) -> str | None:
    """Say why recovery must not begin at pg_control's checkpoint, None where it may."""
    if directory.backup_label is not None:
        return "There is a backup_label: the files were copied while the server ran, and recovery begins where it says."
    if directory.control.is_pgbackrest_mark:
        return "pgBackRest marked it as a copy that must start from a backup_label, which is not there."
    return None


def _wrong_segments(directory: DataDirectory, first: Lsn, last: Lsn) -> tuple[str, ...]:
    """Name the WAL files between two positions that pg_wal does not hold, each with what is wrong."""
    if first > last:
        return (f"pg_control's redo position {first} lies after its checkpoint {last}",)
    control = directory.control
    held = {file.name: file for file in directory.wal}
    size = control.wal_segment_size
    wrong = []
    for segment in segments_between(
        SegmentName.from_lsn(first, control.timeline, size), SegmentName.from_lsn(last, control.timeline, size), size
    ):
        file = held.get(str(segment))
        if file is None:
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


def _missing_wal(snapshot: Snapshot) -> tuple[tuple[str, ...], bool]:
    """Return the files that recovery from backup_label needs and pg_wal lacks, and whether there may be more."""
    directory, info = snapshot.chosen, snapshot.backup_info
    label = directory.backup_label
    if label is None:
        return (), False
    size = directory.control.wal_segment_size
    first = SegmentName.from_lsn(label.start_lsn, label.start_timeline, size)
    last = info.end_wal if info is not None and info.end_wal is not None else first
    held = {file.name for file in directory.wal}
    names = tuple(str(name) for name in segments_between(first, last, size) if str(name) not in held)
    return names, info is None or info.end_wal is None
