"""The JSON Schema (draft 2020-12) of drill files, for editors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema

from pgrescue.drill.arranging import DRILLS, UNSHARED
from pgrescue.drill.scenario import ASSERTIONS, Scenario

if TYPE_CHECKING:
    from pydantic_core import core_schema

    JsonSchema = dict[str, Any]

TITLE = "pgrescue drill file"


def scenario_schema() -> dict[str, Any]:
    """Return the schema: what it refuses, the reader refuses, too; the reader also knows what no schema can tell."""
    made = Scenario.model_json_schema(schema_generator=_Generator)
    definitions = made["$defs"]
    drill = definitions["Drill"]
    top = made["properties"]
    top[DRILLS]["minItems"] = 1
    return {
        "$schema": _Generator.schema_dialect,
        "title": TITLE,
        "description": "Unattended restore drills: which snapshots are restored, and what is to hold then.",
        "type": "object",
        "properties": {"version": top["version"], **drill["properties"], DRILLS: top[DRILLS], "notify": top["notify"]},
        "required": ["version"],
        "additionalProperties": False,
        "if": {"required": [DRILLS]},
        "then": {
            "properties": dict.fromkeys(UNSHARED, False),
            # What all drills share can be the assertion of each.
            "anyOf": [_asserts(), {"properties": {DRILLS: {"items": _asserts()}}}],
        },
        "else": {"required": drill["required"], **_asserts()},
        "$defs": definitions,
    }


def _asserts() -> JsonSchema:
    one: list[JsonSchema] = [{"required": [name]} for name in ASSERTIONS if name != "checks"]
    return {"anyOf": [*one, {"required": ["checks"], "properties": {"checks": {"minItems": 1}}}]}


class _Generator(GenerateJsonSchema):
    """Describes what is written in a file: no key stands for nothing, and a default is a default of the program."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchema:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchema:
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, schema: object) -> bool:
        del schema
        return False
