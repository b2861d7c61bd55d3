"""One tenant's bodies take so much of a process's memory and no more, and nobody else's calls notice."""

import asyncio
import json

import pytest

from serving.gateway.memory import UNCOUNTED, Hold, Memory
from tests.serving.gateway.cast import PLAIN, RIVAL, get, openai_ask, opened, post, serve_gateway

ROOM = 1_000_000
LONG = 10 * UNCOUNTED


@pytest.fixture
def live(stage):
    stage.publish()
    with serve_gateway(stage, tenant_body_bytes=ROOM) as gateway:
        stage.url = gateway.url
        yield stage


def test_what_is_held_is_counted_by_tenant_and_given_back():
    memory = Memory(100, most_calls=2)
    with Hold(memory) as hold, Hold(memory) as other:
        assert hold.begin("one") and other.begin("two")
        assert hold.take(60, size=LONG) and not hold.take(41, size=LONG) and hold.take(40, size=LONG)
        assert other.take(100, size=LONG) and not other.take(1, size=LONG)
    with Hold(memory) as hold:
        assert hold.begin("one") and hold.take(100, size=LONG)


def test_the_first_of_each_body_is_not_counted():
    with Hold(Memory(100, most_calls=1)) as hold:
        assert hold.begin("one")
        for _ in range(3):
            assert hold.take(UNCOUNTED, size=UNCOUNTED)
        assert hold.take(1000, size=UNCOUNTED + 60) and not hold.take(41, size=UNCOUNTED + 101)
        assert hold.held == 60


def test_one_tenants_calls_are_so_many_and_anothers_have_their_own_number():
    memory = Memory(100, most_calls=2)
    with Hold(memory) as first, Hold(memory) as second, Hold(memory) as third:
        assert first.begin("one") and second.begin("one") and third.begin("two")
        with Hold(memory) as more:
            assert not more.begin("one")
    with Hold(memory) as first, Hold(memory) as second:
        assert first.begin("one") and second.begin("one")


async def test_calls_that_are_not_whole_yet_are_bounded_by_tenant(stage):
    """Each may be short: their number is what counts."""
    stage.publish()
    with serve_gateway(stage, tenant_in_flight=1) as gateway:
        port = int(gateway.url.rpartition(":")[2])
        held = [await half_sent(port, PLAIN.plain, size=100) for _ in range(4)]

        async def status(key: str) -> int:
            return (await post(gateway.url, key=key, json=openai_ask())).status

        async with asyncio.timeout(5):
            while await status(PLAIN.plain) != 429:
                await asyncio.sleep(0)
        assert await status(RIVAL.plain) == 200
        for _, writer in held:
            writer.close()
        async with asyncio.timeout(5):
            while await status(PLAIN.plain) != 200:
                await asyncio.sleep(0)


async def test_what_one_odd_letter_makes_of_a_long_text_is_counted(live):
    """A text with a letter beyond the basic plane takes four bytes for each of its letters."""
    assert (await post(live.url, json=openai_ask(query="x" * 300_000))).status == 200
    got = await post(live.url, json=openai_ask(query="x" * 300_000 + "\U0001f600"))
    assert got.status == 429 and b"together" in got.body


async def half_sent(port: int, key: str, *, size: int):
    """A call whose body stops before its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    writer.write(f"{head}content-length: {size}\r\n\r\n".encode() + b" " * (size - 1))
    await writer.drain()
    return reader, writer


async def test_bodies_that_are_not_whole_yet_leave_no_room_for_more_of_the_tenants_own_and_all_for_others(live):
    port = int(live.url.rpartition(":")[2])
    held = [await half_sent(port, PLAIN.plain, size=450_000) for _ in range(2)]
    long = openai_ask(query="x" * 400_000)

    async def refused() -> bool:
        got = await post(live.url, json=long)
        return got.status == 429 and b"together" in got.body and got.headers["retry-after"] == "1"

    async with asyncio.timeout(5):
        while not await refused():  # until what was sent has been read
            await asyncio.sleep(0)
    assert (await post(live.url, json=openai_ask())).status == 200, "short ones always have room"
    assert (await post(live.url, key=RIVAL.plain, json=long)).status == 200
    for _, writer in held:
        writer.close()
    async with asyncio.timeout(5):
        while (await post(live.url, json=long)).status != 200:
            await asyncio.sleep(0)


@pytest.mark.parametrize("model", ["flood", "flood-in-one"])
async def test_an_answer_that_there_is_no_room_for_passes_through_unread(live, model):
    got = await post(live.url, json=openai_ask(model, stream=model == "flood"))
    record = live.record()
    assert got.status == 200 and len(got.body) > 2 * ROOM
    assert record.response_sealed is None and record.status == 200 and record.usage_estimated
    assert json.loads(opened(record, "request"))["model"] == model
    numbers = (await get(f"{live.url}/metrics")).body
    assert b"understudy_answers_let_go_total 1.0" in numbers
    assert (await post(live.url, json=openai_ask(query="x" * 400_000))).status == 200, "what it held is given back"


async def test_a_file_that_passes_is_held_by_nobody(live):
    kind = {"content-type": "application/octet-stream"}
    got = await post(live.url, path="/v1/files", data=b"x" * (3 * ROOM), headers=kind)
    assert got.status == 201 and json.loads(got.body)["bytes"] == 3 * ROOM


async def test_what_is_sent_again_in_need_is_held_whole_or_refused(live):
    body = json.dumps({"model": "text-embedding-3-small", "input": "x" * (2 * ROOM)}).encode()
    got = await post(live.url, path="/v1/embeddings", data=body, headers={"content-type": "application/json"})
    assert (got.status, live.teacher.seen) == (429, [])
