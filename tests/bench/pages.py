"""The checks of a stopped server's files: our page pass and pg_checksums, against pg_checksums alone.

`python -m tests.bench.pages [--rounds N] [--megabytes N]`. Both read the same data directory, of a server with
checksums, from the page cache. Printed besides is how fast our pass is with checksums of its own.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures import Server, fill
from fixtures.binaries import DEFAULT_MAJOR, find_bindir
from pgrescue.snapshot.control import parse_control
from pgrescue.snapshot.page_check import check_pages
from pgrescue.verify.files import checksum_arguments
from tests.bench.rounds import Way, alternate, show

if TYPE_CHECKING:
    from collections.abc import Sequence

TARGET = 2.0
_GB = 1e9
_ROWS_PER_MB = 2500
_FILLER = """
create table filler as
    select g as id, repeat(md5(g::text), 10) as body from generate_series(1, {rows}) g;
alter table filler add primary key (id);
vacuum analyze filler
"""


def make_data_directory(target: Path, *, megabytes: int) -> None:
    """Copy the data directory of a server that was stopped: the portal, and one table of about so many megabytes."""
    with Server(settings={"max_wal_size": "4GB"}) as server:
        fill(server, scale=5)
        with server.connect("portal") as connection:
            for statement in _FILLER.format(rows=megabytes * _ROWS_PER_MB).split(";\n"):
                connection.execute(statement.encode())
        server.stop()
        shutil.copytree(server.pgdata, target)


def compare(pgdata: Path, *, rounds: int) -> bool:
    """Measure; tell whether the target is met."""
    control = parse_control((pgdata / "global/pg_control").read_bytes())
    program = [str(find_bindir(DEFAULT_MAJOR) / "pg_checksums"), *checksum_arguments(str(pgdata))]

    def ours(*, checksums: bool = False) -> None:
        check = check_pages(pgdata, end_of_wal=control.checkpoint, checksums=checksums)
        assert check.damaged == (), check.damaged[:5]

    def theirs() -> None:
        subprocess.run(program, check=True, capture_output=True)

    def both() -> None:
        ours()
        theirs()

    seconds = alternate(
        (
            Way("pg_checksums", _nothing, theirs, _nothing),
            Way("both", _nothing, both, _nothing),
            Way("pass alone", _nothing, ours, _nothing),
            Way("with checksums", _nothing, lambda: ours(checksums=True), _nothing),
        ),
        rounds=rounds,
    )
    size = check_pages(pgdata).bytes
    for name in ("pg_checksums", "pass alone", "with checksums"):
        print(f"{name:<14} {_speed(size, seconds[name]):6.2f} GB/s")
    return show(
        {name: seconds[name] for name in ("pg_checksums", "both")}, ours="both", theirs="pg_checksums", target=TARGET
    )


def _speed(size_bytes: int, seconds: Sequence[float]) -> float:
    return size_bytes / statistics.median(seconds) / _GB


def _nothing() -> None:
    """Prepare nothing."""


def main() -> int:
    """Measure; the exit status is 1 where the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--megabytes", type=int, default=1000, help="how large the largest table is, about")
    parser.add_argument("--directory", type=Path, help="where to work (default: the system's temporary directory)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pgrescue-bench-", dir=asked.directory) as scratch:
        pgdata = Path(scratch) / "pgdata"
        make_data_directory(pgdata, megabytes=asked.megabytes)
        files = [path for path in pgdata.rglob("*") if path.is_file()]
        print(f"{len(files)} files, {sum(path.stat().st_size for path in files) / _GB:.2f} GB")
        return 0 if compare(pgdata, rounds=asked.rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
