"""Step: PostgreSQL has recovered the backup from its backup_label on, with all the WAL that there is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pgrescue.errors import CopyRefusedError, TargetNotReachedError
from pgrescue.files import write_atomically
from pgrescue.model import Finding, Immediate, Latest, Lsn, Severity, UntilLsn, UntilTime
from pgrescue.pipeline import Observer, Unit
from pgrescue.snapshot.contents import CONTROL
from pgrescue.snapshot.control import DatabaseState
from pgrescue.steps.control import read_control
from pgrescue.steps.ownership import hand_over
from pgrescue.steps.remove_backup_label import LABEL
from pgrescue.steps.replay_log import RECOVERY_LOG, current_lsn, logged_replay, progress_settings
from pgrescue.steps.single_user import single_user
from pgrescue.steps.unreplayed import unreplayed
from pgrescue.steps.wal_service import COMMAND, Served, WalService

if TYPE_CHECKING:
    from pgrescue.model import Until
    from pgrescue.run import Run
    from pgrescue.snapshot.wal import SegmentName

_SIGNAL = "recovery.signal"
_FINISH_LOG = "recover-finish.log"
_MOST_NAMED = 20


class RecoverFromBackup:
    """What the backup's own tool would have done: archive recovery, which ends only where the data is consistent.

    It runs in single-user mode: no port is open, and the server promotes itself at the end or refuses the copy.
    """

    name = "recover"
    title = "Recover from the backup's WAL"

    def holds(self, run: Run) -> bool:
        """Tell whether recovery has ended: its result is written last."""
        return run.workspace.recovered.exists()

    def apply(self, run: Run, observer: Observer) -> None:
        """Replay up to the target; carry on where an interrupted replay was."""
        served = Served()
        if _is_promoted(run):
            # An attempt was killed behind the end of the recovery: the WAL of the new timeline is all here.
            single_user(run, "", log=_FINISH_LOG, settings=progress_settings(run))
        elif not _has_ended(run):
            signal = run.workspace.pgdata / _SIGNAL
            signal.touch(mode=0o600)
            hand_over(run.engine, signal)
            served = _replay(run, observer)
        replay = logged_replay(run.workspace)
        document = {
            "until": str(run.wal.until),
            "from": str(replay.redo_start or ""),
            "consistent_at": str(replay.consistent_at or ""),
            "redo_done": str(replay.redo_done or ""),
            "last_commit": replay.last_commit.isoformat() if replay.last_commit else None,
            "stopped": replay.stopped,
            "segments": len(served.segments),
            "partial": sorted(served.partial),
            **unreplayed(run, served),
        }
        write_atomically(run.workspace.recovered, json.dumps(document, indent=1) + "\n")

    def findings(self, run: Run) -> tuple[Finding, ...]:
        """Tell how far the replay came, and whether there is WAL that it could not use."""
        document = json.loads(run.workspace.recovered.read_text())
        count = document["segments"]
        files = f" with {count} WAL file{'s' if count > 1 else ''} of the archive" if count else ""
        end = document["stopped"] or "the WAL ends there"
        commit = f", last commit at {document['last_commit']}" if document["last_commit"] else ""
        found = [
            Finding(
                "wal_replayed",
                Severity.INFO,
                "pg_wal",
                f"PostgreSQL replayed the WAL from {document['from']} to {document['redo_done']}{files}: "
                f"{end}{commit}. The data was consistent from {document['consistent_at']} on.",
                "Nothing to do.",
            )
        ]
        if document["partial"]:
            found.append(
                Finding(
                    "wal_partial_used",
                    Severity.INFO,
                    ", ".join(document["partial"]),
                    "The archive holds these WAL files only as .partial, as far as their timeline was written; they "
                    "were used.",
                    "Nothing to do.",
                )
            )
        if document["behind"] or document["why"]:
            archive, files = document["archive"], document["behind"]
            names = f" These later WAL files could not be used: {_shown(files)}." if files else ""
            found.append(
                Finding(
                    "wal_not_replayed",
                    Severity.WARNING,
                    archive,
                    f"Recovery ended at {document['end']}, and there is WAL behind it.{names} {document['why']}.",
                    "Find the missing or damaged file, and rescue again into another workspace: everything later is in "
                    "it.",
                )
            )
        return tuple(found)


def _shown(names: list[str]) -> str:
    more = f" … {len(names)} in all" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _has_ended(run: Run) -> bool:
    """Tell whether an attempt that was killed afterwards had recovered the copy and shut the server down."""
    return _asks_for_nothing(run) and _state(run) is DatabaseState.SHUT_DOWN


def _is_promoted(run: Run) -> bool:
    """Tell whether an attempt was killed between the end of the recovery and the server's shutdown.

    Archive recovery cannot begin again then: pg_control's checkpoint is on the new timeline.
    """
    return _asks_for_nothing(run) and _state(run) in {DatabaseState.IN_PRODUCTION, DatabaseState.SHUTTING_DOWN}


def _asks_for_nothing(run: Run) -> bool:
    pgdata = run.workspace.pgdata
    return not any((pgdata / name).exists() for name in (LABEL, _SIGNAL)) and logged_replay(run.workspace).is_complete


def _state(run: Run) -> DatabaseState:
    return read_control(run.workspace.pgdata / CONTROL).state


def _replay(run: Run, observer: Observer) -> Served:
    """Run the recovery, showing how far it is; raise where its target cannot be reached or the copy is refused."""
    total = _wanted(run)

    def reached(lsn: Lsn) -> None:
        observer.advanced(lsn.position, None if total is None else max(total, lsn).position, Unit.LSN)

    def asked(segment: SegmentName) -> None:
        reached(segment.start_lsn(run.snapshot.chosen.control.wal_segment_size))

    def heard(line: str) -> None:
        if (lsn := current_lsn(line)) is not None:
            reached(lsn)

    try:
        with WalService(run, on_request=asked) as service:
            single_user(run, "", log=RECOVERY_LOG, settings=recovery_settings(run), on_line=heard)
    except CopyRefusedError as error:
        _blame_the_target(run, error)
        raise
    return service.served


def _blame_the_target(run: Run, error: CopyRefusedError) -> None:
    """Raise TargetNotReachedError where not the copy but the wish was at fault."""
    replay = logged_replay(run.workspace)
    until = run.wal.until
    if replay.is_missed:
        to = replay.recovered_to
        commit = f", the last commit in it is of {to.time:%Y-%m-%d %H:%M:%S.%f%z}" if to.time else ""
        raise TargetNotReachedError(
            f"the target {until} was not reached: the WAL ends at {to.lsn}{commit}",
            hint="Take an earlier target, or --until latest, with another workspace; or find the WAL that follows.",
        ) from error
    if replay.is_too_early:
        raise TargetNotReachedError(
            f"the target {until} lies before the end of the backup ({run.wal.backup_end or 'unknown'}), and nothing "
            "before that is consistent",
            hint="Take a later target (--until immediate is the earliest), or an earlier backup.",
        ) from error


def _wanted(run: Run) -> Lsn | None:
    """Return where the replay is to end, None where nobody knows."""
    match run.wal.until:
        case UntilLsn(lsn):
            return lsn
        case Immediate():
            return run.wal.backup_end
        case Latest() | UntilTime():
            return run.wal.reaches


def recovery_settings(run: Run) -> dict[str, str]:
    """Return what the server is told for the time of the recovery.

    hot_standby is off, so that parameters below the primary's do not stop it (formats.md §0.5).
    """
    return {
        "restore_command": COMMAND,
        "hot_standby": "off",
        "recovery_target_action": "promote",
        "recovery_target_timeline": "current" if run.wal.timeline is None else str(run.wal.timeline),
        **_target(run.wal.until),
        **progress_settings(run),
    }


def _target(until: Until) -> dict[str, str]:
    match until:
        case Latest():
            return {}
        case Immediate():
            return {"recovery_target": "immediate"}
        case UntilTime(time):
            return {"recovery_target_time": time.isoformat(sep=" ")}
        case UntilLsn(lsn):
            return {"recovery_target_lsn": str(lsn)}
