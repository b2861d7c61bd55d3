"""Where the tenant allows it, providers are asked for a stream's usage, and the caller sees nothing of that."""

import json

import pytest

from tests.serving.gateway.cast import openai_ask, opened, post, serve_gateway


@pytest.fixture
def live(stage):
    stage.ask_usage = True
    stage.publish()
    with serve_gateway(stage) as gateway:
        stage.url = gateway.url
        yield stage


def tokens(record) -> tuple[int, int, bool]:
    return record.input_tokens, record.output_tokens, record.usage_estimated


async def test_a_streams_usage_is_asked_for_read_and_not_shown(live):
    raw = json.dumps(openai_ask(stream=True)).encode()
    got = await post(live.url, data=raw, headers={"content-type": "application/json"})
    sent, record = live.teacher.seen[0].body, live.record()
    assert sent == b'{"stream_options":{"include_usage":true},' + raw[1:]
    assert b"prompt_tokens" not in got.body and got.body.endswith(b"data: [DONE]\n\n") and b"ship" in got.body
    assert opened(record, "response") == got.body and opened(record, "request") == raw
    assert tokens(record) == (21, 4, False) and record.complete


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        ({"stream_options": {"include_usage": True}}, True),
        ({"stream_options": {"include_usage": False}}, False),
        ({"stream_options": {"include_obfuscation": False}}, False),
    ],
)
async def test_who_says_anything_of_it_is_heard(live, more, shown):
    raw = json.dumps(openai_ask(stream=True, **more)).encode()
    got = await post(live.url, data=raw, headers={"content-type": "application/json"})
    assert live.teacher.seen[0].body == raw
    assert (b"prompt_tokens" in got.body) is shown
    assert live.record().usage_estimated is not shown


async def test_what_has_no_such_option_is_left_alone(live):
    asks = {
        "/v1/chat/completions": openai_ask(),
        "/v1/responses": {"model": "gpt-4o", "input": "x", "stream": True},
    }
    for path, ask in asks.items():
        raw = json.dumps(ask).encode()
        await post(live.url, path=path, data=raw, headers={"content-type": "application/json"})
        assert live.teacher.seen[-1].body == raw


async def test_an_error_in_a_streams_place_is_the_providers_own(live):
    got = await post(live.url, json=openai_ask("failing", stream=True))
    assert got.status == 500 and b"as the provider put it" in got.body


async def test_nobody_is_asked_for_it_unless_the_tenant_allows_it(stage):
    stage.publish()
    with serve_gateway(stage) as gateway:
        raw = json.dumps(openai_ask(stream=True)).encode()
        await post(gateway.url, data=raw, headers={"content-type": "application/json"})
    assert stage.teacher.seen[0].body == raw and stage.record().usage_estimated
