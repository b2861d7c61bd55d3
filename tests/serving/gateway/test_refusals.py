"""What the gateway refuses by itself, in the words of the caller's vendor."""

import asyncio
import json

import anthropic
import openai
import pytest

from tests.fakes.serve import wait_for
from tests.serving.gateway.cast import (
    IDLE,
    OWNER,
    PLAIN,
    STRANGER,
    anthropic_ask,
    claude_at,
    get,
    openai_ask,
    post,
    serve_gateway,
    talk_to,
)


def test_an_unknown_key_is_a_401_in_both_dialects(live):
    with talk_to(live.url, key=STRANGER.plain) as talk, pytest.raises(openai.AuthenticationError):
        talk.chat.completions.create(**openai_ask())
    with claude_at(live.url, key=STRANGER.plain) as claude, pytest.raises(anthropic.AuthenticationError):
        claude.messages.create(**anthropic_ask())
    assert (live.teacher.seen, live.records(0)) == ([], [])


@pytest.mark.parametrize("key", ["", "us_", OWNER.digest, OWNER.prefix, OWNER.plain[:-1], OWNER.plain + "x", "é"])
async def test_nothing_but_the_whole_key_opens(live, key):
    assert (await post(live.url, key=key, json=openai_ask())).status == 401


def test_a_revoked_key_is_refused_once_the_snapshot_says_so(live, talk):
    talk.chat.completions.create(**openai_ask())
    live.publish(without=PLAIN.digest)

    def refused() -> bool:
        try:
            talk.chat.completions.create(**openai_ask())
        except openai.AuthenticationError:
            return True
        return False

    assert wait_for(refused)


def test_a_suspended_tenant_is_a_403_not_a_401(live):
    with talk_to(live.url, key=IDLE.plain) as talk, pytest.raises(openai.PermissionDeniedError):
        talk.chat.completions.create(**openai_ask())


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"model":"a","model":"b","messages":[]}', b"[" * 100_000, b'{"model":1}'],
)
async def test_a_malformed_request_is_a_400_and_reaches_nobody(live, body):
    got = await post(live.url, data=body)
    assert (got.status, json.loads(got.body)["error"]["type"]) == (400, "invalid_request_error")
    got = await post(live.url, data=body, path="/v1/messages")
    told = json.loads(got.body)
    assert (got.status, told["type"], told["error"]["type"]) == (400, "error", "invalid_request_error")
    assert (live.teacher.seen, live.records(0)) == ([], [])


async def test_a_request_over_the_limit_is_a_413_also_when_its_length_is_not_announced(stage):
    stage.publish()

    async def pieces():
        for _ in range(40):
            yield b"x" * 100

    with serve_gateway(stage, max_body_bytes=2000) as gateway:
        assert (await post(gateway.url, data=b"x" * 2001)).status == 413
        assert (await post(gateway.url, data=pieces())).status == 413
        assert (await post(gateway.url, json=openai_ask())).status == 200


async def test_a_provider_address_that_leads_back_here_ends_the_circle(live):
    assert (await post(live.url, json=openai_ask())).status == 200
    (seen,) = live.teacher.seen
    via = seen.headers["via"]
    for path, ask in (("/v1/chat/completions", openai_ask()), ("/v1/messages", anthropic_ask())):
        got = await post(live.url, json=ask, path=path, headers={"via": f"1.1 proxy, {via}"})
        assert (got.status, "leads back" in got.body.decode()) == (508, True)
    assert len(live.teacher.seen) == 1
    assert (await post(live.url, json=openai_ask(), headers={"via": f"{via}.example.com"})).status == 200


async def test_a_provider_address_that_leads_inside_is_not_connected_to(stage):
    stage.publish()
    with serve_gateway(stage, allow_private=False) as gateway:
        assert (await post(gateway.url, json=openai_ask())).status == 502
    assert stage.teacher.seen == []


async def test_what_is_not_served_is_a_404_in_the_callers_dialect(live):
    for path in ("/", "/v1", "/V1/messages", "/OpenAI/v1/chat/completions"):
        got = await post(live.url, path=path, json={})
        assert (got.status, json.loads(got.body)["error"]["type"]) == (404, "not_found_error")
    got = await get(f"{live.url}/v2/messages", headers={"anthropic-version": "2023-06-01"})
    assert (got.status, json.loads(got.body)["type"]) == (404, "error")


async def test_a_host_header_opens_no_door(live):
    got = await post(live.url, key="", headers={"host": "127.0.0.1/healthz?x="}, json=openai_ask())
    assert got.status == 401


async def test_without_a_snapshot_calls_get_a_503_with_a_time_to_come_back(stage):
    with serve_gateway(stage) as gateway:
        got = await post(gateway.url, json=openai_ask())
        assert (got.status, got.headers["retry-after"]) == (503, "2")
        assert json.loads(got.body)["error"]["type"] == "overloaded_error"
        assert (await get(f"{gateway.url}/readyz")).status == 503
        assert (await get(f"{gateway.url}/healthz")).status == 200
        stage.publish()
        async with asyncio.timeout(10):
            while (await get(f"{gateway.url}/readyz")).status != 200:
                pass
        assert (await post(gateway.url, json=openai_ask())).status == 200


async def test_metrics_count_calls_and_name_nobody(live, talk):
    talk.chat.completions.create(**openai_ask())
    await post(live.url, key=STRANGER.plain, json=openai_ask())
    text = (await get(f"{live.url}/metrics")).body.decode()
    assert 'understudy_calls_total{arm="teacher",dialect="openai",status="2xx"} 1.0' in text
    assert 'understudy_refusals_total{dialect="openai",status="401"} 1.0' in text
    assert "understudy_unrecorded_calls_total 0.0" in text
    assert 'understudy_call_seconds_bucket{arm="teacher",le="+Inf"} 1.0' in text
    assert "parcel" not in text and PLAIN.prefix not in text
