"""Why a student cannot answer in a shape the teacher never used: a JSON Schema inferred from the teacher's answers."""

from collections.abc import Sequence
from typing import Any

Schema = dict[str, Any]

_MAX_ENUM = 32
_NAMES: dict[type, str] = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


def infer_schema(values: Sequence[Any]) -> Schema:
    """The tightest plain JSON Schema that every value meets. Values are what a JSON parser gives.

    Keys always present are required and no others allowed; strings with at most 32 distinct values, each seen twice
    on average, become an enum; values of several types become `anyOf`. Keys are in sorted order, since constrained
    decoding writes them in the schema's order and a canonical answer has them sorted.
    """
    by_type: dict[str, list[Any]] = {}
    for value in values:
        by_type.setdefault(_NAMES[type(value)], []).append(value)
    if "integer" in by_type and "number" in by_type:
        by_type["number"] += by_type.pop("integer")
    schemas = [_schema_of(name, by_type[name]) for name in sorted(by_type)]
    if not schemas:
        return {}
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _schema_of(name: str, values: list[Any]) -> Schema:
    if name == "object":
        return _object_schema(values)
    if name == "array":
        items = [item for value in values for item in value]
        return {"type": "array", "items": infer_schema(items)} if items else {"type": "array", "maxItems": 0}
    if name == "string" and len(distinct := sorted(set(values))) <= _MAX_ENUM and len(distinct) * 2 <= len(values):
        return {"enum": distinct}
    return {"type": name}


def _object_schema(values: list[dict[str, Any]]) -> Schema:
    keys = sorted({key for value in values for key in value})
    return {
        "type": "object",
        "properties": {key: infer_schema([value[key] for value in values if key in value]) for key in keys},
        "required": [key for key in keys if all(key in value for value in values)],
        "additionalProperties": False,
    }
