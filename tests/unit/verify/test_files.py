from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pgrescue.command import Completed, run
from pgrescue.model import Finding, Lsn, Severity
from pgrescue.snapshot.page_check import check_pages
from pgrescue.snapshot.page_damage import BlockDamage, BlockRun, DamagedFile, PageCheck
from pgrescue.verify.files import (
    BadChecksum,
    ChecksumOutput,
    checksum_arguments,
    checksum_findings,
    page_findings,
    parse_checksums,
)
from pgrescue.verify.not_run import not_run
from tests.unit.snapshot.page_files import BLOCK, EMPTY, control_of, programs, stopped_server

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FILE = "base/16384/16402"
CODES = {
    BlockDamage.HEADER: ("page_header_invalid", Severity.ERROR),
    BlockDamage.CHECKSUM: ("page_checksum_wrong", Severity.ERROR),
    BlockDamage.NEWER_THAN_WAL: ("page_newer_than_wal", Severity.ERROR),
    BlockDamage.ZERO: ("zero_pages", Severity.WARNING),
    BlockDamage.PARTIAL: ("file_not_whole_blocks", Severity.ERROR),
    BlockDamage.TRUNCATED: ("segment_truncated", Severity.ERROR),
    BlockDamage.MISSING: ("segment_missing", Severity.ERROR),
    BlockDamage.MAIN_FORK_MISSING: ("main_fork_missing", Severity.ERROR),
}


def damaged(
    kind: BlockDamage, *runs: tuple[int, int], path: str = FILE, first_block: int = 0, unlisted: int = 0
) -> DamagedFile:
    count = sum(last - first + 1 for first, last in runs) + unlisted
    return DamagedFile(path, first_block, 340, {kind: count}, tuple(BlockRun(*run, kind) for run in runs))


def checked(*files: DamagedFile, more: int = 0) -> PageCheck:
    counts: dict[BlockDamage, int] = {}
    for file in files:
        for kind, count in file.counts.items():
            counts[kind] = counts.get(kind, 0) + count + more
    return PageCheck(9, 999, 999 * BLOCK, 3, checksums=True, end_of_wal=Lsn(0x2A), counts=counts, damaged=files)


def test_nothing_damaged() -> None:
    assert page_findings(checked()) == ()


@pytest.mark.parametrize("kind", BlockDamage)
def test_every_kind_has_its_code(kind: BlockDamage) -> None:
    (finding,) = page_findings(checked(damaged(kind, (3, 5))))
    assert (finding.code, finding.severity) == CODES[kind]
    assert finding.object == FILE
    assert finding.rows is None
    assert finding.detail.endswith(".")
    assert finding.remedy.endswith(".")


def test_where_the_blocks_are() -> None:
    runs = [(3, 5), (9, 9), (12, 19), (30, 30), (40, 41), (50, 59)]
    (finding,) = page_findings(checked(damaged(BlockDamage.HEADER, *runs, unlisted=7)))
    assert finding.detail == (
        "32 of 340 blocks have no page header that PostgreSQL accepts: blocks 3-5, 9, 12-19, 30, 40-41 and 17 more."
    )


def test_one_block_of_a_later_segment() -> None:
    (finding,) = page_findings(checked(damaged(BlockDamage.ZERO, (7, 7), path=f"{FILE}.1", first_block=131072)))
    assert finding.detail.startswith(
        "1 of 340 blocks is empty, and used ones follow: block 7 (counted within this file; 131072 more within the "
        "relation)."
    )


def test_the_end_of_the_wal_is_named() -> None:
    (finding,) = page_findings(checked(damaged(BlockDamage.NEWER_THAN_WAL, (7, 7))))
    assert "past 0/2A, where the WAL ends: block 7." in finding.detail


def test_each_kind_in_a_file_is_a_finding() -> None:
    file = DamagedFile(FILE, 0, 9, {BlockDamage.ZERO: 2, BlockDamage.HEADER: 1}, ())
    assert [finding.code for finding in page_findings(checked(file))] == ["page_header_invalid", "zero_pages"]


@pytest.mark.parametrize("suffix", ["", ".3", "_vm", "_fsm.1"])
def test_relations_are_named(suffix: str) -> None:
    names = {FILE: "portal.public.orders"}
    (finding,) = page_findings(checked(damaged(BlockDamage.HEADER, (0, 0), path=FILE + suffix)), names=names)
    assert finding.object == f"portal.public.orders ({FILE}{suffix})"


def test_maps_are_made_anew() -> None:
    table, fsm = page_findings(
        checked(damaged(BlockDamage.HEADER, (0, 0)), damaged(BlockDamage.HEADER, (0, 0), path=f"{FILE}_fsm"))
    )
    assert "VACUUM" in fsm.remedy
    assert "VACUUM" not in table.remedy


def test_damage_in_files_that_are_not_listed() -> None:
    findings = page_findings(checked(damaged(BlockDamage.HEADER, (0, 0)), more=5))
    assert (findings[-1].object, findings[-1].code) == ("the data directory", "page_header_invalid")
    assert findings[-1].detail == "5 blocks more, in files that are not listed here."


def test_a_check_that_did_not_run() -> None:
    finding = not_run("pg_checksums", "It is not installed.")
    assert (finding.code, finding.severity, finding.object, finding.detail) == (
        "check_not_run",
        Severity.WARNING,
        "pg_checksums",
        "It is not installed.",
    )


TOTALS = """\
Checksum operation completed
Files scanned:   1736
Blocks scanned:  16834
Bad checksums:  {}
Data checksum version: 1
"""
BAD = (
    'pg_checksums: error: checksum verification failed in file "/copy/{}", block {}: '
    "calculated checksum 12AB but block contains FF"
)


def completed(status: int, *, stdout: str = "", stderr: Sequence[str] = ()) -> Completed:
    return Completed(("pg_checksums",), status, stdout, "".join(f"{line}\n" for line in stderr))


def test_the_arguments() -> None:
    assert checksum_arguments("/copy") == ("--check", "--pgdata", "/copy")


def test_output_is_read() -> None:
    line = BAD.format(FILE, 17)
    assert parse_checksums(TOTALS.format(1), f"{line}\n", pgdata="/copy/") == ChecksumOutput(
        16834, 1, (BadChecksum(FILE, 17, 0x12AB, 0xFF),), ()
    )


def test_pg_checksums_found_nothing() -> None:
    assert checksum_findings(completed(0, stdout=TOTALS.format(0)), pgdata="/copy") == ()


def test_pg_checksums_found_wrong_ones() -> None:
    stderr = [BAD.format(FILE, block) for block in (4, 3, 9)] + [BAD.format("global/1262", 0)]
    findings = checksum_findings(
        completed(1, stdout=TOTALS.format(4), stderr=stderr), pgdata="/copy", names={FILE: "a.b.c"}
    )
    assert [(finding.code, finding.severity, finding.object, finding.detail) for finding in findings] == [
        (
            "page_checksum_wrong",
            Severity.ERROR,
            f"a.b.c ({FILE})",
            "3 blocks of this file have another checksum than their content: blocks 3-4, 9.",
        ),
        (
            "page_checksum_wrong",
            Severity.ERROR,
            "global/1262",
            "1 block of this file has another checksum than its content: block 0.",
        ),
    ]


def test_wrong_ones_that_are_only_counted() -> None:
    (finding,) = checksum_findings(completed(1, stdout=TOTALS.format(2)), pgdata="/copy")
    assert (finding.code, finding.object) == ("page_checksum_wrong", "the data directory")


@pytest.mark.parametrize(
    ("ended", "why"),
    [
        (
            completed(1, stderr=["pg_checksums: error: data checksums are not enabled in cluster"]),
            "It ended with status 1: data checksums are not enabled in cluster.",
        ),
        (completed(-9), "It ended with status -9: it printed no reason."),
        (completed(0), "It ended with status 0: it printed no reason."),
        (completed(1, stdout=TOTALS.format(0), stderr=["odd"]), "It ended with status 1: odd."),
        (completed(127, stdout=TOTALS.format(0)), "It ended with status 127: it printed no reason."),
    ],
)
def test_pg_checksums_did_not_do_its_work(ended: Completed, why: str) -> None:
    (finding,) = checksum_findings(ended, pgdata="/copy")
    assert (finding.code, finding.object, finding.detail) == ("check_not_run", "pg_checksums", why)


def test_what_was_found_before_it_broke_off_counts() -> None:
    stderr = [BAD.format(FILE, 4), 'pg_checksums: error: could not read block 5 in file "x": read 100 of 8192']
    findings = checksum_findings(completed(1, stderr=stderr), pgdata="/copy")
    assert [finding.code for finding in findings] == ["page_checksum_wrong", "check_not_run"]
    assert findings[1].detail == 'It ended with status 1: could not read block 5 in file "x": read 100 of 8192.'


def both(pgdata: Path, major: int) -> tuple[dict[tuple[str, str], str], dict[tuple[str, str], str]]:
    """Check a directory in both ways; return the details by code and object."""
    control = control_of(pgdata)
    own = check_pages(pgdata, end_of_wal=control.checkpoint, checksums=True)
    program = programs(major) / "pg_checksums"
    theirs = run([str(program), *checksum_arguments(str(pgdata))])
    return _by_object(page_findings(own)), _by_object(checksum_findings(theirs, pgdata=str(pgdata)))


def _by_object(findings: tuple[Finding, ...]) -> dict[tuple[str, str], str]:
    return {(finding.code, finding.object): finding.detail for finding in findings}


@pytest.mark.native
@pytest.mark.parametrize("major", [15, 16, 17, 18])
def test_healthy_servers_and_one_that_is_not(tmp_path: Path, major: int) -> None:
    pgdata = tmp_path / "pgdata"
    paths = stopped_server(major, pgdata)
    assert both(pgdata, major) == ({}, {})

    orders, users, places = (paths[name] for name in ("orders", "users", "places"))
    for path, block, offset, content in (
        (orders, 2, 4000, b"\x55\xaa\x55"),
        (orders, 3, 4000, b"\x55\xaa\x55"),
        (users, 1, 14, b"\xff\xff"),
        (places, 7, 0, EMPTY),
    ):
        with (pgdata / path).open("r+b") as file:
            file.seek(block * BLOCK + offset)
            file.write(content)
    (pgdata / paths["elsewhere"]).unlink()
    own, theirs = both(pgdata, major)
    assert set(own) == {
        ("page_checksum_wrong", orders),
        ("page_checksum_wrong", users),
        ("page_header_invalid", users),
        ("zero_pages", places),
        ("main_fork_missing", paths["elsewhere"]),
    }
    assert set(theirs) == {("page_checksum_wrong", orders), ("page_checksum_wrong", users)}
    assert all("blocks 2-3." in found["page_checksum_wrong", orders] for found in (own, theirs))

    os.truncate(pgdata / orders, 10 * BLOCK + 100)
    own, theirs = both(pgdata, major)
    assert ("file_not_whole_blocks", orders) in own
    assert "read 100 of 8192" in theirs["check_not_run", "pg_checksums"]


@pytest.mark.native
def test_pg_checksums_where_there_are_none(tmp_path: Path) -> None:
    program = programs(17) / "pg_checksums"
    missing = tmp_path / "none"
    ended = run([str(program), *checksum_arguments(str(missing))])
    (finding,) = checksum_findings(ended, pgdata=str(missing))
    assert finding.code == "check_not_run"
    assert "No such file" in finding.detail
