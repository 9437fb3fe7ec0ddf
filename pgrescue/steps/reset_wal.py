"""Step: the WAL is reset, to values past everything that the copy holds."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from typing import TYPE_CHECKING

from pgrescue.files import write_atomically
from pgrescue.model import Finding, Lsn, Severity
from pgrescue.snapshot.contents import CONTROL
from pgrescue.snapshot.reset_values import ResetPlan, ResetValue, compute_reset_values
from pgrescue.steps.control import read_control
from pgrescue.steps.newest_page import implausible_pages, outliers_document, scan

if TYPE_CHECKING:
    from pathlib import Path

    from pgrescue.pipeline import Observer
    from pgrescue.run import Run
    from pgrescue.snapshot.pages import PageScan
    from pgrescue.snapshot.wal import SegmentName

_WAL = "pg_wal"


class ResetWal:
    """The runbook's fourth step, with values of which each one is derived and told (reset.md)."""

    name = "reset-wal"
    title = "Reset the WAL (pg_resetwal)"

    def holds(self, run: Run) -> bool:
        """Tell whether pg_control is past the planned reset's, and its WAL is there: pg_resetwal writes that last."""
        if not run.workspace.reset_plan.exists():
            return False
        before = Lsn.parse(json.loads(run.workspace.reset_plan.read_text())["before"])
        control = read_control(run.workspace.pgdata / CONTROL)
        wal = run.workspace.pgdata / _WAL / control.wal_segment(control.redo)
        return control.checkpoint > before and wal.exists() and wal.stat().st_size == control.wal_segment_size

    def apply(self, run: Run, observer: Observer) -> None:
        """Keep pg_control and the WAL in removed/, compute the values, and reset."""
        workspace = run.workspace
        _keep(workspace.pgdata / CONTROL, workspace.removed / CONTROL)
        for file in (workspace.pgdata / _WAL).iterdir():
            if file.is_file():
                _keep(file, workspace.removed / _WAL / file.name)
        newest = scan(run, observer) if run.computes_reset else None
        plan = ResetPlan(()) if newest is None else _plan(run, newest)
        outliers = [] if newest is None else outliers_document(newest)
        # Not that of the kept pg_control: a replay before the reset ends with a checkpoint, too.
        before = str(read_control(workspace.pgdata / CONTROL).checkpoint)
        document = {**dataclasses.asdict(plan), "outliers": outliers, "before": before}
        write_atomically(workspace.reset_plan, json.dumps(document, indent=1) + "\n")
        arguments = ("-f", *plan.arguments(), "-D", run.engine.path(workspace.pgdata))
        done = run.engine.run("pg_resetwal", arguments).check(
            "the WAL could not be reset", hint="The copy cannot be started without. Look at the lines above."
        )
        write_atomically(workspace.logs / "pg_resetwal.log", f"{' '.join(done.args)}\n{done.stdout}{done.stderr}")

    def findings(self, run: Run) -> tuple[Finding, ...]:
        """Tell what a reset means, and each value with its derivation."""
        stored = json.loads(run.workspace.reset_plan.read_text())
        values = "\n".join(
            f"{ResetValue(**value).option} {value['value']}: {value['derivation']}" for value in stored["values"]
        )
        found = [
            Finding(
                "wal_reset",
                Severity.WARNING,
                "pg_wal",
                "The WAL was reset: changes that only the WAL held are gone, and a transaction that was under way "
                f"while the snapshot was taken may be there in part. {_reach(run)}",
                "Dump the data and load it into a new cluster before you build on it.",
            ),
            Finding(
                "reset_values",
                Severity.INFO,
                "pg_control",
                values or "pg_resetwal chose its values itself, as was asked for.",
                "Nothing to do.",
            ),
        ]
        found += [
            Finding(
                "transaction_status_missing",
                Severity.ERROR,
                "pg_xact, pg_multixact",
                warning,
                "Look for another snapshot; rows that depend on the missing file cannot be judged.",
            )
            for warning in stored["warnings"]
        ]
        if run.snapshot.chosen.control.is_pgbackrest_mark:
            found.append(
                Finding(
                    "pgbackrest_mark_bypassed",
                    Severity.WARNING,
                    CONTROL,
                    "pgBackRest marked this copy as one that must start from its backup_label (checkpoint 0/DEAD), and "
                    "the reset bypassed that mark.",
                    "If the repository can still be had, restore again with pgbackrest and let it recover.",
                )
            )
        return (*found, *implausible_pages(stored["outliers"]))


def _reach(run: Run) -> str:
    """Say up to when the files are sure to hold what was committed: a checkpoint has written it to them."""
    label, control = run.snapshot.chosen.backup_label, run.snapshot.chosen.control
    if label is not None and label.start_time_text:
        return f"What was committed before the backup began ({label.start_time_text}) was in the files."
    return (
        f"What was committed before the last checkpoint ({control.checkpoint_time:%Y-%m-%d %H:%M:%S} UTC) was in the "
        "files; later commits are there only as far as they had been written, and leave no trace where they had not."
    )


def _keep(file: Path, target: Path) -> None:
    """Give `file` a second name in removed/, which survives when pg_resetwal removes or replaces the first.

    What is already kept is older, and stays. pg_resetwal writes pg_control in place, so that one is copied.
    """
    if target.exists():
        return
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if file.name == "pg_control":
        write_atomically(target, file.read_bytes())
        return
    try:
        os.link(file, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(file, target)


def _plan(run: Run, newest: PageScan) -> ResetPlan:
    """Find the values past which nothing in the copy reaches."""
    pgdata = run.workspace.pgdata
    control = read_control(pgdata / CONTROL)
    return compute_reset_values(
        control,
        xact=_names(pgdata / "pg_xact"),
        offsets=_names(pgdata / "pg_multixact" / "offsets"),
        members=_names(pgdata / "pg_multixact" / "members"),
        max_page_lsn=newest.max_lsn,
        end_wal=_end_of_backup(run),
        wal_names=_names(pgdata / _WAL),
    )


def _names(directory: Path) -> tuple[str, ...]:
    return tuple(file.name for file in directory.iterdir()) if directory.is_dir() else ()


def _end_of_backup(run: Run) -> Lsn | None:
    """Return the end of the last WAL file that the backup needs, as backup.info says."""
    info = run.snapshot.backup_info
    if info is None or info.end_wal is None:
        return None
    segment: SegmentName = info.end_wal
    return segment.next(info.segment_size).start_lsn(info.segment_size)
