"""What the checks found, and how it is kept in the workspace."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgrescue.model import BlockMap, DamagedBlocks, Finding, VerifyLevel

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Verified:
    """Findings, and maps of the relations that are damaged, of checks at one level; `checks` is how many ran."""

    level: VerifyLevel
    checks: int
    findings: tuple[Finding, ...]
    unreadable_blocks: tuple[BlockMap, ...]

    def to_json(self) -> str:
        """Return what `load` reads."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def load(cls, path: Path) -> Verified:
        """Read what the last checks wrote."""
        document: dict[str, Any] = json.loads(path.read_text())
        return cls(
            VerifyLevel(document["level"]),
            document["checks"],
            tuple(Finding.from_document(found) for found in document["findings"]),
            tuple(
                BlockMap(**{**found, "damaged": tuple(DamagedBlocks(**run) for run in found["damaged"])})
                for found in document["unreadable_blocks"]
            ),
        )
