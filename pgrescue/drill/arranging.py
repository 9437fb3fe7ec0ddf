"""The two forms of a drill file as one: a list of drills, each with the defaults that stand beside the list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgrescue.drill.scenario import ASSERTIONS, Drill
from pgrescue.drill.tree import Entry, Items, Mapping, Problem, Scalar, cut

if TYPE_CHECKING:
    from pgrescue.drill.tree import Node, Place

DRILLS = "drills"
TOP = ("version", DRILLS, "notify")
UNSHARED = ("name", "snapshot")
_JOINED = ("checks", "ignore")
"""Lists that a drill adds to what is common to all."""


def arrange(root: Mapping) -> tuple[tuple[Mapping, ...], list[Problem]]:
    """Return the file in one form, and what its drills lack together.

    The first mapping is what is meant. A second one has the defaults as a drill of their own, so that what is wrong
    with them is found even where every drill has its own.
    """
    top = {key: entry for key, entry in root.entries.items() if key in TOP}
    own = {key: entry for key, entry in root.entries.items() if key not in TOP}
    listed = top.get(DRILLS)
    if listed is None:
        drill = Mapping(root.place, own)
        return (_file(root, top, root.place, (drill,)),), _idle([drill])
    if not isinstance(listed.node, Items):
        return (Mapping(root.place, top),), []
    shared = {key: entry for key, entry in own.items() if key in Drill.model_fields and key not in UNSHARED}
    drills = tuple(_with(shared, item) if isinstance(item, Mapping) else item for item in listed.node.items)
    found = [item for item in drills if isinstance(item, Mapping)]
    stand_in = Entry(root.place, Scalar(root.place, "defaults"))
    defaults = Mapping(root.place, {**own, **dict.fromkeys(UNSHARED, stand_in)})
    problems = [
        Problem(own[key].place, f"{key} beside drills, it is expected within each of them")
        for key in UNSHARED
        if key in own
    ]
    if not drills:
        problems.append(Problem(listed.node.place, "drills: an empty list, at least one drill is expected"))
    whole = _file(root, top, listed.place, drills)
    return (whole, _file(root, top, root.place, (defaults,))), [*problems, *_twice(found), *_idle(found)]


def _file(root: Mapping, top: dict[str, Entry], place: Place, drills: tuple[Node, ...]) -> Mapping:
    return Mapping(root.place, {**top, DRILLS: Entry(place, Items(place, drills))})


def _with(shared: dict[str, Entry], drill: Mapping) -> Mapping:
    entries = dict(drill.entries)
    for key, entry in shared.items():
        mine = entries.get(key)
        if mine is None:
            entries[key] = entry
        elif key in _JOINED and isinstance(mine.node, Items) and isinstance(entry.node, Items):
            entries[key] = Entry(mine.place, Items(mine.node.place, entry.node.items + mine.node.items))
    return Mapping(drill.place, entries)


def _twice(drills: list[Mapping]) -> list[Problem]:
    problems: list[Problem] = []
    lines: dict[str, int] = {}
    for drill in drills:
        entry = drill.entries.get("name")
        if entry is None or not isinstance(entry.node, Scalar) or not isinstance(entry.node.value, str):
            continue
        name = entry.node.value.strip()
        if name in lines:
            text = f"name: {cut(name)} again, each drill is expected to have its own: line {lines[name]} has it already"
            problems.append(Problem(entry.node.place, text))
        lines.setdefault(name, entry.node.place.line)
    return problems


def _idle(drills: list[Mapping]) -> list[Problem]:
    """Find drills that could not fail, because nothing is asserted."""
    return [
        Problem(drill.place, f"a drill that asserts nothing, at least one of {', '.join(ASSERTIONS)} is expected")
        for drill in drills
        if not any(_asserts(drill.entries.get(key)) for key in ASSERTIONS)
    ]


def _asserts(entry: Entry | None) -> bool:
    return entry is not None and not (isinstance(entry.node, Items) and not entry.node.items)
