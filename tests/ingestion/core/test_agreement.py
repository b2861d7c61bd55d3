"""Two answers agree when a person who acts on them would act alike, and a broken answer agrees with nothing."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.core.agreement import answer_schema, canonical, differs, infer_kind, loss, normal_form, to_answer
from ingestion.core.calls import Finish, Kind, ToolCall, Usage
from tests.ingestion.core.asks import said


@pytest.mark.parametrize(
    "text", ["card_lost", " Card_Lost.\n", '"card_lost"', "'card_lost'.", "“card_lost.”", "ｃａｒｄ_lost"]
)
def test_a_label_is_one_however_it_is_dressed(text):
    assert canonical(Kind.LABEL, said(text)) == "card_lost"


@pytest.mark.parametrize(
    "text", ['{"b": 1, "a": "x"}', '```json\n{"a": "x", "b": 1}\n```', 'Here:\n```\n{"a":"x",\n"b":1}\n```\nDone.']
)
def test_json_is_one_however_it_is_laid_out(text):
    assert canonical(Kind.JSON, said(text)) == '{"a":"x","b":1}'


def test_a_tool_call_is_its_name_and_arguments():
    answer = said("Let me see.", ToolCall("weather", '{"b": 1, "a": 2}'), finish=Finish.TOOL_CALLS)
    assert canonical(Kind.TOOL_CALL, answer) == '{"arguments":{"a":2,"b":1},"name":"weather"}'


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("finish", [Finish.LENGTH, Finish.REFUSAL])
def test_a_truncated_or_refused_answer_is_left_out(kind, finish):
    assert canonical(kind, said('{"a":1}', ToolCall("f", "{}"), finish=finish)) is None
    assert canonical(kind, said('{"a":1}', finish=finish)) is None


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        (Kind.LABEL, said(" . ")),
        (Kind.LABEL, said("x", ToolCall("f", "{}"))),
        (Kind.TEXT, said(" ")),
        (Kind.JSON, said("[1]")),
        (Kind.JSON, said('{"a":')),
        (Kind.JSON, said('{"a":' * 400 + "1" + "}" * 400)),
        (Kind.TOOL_CALL, said('{"name":"f","arguments":{}}')),
        (Kind.TOOL_CALL, said("", ToolCall("f", "{}"), ToolCall("g", "{}"))),
        (Kind.TOOL_CALL, said("", ToolCall("f", "[]"))),
        (Kind.TOOL_CALL, said("", ToolCall("f", '{"a"'))),
    ],
)
def test_an_answer_of_another_kind_is_left_out(kind, answer):
    assert canonical(kind, answer) is None


@pytest.mark.parametrize(
    ("mine", "teacher", "expected"),
    [
        ({"a": 1, "b": "x"}, {"a": 1.0, "b": "X "}, 0),
        ({"a": 1, "b": "x"}, {"a": 2, "b": "x"}, 1 / 2),
        ({"a": 1}, {"a": 1, "b": "x"}, 1 / 2),
        ({"a": 1, "c": 2}, {"a": 1, "b": "x"}, 2 / 3),
        ({"a": True}, {"a": 1}, 1),
        ({"a": None}, {}, 1),
        ({"a": "1"}, {"a": 1}, 1),
        ({"d": "2024-01-05"}, {"d": "2024-01-05T10:00:00Z"}, 0),
        ({"d": "2024-01-05T11:00:00+01:00"}, {"d": "2024-01-05T10:00:00Z"}, 0),
        ({"d": "2024-01-05T11:00"}, {"d": "2024-01-05T10:00"}, 1),
        ({"d": "2024-01-05"}, {"d": "2024-01-06"}, 1),
        ({"l": [{"x": 1}, {"x": 2}]}, {"l": [{"x": 2}, {"x": 1}]}, 0),
        ({"l": [{"x": 1}, {"x": 2}]}, {"l": [{"x": 3}, {"x": 1}]}, 1 / 2),
        ({"l": [{"x": 1}]}, {"l": [{"x": 1}, {"x": 2, "y": 3}]}, 2 / 3),
        ({"l": [1, 2]}, {"l": [2, 1]}, 1),
        ({"l": []}, {"l": []}, 0),
        ({"l": []}, {"l": [1]}, 1),
        ({"o": {"p": 1, "q": 2}}, {"o": {"p": 1, "q": 3}}, 1 / 2),
        ({"o": {"p": 1, "q": 2}}, {"o": 5}, 1),
        ({}, {}, 0),
    ],
)
def test_the_loss_of_json_is_the_share_of_fields_that_differ(mine, teacher, expected):
    mine, teacher = json.dumps(mine), json.dumps(teacher)
    assert loss(Kind.JSON, mine, teacher) == pytest.approx(expected)
    assert loss(Kind.JSON, teacher, mine) == pytest.approx(expected)
    assert differs(Kind.JSON, mine, teacher) == (expected > 0)


def test_another_tool_is_wrong_altogether():
    mine, teacher = '{"arguments":{"a":1},"name":"f"}', '{"arguments":{"a":1},"name":"g"}'
    assert loss(Kind.TOOL_CALL, mine, teacher) == 1.0
    assert loss(Kind.TOOL_CALL, mine, mine.replace("1", "2")) == 1 / 2


@pytest.mark.parametrize("kind", list(Kind))
def test_no_answer_is_wrong_altogether(kind):
    assert loss(kind, None, "x") == 1.0 and differs(kind, None, "x")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=15,
)
objects = st.dictionaries(st.text(max_size=4), json_values, max_size=4)


@given(kind=st.sampled_from(Kind), text=st.text(), value=objects)
def test_a_canonical_answer_is_canonical(kind, text, value):
    dumped = json.dumps(value)
    answer = {
        Kind.JSON: said(dumped),
        Kind.TOOL_CALL: said("", ToolCall(text, dumped)),
    }.get(kind, said(text))
    once = canonical(kind, answer)
    if once is not None:
        again = to_answer(kind, once, model="m", usage=None)
        assert canonical(kind, again) == once
        assert loss(kind, once, once) == 0


@given(mine=objects, teacher=objects, kind=st.sampled_from([Kind.JSON, Kind.LABEL, Kind.TEXT, Kind.TOOL_CALL]))
def test_a_loss_is_between_nothing_and_all_and_the_same_both_ways(mine, teacher, kind):
    one, other = json.dumps(mine), json.dumps(teacher)
    assert 0 <= loss(kind, one, other) <= 1
    assert (loss(kind, one, other) == 0) == (loss(kind, other, one) == 0)


@given(st.text())
def test_a_normal_form_is_its_own(text):
    assert normal_form(normal_form(text)) == normal_form(text)


def test_a_workload_is_what_most_of_its_answers_are():
    call, obj = said("", ToolCall("f", "{}")), said('{"a":1}')
    labels = [said(f"label_{index % 7}") for index in range(40)]
    prose = [said(f"Sentence {index} is not like the others.") for index in range(40)]
    assert infer_kind([call] * 19 + [obj]) is Kind.TOOL_CALL
    assert infer_kind([obj] * 19 + labels[:1]) is Kind.JSON
    assert infer_kind(labels + prose[:3]) is Kind.LABEL
    assert infer_kind(prose) is Kind.TEXT
    assert infer_kind([said("word " * 50)] * 20) is Kind.TEXT
    assert infer_kind([said("yes", finish=Finish.LENGTH)] * 20) is Kind.TEXT
    assert infer_kind([]) is Kind.TEXT


def test_a_schema_admits_what_was_seen_and_nothing_beside():
    seen = [{"team": team, "urgent": True, "order": order} for team in ("a", "b") for order in (1, None, 2.5)]
    seen[0]["items"] = [{"sku": "x1"}, {"sku": "x2", "n": 1}]
    schema = json.loads(answer_schema(Kind.JSON, [json.dumps(value) for value in seen]))
    assert schema == {
        "type": "object",
        "additionalProperties": False,
        "required": ["order", "team", "urgent"],
        "properties": {
            "items": {
                "type": "array",
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["sku"],
                    "properties": {"sku": {"type": "string"}, "n": {"type": "integer"}},
                },
            },
            "order": {"anyOf": [{"type": "null"}, {"type": "number"}]},
            "team": {"enum": ["a", "b"]},
            "urgent": {"type": "boolean"},
        },
    }


def test_a_schema_of_tool_calls_ties_the_arguments_to_the_tool():
    calls = ['{"arguments":{"a":1},"name":"f"}', '{"arguments":{"b":"x"},"name":"g"}']
    schema = json.loads(answer_schema(Kind.TOOL_CALL, calls))
    assert [option["properties"]["name"] for option in schema["anyOf"]] == [{"enum": ["f"]}, {"enum": ["g"]}]
    assert [option["properties"]["arguments"]["required"] for option in schema["anyOf"]] == [["a"], ["b"]]


@pytest.mark.parametrize(("kind", "seen"), [(Kind.LABEL, ["x"]), (Kind.TEXT, ["x"]), (Kind.JSON, [])])
def test_where_nothing_is_to_be_constrained_there_is_no_schema(kind, seen):
    assert answer_schema(kind, seen) == ""


@given(st.lists(objects, min_size=1, max_size=4))
def test_any_answers_have_a_schema(values):
    assert json.loads(answer_schema(Kind.JSON, [json.dumps(value) for value in values]))["type"] == "object"


def test_a_caller_gets_the_label_as_it_knows_it():
    usage = Usage(5, 1)
    answer = to_answer(Kind.LABEL, "card_lost", labels_display={"card_lost": "Card_Lost"}, model="m", usage=usage)
    assert (answer.text, answer.finish, answer.usage) == ("Card_Lost", Finish.STOP, usage)


def test_a_caller_gets_a_tool_call_as_one():
    answer = to_answer(Kind.TOOL_CALL, '{"arguments":{"a":1},"name":"f"}', model="m", usage=None)
    assert (answer.tool_calls, answer.finish) == ((ToolCall("f", '{"a":1}'),), Finish.TOOL_CALLS)
