"""A snapshot that lies in an object store: choosing it there, and fetching it with the WAL that belongs to it."""

from __future__ import annotations

import posixpath
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from pgrescue.drill.addresses import without_secrets
from pgrescue.drill.newest import BACKUP_TAR, Candidate, NoSnapshotError, choose, may_be_snapshot
from pgrescue.drill.store import SCHEMES, Store, StoredObject
from pgrescue.errors import DiskSpaceError, SnapshotError, UnreadableSnapshotError, UsageError
from pgrescue.pipeline import Unit, watched
from pgrescue.snapshot.backup_info import parse_backup_info
from pgrescue.snapshot.wal_archive import plain_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pgrescue.pipeline import Observer

_ADDRESS: Final = re.compile(rf"({'|'.join(SCHEMES)})://(.*)", re.DOTALL)
_BACKUP_ID: Final = re.compile(r"\d{8}T\d{6}")
_SECOND_PART: Final = re.compile(r"data_0001\.tar.*")
_BESIDE: Final = re.compile(r"backup\.info|pg_wal\.tar(?:\.gz)?")
_MOST_NAMED: Final = 5
_GIB: Final = 1 << 30


@dataclass(frozen=True)
class Fetched:
    """A fetched snapshot, the directory of its WAL, and, where there was a choice, its key and why this one."""

    path: Path
    wal: Path | None
    because: str


@dataclass(frozen=True)
class _Place:
    scheme: str
    bucket: str
    key: str


@dataclass(frozen=True)
class _Plan:
    """What to fetch: where each object comes to lie, by paths relative to the place that all are fetched into."""

    files: Mapping[StoredObject, str]
    snapshot: str
    has_wal: bool
    because: str


def is_address(text: str) -> bool:
    """Tell whether a drill file's snapshot is an address rather than a path."""
    return _ADDRESS.match(text) is not None


def fetch_snapshot(address: str, *, takes_newest: bool, into: Path, observer: Observer) -> Fetched:
    """Fetch an object, or the newest backup below a prefix, into a directory, in barman's layout where it is barman's.

    A barman backup comes with its backup.info and all WAL of its server from the backup's begin on. What is an object's
    key is never taken for a prefix, unless the newest is asked for. Nothing is written into the store.

    Raises NoSnapshotError where there is none, DiskSpaceError before anything is fetched, StoreError where the store
    does not answer or refuses, UsageError for an address that cannot be meant.
    """
    place = _parsed(address)
    store = Store(place.scheme, place.bucket)
    with watched(observer, "fetch", f"Fetch the snapshot from {address}"):
        plan = _plan(store, place, address, takes_newest=takes_newest)
        total = sum(one.size_bytes for one in plan.files)
        into.mkdir(parents=True, exist_ok=True)
        _require_room(into, total)
        observer.advanced(0, total, Unit.BYTES)
        store.fetch(
            {one: into / path for one, path in plan.files.items()},
            on_progress=lambda done: observer.advanced(done, total, Unit.BYTES),
        )
    return Fetched(into / plan.snapshot, into / "wals" if plan.has_wal else None, plan.because)


def _parsed(address: str) -> _Place:
    found = _ADDRESS.fullmatch(address)
    scheme, rest = (found[1], found[2]) if found else ("", "")
    bucket, _, key = rest.partition("/")
    problem = ""
    if not bucket:
        problem = "names no bucket"
    elif "@" in bucket:
        problem = "holds a user or password"
    elif scheme == "https" and ("?" in key or "#" in key):
        problem = "is signed, or has another query"
    if problem:
        raise UsageError(
            f"the address {without_secrets(address)} {problem}",
            hint="Write s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or https://HOST/PATH; what opens "
            "the store comes from the environment.",
        )
    # obstore quotes a path for HTTP itself.
    return _Place(scheme, bucket, (unquote(key) if scheme == "https" else key).strip("/"))


def _plan(store: Store, place: _Place, address: str, *, takes_newest: bool) -> _Plan:
    if place.scheme == "https":
        return _plan_of_file(store, place, address, takes_newest=takes_newest)
    if not takes_newest and place.key and (found := store.find(place.key)) is not None:
        beside, _ = store.children(posixpath.dirname(place.key))
        return _with_companions(store, found, beside, "")
    objects = _listed(store, place.key)
    candidates = [one for one in objects if _is_candidate(one, place.key)]
    if not candidates:
        raise NoSnapshotError(f"{address} holds no snapshot", hint=_what_is_there(store, place.key))
    info_keys = {_sibling(one.key, "backup.info") for one in candidates}
    infos = store.texts([one for one in objects if one.key in info_keys])
    chosen, because = choose(
        [Candidate(one.key, infos.get(_sibling(one.key, "backup.info")), one.modified) for one in candidates],
        among=address,
    )
    found = next(one for one in candidates if one.key == chosen.place)
    return _with_companions(store, found, objects, f"{found.key}, {because}")


def _plan_of_file(store: Store, place: _Place, address: str, *, takes_newest: bool) -> _Plan:
    """Take a web server's file alone: there is no list that could tell what lies beside it."""
    if takes_newest:
        raise UsageError(
            f"{address} cannot be listed, so nobody knows the newest below it",
            hint="Name the file itself, or the bucket by s3://, gs:// or az://.",
        )
    found = store.find(place.key)
    if found is None:
        raise NoSnapshotError(f"{address} does not exist", hint="Check the path.")
    name = posixpath.basename(place.key)
    return _Plan({found: name}, name, has_wal=False, because="")


def _listed(store: Store, prefix: str) -> list[StoredObject]:
    """List what lies right in a prefix, and all below its backups: WAL beside them may be a million objects."""
    objects, prefixes = store.children(prefix)
    found = list(objects)
    for one in prefixes:
        name = posixpath.basename(one.rstrip("/"))
        if name == "base" or _BACKUP_ID.fullmatch(name):
            found.extend(store.below(one.rstrip("/")))
    return found


def _is_candidate(one: StoredObject, prefix: str) -> bool:
    folder, name = posixpath.split(one.key)
    return bool(BACKUP_TAR.fullmatch(name)) or (folder == prefix and may_be_snapshot(name))


def _sibling(key: str, name: str) -> str:
    return posixpath.join(posixpath.dirname(key), name)


def _with_companions(store: Store, chosen: StoredObject, among: Iterable[StoredObject], because: str) -> _Plan:
    """Add what belongs to a snapshot: what its tool put beside it, and its server's WAL."""
    folder, name = posixpath.split(chosen.key)
    siblings = {posixpath.basename(one.key): one for one in among if posixpath.dirname(one.key) == folder}
    if name.startswith("data.tar") and (parts := [one for one in siblings if _SECOND_PART.fullmatch(one)]):
        raise UnreadableSnapshotError(
            f"the backup {folder} is in parts ({name}, {parts[0]} …), which this version does not join",
            hint="Unpack all parts into one directory, in the order of their numbers, and drill that directory.",
        )
    parent, backup_id = posixpath.split(folder)
    is_barmans = BACKUP_TAR.fullmatch(name) is not None and _BACKUP_ID.fullmatch(backup_id) is not None
    local = f"base/{backup_id}" if is_barmans else "."
    wanted = [chosen]
    if BACKUP_TAR.fullmatch(name):
        wanted += [one for sibling, one in siblings.items() if _BESIDE.fullmatch(sibling)]
    files = {one: posixpath.join(local, posixpath.basename(one.key)) for one in wanted}
    wal: dict[StoredObject, str] = {}
    if is_barmans and posixpath.basename(parent) == "base" and (info := siblings.get("backup.info")) is not None:
        wal = _wal(store, posixpath.dirname(parent), _begin_wal(store.text(info)))
    return _Plan({**files, **wal}, posixpath.join(local, name), has_wal=bool(wal), because=because)


def _begin_wal(info: str) -> str | None:
    """Return the first WAL file that a backup needs; None where backup.info does not say, as the rescue will report."""
    try:
        begin = parse_backup_info(info).begin_wal
    except SnapshotError:
        return None
    return None if begin is None else str(begin)


def _wal(store: Store, server: str, begin: str | None) -> dict[StoredObject, str]:
    """Find all WAL from a segment on, of later timelines too, and every timeline's history.

    barman keeps segments in directories named by their first 16 digits, and histories beside those.
    """
    if begin is None:
        return {}
    root = posixpath.join(server, "wals")
    histories, _ = store.children(root)
    # A listing begins behind a key, and the segment's own is to be in it, whatever its suffix.
    later = store.below(root, after=posixpath.join(root, begin[:16], begin[:-1]))
    found = {}
    for one in (*histories, *later):
        name = plain_name(posixpath.basename(one.key))
        if name is not None and (name.endswith(".history") or name >= begin):
            found[one] = posixpath.join("wals", posixpath.relpath(one.key, root))
    return found


def _require_room(into: Path, size_bytes: int) -> None:
    free = shutil.disk_usage(into).free
    if size_bytes > free:
        raise DiskSpaceError(
            f"the snapshot and its WAL have {size_bytes / _GIB:,.1f} GiB, {free / _GIB:,.1f} GiB are free in {into}",
            hint="Free some space, or name a larger disk with --work-dir; the unpacked copy needs room beside it.",
        )


def _what_is_there(store: Store, prefix: str) -> str:
    objects, prefixes = store.children(prefix)
    names = [*(f"{posixpath.basename(one.rstrip('/'))}/" for one in prefixes)]
    names += [posixpath.basename(one.key) for one in objects]
    wanted = "Name a backup's tar, or the prefix that has tars, barman's base, or backups right below it."
    if not names:
        return f"There is nothing at all. {wanted}"
    more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    return f"There are: {', '.join(names[:_MOST_NAMED])}{more}. {wanted}"
