"""How a transfer begins: with a mark in an empty target, or where an earlier run ended."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from psycopg import sql

from pgrescue.model import Finding, Severity
from pgrescue.transfer.endpoint import speaking_of
from pgrescue.transfer.marker import (
    Marker,
    done_tasks,
    drop_made,
    end_leftovers,
    has_lost_rows,
    make_marker,
    remove_marker,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrescue.transfer.schema import Schema
    from pgrescue.transfer.site import Journal, Site


def _source_name(site: Site) -> str:
    return f"{site.sides.source_facts.identity}/{site.sides.source_facts.database}"


def check_marker(marker: Marker, site: Site) -> Iterator[Finding]:
    """Refuse what another source's transfer left."""
    if marker.source != _source_name(site):
        yield Finding(
            "target_of_another_transfer",
            Severity.ERROR,
            site.sides.target_facts.database,
            "An unfinished transfer of another database lies in the target.",
            "Finish that one, or create a new, empty database for this one.",
        )


def _state(site: Site, schema: Schema) -> str:
    return hashlib.sha256(f"{site.state}\0{schema.fingerprint}".encode()).hexdigest()


def begin(site: Site, marker: Marker | None, schema: Schema, journal: Journal) -> Marker:
    """Mark the target, or go on where an earlier run ended: as it is, or from the beginning."""
    target, options, state = site.sides.target, site.plan.options, _state(site, schema)
    name = site.sides.target_facts.database
    with speaking_of("the target could not be prepared"):
        if site.plan.role is not None:
            # The mark, as everything else, is to belong to the role that was named.
            target.execute(sql.SQL("set role {}").format(sql.Identifier(site.plan.role)))
        if marker is None:
            return make_marker(target, _source_name(site), state, options)
        end_leftovers(target, marker.id)
        is_crashed = has_lost_rows(target)
        if (marker.state, marker.options, marker.phase) == (state, options, "moving") and not is_crashed:
            count = len(done_tasks(target))
            journal.findings.append(
                Finding(
                    "transfer_resumed",
                    Severity.INFO,
                    name,
                    f"An earlier run was interrupted; {count} of its tasks are done and are not done again.",
                    "Nothing to do.",
                )
            )
            return marker
        with journal.step("start-over", "Remove what an interrupted transfer left"):
            drop_made(target)
            remove_marker(target)
        reason = "it was ended in the middle of a start over" if marker.phase != "moving" else "its options were others"
        if marker.phase == "moving" and marker.options == options:
            reason = "the source has changed since, or the comparison failed"
        if is_crashed:
            reason = "its server has crashed since, which empties unlogged tables"
        journal.findings.append(
            Finding(
                "transfer_started_over",
                Severity.INFO,
                name,
                f"An earlier run left its part of the work, which cannot be used: {reason}. It was removed.",
                "Nothing to do.",
            )
        )
        return make_marker(target, _source_name(site), state, options)
