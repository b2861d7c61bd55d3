"""Holds that a provider in trouble costs its own callers little, everybody else nothing, and is never stormed."""

import asyncio
import json
from contextlib import asynccontextmanager
from types import SimpleNamespace

import aiohttp
import pytest

from ingestion.core.calls import Dialect, Provider
from serving.core.breaker import FAILURES, FIRST_PAUSE
from serving.core.snapshot import ProviderEntry
from serving.gateway.metrics import Metrics
from serving.gateway.refusals import Refused
from serving.gateway.teachers import Lane, Teachers
from serving.gateway.upstream import UnableToReach
from serving.gateway.wire import Request
from tests.fakes.teacher import ERROR_BODY, openai_body
from tests.serving.gateway.cast import PLAIN, down, get, openai_ask, post, serve_gateway
from tests.serving.gateway.test_relay import Canned

PATH = "/v1/chat/completions"
REQUEST = Request(
    Dialect.OPENAI, PATH, [], {}, receive=None, send=None, watch=None, path=PATH.encode(), provider=Provider.OPENAI
)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_busy_provider_is_asked_again_when_it_says_so(live, stream):
    got = await post(live.url, json=openai_ask("busy-0", stream=stream))
    assert got.status == 200 and len(live.teacher.seen) == 2
    assert live.teacher.seen[0].body == live.teacher.seen[1].body
    assert live.record().status == 200
    assert 'understudy_retries_total{why="busy"} 1.0' in (await get(f"{live.url}/metrics")).body.decode()


async def test_who_would_have_to_wait_long_gets_the_providers_own_words(live):
    got = await post(live.url, json=openai_ask("busy-60"))
    assert (got.status, got.body, got.headers["retry-after"]) == (429, ERROR_BODY, "60")
    assert len(live.teacher.seen) == 1


async def test_what_may_have_left_something_behind_is_not_sent_again(live):
    """A batch made twice would be paid twice."""
    got = await post(live.url, path="/v1/batches", json={"model": "busy-0"})
    assert got.status == 201 and len(live.teacher.seen) == 1


async def test_retries_end_with_their_budget(stage):
    """Every odd call at the provider is refused: without a budget each of forty would be sent twice."""
    stage.publish()
    with serve_gateway(stage) as gateway:
        for _ in range(40):
            await post(gateway.url, json=openai_ask("busy-0"))
    assert 40 < len(stage.teacher.seen) <= 40 + 3 + 4


async def test_a_connection_that_the_provider_closed_while_idle_is_no_failure(stage):
    async with idle_closer() as (url, seen):
        stage.urls["teacher"] = url
        stage.publish()
        with serve_gateway(stage) as gateway:
            for _ in range(2):
                got = await post(gateway.url, json=openai_ask())
                assert (got.status, got.body) == (200, openai_body("gpt-4o"))
            metrics = (await get(f"{gateway.url}/metrics")).body.decode()
    assert seen == ["answered", "closed", "answered"]
    assert 'understudy_retries_total{why="unreachable"} 1.0' in metrics
    assert "understudy_provider_connections_made_total 2.0" in metrics
    assert "understudy_provider_connections_reused_total 1.0" in metrics


async def test_a_kept_connection_that_breaks_later_broke_under_the_call(stage, monkeypatch):
    monkeypatch.setattr("serving.gateway.pool.STALE_SECONDS", 0.0)
    async with idle_closer() as (url, seen):
        stage.urls["teacher"] = url
        stage.publish()
        with serve_gateway(stage) as gateway:
            assert [(await post(gateway.url, json=openai_ask())).status for _ in range(2)] == [200, 502]
    assert seen == ["answered", "closed"]


async def test_a_conversation_that_the_provider_keeps_does_not_grow_twice(stage):
    async with idle_closer() as (url, seen):
        stage.urls["teacher"] = url
        stage.publish()
        with serve_gateway(stage) as gateway:
            ask = {"model": "gpt-4o", "input": "x", "conversation": "conv_1"}
            statuses = [(await post(gateway.url, path="/v1/responses", json=ask)).status for _ in range(2)]
    assert (statuses, seen) == ([200, 502], ["answered", "closed"])


async def test_a_long_header_of_the_provider_s_is_passed_on(live):
    got = await post(live.url, json=openai_ask("long-header"))
    assert got.status == 200 and len(got.headers["x-echo"]) == 20_000


async def test_a_call_that_the_provider_may_have_worked_on_is_not_sent_again(stage):
    async with idle_closer(answers_first=False) as (url, seen):
        stage.urls["teacher"] = url
        stage.publish()
        with serve_gateway(stage) as gateway:
            assert (await post(gateway.url, json=openai_ask())).status == 502
    assert seen == ["closed"]


async def test_a_provider_that_is_gone_is_said_to_be_so_at_once(stage):
    stage.urls["teacher"] = down()
    stage.publish()
    with serve_gateway(stage) as gateway:
        statuses = [(await post(gateway.url, json=openai_ask())).status for _ in range(FAILURES)]
        assert set(statuses) <= {502, 503} and statuses[0] == 502
        got = await post(gateway.url, json=openai_ask())
        assert (got.status, json.loads(got.body)["error"]["type"]) == (503, "overloaded_error")
        assert int(got.headers["retry-after"]) >= 1
        assert [record.status for record in stage.records(FAILURES + 1)] == [*statuses, 503]


async def test_too_large_an_upload_says_nothing_of_the_provider(stage):
    stage.publish()

    async def pieces():
        for _ in range(3):
            yield b"x" * 4000

    with serve_gateway(stage, max_passed_bytes=8192) as gateway:
        for _ in range(FAILURES + 1):
            assert (await post(gateway.url, path="/v1/files", data=pieces())).status == 413
        assert (await post(gateway.url, json=openai_ask())).status == 200


async def test_a_caller_who_leaves_gives_its_place_free(stage):
    stage.publish()
    with serve_gateway(stage, tenant_in_flight=1) as gateway:
        async with aiohttp.ClientSession(headers={"authorization": f"Bearer {PLAIN.plain}"}) as http:
            body = openai_ask("endless", stream=True)
            async with http.post(f"{gateway.url}/v1/chat/completions", json=body) as answer:
                await answer.content.readany()
        assert (await post(gateway.url, json=openai_ask())).status == 200


async def test_one_more_than_may_wait_is_told_to_come_back(stage):
    stage.publish()
    with serve_gateway(stage, tenant_in_flight=1) as gateway:
        held = [asyncio.create_task(post(gateway.url, json=openai_ask("silent"))) for _ in range(2)]
        async with asyncio.timeout(15):
            while b"understudy_in_flight 2.0" not in (await get(f"{gateway.url}/metrics")).body:
                pass
        got = await post(gateway.url, json=openai_ask())
        assert (got.headers["retry-after"], json.loads(got.body)["error"]["type"]) == ("1", "rate_limit_error")
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)


async def test_a_stuck_provider_of_one_tenant_slows_no_other():
    upstream = Scripted()
    teachers = Teachers(upstream, most=1, metrics=idle_metrics())
    stuck = [asyncio.create_task(ask(teachers, "stuck")) for _ in range(2)]
    await upstream.asked.wait()
    with pytest.raises(Refused) as refused:
        await ask(teachers, "stuck")
    assert refused.value.status == 429
    assert (await ask(teachers, "other")).status == 200
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)
    upstream.sticks = False
    assert (await ask(teachers, "stuck")).status == 200, "their places are free again"


async def test_one_probe_takes_a_provider_back():
    now = [0.0]
    upstream = Scripted(failures=FAILURES)
    teachers = Teachers(upstream, most=9, metrics=idle_metrics(), clock=lambda: now[0])
    statuses = [await refusal(teachers) for _ in range(FAILURES + 1)]
    assert statuses == [502] * FAILURES + [503]
    now[0] += FIRST_PAUSE
    assert (await ask(teachers, "t")).status == 200
    assert (await ask(teachers, "t")).status == 200 and upstream.calls == FAILURES + 2


async def test_what_breaks_one_call_does_not_speak_against_the_provider():
    """Or a caller whose own call breaks its connection would have everybody's refused."""
    teachers = Teachers(Scripted(failures=3 * FAILURES, down=False), most=9, metrics=idle_metrics())
    assert {await refusal(teachers) for _ in range(3 * FAILURES)} == {502}
    assert (await ask(teachers, "t")).status == 200


async def test_an_upload_is_no_probe():
    """It may never end, and then nobody would learn that the provider is back."""

    async def endless():
        yield b"x"

    now, upstream = [0.0], Scripted(failures=FAILURES)
    teachers = Teachers(upstream, most=9, metrics=idle_metrics(), clock=lambda: now[0])
    for _ in range(FAILURES):
        await refusal(teachers)
    now[0] += FIRST_PAUSE
    upstream.failures = FAILURES + 1
    with pytest.raises(Refused):
        await ask(teachers, "t", body=endless())
    assert (await ask(teachers, "t")).status == 200, "the probe is still to be had"


async def test_who_waits_too_long_for_a_place_is_told_to_come_back(monkeypatch):
    monkeypatch.setattr("serving.gateway.teachers.LONGEST_WAIT", 0.01)
    lane = Lane()
    assert lane.take(most=1) and not lane.take(most=1)
    with pytest.raises(Refused) as refused:
        await lane.wait(most=1)
    assert refused.value.status == 429 and len(lane.waiting) == 0
    lane.leave()
    assert lane.in_flight == 0


async def test_the_place_of_a_caller_who_leaves_the_queue_is_not_lost():
    lane = Lane()
    for _ in range(2):
        lane.take(most=2)
    first, second = (asyncio.create_task(lane.wait(most=2)) for _ in range(2))
    await asyncio.sleep(0)
    assert len(lane.waiting) == 2
    lane.leave()
    first.cancel()  # in the very moment in which its turn has come
    await asyncio.wait([first, second])
    assert first.cancelled() and second.exception() is None and lane.in_flight == 2
    for _ in range(2):
        lane.leave()
    assert (lane.in_flight, len(lane.waiting)) == (0, 0)


class Scripted:
    """An upstream that cannot be reached for the first calls, and sticks for the tenant whose address says so."""

    def __init__(self, *, failures: int = 0, down: bool = True) -> None:
        self._down = down
        self.calls = 0
        self.sticks = True
        self.asked = asyncio.Event()
        self.failures = failures

    async def ask(self, method, base_url, target, *, headers, body):
        self.calls += 1
        if self.sticks and base_url.startswith("http://stuck"):
            self.asked.set()
            await asyncio.Event().wait()
        if self.calls <= self.failures:
            raise UnableToReach(down=self._down)
        return Canned([b"{}"], kind=b"application/json")

    async def close(self) -> None:
        pass


async def ask(teachers: Teachers, tenant: str, *, body=b"{}"):
    caller = SimpleNamespace(key=SimpleNamespace(tenant_id=tenant))
    there = ProviderEntry(base_url=f"http://{tenant}", credential="c")
    reply = await teachers.ask(REQUEST, caller, there, method="POST", body=body, again=True)
    reply.close()
    return reply


async def refusal(teachers: Teachers) -> int:
    with pytest.raises(Refused) as refused:
        await ask(teachers, "t")
    return refused.value.status


def idle_metrics() -> Metrics:
    return Metrics(snapshot=lambda: (0, 0))


@asynccontextmanager
async def idle_closer(*, answers_first: bool = True):
    """A provider that answers the first call of a connection, and closes it on the second; and what it did."""
    seen: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers = answers_first
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            await reader.readexactly(length)
            seen.append("answered" if answers else "closed")
            if not answers:
                break
            body = openai_body("gpt-4o")
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
            writer.write(head + body)
            answers = False
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}", seen
