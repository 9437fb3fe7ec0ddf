"""The JSON Schema of drill files: the one that is committed, and that it agrees with the reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator

from pgrescue.drill.complaints import known_keys
from pgrescue.drill.fields import Disputed
from pgrescue.drill.reading import parse_scenario
from pgrescue.drill.schema import scenario_schema
from pgrescue.drill.tree import plain, read_tree
from tests.unit.drill.drill_files import BAD, GOOD, HEAD, Bad

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMITTED = Path(__file__).parents[3] / "compose/drill.schema.json"
SCHEMA = scenario_schema()
SEEN = {name: bad for name, bad in BAD.items() if bad.schema}
UNSEEN = {name: bad for name, bad in BAD.items() if not bad.schema}


def errors(text: str) -> list[str]:
    """Return what an editor says, which reads YAML 1.2."""
    root = read_tree(text).root
    assert root is not None
    return [error.message for error in Draft202012Validator(SCHEMA).iter_errors(_of_1_2(plain(root)))]


def _of_1_2(value: object) -> object:
    match value:
        case Disputed():
            return value.text
        case list():
            return [_of_1_2(item) for item in value]
        case dict():
            return {key: _of_1_2(item) for key, item in value.items()}
        case _:
            return value


def _parts(schema: object, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        yield path, schema
        for key, value in schema.items():
            yield from _parts(value, f"{path}/{key}")
    if isinstance(schema, list):
        for number, value in enumerate(schema):
            yield from _parts(value, f"{path}/{number}")


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_the_committed_one_is_this() -> None:
    assert json.loads(COMMITTED.read_text()) == SCHEMA, "pgrescue drill schema > compose/drill.schema.json"


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_what_the_reader_reads_it_accepts(text: str) -> None:
    assert errors(text) == []


@pytest.mark.parametrize("bad", SEEN.values(), ids=SEEN)
def test_what_the_reader_refuses_it_refuses(bad: Bad) -> None:
    assert errors(bad.text) != []


@pytest.mark.parametrize("bad", UNSEEN.values(), ids=UNSEEN)
def test_what_no_schema_can_tell_is_marked_so_for_a_reason(bad: Bad) -> None:
    assert errors(bad.text) == []


def test_every_field_is_described_with_an_example_or_its_values() -> None:
    fields = {
        f"{path}/{name}": field
        for path, part in _parts(SCHEMA)
        if path.endswith("/properties") and not path.startswith(("/then", "/else"))
        for name, field in part.items()
        if isinstance(field, dict) and "/anyOf/" not in path and "/not/" not in path
    }
    assert len(fields) > 50
    bare = [path for path, field in fields.items() if not field.get("description")]
    assert bare == []
    shown = {"examples", "enum", "const", "items", "$ref", "type"}
    assert [path for path, field in fields.items() if not shown & set(field)] == []


def test_every_mapping_is_closed() -> None:
    open_ = [
        path
        for path, part in _parts(SCHEMA)
        if part.get("type") == "object" and part.get("additionalProperties") is not False
    ]
    assert open_ == []


@pytest.mark.parametrize("name", [key for key in known_keys(["drills"]) if key not in {"name", "snapshot"}])
def test_the_examples_of_a_drill_are_read(name: str) -> None:
    for example in SCHEMA["properties"][name].get("examples", []):
        parse_scenario(
            f"{HEAD}require: consistent\n".replace(f"{name}: consistent\n", "") + _field(name, example), _FILE
        )


@pytest.mark.parametrize("example", SCHEMA["properties"]["snapshot"]["examples"])
def test_the_examples_of_a_snapshot_are_read(example: object) -> None:
    text = f"version: 1\nname: a\nrequire: consistent\n{_field('snapshot', example)}"
    parse_scenario(text, _FILE)
    assert errors(text) == []


@pytest.mark.parametrize("kind", ["SqlCheck", "RowsCheck", "FreshnessCheck", "SchemaCheck", "VerifyCheck"])
def test_the_examples_of_a_check_are_read(kind: str) -> None:
    check = SCHEMA["$defs"][kind]
    filled = {name: _example(field) for name, field in check["properties"].items()}
    text = f"{HEAD}{_field('checks', [filled])}"
    assert errors(text) == []
    parse_scenario(text, _FILE)
    for name, field in check["properties"].items():
        for example in field.get("examples", []):
            parse_scenario(f"{HEAD}{_field('checks', [{**filled, name: example}])}", _FILE)


@pytest.mark.parametrize(("field", "kind"), [("after", "After"), ("ignore", "Ignore"), ("notify", "Notify")])
def test_the_examples_of_a_part_are_read(field: str, kind: str) -> None:
    filled = {name: _example(part) for name, part in SCHEMA["$defs"][kind]["properties"].items()}
    value = filled if field == "after" else [filled]
    text = f"{HEAD}require: consistent\n{_field(field, value)}"
    assert errors(text) == []
    parse_scenario(text, _FILE)


_FILE = Path("/drills/drill.yaml")


def _field(name: str, value: object) -> str:
    return f"{name}: {json.dumps(value)}\n"


def _example(field: dict[str, Any]) -> object:
    if "$ref" in field:
        part = SCHEMA["$defs"][field["$ref"].rpartition("/")[2]]
        return {name: _example(inner) for name, inner in part["properties"].items()}
    return field["examples"][0]
