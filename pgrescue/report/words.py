"""What the reports for persons call things, so that terminal and page say the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgrescue.model import Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

VERDICTS: Mapping[Verdict, str] = {
    Verdict.CONSISTENT: "PostgreSQL itself vouches for this copy, and every check that ran is clean.",
    Verdict.BEST_EFFORT: "The server runs. That its data is complete and consistent cannot be proven.",
    Verdict.DAMAGED: "The server runs. Data is damaged or missing; the errors among the findings name it.",
    Verdict.FAILED: "There is no server.",
}
OUTCOMES: Mapping[Outcome, str] = {
    Outcome.DONE: "done",
    Outcome.HELD: "done before",
    Outcome.SKIPPED: "skipped",
    Outcome.FAILED: "FAILED",
}
# By value: the strategies of DESIGN.md, also those that are not built yet.
STRATEGIES: Mapping[str, str] = {
    "clean": "the server had been shut down, there was nothing to repair",
    "archive": "recovery from the backup with its WAL archive",
    "replay": "recovery from the backup with the WAL beside it",
    "crash": "PostgreSQL's own crash recovery, from the WAL in the snapshot",
    "reset": "the WAL was reset, what only the WAL held is gone",
}
