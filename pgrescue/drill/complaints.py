"""What pydantic finds wrong with a drill file, in words for its author, at the place in the file."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from pgrescue.drill import fields
from pgrescue.drill.arranging import DRILLS, TOP
from pgrescue.drill.scenario import (
    CHECK_KINDS,
    CHECKS,
    After,
    Drill,
    Freshness,
    Ignore,
    Newest,
    Notify,
    RowCount,
    Scenario,
    Transfer,
)
from pgrescue.drill.tree import Entry, Items, Mapping, Problem, Scalar, cut, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

    from pgrescue.drill.tree import Node

_MODELS: dict[tuple[str, ...], type[BaseModel]] = {
    (): Scenario,
    ("notify",): Notify,
    ("drills",): Drill,
    ("drills", "snapshot"): Newest,
    ("drills", "transfer"): Transfer,
    ("drills", "after"): After,
    ("drills", "ignore"): Ignore,
    **{("drills", "checks", kind): model for kind, model in CHECKS.items()},
    ("drills", "checks", "rows", "rows"): RowCount,
    ("drills", "checks", "freshness", "freshness"): Freshness,
}
_QUOTED_ADDRESS = re.compile(r"://[^\s,]")
_CONNECTIONS = {"url", "target_url", "webhook", "dsn", "connection"}


def complaint(error: ErrorDetails, root: Mapping) -> Problem | None:
    """Return what is wrong and where, None where another complaint says it better."""
    path = tuple(str(part) for part in error["loc"] if isinstance(part, str))
    entry, node, name = _find(error["loc"], root)
    kind = error["type"]
    if kind == "too_short":
        return _too_short(node, name)
    if kind == "extra_forbidden" and entry is not None:
        return Problem(entry.place, _unknown(path, root))
    if kind == "missing":
        advice = ': write "version: 1"' if path == ("version",) else ""
        return Problem(node.place, f"{_owner(path)} without {path[-1]}, it is required{advice}")
    return Problem(node.place, f"{cut(name)}: {_text(error, node)}" if name else _text(error, node))


def known_keys(path: Sequence[str]) -> list[str]:
    """Name the keys that a mapping may have, by the keys that lead to it."""
    model = _MODELS.get(tuple(path))
    if model is None:
        return []
    return [str(info.validation_alias or name) for name, info in model.model_fields.items()]


def _find(location: Sequence[int | str], root: Mapping) -> tuple[Entry | None, Node, str]:
    """Return the last entry and node on the way that the file has, and the last key on it."""
    entry, node, name = None, root, ""
    current: Node = node
    for index, part in enumerate(location):
        if index > 1 and location[index - 2] == "checks" and isinstance(location[index - 1], int):
            continue  # pydantic names the kind of the check here, which is no step in the file
        match current:
            case Mapping() if part in current.entries:
                entry, name = current.entries[str(part)], str(part)
                current = entry.node
            case Items() if isinstance(part, int) and part < len(current.items):
                current = current.items[part]
            case _:
                break
    return entry, current, name


def _text(error: ErrorDetails, node: Node) -> str:
    found = fields.found(plain(node))
    match error["type"]:
        case "value_error":
            said = str(error.get("ctx", {}).get("error", error["msg"]))
            if _QUOTED_ADDRESS.search(said):
                # It may hold a password, and this goes into the logs of a CI.
                return "an address, which is not what is expected here"
            folded = isinstance(node, Scalar) and node.style == ">" and "comparison" in said
            return f'{said}; ">" without quotes begins a block of text in YAML: quote it' if folded else said
        case "union_tag_not_found":
            return _no_kind(node)
        case "tuple_type" | "list_type":
            return f"{found}, a list is expected"
        case _:
            return f"{found}, a mapping is expected"


def _no_kind(check: Node) -> str:
    kinds = ", ".join(CHECK_KINDS)
    if not isinstance(check, Mapping):
        return f"{fields.found(plain(check))}, a check is expected, a mapping with one of {kinds}"
    has = [kind for kind in CHECK_KINDS if kind in check.entries]
    if has:
        return f"a check with {' and '.join(has)}, exactly one of {kinds} is expected: make them checks of their own"
    near = [near for key in check.entries for near in _near(key, CHECK_KINDS)]
    return f"a check of no kind, exactly one of {kinds} is expected{_meant(near)}"


def _unknown(path: tuple[str, ...], root: Mapping) -> str:
    key, parent = path[-1], path[:-1]
    known = known_keys(parent)
    if parent == ("drills",) and root.entries[DRILLS].place == root.place:
        known = [*TOP, *known]
    if parent == ("drills",) and key in TOP:
        return f"{key} within a drill, it is expected at the top of the file"
    if parent == ("drills", "transfer") and key in _CONNECTIONS:
        return (
            f"the unknown key {key}, target_url_env is expected: a URL could hold a password, so put it into an "
            "environment variable, and name that"
        )
    near = _near(key, known)
    return f"the unknown key {cut(key)}, " + (
        f"did you mean {near[0]}?" if near else f"one of {', '.join(known)} is expected"
    )


def _near(key: str, known: Sequence[str]) -> list[str]:
    plain_key = key.lower().replace("-", "_").replace(" ", "_")
    return difflib.get_close_matches(plain_key[:100], known, n=1)


def _meant(near: list[str]) -> str:
    return f": did you mean {near[0]}?" if near else ""


def _owner(path: tuple[str, ...]) -> str:
    match path[:-1]:
        case ():
            return "a file"
        case ("drills",):
            return "a drill"
        case ("drills", "checks", *_):
            return f"a check of {path[2]}"
        case parent:
            return parent[-1]


def _too_short(node: Node, name: str) -> Problem | None:
    """Return a complaint about an empty list, None about one whose items are what is wrong."""
    if isinstance(node, Items) and node.items:
        return None
    return Problem(node.place, f"{name}: an empty list, at least one is expected")
