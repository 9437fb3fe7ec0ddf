"""barman's `backup.info`: what its tools wrote down beside a backup.

Lines of `key=value`; strings such as `status` stand bare, lists and multi-line values as Python literals, nothing as
`None` (barman's infofile.py).
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from pgrescue.errors import SnapshotError
from pgrescue.model import Lsn, PgVersion, Timeline
from pgrescue.snapshot.tablespace_map import TablespaceLink
from pgrescue.snapshot.wal import SegmentName

if TYPE_CHECKING:
    from collections.abc import Mapping

_NUMBER: Final = re.compile(r"\d{1,20}", re.ASCII)
_DEFAULT_SEGMENT_SIZE: Final = 16 << 20


@dataclass(frozen=True, kw_only=True)
class BackupInfo:
    """One backup as barman describes it; None where barman had not come so far, or does not know.

    `begin_wal` and `end_wal` are the first and the last WAL file that recovery needs, `end_lsn` is where the backup
    is consistent. `compression` is None for barman-cloud even where files are compressed: their names tell.
    """

    status: str
    backup_name: str | None
    mode: str | None
    error: str | None
    version: PgVersion | None
    timeline: Timeline | None
    begin_wal: SegmentName | None
    end_wal: SegmentName | None
    begin_lsn: Lsn | None
    end_lsn: Lsn | None
    begin_time: str | None
    end_time: str | None
    system_identifier: int | None
    segment_size: int
    backup_label: str | None
    pgdata: str | None
    tablespaces: tuple[TablespaceLink, ...]
    compression: str | None
    encryption: str | None
    has_volume_snapshots: bool

    @property
    def is_done(self) -> bool:
        """Tell whether the backup ended well; any other status means that its files cannot be relied on."""
        return self.status == "DONE"


def parse_backup_info(text: str) -> BackupInfo:
    """Read the file of any barman version; keys that pgrescue does not use are ignored.

    Raises SnapshotError naming the key, or the line, that cannot be read.
    """
    values = _values(text)
    if values.get("status") is None:
        raise SnapshotError(
            "backup.info has no line 'status='", hint="The file is cut short, or is not barman's backup.info."
        )
    segment_size = _number(values, "xlog_segment_size")
    return BackupInfo(
        status=values["status"] or "",
        backup_name=values.get("backup_name"),
        mode=values.get("mode"),
        error=values.get("error"),
        version=_version(values),
        timeline=_timeline(values),
        begin_wal=_segment(values, "begin_wal"),
        end_wal=_segment(values, "end_wal"),
        begin_lsn=_lsn(values, "begin_xlog"),
        end_lsn=_lsn(values, "end_xlog"),
        begin_time=values.get("begin_time"),
        end_time=values.get("end_time"),
        system_identifier=_number(values, "systemid"),
        segment_size=_DEFAULT_SEGMENT_SIZE if segment_size is None else segment_size,
        backup_label=_label(values),
        pgdata=values.get("pgdata"),
        tablespaces=_tablespaces(values),
        compression=values.get("compression"),
        encryption=values.get("encryption"),
        has_volume_snapshots=values.get("snapshots_info") is not None,
    )


def _values(text: str) -> Mapping[str, str | None]:
    """Split into keys and values, `None` as None; the last line of a key counts, as for barman."""
    values: dict[str, str | None] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not equals:
            raise SnapshotError(
                f"backup.info line {number} is not key=value: {line[:80]!r}",
                hint="The file is damaged, or is not barman's backup.info.",
            )
        values[key.strip()] = None if value.strip() == "None" else value.strip()
    return values


def _number(values: Mapping[str, str | None], key: str) -> int | None:
    value = values.get(key)
    if value is None:
        return None
    if _NUMBER.fullmatch(value) is None:
        _refuse(key, value, "a number")
    return int(value)


def _version(values: Mapping[str, str | None]) -> PgVersion | None:
    """Read PostgreSQL's own number of a version: 170006 is 17.6."""
    number = _number(values, "version")
    return None if number is None else PgVersion(number // 10000, number % 10000)


def _timeline(values: Mapping[str, str | None]) -> Timeline | None:
    number = _number(values, "timeline")
    return None if number is None else Timeline(number)


def _segment(values: Mapping[str, str | None], key: str) -> SegmentName | None:
    value = values.get(key)
    if value is None:
        return None
    found = SegmentName.find(value)
    if found is None:
        _refuse(key, value, "the name of a WAL file")
    return found


def _lsn(values: Mapping[str, str | None], key: str) -> Lsn | None:
    value = values.get(key)
    if value is None:
        return None
    try:
        return Lsn.parse(value)
    except ValueError:
        _refuse(key, value, "a WAL position")


def _label(values: Mapping[str, str | None]) -> str | None:
    value = values.get("backup_label")
    if value is None:
        return None
    found = _literal("backup_label", value)
    if isinstance(found, bytes):
        found = found.decode(errors="surrogateescape")
    if not isinstance(found, str):
        _refuse("backup_label", value, "a quoted text")
    return found


def _tablespaces(values: Mapping[str, str | None]) -> tuple[TablespaceLink, ...]:
    """Read `[('name', oid, '/location'), …]`; the name is the one inside the server, which the oid stands for."""
    value = values.get("tablespaces")
    if value is None:
        return ()
    found = _literal("tablespaces", value)
    links = []
    for item in found if isinstance(found, list | tuple) else [None]:
        match item:
            case [str(), int(oid), str(location)] if not isinstance(oid, bool) and oid > 0 and location:
                links.append(TablespaceLink(oid, location))
            case _:
                _refuse("tablespaces", value, "a list of name, oid and location")
    return tuple(links)


def _literal(key: str, value: str) -> object:
    """Evaluate a Python literal and nothing else."""
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        _refuse(key, value, "a Python literal")


def _refuse(key: str, value: str, expected: str) -> NoReturn:
    raise SnapshotError(
        f"backup.info has a value of {key!r} that is not {expected}: {value[:80]!r}",
        hint="The file is damaged, or was written by another tool than barman.",
    )
