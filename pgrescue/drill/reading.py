"""From a drill file to what it asks for, or to everything that is wrong with it, each with its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from pgrescue.drill import fields
from pgrescue.drill.arranging import arrange
from pgrescue.drill.complaints import complaint
from pgrescue.drill.scenario import Scenario
from pgrescue.drill.tree import Mapping, Place, Problem, Scalar, cut, nodes, plain, read_tree
from pgrescue.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from pgrescue.drill.tree import Node

LARGEST_BYTES = 1 << 20
_MOST_NAMED = 100
_HINT = "`pgrescue drill schema` prints what a drill file may hold; `pgrescue drill init SNAPSHOT` writes an example."


class ScenarioError(UsageError):
    """A drill file that cannot be meant; `problem` has a line for each error: FILE:LINE:COLUMN, what was found."""


def read_scenario(path: Path) -> Scenario:
    """Read a drill file; raise ScenarioError with all that is wrong with it."""
    return parse_scenario(_text(path), path)


def parse_scenario(text: str, path: Path) -> Scenario:
    """Read the text of the drill file at `path`, from whose directory relative paths start."""
    tree = read_tree(text)
    problems = list(tree.problems)
    match tree.root:
        case None if not problems:
            raise ScenarioError(f"{path}:1:1: an empty file, a drill is expected", hint=_HINT)
        case None:
            pass
        case Mapping() as root:
            scenario = _scenario(root, path, problems)
            if scenario is not None:
                return scenario
        case other:
            problems.append(Problem(other.place, f"{fields.found(plain(other))}, a mapping of fields is expected"))
    lines = [f"{path}:{one.place.line}:{one.place.column}: {_visible(one.text)}" for one in sorted(set(problems))]
    if len(lines) > _MOST_NAMED:
        lines[_MOST_NAMED:] = [f"… and {len(lines) - _MOST_NAMED} more"]
    raise ScenarioError("\n".join(lines), hint=_HINT)


def _scenario(root: Mapping, path: Path, problems: list[Problem]) -> Scenario | None:
    """Return what the file asks for; where something is wrong, None, and `problems` has it."""
    problems += _empty(root)
    values = {node.place for _, node in nodes(root) if isinstance(node, Scalar)}
    known = values & {problem.place for problem in problems}
    files, more = arrange(root)
    problems += more
    context = {fields.BASE: path.absolute().parent}
    scenario = None
    for file in reversed(files):
        try:
            scenario = Scenario.model_validate(plain(file), context=context, by_alias=True, by_name=False)
        except ValidationError as error:
            scenario = None
            found = [complaint(one, file) for one in error.errors(include_url=False)]
            # What is said of a value already is why it does not fit.
            problems += [one for one in found if one is not None and one.place not in known]
    return None if problems else scenario


def _visible(text: str) -> str:
    """Return one line that a terminal does not obey: what the file holds may be quoted in it."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def _empty(root: Node) -> list[Problem]:
    return [
        Problem(node.place, f"{cut(name)}: no value, one is expected: leave the key out otherwise")
        for name, node in nodes(root)
        if isinstance(node, Scalar) and node.value is None
    ]


def _text(path: Path) -> str:
    where = f"{path}:1:1"
    try:
        # A named pipe would be waited for, and a device has no end.
        if path.exists() and not path.is_file():
            what = "a directory" if path.is_dir() else "no regular file"
            raise ScenarioError(f"{where}: {what}, a drill file is expected", hint=_HINT)
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ScenarioError(f"{where}: cannot be read ({reason}), a drill file is expected", hint=_HINT) from error
    if len(content) > LARGEST_BYTES:
        raise ScenarioError(f"{where}: more than {LARGEST_BYTES >> 20} MiB, a drill file is small", hint=_HINT)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        good = content[: error.start].decode("utf-8-sig", "replace")
        place = Place(good.count("\n") + 1, len(good) - good.rfind("\n"))
        raise ScenarioError(
            f"{path}:{place.line}:{place.column}: bytes that are no UTF-8, a text in UTF-8 is expected", hint=_HINT
        ) from error
