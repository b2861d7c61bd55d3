"""Holds that no student is given a schema that a constrained decoder should not be."""

import pytest

from ingestion.core.agreement import answer_schema
from ingestion.core.answer_schema import MAX_DEPTH, MAX_PROPERTIES, find_excess
from ingestion.core.calls import Kind
from ingestion.core.reading import canonical_json


def schema_of(*values):
    return answer_schema(Kind.JSON, [canonical_json(value) for value in values])


def nested(depth, leaf=1):
    return {"a": nested(depth - 1, leaf)} if depth else leaf


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1, "b": [{"c": "x"}, {"c": "y"}]},
        {f"field {n}": n for n in range(MAX_PROPERTIES)},
        nested(MAX_DEPTH),
        nested(MAX_DEPTH - 1, leaf=[1, 2]),
    ],
)
def test_an_ordinary_schema_has_no_excess(value):
    assert find_excess(schema_of(value)) == ""


@pytest.mark.parametrize(
    ("value", "excess"),
    [
        ({f"f{n}": n for n in range(MAX_PROPERTIES + 1)}, "it has over 200 fields"),
        ({"x": [{f"f{n}": n for n in range(150)}], "y": {f"f{n}": n for n in range(60)}}, "it has over 200 fields"),
        (nested(MAX_DEPTH + 1), "it is nested over 8 deep"),
        (nested(MAX_DEPTH, leaf=[1]), "it is nested over 8 deep"),
        (nested(80), "it is nested over 8 deep"),
        ({"x" * 200 + str(n): n for n in range(90)}, "its schema is over 16 kB"),
    ],
)
def test_too_many_fields_too_deep_or_too_large_is_said(value, excess):
    assert find_excess(schema_of(value)) == excess


def test_labels_have_no_schema_to_exceed():
    assert find_excess(answer_schema(Kind.LABEL, ["parcel"])) == ""
