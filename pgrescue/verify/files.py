"""Findings about the files of a stopped server: what the page check found, and what pg_checksums says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, assert_never

from pgrescue.model import Finding, Severity
from pgrescue.snapshot.page_damage import BlockDamage, BlockRun
from pgrescue.verify.not_run import not_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pgrescue.command import Completed
    from pgrescue.snapshot.page_damage import DamagedFile, PageCheck

PG_CHECKSUMS: Final = "pg_checksums"

_SHOWN_RUNS: Final = 5
_NO_NAMES: Final[Mapping[str, str]] = MappingProxyType({})
_FILE: Final = re.compile(r"(?P<relation>(?:.*/)?\d+)(?P<fork>_fsm|_vm|_init)?(?:\.\d+)?")
_MAP_REMEDY: Final = (
    "This is a map, which holds no rows. Stop the server, delete the map's files, and VACUUM the table: it makes a new "
    "one."
)
_LOST_FILE: Final = (
    "Take the file from another copy of the same backup. Without it, REINDEX makes an index anew; the rows of a table "
    "that were in it are lost."
)


@dataclass(frozen=True)
class _Kind:
    code: str
    severity: Severity
    remedy: str


_KINDS: Final[Mapping[BlockDamage, _Kind]] = MappingProxyType(
    {
        BlockDamage.HEADER: _Kind(
            "page_header_invalid",
            Severity.ERROR,
            "PostgreSQL refuses to read these blocks. Take the file from another copy of the same backup. Without it, "
            "REINDEX makes an index anew; of a table, zero_damaged_pages lets the rows of the other blocks be read.",
        ),
        BlockDamage.CHECKSUM: _Kind(
            "page_checksum_wrong",
            Severity.ERROR,
            "PostgreSQL refuses to read these blocks. Take the file from another copy of the same backup. Without it, "
            "REINDEX makes an index anew; of a table, ignore_checksum_failure shows what is left, which may be wrong.",
        ),
        BlockDamage.NEWER_THAN_WAL: _Kind(
            "page_newer_than_wal",
            Severity.ERROR,
            "Look for the WAL that was written after this copy began, and rescue with it. Without it, REINDEX, check "
            "the rows, and reload a dump into a new cluster.",
        ),
        BlockDamage.ZERO: _Kind(
            "zero_pages",
            Severity.WARNING,
            "The checks of the indexes tell which: rows that an index points to in these blocks are lost. REINDEX, if "
            "it is an index itself.",
        ),
        BlockDamage.PARTIAL: _Kind("file_not_whole_blocks", Severity.ERROR, _LOST_FILE),
        BlockDamage.TRUNCATED: _Kind("segment_truncated", Severity.ERROR, _LOST_FILE),
        BlockDamage.MISSING: _Kind("segment_missing", Severity.ERROR, _LOST_FILE),
        BlockDamage.MAIN_FORK_MISSING: _Kind("main_fork_missing", Severity.ERROR, _LOST_FILE),
    }
)


def page_findings(check: PageCheck, *, names: Mapping[str, str] = _NO_NAMES) -> tuple[Finding, ...]:
    """Return one finding for each damaged file and kind of damage.

    `names` gives relations their names, `portal.public.orders`, by the path of their first file, `base/16384/16402`.
    Where more files are damaged than the check lists, the last finding counts what they have.
    """
    listed = tuple(
        _finding(kind, file.path, _page_detail(file, kind, check), names)
        for file in check.damaged
        for kind in BlockDamage
        if kind in file.counts
    )
    return (*listed, *_unlisted(check))


@dataclass(frozen=True, slots=True)
class BadChecksum:
    """One line of pg_checksums: `path` is in the data directory, `block` counted within the file."""

    path: str
    block: int
    calculated: int
    found: int


@dataclass(frozen=True)
class ChecksumOutput:
    """What `pg_checksums --check` printed: its totals, None where it did not come to its end, and what stopped it."""

    blocks: int | None
    bad_blocks: int | None
    bad: tuple[BadChecksum, ...]
    errors: tuple[str, ...]


def checksum_arguments(pgdata: str) -> tuple[str, ...]:
    """Return what to run pg_checksums with; `pgdata` is the data directory as the engine's programs name it."""
    return ("--check", "--pgdata", pgdata)


_BAD: Final = re.compile(
    r'checksum verification failed in file "(?P<path>.*)", block (?P<block>\d+): '
    r"calculated checksum (?P<calculated>[0-9A-F]+) but block contains (?P<found>[0-9A-F]+)"
)
_BLOCKS: Final = re.compile(r"^Blocks scanned: +(\d+)$", re.MULTILINE)
_BAD_BLOCKS: Final = re.compile(r"^Bad checksums: +(\d+)$", re.MULTILINE)
_PROGRAM: Final = re.compile(r"^\S*pg_checksums: (?:error: |fatal: )?")


def parse_checksums(stdout: str, stderr: str, *, pgdata: str) -> ChecksumOutput:
    """Read what `pg_checksums --check` of PostgreSQL 12 to 18 printed in the locale C."""
    prefix = pgdata.rstrip("/") + "/"
    bad, errors = [], []
    for line in stderr.splitlines():
        if match := _BAD.search(line):
            path = match["path"].removeprefix(prefix)
            bad.append(BadChecksum(path, int(match["block"]), int(match["calculated"], 16), int(match["found"], 16)))
        elif line.strip():
            errors.append(_PROGRAM.sub("", line.strip()))
    blocks, bad_blocks = _BLOCKS.search(stdout), _BAD_BLOCKS.search(stdout)
    return ChecksumOutput(
        None if blocks is None else int(blocks[1]),
        None if bad_blocks is None else int(bad_blocks[1]),
        tuple(bad),
        tuple(errors),
    )


def checksum_findings(
    completed: Completed, *, pgdata: str, names: Mapping[str, str] = _NO_NAMES
) -> tuple[Finding, ...]:
    """Return one finding for each file in which pg_checksums found wrong checksums, and one if it did not finish.

    `pgdata` is what it was run with. The `names` are those of `page_findings`.
    """
    output = parse_checksums(completed.stdout, completed.stderr, pgdata=pgdata)
    blocks: dict[str, list[int]] = {}
    for bad in output.bad:
        blocks.setdefault(bad.path, []).append(bad.block)
    findings = [
        _finding(
            BlockDamage.CHECKSUM,
            path,
            f"{_counted(len(of), 'block')} of this file {_have(len(of))} another checksum than {_their(len(of))} "
            f"content: {_places(_runs_of(of))}.",
            names,
        )
        for path, of in blocks.items()
    ]
    if (
        output.bad_blocks is None
        or completed.status not in {0, 1}
        or (completed.status == 0) != (not output.bad_blocks)
    ):
        said = "; ".join(output.errors) or "it printed no reason"
        findings.append(not_run(PG_CHECKSUMS, f"It ended with status {completed.status}: {said}."))
    elif output.bad_blocks > len(output.bad):
        more = output.bad_blocks - len(output.bad)
        detail = (
            f"{_counted(more, 'block')} more {_have(more)} wrong checksums, in files that pg_checksums did not name."
        )
        findings.append(_finding(BlockDamage.CHECKSUM, "the data directory", detail, _NO_NAMES))
    return tuple(findings)


def _finding(kind: BlockDamage, path: str, detail: str, names: Mapping[str, str]) -> Finding:
    about = _KINDS[kind]
    parts = _FILE.fullmatch(path)
    is_map = parts is not None and parts["fork"] in {"_fsm", "_vm"}
    name = names.get(path) or (names.get(parts["relation"]) if parts else None)
    shown = f"{name} ({path})" if name else path
    return Finding(about.code, about.severity, shown, detail, _MAP_REMEDY if is_map else about.remedy)


def _unlisted(check: PageCheck) -> Iterator[Finding]:
    for kind in BlockDamage:
        more = check.counts.get(kind, 0) - sum(file.counts.get(kind, 0) for file in check.damaged)
        if more:
            yield _finding(
                kind, "the data directory", f"{_counted(more, 'block')} more, in files that are not listed here.", {}
            )


def _page_detail(file: DamagedFile, kind: BlockDamage, check: PageCheck) -> str:
    """Say what is wrong, in how many blocks of the file, and in which."""
    count = file.counts[kind]
    runs = [run for run in file.runs if run.kind is kind]
    listed = sum(run.last - run.first + 1 for run in runs)
    where = _places(runs, more_blocks=count - listed) + _numbering(file)
    of = f"{count} of {_counted(file.blocks, 'block')}"
    match kind:
        case BlockDamage.HEADER:
            return f"{of} {_have(count)} no page header that PostgreSQL accepts: {where}."
        case BlockDamage.CHECKSUM:
            return f"{of} {_have(count)} another checksum than {_their(count)} content: {where}."
        case BlockDamage.NEWER_THAN_WAL:
            return (
                f"{of} {_have(count)} an LSN past {check.end_of_wal}, where the WAL ends: {where}. What changed them "
                "last is in no WAL, so that other pages may lack their part of the same change."
            )
        case BlockDamage.ZERO:
            return (
                f"{of} {'is' if count == 1 else 'are'} empty, and used ones follow: {where}. This is space that was "
                "never used, as PostgreSQL 16 and later leave it where many write at once, or rows that are lost."
            )
        case BlockDamage.PARTIAL:
            return f"The file ends within a block, after {_counted(file.blocks, 'whole block')}."
        case BlockDamage.TRUNCATED:
            return (
                f"The file ends after {_counted(file.blocks, 'block')}, {count} too few, and the relation goes on in "
                "a later file."
            )
        case BlockDamage.MISSING:
            return f"The file is missing, with {_counted(count, 'block')}, and the relation goes on in a later file."
        case BlockDamage.MAIN_FORK_MISSING:
            return "The file is missing, and other files of the same relation are there."
        case _:
            assert_never(kind)


def _numbering(file: DamagedFile) -> str:
    """Say how to get from numbers within a later segment to those that PostgreSQL's own messages have."""
    return f" (counted within this file; {file.first_block} more within the relation)" if file.first_block else ""


def _places(runs: Sequence[BlockRun], *, more_blocks: int = 0) -> str:
    """Name the first few runs; `more_blocks` are in none of them."""
    shown = ", ".join(
        str(run.first) if run.first == run.last else f"{run.first}-{run.last}" for run in runs[:_SHOWN_RUNS]
    )
    rest = more_blocks + sum(run.last - run.first + 1 for run in runs[_SHOWN_RUNS:])
    what = "blocks" if len(runs) > 1 or any(run.first != run.last for run in runs) else "block"
    return f"{what} {shown}" + (f" and {rest} more" if rest else "")


def _runs_of(blocks: Iterable[int]) -> list[BlockRun]:
    """Join blocks that follow each other."""
    runs: list[BlockRun] = []
    for block in sorted(blocks):
        if runs and runs[-1].last + 1 == block:
            runs[-1] = BlockRun(runs[-1].first, block, BlockDamage.CHECKSUM)
        else:
            runs.append(BlockRun(block, block, BlockDamage.CHECKSUM))
    return runs


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _have(number: int) -> str:
    return "has" if number == 1 else "have"


def _their(number: int) -> str:
    return "its" if number == 1 else "their"
