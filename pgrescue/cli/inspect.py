"""`pgrescue inspect`: what a snapshot is, what would happen, what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgrescue.cli.common import JsonOption, WalOption, fail, messages, output, print_json, read
from pgrescue.errors import RescueError
from pgrescue.report.console import observer_for
from pgrescue.strategy.choose import assess
from pgrescue.strategy.wal_plan import WalRequest, plan_wal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.run import WalPlan
    from pgrescue.snapshot.contents import Snapshot
    from pgrescue.strategy.choose import Assessment

_MOST_NAMED = 12


def inspect(
    snapshot: Annotated[
        Path,
        typer.Argument(
            help="A tar (plain, gzip, bzip2 or xz), a data directory, or a backup's folder.", readable=False
        ),
    ],
    wal: WalOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what SNAPSHOT is, what `local` would do with it, and what would make that better. Writes nothing."""
    try:
        found = read(snapshot, observer_for(messages()))
        plan = plan_wal(found, WalRequest(wal))
        assessment = assess(found, plan)
    except RescueError as error:
        raise fail(error, as_json=as_json) from error
    if as_json:
        print_json(_document(found, plan, assessment))
        return
    console = output()
    for line in _lines(found, plan, assessment):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _document(snapshot: Snapshot, wal: WalPlan, assessment: Assessment) -> dict[str, Any]:
    chosen = snapshot.chosen
    control, label = chosen.control, chosen.backup_label
    return {
        "schema": 1,
        "path": str(snapshot.path),
        "format": snapshot.source.format,
        "fingerprint": snapshot.fingerprint,
        "data_directory": chosen.prefix or ".",
        "other_data_directories": [other.prefix or "." for other in snapshot.others],
        "major": chosen.major,
        "system_identifier": str(control.system_identifier),
        "state": control.state.value,
        "checkpoint": {
            "lsn": str(control.checkpoint),
            "redo": str(control.redo),
            "timeline": control.timeline,
            "time": control.checkpoint_time.isoformat(),
        },
        "data_checksums": control.has_checksums,
        "size_bytes": chosen.size_bytes,
        "files": chosen.files,
        "backup_label": None
        if label is None
        else {
            "start_lsn": str(label.start_lsn),
            "start_segment": label.start_segment,
            "from_standby": label.from_standby,
            "start_time": label.start_time_text,
            "label": label.label,
        },
        "wal_files": [file.name for file in chosen.wal],
        "wal_archive": None if wal.archive is None else str(wal.archive.root),
        "backup_end": None if wal.backup_end is None else str(wal.backup_end),
        "wal_reaches": None if wal.reaches is None else str(wal.reaches),
        "tablespaces": list(chosen.tablespaces),
        "strategies": [
            {"name": option.strategy.value, "possible": option.possible, "reason": option.reason}
            for option in assessment.options
        ],
        "strategy": assessment.best.value,
        # Each begins with the file's name; what is wrong with it is for persons.
        "missing_wal": [wrong.partition(" ")[0] for wrong in assessment.missing_wal],
        "missing_wal_is_open": assessment.missing_wal_is_open,
    }


def _lines(snapshot: Snapshot, wal: WalPlan, assessment: Assessment) -> Iterator[str]:
    chosen = snapshot.chosen
    control, label = chosen.control, chosen.backup_label
    yield f"Snapshot:    {snapshot.path} ({snapshot.source.format})"
    yield f"Directory:   {chosen.prefix or '.'}, {chosen.files:,} files, {chosen.size_bytes / (1 << 20):,.1f} MiB"
    for other in snapshot.others:
        yield f"             also there, with an older checkpoint: {other.prefix or '.'}"
    yield f"Server:      PostgreSQL {chosen.major}, system identifier {control.system_identifier}"
    yield f"State:       {control.state.value}"
    yield f"Checkpoint:  {control.checkpoint}, {control.checkpoint_time:%F %T} UTC"
    if label is not None:
        standby = ", taken from a standby" if label.from_standby else ""
        yield f"Backup:      {label.label or 'without a label'}, from {label.start_lsn} on{standby}"
        yield f"Started:     {label.start_time_text or 'unknown'}"
    beside = "" if wal.archive is None else f", {len(wal.archive.segments)} in {wal.archive.root}"
    yield f"WAL:         {len(chosen.wal)} files in pg_wal{beside}"
    if chosen.tablespaces:
        yield f"Tablespaces: {', '.join(chosen.tablespaces)}"
    yield ""
    for option in assessment.options:
        mark = "->" if option.strategy is assessment.best else "  "
        yield f"{mark} {option.strategy.value:<7} {'possible' if option.possible else 'no      '}  {option.reason}"
    if assessment.missing_wal:
        yield ""
        yield "To be recovered consistently, the backup needs these WAL files:"
        yield from (f"   {name}" for name in assessment.missing_wal[:_MOST_NAMED])
        if len(assessment.missing_wal) > _MOST_NAMED:
            yield f"   … {len(assessment.missing_wal)} in all, to {assessment.missing_wal[-1]}"
        if assessment.missing_wal_is_open:
            yield "   and those that follow, to the backup's end, which only its backup.info tells"
        yield "   Look in the WAL archive (barman-cloud: wals/ beside base/), and name it with --wal."
