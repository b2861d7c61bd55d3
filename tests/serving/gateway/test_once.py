"""A call under an `Idempotency-Key` is answered once, whoever asks how often; and no rival hears of it."""

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from uuid import uuid4

import openai
import pytest
import redis

from ingestion.core.calls import Dialect
from serving import kept_answers
from serving.gateway import app, once
from serving.kept_answers import PREFIX, Claim, Earlier, KeptAnswers, UnableToKeep
from tests.fakes.serve import wait_for
from tests.fakes.teacher import TEXT, openai_body, openai_events
from tests.serving.gateway.cast import (
    OWNER,
    PLAIN,
    RIVAL,
    TENANT,
    Got,
    Stage,
    anthropic_ask,
    down,
    get,
    openai_ask,
    post,
    serve_gateway,
    talk_to,
)

VALKEY = os.environ["VALKEY_URL"]


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """No test is about how long a call waits: a busy machine is slow."""
    monkeypatch.setattr(app, "SHARED_SECONDS", 15)


@pytest.fixture
def valkey() -> Iterator[redis.Redis]:
    with redis.Redis.from_url(VALKEY) as found:
        yield found
        for name in found.scan_iter(f"{PREFIX}:*"):
            found.delete(name)


@contextmanager
def keeping(stage: Stage, url: str = VALKEY, **published) -> Iterator[Stage]:
    """The stage with a gateway that keeps answers."""
    stage.publish(**published)
    with serve_gateway(stage, answers_url=url) as gateway:
        stage.url = gateway.url
        yield stage


@pytest.fixture
def kept(stage, valkey) -> Iterator[Stage]:
    with keeping(stage) as found:
        yield found


def ask(stage: Stage, name: str, *, key: str = PLAIN.plain, path: str = "/v1/chat/completions", more=(), **body) -> Got:
    headers = {"idempotency-key": name, **dict(more)}
    whole = (anthropic_ask if path == "/v1/messages" else openai_ask)(**body)
    return asyncio.run(post(stage.url, key=key, path=path, headers=headers, json=whole))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_same_key_and_body_get_the_first_answer_again_and_nobody_is_asked_or_charged(kept, path, stream):
    name = uuid4().hex
    first, second = (ask(kept, name, path=path, stream=stream) for _ in range(2))
    assert (second.status, second.body) == (first.status, first.body) == (200, first.body)
    assert TEXT.encode() in first.body or stream
    assert second.headers["content-type"] == first.headers["content-type"]
    assert second.headers["x-understudy-call"] == first.headers["x-understudy-call"]
    assert ("x-understudy-replayed" in first.headers, second.headers["x-understudy-replayed"]) == (False, "true")
    assert len(kept.teacher.seen) == 1
    kept.record()


def test_the_sdk_reads_an_answer_that_is_sent_again(kept):
    name = uuid4().hex
    with talk_to(kept.url) as client:
        told = {"idempotency-key": name}
        texts = [
            client.chat.completions.create(**openai_ask(), extra_headers=told).choices[0].message.content
            for _ in range(2)
        ]
        streams = [
            "".join(
                chunk.choices[0].delta.content or ""
                for chunk in client.chat.completions.create(
                    **openai_ask(), stream=True, extra_headers={"idempotency-key": f"{name}-streamed"}
                )
                if chunk.choices
            )
            for _ in range(2)
        ]
    assert texts == streams == [TEXT, TEXT]
    assert len(kept.teacher.seen) == 2


def test_another_body_or_path_under_the_same_key_is_refused(kept):
    name = uuid4().hex
    ask(kept, name)
    assert ask(kept, name, query="another").status == 422
    assert ask(kept, name, path="/v1/messages").status == 422
    assert len(kept.teacher.seen) == 1


async def test_of_many_who_ask_at_once_one_is_answered_and_the_others_come_back(kept):
    sent = {"headers": {"idempotency-key": uuid4().hex}, "json": openai_ask("delay-300")}
    found = await asyncio.gather(*(post(kept.url, **sent) for _ in range(20)))
    refused = [got for got in found if got.status == 409]
    assert len(refused) == 19 and {got.headers["retry-after"] for got in refused} == {"1"}
    assert len(kept.teacher.seen) == 1
    assert (await post(kept.url, **sent)).status == 200
    assert len(kept.teacher.seen) == 1


def test_a_rival_s_key_of_the_same_name_is_another_one(kept):
    name = uuid4().hex
    ask(kept, name)
    theirs = ask(kept, name, key=RIVAL.plain)
    assert theirs.status == 200 and "x-understudy-replayed" not in theirs.headers
    assert ask(kept, name, key=RIVAL.plain, query="another").status == 422
    assert len(kept.teacher.seen) == 2


def test_an_answer_of_another_tenant_cannot_be_opened_wherever_it_lies(kept, valkey, caplog):
    name = uuid4().hex
    ask(kept, name)
    (mine,) = valkey.scan_iter(f"{PREFIX}:{{{TENANT}}}:*")
    ask(kept, name, key=RIVAL.plain)
    theirs = mine.replace(TENANT.encode(), b"0197a000-0000-7000-8000-000000000003")
    valkey.hset(theirs, "answer", valkey.hget(mine, "answer"))
    with caplog.at_level(logging.ERROR):
        assert ask(kept, name, key=RIVAL.plain).status == 409
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize("model", ["failing", "rate-limited", "broken"])
def test_what_was_no_answer_is_asked_again(kept, model):
    name = uuid4().hex
    for times in (1, 2):
        try:
            ask(kept, name, model=model)
        except Exception as error:  # noqa: BLE001  the client's own, for an answer that breaks off
            assert model == "broken", error
        wait_for(lambda times=times: len(kept.teacher.seen) == times)
        kept.records(times)


def test_whoever_left_before_the_answer_may_ask_again(kept):
    name = uuid4().hex
    client = openai.OpenAI(base_url=f"{kept.url}/v1", api_key=PLAIN.plain, max_retries=0, timeout=0.5)
    with client, pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(**openai_ask("delay-1500"), extra_headers={"idempotency-key": name})
    kept.records(1)
    wait_for(lambda: ask(kept, name, model="delay-1500").status == 200, every=0.05)
    assert len(kept.teacher.seen) == 2


def test_answers_are_sealed_where_they_are_kept_and_gone_in_a_day(kept, valkey):
    ask(kept, "order 4711", query="my secret parcel")
    names = list(valkey.scan_iter(f"{PREFIX}:*"))
    everything = b"".join(valkey.dump(name) for name in names)
    assert len(names) == 2 and all(0 < valkey.ttl(name) <= kept_answers.KEPT_SECONDS for name in names)
    for secret in (b"4711", TEXT.encode(), b"parcel"):
        assert secret not in everything and not any(secret in name for name in names)


@pytest.mark.parametrize("whole", ["answer", "tenant"])
def test_an_answer_that_is_too_much_to_keep_is_not_asked_for_twice(kept, monkeypatch, whole):
    monkeypatch.setattr(*((once, "MOST_KEPT", 10) if whole == "answer" else (kept_answers, "MOST_TENANT_BYTES", 10)))
    name = uuid4().hex
    assert ask(kept, name).status == 200
    again = ask(kept, name)
    assert (again.status, again.headers["x-should-retry"]) == (409, "false")
    assert len(kept.teacher.seen) == 1


@pytest.mark.parametrize("name", ["", "x" * 256])
def test_a_key_that_is_none_is_refused(kept, name):
    assert ask(kept, name).status == 400
    assert kept.teacher.seen == []


@pytest.mark.parametrize("off", ["tenant", "call"])
def test_whose_content_is_not_logged_has_none_kept(stage, valkey, off):
    with keeping(stage, log_content=off == "call") as kept:
        for _ in range(2):
            assert ask(kept, "a", key=OWNER.plain, more=[("x-understudy-log", "off")] if off == "call" else ()).status
    assert len(stage.teacher.seen) == 2 and list(valkey.scan_iter(f"{PREFIX}:*")) == []


def test_with_nobody_to_keep_answers_calls_are_answered_all_the_same(stage):
    with keeping(stage, url=down().replace("http", "redis")) as kept:
        assert [ask(kept, "a").status for _ in range(2)] == [200, 200]
        assert b"understudy_answers_unkept_total 6.0" in asyncio.run(get(f"{kept.url}/metrics")).body
    assert len(stage.teacher.seen) == 2


@pytest.fixture
async def answers(valkey) -> AsyncIterator[KeptAnswers]:
    found = KeptAnswers(VALKEY, patience=5)
    yield found
    await found.close()


async def test_the_claim_of_a_process_that_died_ends_and_of_one_that_lives_does_not(valkey, answers):
    dead, following = Claim(TENANT, "k", "dead"), Claim(TENANT, "k", "following")
    assert await answers.claim(dead, digest=b"d") is None
    assert (await answers.claim(following, digest=b"d")).is_under_way
    assert 0 < valkey.ttl(dead.name) <= kept_answers.CLAIM_SECONDS
    valkey.expire(dead.name, 5)
    await answers.renew(following)
    assert valkey.ttl(dead.name) <= 5
    await answers.renew(dead)
    assert valkey.ttl(dead.name) > 5


async def test_whose_claim_has_ended_keeps_and_frees_nothing_of_the_next_one(answers):
    first, second = Claim(TENANT, "k", "first"), Claim(TENANT, "k", "second")
    await answers.claim(second, digest=b"d")
    await answers.keep(first, b"late")
    await answers.release(first)
    assert (await answers.claim(first, digest=b"d")).is_under_way
    await answers.keep(second, b"mine")
    assert await answers.claim(first, digest=b"d") == Earlier(b"d", is_under_way=False, answer=b"mine")


def test_a_call_that_takes_longer_than_a_claim_is_answered_once(kept, valkey, monkeypatch):
    monkeypatch.setattr(once, "CLAIM_SECONDS", 0.4)
    monkeypatch.setattr(kept_answers, "CLAIM_SECONDS", 2)
    name = uuid4().hex
    with ThreadPoolExecutor() as pool:
        first = pool.submit(ask, kept, name, model="delay-3500")
        wait_for(lambda: kept.teacher.seen)
        while not first.done():
            assert ask(kept, name, model="delay-3500").status in (200, 409)
            time.sleep(0.1)
    assert first.result().status == 200 and len(kept.teacher.seen) == 1


@pytest.mark.parametrize("model", ["gpt-4o", "failing"])
def test_a_claim_whose_reply_was_lost_is_still_kept_or_given_up(kept, monkeypatch, model):
    claim = KeptAnswers.claim

    async def lose(self, *given, **more):
        await claim(self, *given, **more)
        self._failures = kept_answers.FAILURES - 1
        self._note_failure("TimeoutError")  # so that nobody takes a key for a while
        raise UnableToKeep("TimeoutError")

    name = uuid4().hex
    with monkeypatch.context() as patched:
        patched.setattr(KeptAnswers, "claim", lose)
        first = ask(kept, name, model=model)
    if model == "failing":
        assert first.status == 500
        wait_for(lambda: ask(kept, name).status == 200, every=0.1)
    else:
        assert first.status == 200
        wait_for(lambda: "x-understudy-replayed" in ask(kept, name).headers, every=0.1)


def test_whoever_leaves_while_the_answer_is_kept_gets_it_later(kept, monkeypatch):
    keep, begun, gone = KeptAnswers.keep, threading.Event(), threading.Event()

    async def keep_slowly(self, *given):
        begun.set()
        await asyncio.to_thread(gone.wait, 15)
        await keep(self, *given)

    monkeypatch.setattr(KeptAnswers, "keep", keep_slowly)
    name = uuid4().hex

    async def ask_and_leave() -> None:
        asking = asyncio.create_task(post(kept.url, headers={"idempotency-key": name}, json=openai_ask()))
        assert await asyncio.to_thread(begun.wait, 15)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(ask_and_leave())
    wait_for(
        lambda: b"understudy_departed_callers_total 1.0" in asyncio.run(get(f"{kept.url}/metrics")).body, every=0.05
    )
    assert ask(kept, name).status == 409
    gone.set()
    again = wait_for(lambda: (got := ask(kept, name)).status == 200 and got, every=0.05)
    assert again.headers["x-understudy-replayed"] == "true" and len(kept.teacher.seen) == 1


async def test_a_rival_who_asks_for_much_at_once_does_not_cost_others_their_keys(kept, caplog):
    theirs = {"key": RIVAL.plain, "headers": {"idempotency-key": uuid4().hex}, "json": openai_ask()}
    await post(kept.url, **theirs)

    async def burst() -> None:
        await asyncio.gather(*(post(kept.url, **theirs) for _ in range(300)))

    rival = asyncio.create_task(burst())
    for _ in range(10):
        mine = {"headers": {"idempotency-key": uuid4().hex}, "json": openai_ask()}
        first, second = await post(kept.url, **mine), await post(kept.url, **mine)
        assert (first.status, second.status, second.headers["x-understudy-replayed"]) == (200, 200, "true")
    await rival
    assert caplog.text.count("not kept") <= 1


class Heard:
    """What a copy keeps and sends on, in order."""

    def __init__(self, dialect: Dialect = Dialect.OPENAI) -> None:
        self.events: list[object] = []
        self.copy = once.Copy(self.send, dialect, keep=self.keep)

    async def send(self, message) -> None:
        self.events.append(message.get("body", "head"))

    async def keep(self, kept) -> bool:
        self.events.append(("kept", None if kept is None else len(kept.body)))
        return True

    async def tell(self, *parts: bytes, kind: bytes = b"text/event-stream", status: int = 200) -> list[object]:
        headers = [(b"content-type", kind), (b"content-length", b"1")]
        await self.copy.send({"type": "http.response.start", "status": status, "headers": headers})
        for number, part in enumerate(parts, start=1):
            await self.copy.send({"type": "http.response.body", "body": part, "more_body": number < len(parts)})
        return self.events[1:]


STREAM = b"".join(openai_events("gpt-4o", {}))


async def test_an_answer_is_kept_before_its_last_bytes_leave_and_once():
    end = STREAM.index(b"data: [DONE]")
    parts = (STREAM[:end], STREAM[end:], b"")
    assert await Heard().tell(*parts) == [parts[0], ("kept", len(STREAM)), parts[1], b""]
    body = openai_body("gpt-4o")
    assert await Heard().tell(body, kind=b"application/json") == [("kept", len(body)), body]


@pytest.mark.parametrize(
    ("parts", "more"),
    [
        ((STREAM[: STREAM.index(b"data: [DONE]")], b""), {}),
        ((b'data: {"error":{"message":"overloaded"}}\n\n', b"data: [DONE]\n\n", b""), {}),
        ((b'{"error":{"message":"overloaded"}}',), {"kind": b"application/json"}),
        ((openai_body("gpt-4o"),), {"kind": b"application/json", "status": 500}),
        ((openai_body("gpt-4o")[:40],), {"kind": b"application/json"}),
    ],
    ids=["no last event", "an error event", "an error under 200", "an error", "half a body"],
)
async def test_what_is_no_whole_answer_is_not_kept(parts, more):
    heard = Heard()
    assert await heard.tell(*parts, **more) == list(parts) and not await heard.copy.is_kept()


async def test_a_stream_that_is_too_much_is_known_to_have_been_answered(monkeypatch):
    monkeypatch.setattr(once, "MOST_KEPT", 10)
    assert ("kept", None) in await Heard().tell(STREAM)
