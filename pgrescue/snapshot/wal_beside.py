"""Where WAL lies by itself near a snapshot, as backup tools and people put it (reference/formats.md §1, §3, §4, §5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pgrescue.snapshot.wal_archive import holds_wal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NAMES: Final = ("wals", "wal", "wal_archive", "archive", "wal_005")
_TARS: Final = ("pg_wal.tar", "pg_wal.tar.gz")


def find_wal_beside(snapshot_path: Path) -> Path | None:
    """Return the directory of archived WAL that lies nearest to a snapshot's file or folder; None without one.

    Only a directory with files named like WAL counts. Whether they are of the snapshot's cluster, `covers` says.
    """
    return next((candidate for candidate in _candidates(snapshot_path.absolute()) if holds_wal(candidate)), None)


def find_wal_tar_beside(snapshot_path: Path) -> Path | None:
    """Return the `pg_wal.tar` or `pg_wal.tar.gz` that pg_basebackup put beside its base.tar; None without one."""
    folder = _folder(snapshot_path.absolute())
    return next((folder / name for name in _TARS if (folder / name).is_file()), None)


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _candidates(path: Path) -> Iterator[Path]:
    """Yield the tools' own places first, then places in the backup's folder, then those beside it."""
    folder = _folder(path)
    for backup in (folder, folder.parent):  # barman keeps the files of a local backup in data/ below the backup
        if backup.parent.name == "base":
            yield backup.parent.parent / "wals"
        if backup.parent.parent.name == "backup":
            yield backup.parent.parent.parent / "archive" / backup.parent.name
        if backup.parent.name == "basebackups_005":
            yield backup.parent.parent / "wal_005"
    for near in (folder, folder.parent):
        for name in _NAMES:
            yield near / name
