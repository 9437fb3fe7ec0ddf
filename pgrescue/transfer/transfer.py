"""A whole transfer: preflight, move, compare; it can be stopped at any point and run again."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from pgrescue.errors import UsageError
from pgrescue.model import Finding, MovedTable, Severity, TransferOutcome, TransferReport
from pgrescue.transfer.begin import begin, check_marker
from pgrescue.transfer.compare import (
    CompareLevel,
    compare_counts,
    compare_sequences,
    compare_table,
    compare_tables,
    compare_validity,
    differences,
    is_same_database,
)
from pgrescue.transfer.endpoint import speaking_of
from pgrescue.transfer.facts import read_facts, user_objects
from pgrescue.transfer.large_objects import digest, read_ranges
from pgrescue.transfer.marker import done_tasks, foreign_objects, purpose, read_marker, remove_marker, sole_use
from pgrescue.transfer.move import Load, analyze, analyzed_tables, move, populated_views, tables_of_indexes
from pgrescue.transfer.plan import Plan
from pgrescue.transfer.pooling import passing
from pgrescue.transfer.powers import check_schema
from pgrescue.transfer.preflight import check_target, not_empty
from pgrescue.transfer.roles import make_roles
from pgrescue.transfer.salvage import Salvage
from pgrescue.transfer.schema import dump_schema
from pgrescue.transfer.sessions import writing
from pgrescue.transfer.site import Journal, connected
from pgrescue.transfer.tables import read_sequences, read_tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from pgrescue.pipeline import Observer
    from pgrescue.transfer.endpoint import Endpoint
    from pgrescue.transfer.marker import Marker
    from pgrescue.transfer.schema import Schema
    from pgrescue.transfer.site import Site, TransferPlan
    from pgrescue.transfer.source import Source


# Entries that may be left out, and what the comparison calls them.
_COUNTED = {"POLICY": "policies"}


def transfer(source: Source, endpoint: Endpoint, plan: TransferPlan, observer: Observer) -> TransferReport:
    """Move the source's database into the empty target, and compare both.

    Returns the report also where the preflight refuses, or the content differs. Raises RescueError where the work broke
    off: the same call carries on then.
    """
    begun = time.monotonic()
    journal = Journal(observer)
    with connected(source, endpoint, plan) as site, speaking_of("the transfer broke off"):
        outcome = _run(site, journal)
        facts = (site.sides.source_facts, site.sides.target_facts)
    return TransferReport(
        outcome=outcome,
        source=source.described,
        database=facts[0].database,
        target=endpoint.shown,
        source_version=facts[0].version,
        target_version=facts[1].version,
        tables=tuple(
            MovedTable(one.table.label, one.target.rows, one.table.size_bytes, one.is_equal)
            for one in sorted(journal.compared, key=lambda one: one.table.label)
        ),
        compare=plan.compare.value,
        steps=tuple(journal.steps),
        findings=tuple(journal.findings),
        seconds=round(time.monotonic() - begun, 3),
    )


def look_early(endpoint: Endpoint) -> None:
    """Raise RescueError where no transfer into the target can succeed, whatever the source: before it is rescued."""
    with speaking_of("the target could not be looked at"), passing(endpoint) as target:
        facts = read_facts(target)
        found = not_empty(user_objects(target), facts) if read_marker(target) is None else None
    if found is not None:
        raise UsageError(found.detail, hint=found.remedy)


def _run(site: Site, journal: Journal) -> TransferOutcome:
    target, plan = site.sides.target, site.plan
    # Behind a pooler the lock would stay with one of its sessions.
    with contextlib.nullcontext() if site.sides.sessions.are_shared else sole_use(target):
        marker = read_marker(target)
        decided = Plan()
        with journal.step("preflight", "Look at source and target"), speaking_of("the preflight could not be ended"):
            schema = dump_schema(site.source, site.sides.source, site.snapshot, with_owners=plan.role is None)
            found = _preflight(site, schema, decided, marker)
            if _may_be_there_already(found) and _is_there_already(
                site, _left_out_kinds(schema, decided.left_out(schema))
            ):
                journal.findings.append(_already(site))
                return TransferOutcome.ALREADY_THERE
            journal.findings += found
        if marker is not None:
            journal.findings += check_marker(marker, site)
        if journal.has_errors:
            return TransferOutcome.REFUSED
        if plan.is_dry:
            return TransferOutcome.READY
        if not decided.keeps_owners and plan.role is None:
            schema = dump_schema(site.source, site.sides.source, site.snapshot, with_owners=False)
        marker = begin(site, marker, schema, journal)
        if decided.missing_roles:
            with speaking_of("the roles could not be made"):
                journal.findings += make_roles(site.sides, decided.missing_roles)
        load = _load(site, decided.applied(schema, site.sides.target_facts.database), decided)
        if load.salvage is not None and not done_tasks(target):
            load.salvage.begin_anew()
        _move(site, marker, load, journal)
        return _end(site, marker, load, journal)


def _preflight(site: Site, schema: Schema, decided: Plan, marker: Marker | None) -> list[Finding]:
    """Return everything that is to be known before a byte is written, and decide what becomes of the schema."""
    sides, plan = site.sides, site.plan
    present = user_objects(sides.target) if marker is None else foreign_objects(sides.target)
    occupied = not_empty(present, sides.target_facts) if marker is None else None
    return [
        *([occupied] if occupied else []),
        *check_target(sides, verdict=site.source.verdict, salvages=plan.salvages),
        *check_schema(sides, schema, decided, present, role=plan.role, makes_roles=plan.makes_roles),
    ]


def _may_be_there_already(found: Sequence[Finding]) -> bool:
    """Tell whether the target is not empty, and nothing else speaks against it."""
    return {finding.code for finding in found if finding.severity is Severity.ERROR} == {"target_not_empty"}


def _is_there_already(site: Site, left_out: dict[str, int]) -> bool:
    salvage = _salvage(site)
    with site.pair("look") as pair:
        if salvage is None:
            return is_same_database(pair, site.plan.compare, but_for=left_out)
        counts = {**salvage.left_out_counts(), **left_out}
        return is_same_database(pair, site.plan.compare, but_for=counts, comparing=salvage.compare_table)


def _salvage(site: Site) -> Salvage | None:
    return Salvage(site.plan.manifest, site.source.pgdata) if site.plan.salvages else None


def _already(site: Site) -> Finding:
    how = "rows by number" if site.plan.compare is not CompareLevel.HASH else "every row by its hash"
    return Finding(
        "already_there",
        Severity.INFO,
        site.sides.target_facts.database,
        f"The target holds exactly this database already (compared: {how}, sequences, numbers of objects).",
        "Nothing to do; nothing was written.",
    )


def _load(site: Site, schema: Schema, decided: Plan) -> Load:
    source = site.sides.source
    with speaking_of("the source could not be read"):
        return Load(
            schema,
            decided.left_out(schema),
            read_tables(source),
            read_sequences(source),
            read_ranges(source),
            tables_of_indexes(source),
            populated_views(source),
            analyzed_tables(source),
            keeps_owners=decided.keeps_owners,
            strangers=decided.strangers,
            salvage=_salvage(site),
        )


def _move(site: Site, marker: Marker, load: Load, journal: Journal) -> None:
    with (
        writing(site.endpoint, encoding="UTF8", role=site.plan.role, purpose=purpose(marker.id)) as writer,
        speaking_of("the target broke off"),
    ):
        with journal.step("move", "Move schema, rows and indexes"):
            move(
                load,
                writer,
                lambda: site.pair(marker.id),
                jobs=site.plan.jobs,
                done=done_tasks(writer),
                observer=journal.observer,
            )
        with journal.step("analyze", "Gather statistics"):
            analyze(load, lambda: site.pair(marker.id), jobs=site.plan.jobs, done=frozenset(done_tasks(writer)))
    journal.findings += load.findings
    if load.salvage is not None:
        journal.findings += load.salvage.findings()


def _end(site: Site, marker: Marker, load: Load, journal: Journal) -> TransferOutcome:
    """Compare, and take the mark away; where something differs it stays, and makes the next run start over."""
    with journal.step("compare", "Compare source and target"), speaking_of("source and target could not be compared"):
        journal.findings += _compared(site, marker, load, journal)
    target = site.sides.target
    with speaking_of("the transfer could not be ended"):
        if journal.has_errors:
            target.execute("update pgrescue_transfer.transfer set state = 'differs'")
            return TransferOutcome.FAILED
        if not site.plan.keeps_mark:
            remove_marker(target)
    return TransferOutcome.MOVED


def _compared(site: Site, marker: Marker, load: Load, journal: Journal) -> Iterator[Finding]:
    level, source, target = site.plan.compare, site.sides.source, site.sides.target
    yield from compare_validity(source, target)
    if level is CompareLevel.NONE:
        yield Finding(
            "compare_skipped",
            Severity.WARNING,
            site.sides.target_facts.database,
            "Nothing was compared (--compare none).",
            "Run the same command again with --compare hash: it compares, and moves nothing.",
        )
        return
    yield from compare_sequences(source, target)
    left = load.salvage.left_out_counts() if load.salvage is not None else {}
    yield from compare_counts(source, target, but_for={**left, **_left_out_kinds(load.schema, load.left_out)})
    journal.compared = compare_tables(
        load.tables,
        lambda: site.pair(marker.id),
        level=level,
        jobs=site.plan.jobs,
        comparing=compare_table if load.salvage is None else load.salvage.compare_table,
    )
    yield from differences(journal.compared)
    if load.large_objects and load.salvage is None and level is CompareLevel.HASH and digest(source) != digest(target):
        yield Finding(
            "content_differs",
            Severity.ERROR,
            "large objects",
            "Their numbers or contents are not the same.",
            "Do not use the target. If nobody else wrote to it, run the same command again: it starts over.",
        )


def _left_out_kinds(schema: Schema, left_out: AbstractSet[int]) -> dict[str, int]:
    """Return how many objects of the kinds that are counted are left out on purpose."""
    kinds = [kind for entry in schema.entries if entry.number in left_out and (kind := _COUNTED.get(entry.type))]
    return {kind: kinds.count(kind) for kind in kinds}
