"""A drill file to begin with: what a snapshot allows, and an example of everything else, each as a comment."""

from __future__ import annotations

import glob
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgrescue.drill.fields import LONGEST_NAME
from pgrescue.drill.tree import Mapping, plain, read_tree
from pgrescue.errors import UsageError
from pgrescue.model import StrategyName, Verdict
from pgrescue.strategy.verdict import judge

if TYPE_CHECKING:
    from pgrescue.run import WalPlan
    from pgrescue.snapshot.contents import Snapshot
    from pgrescue.strategy.choose import Assessment

SCHEMA_FILE = "drill.schema.json"
_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./@+ -]*", re.ASCII)
_TAR = re.compile(r"\.(tar(\.[a-z0-9]+)?|tgz|tbz2?|txz)$", re.IGNORECASE)
_BACKUP_ID = re.compile(r"\d{8}T\d{6}")
# What tools call every backup: the name of what was backed up stands above it.
_COMMON = frozenset({"data", "base", "pgdata", "backup", "backups", "latest", "snapshot", ""})
_TEXT = """\
# yaml-language-server: $schema=./{schema}
#
# A restore drill: `pgrescue drill {file}` restores the snapshot, asks what is written here, reports, and removes
# everything again. A line that begins with # and no blank is an example, and those below it that are indented belong
# to it: take the # away to use it. Durations have units: s, min, h, d, w. Paths are relative to this file.
version: 1

# What reports, metrics and the history call this drill.
name: {name}

# What is restored{found}. The newest of several is taken by `newest: PLACE` below `snapshot:`, for a
# directory or an address (s3://…, gs://…, az://…), and by a glob, such as
# {glob}
snapshot: {snapshot}

# {wal_found}
{wal}

# Where replay ends: latest, immediate, an LSN, or a time with its zone.
#until: latest

# What runs PostgreSQL: auto, docker (image), or native (bindir).
#engine: auto
#image: postgres:{major}
#bindir: /usr/lib/postgresql/{major}/bin

# How the copy is made startable: auto, clean, archive, replay, crash or reset.
#strategy: auto

# The least verdict that passes. {why}
require: {require}

# How long it may take until the server is open.
#rto_budget: 30 min

# How old the newest commit in the copy may be.
#rpo_budget: 24 h

# What is to hold in the copy. Each has one of verify, sql, rows, freshness and schema, and, if you like, a name, a
# database (else the only one with tables) and a timeout (else 5 min).
checks:
  # Files, catalogs, tables and indexes: fast, or full, with all indexes and every row read whole.
  - verify: fast

  # A query with one value, and what it is to be: == != < <= > >= or between, with quotes around all of it.
  #- sql: select count(*) from pg_catalog.pg_class where relkind = 'r'
  #  expect: ">= 1"
  #  name: tables are there
  #  timeout: 1 min

  # How many rows a table has: min, max, and max_loss since the last drill.
  #- rows: {{table: orders, min: 1000, max: 100000000, max_loss: 5 %}}

  # How old its newest row may be; zone is for columns without one.
  #- freshness: {{table: orders, column: created_at, max_age: 24 h, zone: UTC}}
  #  database: app

  # The schema is as in this file, which `pgrescue drill {file} --write-schema` writes.
  #- schema: app.schema.sql

# Move the app database into an empty server and compare every row: a throwaway one, or the one whose URL an environment
# variable holds (target_url_env: NAME in place of target).
#transfer:
#  target: throwaway
#  compare: hash
#  roles: true

# A command of yours on the restored database, which passes where it exits with 0.
#after:
#  command: psql "$DATABASE_URL" -c 'select 1'
#  env: DATABASE_URL
#  timeout: 30 min

# Findings that do not count: why, and until which day.
#ignore:
#  - code: collation_version_changed
#    object: "*"
#    reason: the indexes are rebuilt after the next upgrade
#    until: 2099-12-31

# Webhooks that hear how it ended; an environment variable holds the URL.
#notify:
#  - url_env: DRILL_WEBHOOK_URL
#    on: [failed, could-not-verify]

# Several drills in one file: put them into a list, `drills:`, each with its own name and snapshot; what stands beside
# the list is for all of them.
"""


@dataclass(frozen=True)
class Beginning:
    """What a drill file begins with; paths are as they stand in it."""

    name: str
    snapshot: str
    pattern: str
    wal: str | None
    has_wal_tar: bool
    strategy: StrategyName
    major: int

    @property
    def require(self) -> Verdict:
        """The best verdict that the strategy allows."""
        return judge(self.strategy, ())


def beginning(snapshot: Snapshot, wal: WalPlan, assessment: Assessment, *, file: Path, name: str | None) -> Beginning:
    """Return what the drill file at `file` begins with for this snapshot; its name is `name`, or made of the path."""
    path = _path_from(file.parent, snapshot.path)
    # A path that looks like a pattern is written as one that means itself.
    written = glob.escape(path)
    archive = None if wal.archive is None else wal.archive.root
    is_tar = archive is not None and archive.is_file()
    return Beginning(
        name=name or _name_of(snapshot.path.absolute()),
        snapshot=written,
        pattern=_pattern(path),
        wal=None if archive is None or is_tar else _path_from(file.parent, archive),
        has_wal_tar=is_tar,
        strategy=assessment.best,
        major=snapshot.chosen.major,
    )


def drill_text(start: Beginning, *, file_name: str) -> str:
    """Return the drill file's text: valid and of use as it is, and with every example taken in."""
    if start.has_wal_tar:
        wal_found = "Where WAL lies. The pg_wal.tar beside the snapshot is found by itself."
    elif start.wal is not None:
        wal_found = "Where WAL lies: this archive was found."
    else:
        wal_found = "Where WAL lies: an archive's directory, or pg_wal.tar. Default: what lies beside the snapshot."
    return _TEXT.format(
        schema=SCHEMA_FILE,
        file=_comment(file_name),
        name=_scalar(start.name),
        found=f" (PostgreSQL {start.major})",
        glob=_comment(_scalar(start.pattern)),
        snapshot=_scalar(start.snapshot),
        wal_found=wal_found,
        wal="#wal: ../wals" if start.wal is None else f"wal: {_scalar(start.wal)}",
        major=start.major,
        require=start.require.value,
        why=_why(start),
    )


def _why(start: Beginning) -> str:
    if start.require is Verdict.CONSISTENT:
        return f"Strategy {start.strategy} can show that this snapshot is consistent."
    return f"More than {start.require} cannot be shown of this snapshot (strategy {start.strategy})."


def _path_from(directory: Path, path: Path) -> str:
    """Return the path as seen from a directory, absolute where they have nothing but the root in common."""
    base = directory.absolute().resolve()
    there = path.absolute()
    there = there.parent.resolve() / there.name
    if Path(os.path.commonpath([base, there])) == Path(base.anchor):
        return str(there)
    relative = os.path.relpath(there, base)
    return f"./{relative}" if relative.startswith("~") else relative


def _pattern(path: str) -> str:
    """Return a glob that the snapshot and others like it match."""
    parts = [glob.escape(part) for part in Path(path).parts]
    ids = [index for index, part in enumerate(parts) if _BACKUP_ID.search(part)]
    place = ids[-1] if ids else len(parts) - 1
    suffix = _TAR.search(parts[place])
    parts[place] = f"*{suffix[0]}" if suffix else "*"
    return str(Path(*parts))


def _name_of(path: Path) -> str:
    """Return the first name on the way up from the snapshot that says more than that it is a backup."""
    for part in (_TAR.sub("", path.name), *(parent.name for parent in path.parents)):
        if part.lower() not in _COMMON and part != ".." and _BACKUP_ID.fullmatch(part) is None and part.isprintable():
            return part.strip()[:LONGEST_NAME]
    return "drill"


def _scalar(text: str) -> str:
    """Write a text so that every YAML reads it as this text."""
    if not text.isprintable() or any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError(
            f"{text!a} has characters that a drill file cannot hold", hint="Rename it, or make a symbolic link."
        )
    tree = read_tree(f"key: {text}\n").root if _PLAIN.fullmatch(text) else None
    is_same = isinstance(tree, Mapping) and plain(tree) == {"key": text}
    return text if is_same else json.dumps(text, ensure_ascii=False)


def _comment(text: str) -> str:
    return text if text.isprintable() else ascii(text)
