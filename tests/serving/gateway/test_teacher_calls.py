"""What a caller gets who only changed the base URL: the provider's answers and errors, byte for byte."""

import gzip
import json

import aiohttp
import anthropic
import openai
import pytest

from tests.fakes.serve import Served
from tests.fakes.teacher import ERROR_BODY, TEXT, openai_body, openai_events
from tests.serving.gateway.cast import PLAIN, anthropic_ask, claude_at, openai_ask, opened, post, serve_gateway, talk_to


def test_the_openai_sdk_gets_the_teachers_answer(live, talk):
    answer = talk.chat.completions.with_raw_response.create(**openai_ask())
    assert answer.parse().choices[0].message.content == TEXT
    assert answer.headers["x-understudy-arm"] == "teacher"
    record = live.record()
    assert answer.headers["x-understudy-call"] == record.id
    assert (record.input_tokens, record.output_tokens, record.cached_input_tokens) == (21, 4, 8)
    assert (record.finish, record.answered_model, record.usage_estimated) == ("stop", "gpt-4o", False)


def test_the_openai_sdk_gets_the_teachers_stream(live, talk):
    with talk.chat.completions.create(**openai_ask(), stream=True, stream_options={"include_usage": True}) as stream:
        words = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert "".join(words) == TEXT
    record = live.record()
    assert (record.stream, record.complete, record.finish) == (True, True, "stop")
    assert (record.input_tokens, record.output_tokens, record.usage_estimated) == (21, 4, False)


def test_the_anthropic_sdk_gets_the_teachers_answer(live, claude):
    assert claude.messages.create(**anthropic_ask()).content[0].text == TEXT
    record = live.record()
    assert record.dialect == "anthropic"
    assert (record.input_tokens, record.cached_input_tokens, record.cache_write_tokens) == (31, 8, 2)


def test_the_anthropic_sdk_gets_the_teachers_stream(live, claude):
    with claude.messages.stream(**anthropic_ask()) as stream:
        assert stream.get_final_text() == TEXT
    record = live.record()
    assert (record.stream, record.complete, record.input_tokens, record.output_tokens) == (True, True, 21, 4)


async def test_bytes_pass_untouched_in_both_directions(live):
    odd = b'{ "model":"gpt-4o",  "new_field": {"x": 1.50}, "messages":[{"role":"user","content":"\\u0041"}] }'
    sent = {"x-custom": "kept", "cookie": "mine=1"}
    got = await post(live.url, path="/v1/chat/completions?beta=1", data=odd, headers=sent)
    assert got.body == openai_body("gpt-4o")
    assert got.headers["x-ratelimit-remaining"] == "41"
    assert "set-cookie" not in got.headers
    seen = live.teacher.seen[0]
    assert (seen.path, seen.body) == ("/v1/chat/completions?beta=1", odd)
    assert seen.headers["authorization"] == "Bearer teacher-openai"
    assert (seen.headers["x-custom"], seen.headers["accept-encoding"]) == ("kept", "identity")
    assert PLAIN.plain not in str(seen.headers)
    assert not any(name == "cookie" or name.startswith("x-understudy") for name in seen.headers)
    record = live.record()
    assert (opened(record, "request"), opened(record, "response")) == (odd, openai_body("gpt-4o"))


async def test_a_streams_bytes_pass_untouched_and_are_kept_as_they_came(live):
    events = b"".join(openai_events("gpt-4o", {}))
    got = await post(live.url, json=openai_ask(stream=True))
    assert (got.body, got.headers["content-type"]) == (events, "text/event-stream; charset=utf-8")
    assert opened(live.record(), "response") == events


async def test_an_anthropic_caller_may_use_either_credential_header(live):
    for headers in ({"x-api-key": PLAIN.plain}, {"authorization": f"Bearer {PLAIN.plain}"}):
        got = await post(live.url, key="", path="/v1/messages", json=anthropic_ask(), headers=headers)
        assert got.status == 200
    assert {seen.headers["x-api-key"] for seen in live.teacher.seen} == {"teacher-anthropic"}
    assert not any("authorization" in seen.headers for seen in live.teacher.seen)


@pytest.mark.parametrize(("model", "status"), [("rate-limited", 429), ("failing", 500), ("overloaded", 529)])
async def test_the_providers_own_errors_pass_byte_for_byte(live, model, status):
    got = await post(live.url, json=openai_ask(model))
    assert (got.status, got.body) == (status, ERROR_BODY)
    assert (got.headers["retry-after"], got.headers["x-request-id"]) == ("7", "req-1")
    record = live.record()
    assert (record.status, record.input_tokens, record.usage_estimated) == (status, 0, False)


async def test_a_redirect_is_passed_on_and_not_followed_with_the_credential(live):
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {PLAIN.plain}"}) as http:
        answer = await http.post(f"{live.url}/v1/chat/completions", json=openai_ask("moved"), allow_redirects=False)
        assert (answer.status, answer.headers["location"]) == (307, "/v1/models")
    assert len(live.teacher.seen) == 1


def test_an_unknown_model_is_the_providers_to_refuse(talk, claude):
    with pytest.raises(openai.NotFoundError):
        talk.chat.completions.create(**openai_ask("unknown-model"))
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.create(**anthropic_ask("unknown-model"))


def test_the_list_of_models_is_the_providers_own(live, talk):
    assert [model.id for model in talk.models.list()] == ["gpt-4o"]
    assert live.teacher.seen[0].headers["authorization"] == "Bearer teacher-openai"
    assert live.records(0) == []


def test_a_teacher_that_is_down_is_a_502(stage):
    with Served(stage.teacher) as gone:
        pass
    stage.urls["teacher"] = gone.url
    stage.publish()
    with serve_gateway(stage) as gateway:
        with talk_to(gateway.url) as talk, pytest.raises(openai.InternalServerError) as refused:
            talk.chat.completions.create(**openai_ask())
        assert refused.value.status_code == 502
        record = stage.record()
        assert (record.status, record.complete) == (502, False)
        assert refused.value.response.headers["x-understudy-call"] == record.id


@pytest.mark.parametrize("stream", [False, True])
def test_a_teacher_that_is_late_is_a_504(stage, stream):
    stage.publish()
    with serve_gateway(stage, teacher_timeout=0.2) as gateway:
        with claude_at(gateway.url) as claude, pytest.raises(anthropic.APIStatusError) as refused:
            claude.messages.create(**anthropic_ask("silent"), stream=stream)
        assert refused.value.status_code == 504
        assert json.loads(refused.value.response.content)["type"] == "error"
        assert stage.record().status == 504


async def test_a_zipped_answer_is_passed_on_zipped_and_remembered_plain(live):
    got = await post(live.url, json=openai_ask("zipped"))
    assert got.headers["content-encoding"] == "gzip"
    assert gzip.decompress(got.body) == openai_body("zipped")
    record = live.record()
    assert (opened(record, "response"), record.output_tokens) == (openai_body("zipped"), 4)


def test_tokens_that_nobody_counted_are_estimated_and_marked(live, talk):
    talk.chat.completions.create(**openai_ask("uncounted"))
    record = live.record()
    assert (record.usage_estimated, record.input_tokens, record.output_tokens) == (True, 20, 4)


def test_a_stream_event_is_passed_on_before_the_next_one_comes(live, claude):
    with claude.messages.create(**anthropic_ask("endless"), stream=True) as stream:
        assert next(iter(stream)).type == "message_start"
        assert live.teacher.streaming == 1
