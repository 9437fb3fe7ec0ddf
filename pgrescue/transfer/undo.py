"""Taking a transfer back: a rehearsal leaves the target as it found it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pgrescue.errors import RescueError
from pgrescue.transfer.endpoint import speaking_of
from pgrescue.transfer.marker import drop_made, end_leftovers, read_marker, remove_marker, sole_use
from pgrescue.transfer.site import REHEARSAL

if TYPE_CHECKING:
    from pgrescue.transfer.endpoint import Endpoint
    from pgrescue.transfer.marker import Marker


def require_no_other(endpoint: Endpoint) -> None:
    """Raise RescueError where an unfinished transfer lies in the target that is no rehearsal: somebody's work."""
    with endpoint.connect(purpose="undo") as target, speaking_of("the target could not be looked at"):
        _require_rehearsal(read_marker(target))


def undo(endpoint: Endpoint) -> bool:
    """Drop everything that the rehearsal made whose mark is in the target, and the mark; tell whether there was one.

    Roles that it made stay: they belong to the whole cluster. Raises RescueError where the target holds something else
    meanwhile, or the mark of a transfer that is no rehearsal, and then drops nothing.
    """
    with endpoint.connect(purpose="undo") as target, speaking_of("the target could not be emptied"), sole_use(target):
        marker = read_marker(target)
        _require_rehearsal(marker)
        if marker is None:
            return False
        end_leftovers(target, marker.id)
        drop_made(target)
        remove_marker(target)
    return True


def _require_rehearsal(marker: Marker | None) -> None:
    if marker is not None and json.loads(marker.options)[-1] != REHEARSAL:
        raise RescueError(
            "an unfinished transfer lies in the target, which is no rehearsal",
            hint="Finish it with to-cluster, or name another database for the drill. Nothing was dropped.",
        )
