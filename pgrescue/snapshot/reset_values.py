"""The values that pg_resetwal is given, so that nothing in the copy lies in the server's future.

Rules: the pg_resetwal manual, reference/formats.md §9 and reference/reset.md, "Choosing reset values".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pgrescue.errors import SnapshotError
from pgrescue.model import Lsn
from pgrescue.snapshot.slru import (
    SPACE,
    Slru,
    multixact_members,
    multixact_offsets,
    next_segment,
    segment_numbers,
    transactions,
)
from pgrescue.snapshot.wal import SegmentName

if TYPE_CHECKING:
    from collections.abc import Collection

    from pgrescue.snapshot.control import ControlFile

WAL_MARGIN_SEGMENTS: Final = 16
"""WAL files skipped above the highest position seen, for changes that no relation page shows."""

_MAX_EPOCH: Final = 0xFFFFFFFE


@dataclass(frozen=True)
class ResetValue:
    """One option of pg_resetwal with its value, and in one sentence for a person where the value comes from."""

    option: str
    value: str
    derivation: str


@dataclass(frozen=True)
class ResetPlan:
    """What pg_resetwal is told; `warnings` are sentences on damage that no value cures."""

    values: tuple[ResetValue, ...]
    warnings: tuple[str, ...] = ()

    def arguments(self) -> tuple[str, ...]:
        """Return the options as a command line has them, without `-f` and the directory."""
        return tuple(word for value in self.values for word in (value.option, value.value))


def compute_reset_values(
    control: ControlFile,
    *,
    xact: Collection[str],
    offsets: Collection[str],
    members: Collection[str],
    max_page_lsn: Lsn | None,
    end_wal: Lsn | None,
    wal_names: Collection[str],
    margin_segments: int = WAL_MARGIN_SEGMENTS,
) -> ResetPlan:
    """Return values past everything that the copy holds, and never below pg_control's own.

    `xact`, `offsets` and `members` are the file names in pg_xact and pg_multixact, `wal_names` those in pg_wal and
    any archive; names of other files are ignored. `end_wal` is the backup's end as backup.info or a .backup file
    says. `-o`, `-c` and `-u` are left to pg_control. Raises SnapshotError where a number leaves its range.
    """
    epoch, next_xid = divmod(control.next_xid, SPACE)
    xid = _go_on(transactions(control.block_size), next_xid, xact)
    multi = _go_on(multixact_offsets(control.block_size), control.next_multi, offsets)
    member = _go_on(multixact_members(control.block_size), control.next_multi_offset, members)
    oldest_multi = max(control.oldest_multi, 1)
    values = (
        ResetValue("-x", f"{xid.value:#x}", f"Next transaction id: {xid.reason}."),
        *((_epoch(epoch),) if xid.wrapped else ()),
        ResetValue(
            "-m",
            f"{multi.value:#x},{oldest_multi:#x}",
            f"Next multixact id: {multi.reason}; the oldest, {oldest_multi:#x}, stays.",
        ),
        ResetValue("-O", f"{member.value:#x}", f"Next multixact member: {member.reason}."),
        _wal_position(control, max_page_lsn, end_wal, wal_names, margin_segments),
    )
    return ResetPlan(values, xid.warnings + multi.warnings + member.warnings)


@dataclass(frozen=True)
class _Next:
    """Where one counter goes on; `wrapped` where that is past its end, counted from its beginning again."""

    value: int
    wrapped: bool
    reason: str
    warnings: tuple[str, ...]


def _go_on(area: Slru, current: int, names: Collection[str]) -> _Next:
    """Find the first file from `current` on that does not exist, and the first number in it.

    That number stands at the beginning of a page, which the server makes when it gets there; for any other number the
    page must exist (TrimCLOG, TrimMultiXact). Number 0 is not handed out: there the second page begins instead.
    """
    last = area.last_segment
    existing = segment_numbers(names, last=last)
    own = current // area.per_segment
    segment, wrapped = next_segment(existing, own, last=last)
    warnings: tuple[str, ...] = ()
    note = " (not begun yet)" if segment == own else ""
    if segment == own and current % area.per_segment:
        warnings = (_missing(area, own, current),)
        note = " (missing)"
        segment, _ = next_segment(existing, (own + 1) % (last + 1), last=last)
        wrapped = segment <= own
    value = segment * area.per_segment
    arithmetic = f"{segment:#x} * {area.per_segment:#x} = {value:#x}"
    if value < area.least:
        value = area.per_page
        arithmetic = f"its second page, {value:#x}, because {area.least} is the first number in use"
    beyond = _beyond_gap(area, existing, own, segment)
    if beyond is not None:
        warnings += (beyond,)
    reason = (
        f"pg_control says {current:#x}, in file {own:04X} of {area.directory}{note}; "
        f"the first free file from there{', past the wrap,' if wrapped else ''} is {segment:04X}: {arithmetic}"
    )
    return _Next(value, wrapped, reason, warnings)


def _missing(area: Slru, own: int, current: int) -> str:
    return (
        f"{area.directory}/{own:04X}, in which pg_control's next number {current:#x} lies, is missing: "
        "rows that refer to it cannot be read, and the next number was taken from the file after it."
    )


def _beyond_gap(area: Slru, existing: frozenset[int], own: int, free: int) -> str | None:
    """Say which files lie ahead of the free one: less than half of the circle ahead is the future, more is the past."""
    circle = area.last_segment + 1
    reach = (free - own) % circle
    ahead = sorted(number for number in existing if reach < (number - own) % circle < circle // 2)
    if not ahead or not area.ages:
        return None
    names = ", ".join(f"{number:04X}" for number in ahead[:3]) + (" …" if len(ahead) > 3 else "")  # noqa: PLR2004
    return (
        f"{area.directory} has a gap: {free:04X} is missing, but {names} exists. "
        "Rows that refer to the numbers in it will read as coming from the future."
    )


def _epoch(epoch: int) -> ResetValue:
    if epoch >= _MAX_EPOCH:
        raise SnapshotError(
            f"pg_control's transaction id epoch {epoch:#x} cannot be raised", hint="pg_control is damaged."
        )
    return ResetValue(
        "-e", str(epoch + 1), f"Epoch: pg_control says {epoch}, and the transaction ids go past their wrap: one more."
    )


def _wal_position(
    control: ControlFile,
    max_page_lsn: Lsn | None,
    end_wal: Lsn | None,
    wal_names: Collection[str],
    margin_segments: int,
) -> ResetValue:
    """Return the WAL file after the highest one that anything in the copy, or known of its backup, speaks of.

    Files count whatever their timeline, as for pg_resetwal itself. A position too low shows only later, as
    `xlog flush request … is not satisfied`; one too high costs nothing.
    """
    size = control.wal_segment_size
    positions = {
        "pg_control's redo point": control.redo,
        "pg_control's checkpoint": control.checkpoint,
        "pg_control's minimum recovery point": control.min_recovery_point,
        "pg_control's backup end": control.backup_end,
        "the largest LSN of a page": max_page_lsn or Lsn(0),
        "the backup's end": end_wal or Lsn(0),
    }
    candidates = [(lsn.position // size, f"{what} {lsn}") for what, lsn in positions.items()]
    per_log = (1 << 32) // size
    found = [name for text in wal_names if (name := SegmentName.find(text)) is not None and name.seg < per_log]
    candidates += [(name.number(size), f"the file {name}") for name in found]
    highest, what = max(candidates, key=lambda candidate: candidate[0])
    name = SegmentName.from_number(highest + 1 + margin_segments, control.timeline, size)
    at = SegmentName.from_number(highest, control.timeline, size)
    return ResetValue(
        "-l",
        str(name),
        f"Next WAL file: the highest position is {what}, in {at}; the file after it and {margin_segments} more, "
        f"on timeline {control.timeline}.",
    )
