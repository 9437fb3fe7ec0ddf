"""Which strategies a snapshot allows, and what would make a better one possible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgrescue.errors import UsageError
from pgrescue.model import Latest, StrategyName
from pgrescue.snapshot.control import DatabaseState
from pgrescue.strategy.wal_plan import wrong_segments

if TYPE_CHECKING:
    from pgrescue.run import WalPlan
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

    Each of `missing_wal` is a name and what is wrong with it. The list ends early, with `missing_wal_is_open` set,
    where nobody can know the last file that is needed.
    """

    options: tuple[Option, ...]
    missing_wal: tuple[str, ...]
    missing_wal_is_open: bool

    @property
    def best(self) -> StrategyName:
        """The first strategy that is possible; raise UsageError where --until rules every one out."""
        for option in self.options:
            if option.possible:
                return option.strategy
        missing = ", ".join(self.missing_wal[:_MOST_NAMED]) or "a backup_label and its WAL"
        raise UsageError(
            "no strategy can end where --until says: that needs a backup with its WAL",
            hint=f"Find what is missing ({missing}), or leave --until out.",
        )

    def after(self, strategy: StrategyName) -> StrategyName | None:
        """Return the next possible strategy after one that failed, None when there is none."""
        order = [option.strategy for option in self.options]
        later = self.options[order.index(strategy) + 1 :]
        return next((option.strategy for option in later if option.possible), None)


def assess(snapshot: Snapshot, wal: WalPlan) -> Assessment:
    """Judge every strategy by what the snapshot and the WAL beside it hold; nothing is run."""
    directory = snapshot.chosen
    has_label = directory.backup_label is not None or wal.label is not None
    options = [
        _clean(directory),
        _archive(wal, has_label=has_label),
        _replay(wal, has_label=has_label),
        _crash(directory, wal),
        Option(StrategyName.RESET, "It needs nothing.", possible=True),
    ]
    if not isinstance(wal.until, Latest):
        aimless = {StrategyName.CLEAN, StrategyName.CRASH, StrategyName.RESET}
        options = [
            Option(option.strategy, f"It cannot end at a chosen point (--until {wal.until}).", possible=False)
            if option.strategy in aimless
            else option
            for option in options
        ]
    return Assessment(tuple(options), wal.missing, has_label and wal.backup_end is None)


def _clean(directory: DataDirectory) -> Option:
    control = directory.control
    obstacle = _made_by_backup(directory)
    if obstacle is None and control.state is not DatabaseState.SHUT_DOWN:
        obstacle = f"The server was not shut down: pg_control says {control.state.value!r}."
    if obstacle is None and (wrong := wrong_segments(directory, control.redo, control.checkpoint, control.timeline)):
        obstacle = f"The WAL file with the shutdown checkpoint is not there: {wrong[0]}."
    reason = obstacle or "The server was shut down cleanly, and there is no backup_label."
    return Option(StrategyName.CLEAN, reason, possible=obstacle is None)


def _archive(wal: WalPlan, *, has_label: bool) -> Option:
    archive = wal.archive
    if not has_label:
        return Option(StrategyName.ARCHIVE, "There is no backup_label, which says where to begin.", possible=False)
    if archive is None:
        reason = "No WAL archive was found beside the snapshot; name one with --wal."
    elif archive.root.is_file():
        reason = f"{archive.root} is no archive but the backup's own WAL."
    elif not wal.is_covered:
        reason = f"The archive {archive.root} lacks WAL that the backup needs: {_named(wal.missing)}."
    else:
        end = "the backup's end" if wal.backup_end is None else f"the backup's end at {wal.backup_end}"
        label = "; the backup_label is rebuilt from it" if wal.label else ""
        open_ = ", which nobody can know before it is replayed" if wal.backup_end is None else ""
        return Option(StrategyName.ARCHIVE, f"The archive {archive.root} reaches {end}{open_}{label}.", possible=True)
    return Option(StrategyName.ARCHIVE, reason, possible=False)


def _replay(wal: WalPlan, *, has_label: bool) -> Option:
    if not has_label:
        return Option(StrategyName.REPLAY, "There is no backup_label, which says where to begin.", possible=False)
    if wal.is_inside:
        return Option(StrategyName.REPLAY, "The snapshot's pg_wal holds the backup's WAL.", possible=True)
    if wal.is_covered and wal.archive is not None and wal.archive.root.is_file():
        return Option(StrategyName.REPLAY, f"{wal.archive.root} holds the backup's WAL.", possible=True)
    if not wal.missing:
        return Option(StrategyName.REPLAY, "The backup's WAL is in the archive, not in the snapshot.", possible=False)
    return Option(
        StrategyName.REPLAY, f"The snapshot lacks WAL that the backup needs: {_named(wal.missing)}.", possible=False
    )


def _crash(directory: DataDirectory, wal: WalPlan) -> Option:
    control = directory.control
    obstacle = _made_by_backup(directory)
    if obstacle is None and (
        wrong := wrong_segments(directory, control.redo, control.checkpoint, control.timeline, wal.archive)
    ):
        obstacle = f"The WAL from {control.redo} on is not complete: {_named(wrong)}."
    where = "pg_wal holds" if wal.archive is None else f"pg_wal and {wal.archive.root} hold"
    reason = obstacle or f"There is no backup_label, and {where} the WAL from {control.redo} on."
    return Option(StrategyName.CRASH, reason, possible=obstacle is None)


def _made_by_backup(directory: DataDirectory) -> str | None:
    """Say why recovery must not begin at pg_control's checkpoint, None where it may."""
    if directory.backup_label is not None:
        return "There is a backup_label: the files were copied while the server ran, and recovery begins where it says."
    if directory.control.is_pgbackrest_mark:
        return "pgBackRest marked it as a copy that must start from a backup_label, which is not there."
    return None


def _named(wrong: tuple[str, ...]) -> str:
    more = f" … {len(wrong)} in all" if len(wrong) > _MOST_NAMED else ""
    return ", ".join(wrong[:_MOST_NAMED]) + more
