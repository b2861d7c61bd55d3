"""Why a student cannot answer in a shape the teacher never used: a JSON Schema inferred from the teacher's answers."""

from collections.abc import Sequence
from typing import Any

import orjson

Schema = dict[str, Any]

MAX_BYTES = 16_384
MAX_PROPERTIES = 200
MAX_DEPTH = 8
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


def find_excess(schema: str) -> str:
    """What of a JSON Schema, as text, is more than a constrained decoder should be given; "" if nothing is."""
    if len(schema.encode()) > MAX_BYTES:
        return f"its schema is over {MAX_BYTES // 1024} kB"
    properties, depth = _measure(orjson.loads(schema)) if schema else (0, 0)
    if properties > MAX_PROPERTIES:
        return f"it has over {MAX_PROPERTIES} fields"
    return f"it is nested over {MAX_DEPTH} deep" if depth > MAX_DEPTH else ""


def _measure(schema: Schema) -> tuple[int, int]:
    """(fields in all, levels of objects and arrays)."""
    fields = schema.get("properties", {})
    nested = "properties" in schema or "items" in schema
    below = [_measure(part) for part in (*fields.values(), *schema.get("anyOf", ()), schema.get("items", {})) if part]
    deepest = max((depth for _, depth in below), default=0)
    return len(fields) + sum(count for count, _ in below), deepest + nested


def infer_schema(values: Sequence[Any], *, depth: int = 0) -> Schema:
    """The tightest plain JSON Schema that every value meets. Values are what a JSON parser gives.

    Keys always present are required and no others allowed; strings with at most 32 distinct values, each seen twice
    on average, become an enum; values of several types become `anyOf`. Keys are in sorted order, since constrained
    decoding writes them in the schema's order and a canonical answer has them sorted. What lies one level below the
    deepest that a decoder is given is not looked at.
    """
    if depth > MAX_DEPTH:
        return {}
    by_type: dict[str, list[Any]] = {}
    for value in values:
        by_type.setdefault(_NAMES[type(value)], []).append(value)
    if "integer" in by_type and "number" in by_type:
        by_type["number"] += by_type.pop("integer")
    schemas = [_schema_of(name, by_type[name], depth + 1) for name in sorted(by_type)]
    if not schemas:
        return {}
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _schema_of(name: str, values: list[Any], depth: int) -> Schema:
    if name == "object":
        return _object_schema(values, depth)
    if name == "array":
        items = [item for value in values for item in value]
        return (
            {"type": "array", "items": infer_schema(items, depth=depth)} if items else {"type": "array", "maxItems": 0}
        )
    if name == "string" and len(distinct := sorted(set(values))) <= _MAX_ENUM and len(distinct) * 2 <= len(values):
        return {"enum": distinct}
    return {"type": name}


def _object_schema(values: list[dict[str, Any]], depth: int) -> Schema:
    by_key: dict[str, list[Any]] = {}
    for value in values:
        for key, inner in value.items():
            if key in by_key or len(by_key) <= MAX_PROPERTIES:  # one more shows that there are too many
                by_key.setdefault(key, []).append(inner)
    return {
        "type": "object",
        "properties": {key: infer_schema(by_key[key], depth=depth) for key in sorted(by_key)},
        "required": [key for key in sorted(by_key) if len(by_key[key]) == len(values)],
        "additionalProperties": False,
    }
