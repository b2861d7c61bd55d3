"""Holds that OpenAI's responses are answered as its chat completions are: by the student where it is sure and may."""

import json

import pytest

from ingestion.core.calls import Arm, Dialect, Kind
from serving.core.gates import Rung
from tests.fakes.encoder import decision
from tests.fakes.replica import completion
from tests.fakes.teacher import TEXT, responses_body, responses_events
from tests.serving.gateway.cast import SYSTEM, openai_ask, opened, post, serve_gateway, student, talk_to

QUERY = "Where is my parcel 4711?"


def responses_ask(model: str = "gpt-4o", **more) -> dict:
    return {"model": model, "instructions": SYSTEM, "input": QUERY, **more}


@pytest.fixture
def head(stage):
    """A stage whose workload, found in chat completions, belongs to a head student, before any gateway runs."""
    stage.encoder.decisions["routing-head-7"] = decision("claim_damage")
    stage.cast_student(student(), (openai_ask(), Dialect.OPENAI))
    return stage


def test_the_sdk_gets_the_teachers_answer(live, talk):
    answer = talk.responses.with_raw_response.create(**responses_ask())
    assert (answer.parse().output_text, answer.headers["x-understudy-arm"]) == (TEXT, "teacher")
    record = live.record()
    assert (record.dialect, record.answered_model, record.finish) == ("responses", "gpt-4o", "stop")
    assert (record.input_tokens, record.output_tokens, record.cached_input_tokens) == (21, 4, 8)
    assert live.teacher.seen[0].headers["authorization"] == "Bearer teacher-openai"


def test_the_sdk_gets_the_teachers_stream(live, talk):
    with talk.responses.stream(**responses_ask()) as stream:
        assert stream.get_final_response().output_text == TEXT
    record = live.record()
    assert (record.stream, record.complete, record.finish) == (True, True, "stop")
    assert (record.input_tokens, record.output_tokens, record.usage_estimated) == (21, 4, False)


@pytest.mark.parametrize("stream", [False, True])
async def test_bytes_pass_untouched_and_are_kept(live, stream):
    sent = json.dumps(responses_ask(stream=stream, store=True, new_field={"x": 1.50})).encode()
    got = await post(live.url, path="/v1/responses", data=sent)
    assert got.body == (b"".join(responses_events("gpt-4o", {})) if stream else responses_body("gpt-4o"))
    record = live.record()
    assert (opened(record, "request"), opened(record, "response")) == (sent, got.body)
    assert live.teacher.seen[0].body == sent


def test_a_student_taught_by_chat_completions_answers_here_too(head):
    with serve_gateway(head) as gateway, talk_to(gateway.url) as talk:
        whole = talk.responses.with_raw_response.create(**responses_ask(store=False))
        with talk.responses.stream(**responses_ask(store=False)) as stream:
            streamed = stream.get_final_response()
    assert whole.headers["x-understudy-arm"] == "student"
    assert whole.parse().output_text == streamed.output_text == "Claim_Damage"
    assert head.teacher.seen == []
    assert [(record.arm, record.dialect, record.reason) for record in head.records(2)] == [
        (Arm.STUDENT, "responses", "accepted")
    ] * 2


@pytest.mark.parametrize("more", [{}, {"store": True}, {"store": False, "previous_response_id": "resp_0"}])
def test_an_answer_that_the_provider_is_to_keep_is_the_providers(head, more):
    """Its id may be asked for again, or be continued, at the provider, who would know nothing of a student's."""
    with serve_gateway(head) as gateway, talk_to(gateway.url) as talk:
        assert talk.responses.create(**responses_ask(**more)).output_text == TEXT
    record = head.record()
    assert (record.arm, record.reason) == (Arm.FALLBACK, "keeps_state")


def test_a_tool_call_comes_as_an_item_of_its_own(stage):
    tool = {"type": "object", "properties": {"line": {"type": "integer"}}}
    schema = {"type": "object", "properties": {"name": {"enum": ["report"]}, "arguments": tool}}
    spec = student(rung=Rung.LORA, kind=Kind.TOOL_CALL, schema=json.dumps(schema))
    stage.encoder.decisions[spec.adapter] = decision("x", rung="lora")
    stage.replica.completions[spec.adapter] = completion(
        [('{"arguments":{"line":', -0.001), ("3", -0.01), ('},"name":"', 0.0), ("report", -0.01), ('"}', 0.0)]
    )
    asked = responses_ask(store=False, tools=[{"type": "function", "name": "report", "parameters": tool}])
    stage.cast_student(spec, (asked, Dialect.RESPONSES))
    with serve_gateway(stage) as gateway, talk_to(gateway.url) as talk:
        (item,) = talk.responses.create(**asked).output
    assert (item.type, item.name, json.loads(item.arguments)) == ("function_call", "report", {"line": 3})


async def test_a_wrong_request_is_refused_in_the_vendors_words(live):
    got = await post(live.url, path="/v1/responses", data=b'{"model": "gpt-4o", "input": 3}')
    error = json.loads(got.body)["error"]
    assert (got.status, error["type"], error["param"]) == (400, "invalid_request_error", "input")
    assert live.teacher.seen == []
