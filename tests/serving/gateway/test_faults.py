"""A student in any trouble, callers who hang up and providers that break off, by the hundred: no call is lost, mixed or
paid twice, and nobody stays on a line that leads nowhere.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable

import aiohttp
import pytest

from ingestion.core.calls import Arm, Dialect
from serving.core.gates import Rung
from tests.fakes.asgi import read_body, send_json
from tests.fakes.encoder import decision
from tests.fakes.replica import completion
from tests.fakes.teacher import TEXT
from tests.serving.gateway.cast import PLAIN, Stage, down, openai_ask, serve_gateway, student

HEADERS = {"authorization": f"Bearer {PLAIN.plain}"}
ADAPTER = "routing-lora-7"
TIMES = 200
WAVE = 4
LET_GO_SECONDS = 0.5


@pytest.fixture
def lora(stage) -> Stage:
    """A stage whose student answers every call, if nothing ails it."""
    stage.encoder.decisions[ADAPTER] = decision(rung="lora")
    stage.replica.completions[ADAPTER] = completion([("Claim", -0.01), ("_Damage", -0.002)])
    stage.cast_student(student(rung=Rung.LORA), (openai_ask(), Dialect.OPENAI))
    return stage


async def half_a_stream(scope, receive, send) -> None:
    """As much of an answer as a process gets out before it dies."""
    await read_body(receive)
    whole = json.dumps(completion([("Claim", -0.01)])).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(whole))]})
    await send({"type": "http.response.body", "body": whole[: len(whole) // 2], "more_body": True})


async def garbage(scope, receive, send) -> None:
    await read_body(receive)
    await send_json(send, 200, b"\x00\xff<html>not an answer</html>")


async def out_of_memory(scope, receive, send) -> None:
    await read_body(receive)
    await send_json(send, 500, b'{"error":{"message":"CUDA out of memory","type":"EngineDeadError"}}')


def be_down(lora: Stage, stand) -> None:
    lora.urls["replica"] = down()
    lora.publish()


def be(app) -> Callable[[Stage, object], None]:
    def change(lora: Stage, stand) -> None:
        stand.app = app

    return change


def be_late(lora: Stage, stand) -> None:
    lora.replica.fault = "late"


def be_failing(lora: Stage, stand) -> None:
    lora.replica.fault = "failing"


def be_another(lora: Stage, stand) -> None:
    lora.replica.completions = {"another-adapter": lora.replica.completions[ADAPTER]}


FAULTS = {
    "down": (be_down, "vllm_down"),
    "slow": (be_late, "timeout"),
    "500": (be_failing, "vllm_down"),
    "garbage": (be(garbage), "malformed"),
    "half a stream": (be(half_a_stream), "vllm_down"),
    "wrong adapter": (be_another, "adapter_missing"),
    "out of memory": (be(out_of_memory), "vllm_down"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_whatever_ails_the_student_every_caller_gets_the_teacher_s_answer_and_no_other(lora, stands, fault):
    ail, reason = FAULTS[fault]
    ail(lora, stands["replica"][0])
    with serve_gateway(lora, student_timeout=0.5 if reason == "timeout" else 30) as gateway:
        async with aiohttp.ClientSession(headers=HEADERS, connector=aiohttp.TCPConnector(limit=50)) as http:

            async def ask(number: int) -> str:
                body = openai_ask(stream=number % 2 == 0)
                async with http.post(f"{gateway.url}/v1/chat/completions", json=body) as answer:
                    assert (answer.status, answer.headers["x-understudy-arm"]) == (200, "fallback")
                    return text_of(await answer.read())

            texts = Counter(await asyncio.gather(*map(ask, range(TIMES))))
    assert texts == {TEXT: TIMES}
    assert Counter((one.arm, one.reason, one.complete) for one in lora.records(TIMES)) == {
        (Arm.FALLBACK, reason, True): TIMES
    }


def text_of(raw: bytes) -> str:
    """What an answer says, whole or streamed."""
    if not raw.startswith(b"data:"):
        return json.loads(raw)["choices"][0]["message"]["content"]
    events = [json.loads(line[6:]) for line in raw.split(b"\n") if line.startswith(b"data: {")]
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])


@pytest.mark.parametrize(
    ("model", "recorded"),
    [("endless", (False, 200, True)), ("silent", (False, 499, False))],
    ids=["in the middle of a stream", "before any answer"],
)
async def test_two_hundred_callers_who_hang_up_are_in_the_log_and_each_provider_is_let_go_at_once(
    live, model, recorded
):
    """A few at a time, so that what is timed is the gateway: callers and provider share this process with it."""
    left_at: dict[bytes, float] = {}
    async with aiohttp.ClientSession(headers=HEADERS, connector=aiohttp.TCPConnector(limit=0)) as http:

        async def leave(number: int) -> None:
            body = json.dumps(openai_ask(model, query=f"call {number}", stream=True)).encode()
            asking = asyncio.create_task(http.post(f"{live.url}/v1/chat/completions", data=body))
            await until(lambda: any(seen.body == body for seen in live.teacher.seen))
            leaves = asking.cancel
            if model == "endless":
                answer = await asking
                await answer.content.readany()
                leaves = answer.close
            left_at[body] = time.monotonic()
            leaves()

        for first in range(0, TIMES, WAVE):
            await asyncio.gather(*map(leave, range(first, first + WAVE)))
            await until(lambda: left_at.keys() == live.teacher.gone_at.keys())
        await until(lambda: (live.teacher.left, live.teacher.streaming) == (TIMES, 0))
    assert max(live.teacher.gone_at[body] - at for body, at in left_at.items()) <= LET_GO_SECONDS
    records = await asyncio.to_thread(live.records, TIMES)
    assert {(one.complete, one.status, one.usage_estimated) for one in records} == {recorded}
    assert len({one.id for one in records}) == TIMES


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_fifty_answers_that_providers_cut_are_in_the_log_with_an_estimate_that_says_so(live):
    async with aiohttp.ClientSession(headers=HEADERS) as http:

        async def ask(number: int) -> bytes:
            got = b""
            body = openai_ask("broken", query="word " * 400, stream=True)
            with pytest.raises(aiohttp.ClientPayloadError):
                async with http.post(f"{live.url}/v1/chat/completions", json=body) as answer:
                    async for part in answer.content.iter_any():
                        got += part
            return got

        got = await asyncio.gather(*map(ask, range(50)))
    assert {text_of(raw) for raw in got} == {"track_"}
    records = await asyncio.to_thread(live.records, 50)
    assert {(one.complete, one.status, one.usage_estimated) for one in records} == {(False, 200, True)}
