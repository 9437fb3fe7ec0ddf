"""The rescue report as one page for a browser, which needs nothing beside it and holds no secret."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, assert_never

from pgrescue.model import Verdict
from pgrescue.report.page import bars_of, damage_of, groups_of, rendered
from pgrescue.report.words import STRATEGIES, VERDICTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pgrescue.model import BlockMap, RescueReport

_MOST_DATABASES = 200


@dataclass(frozen=True)
class _Advice:
    """One thing to do next, and the command for it where there is one."""

    text: str
    command: str = ""


def report_page(report: RescueReport, *, blocks: Sequence[BlockMap], program: str) -> str:
    """Return the report as one HTML page, which is valid UTF-8 and refers to nothing outside of itself.

    `blocks` are the relations that were looked at; `program` is how a shell finds pgrescue, so that the commands shown
    can be pasted. Of very many findings or damaged relations only the first are shown, and the page says so.
    """
    return rendered("report.html.j2", _values(report, blocks, program))


def _values(report: RescueReport, blocks: Sequence[BlockMap], program: str) -> dict[str, Any]:
    """Return what the template shows. The URL with the password is not among it: the page may be passed on."""
    return {
        "report": report,
        "title": report.workspace.name,
        "meaning": VERDICTS[report.verdict],
        "strategy": STRATEGIES.get(report.strategy, ""),
        "advice": tuple(_advice(report, program)),
        "groups": groups_of(report.findings),
        "removal": f"{program} rm {_named(report)}",
        "commands": tuple(_commands(report, program)),
        "databases": report.databases[:_MOST_DATABASES],
        "databases_bytes": sum(database.size_bytes for database in report.databases),
        "damage": damage_of(blocks),
        "bars": bars_of(report.steps),
    }


def _advice(report: RescueReport, program: str) -> Iterator[_Advice]:
    """Say what to do next, in three lines at most (RECOVERY.md, "Read the verdict")."""
    workspace = _named(report)
    look = f"{program} psql {workspace}"
    move = "Move the data to a new cluster: RECOVERY.md, part 4."
    match report.verdict:
        case Verdict.CONSISTENT:
            yield _Advice("Look at the data.", look)
            yield _Advice(move)
            yield _Advice("Keep the snapshot until the new cluster is in use.")
        case Verdict.BEST_EFFORT:
            yield _Advice("Change nothing on the rescued server before it is dumped.")
            yield _Advice("Compare with what you know: last orders, sums, counts.", look)
            yield _Advice(move)
        case Verdict.DAMAGED:
            yield _Advice("Read the errors below: they name what is damaged or missing, and what to do about it.")
            yield _Advice("Change nothing on the rescued server. Dump what can be had: RECOVERY.md, part 4.", look)
            yield _Advice("Look for a better snapshot, and for the WAL archive, at the same time. Keep this one.")
        case Verdict.FAILED:
            yield _Advice("Read the errors below, then the log.", f"{program} logs {workspace}")
            yield _Advice("Mend the cause and run the same command again: the workspace stays as it is.")
            yield _Advice("Keep the snapshot, the old volume and the old disk, even a broken one.")
        case _:
            assert_never(report.verdict)


def _commands(report: RescueReport, program: str) -> Iterator[tuple[str, str]]:
    workspace = _named(report)
    if report.shown_url is not None:
        yield "psql", f"{program} psql {workspace}"
        yield "Stop the server", f"{program} stop {workspace}"
    yield "Server log", f"{program} logs {workspace}"


def _named(report: RescueReport) -> str:
    return f"-w {shlex.quote(str(report.workspace))}"
