"""How calls end badly, and that each is remembered once, as far as it got, before its caller has all of it."""

import asyncio
import json

import aiohttp
import anthropic
import httpx2
import openai
import pytest

from serving.core.estimate import FEWEST
from tests.fakes.serve import wait_for
from tests.serving.gateway.cast import PLAIN, anthropic_ask, openai_ask, opened, read_spool, serve_gateway, talk_to

HEADERS = {"authorization": f"Bearer {PLAIN.plain}"}


async def test_a_caller_who_leaves_a_stream_takes_the_teacher_off_the_line(live):
    async with aiohttp.ClientSession(headers=HEADERS) as http:
        answer = await http.post(f"{live.url}/v1/chat/completions", json=openai_ask("endless", stream=True))
        assert await answer.content.readany()
        answer.close()
    record = live.record()
    assert (record.complete, record.status, record.stream, record.usage_estimated) == (False, 200, True, True)
    assert opened(record, "response").startswith(b"data: {")
    wait_for(lambda: live.teacher.left == 1 and live.teacher.streaming == 0)


async def test_a_caller_who_leaves_before_any_answer_is_remembered_and_the_teacher_let_go(live):
    async with aiohttp.ClientSession(headers=HEADERS) as http:
        asking = asyncio.create_task(http.post(f"{live.url}/v1/chat/completions", json=openai_ask("silent")))
        while not live.teacher.seen:
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    record = live.record()
    assert (record.complete, record.status, record.output_tokens) == (False, 499, 0)
    wait_for(lambda: live.teacher.left == 1)


def test_a_stream_that_breaks_is_seen_to_break_and_is_kept_as_far_as_it_came(live, talk):
    got = []
    with pytest.raises((openai.APIConnectionError, httpx2.RemoteProtocolError)):
        for chunk in talk.chat.completions.create(**openai_ask("broken"), stream=True):
            got.append(chunk.choices[0].delta.content)
    assert got == ["", "track", "_"]
    record = live.record()
    assert (record.complete, record.status, record.output_tokens, record.usage_estimated) == (False, 200, 2, True)


def test_half_a_body_is_never_passed_off_as_an_answer(live, claude):
    with pytest.raises(anthropic.APIStatusError) as refused:
        claude.messages.create(**anthropic_ask("broken"))
    assert refused.value.status_code == 502
    record = live.record()
    assert (record.complete, record.status) == (False, 502)


def test_a_stream_without_its_last_event_counts_as_incomplete(live, claude):
    with claude.messages.create(**anthropic_ask("never-done"), stream=True) as stream:
        assert [event.type for event in stream][-1] == "message_delta"
    assert live.record().complete is False


@pytest.mark.parametrize("stream", [False, True])
async def test_whoever_has_all_of_an_answer_is_in_the_spool_already(live, stream):
    """The last-byte law: the spool is read the moment the last byte is in hand, without waiting."""
    async with aiohttp.ClientSession(headers=HEADERS) as http:
        for call in range(1, 41):
            async with http.post(f"{live.url}/v1/chat/completions", json=openai_ask(stream=stream)) as answer:
                body = b""
                while not (body.endswith(b"data: [DONE]\n\n") if stream else len(body) == answer.content_length):
                    body += await answer.content.readany()
            assert len(read_spool(live.spool_dir)) == call


def test_a_full_disk_costs_the_record_and_not_the_call(stage):
    stage.publish()
    with serve_gateway(stage, spool_max_bytes=5000) as gateway:
        with talk_to(gateway.url) as talk:
            for _ in range(6):
                assert talk.chat.completions.create(**openai_ask(query="x" * 1000)).choices
        told = httpx2.get(f"{gateway.url}/metrics").text
    kept = len(read_spool(stage.spool_dir))
    assert 0 < kept < 6
    assert f"understudy_unrecorded_calls_total {6 - kept}.0" in told


def test_where_the_words_of_a_call_do_not_fit_its_facts_may(stage):
    stage.publish()
    with serve_gateway(stage, spool_max_bytes=5000) as gateway:
        with talk_to(gateway.url) as talk:
            assert talk.chat.completions.create(**openai_ask(query="x" * 9000)).choices
        told = httpx2.get(f"{gateway.url}/metrics").text
    [record] = read_spool(stage.spool_dir)
    assert record.request_sealed is None and record.output_tokens == 4
    assert "understudy_unrecorded_calls_total 0.0" in told and "understudy_unrecorded_words_total 1.0" in told


async def test_calls_side_by_side_are_recorded_once_each(live):
    async with aiohttp.ClientSession(headers=HEADERS) as http:

        async def call(number: int) -> str:
            ask = openai_ask(query=f"call {number}", stream=number % 2 == 0)
            async with http.post(f"{live.url}/v1/chat/completions", json=ask) as answer:
                await answer.read()
                return answer.headers["x-understudy-call"]

        ids = await asyncio.gather(*map(call, range(100)))
    records = live.records(100)
    assert {record.id for record in records} == set(ids)
    asked = sorted(json.loads(opened(record, "request"))["messages"][1]["content"] for record in records)
    assert asked == sorted(f"call {number}" for number in range(100))


def test_what_an_anthropic_stream_announced_is_exact_also_where_it_breaks(live, claude):
    broken = (anthropic.APIConnectionError, anthropic.APIStatusError, httpx2.RemoteProtocolError)
    with claude.messages.create(**anthropic_ask("broken"), stream=True) as stream, pytest.raises(broken):
        list(stream)
    record = live.record()
    assert (record.complete, record.usage_estimated, record.input_tokens) == (False, True, 21)
    assert record.output_tokens > 0


async def test_a_workload_s_counted_calls_teach_what_its_uncounted_ones_take(live):
    live.teacher.tokens = (90, 9)
    async with aiohttp.ClientSession(headers=HEADERS) as http:
        for number in range(FEWEST + 1):
            live.teacher.counts = number < FEWEST
            live.teacher.tokens = (90, 9) if live.teacher.counts else None
            async with http.post(f"{live.url}/v1/chat/completions", json=openai_ask()) as answer:
                assert answer.status == 200
    told, *_, guessed = sorted(await asyncio.to_thread(live.records, FEWEST + 1), key=lambda record: record.at)
    assert (told.usage_estimated, told.input_tokens, told.output_tokens) == (False, 90, 9)
    assert (guessed.usage_estimated, guessed.input_tokens, guessed.output_tokens) == (True, 90, 9)
