"""Holds that one slow or missing name delays no call but its own, and that a known one is found without waiting."""

import asyncio
import socket

import pytest

from serving.gateway import names
from serving.gateway.names import Names, UnableToResolve

FOUND = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 443))]


class NameServer:
    """What the loop asks: answers once it is let go, and counts."""

    def __init__(self, loop, monkeypatch) -> None:
        self.asked: list[str] = []
        self.missing = False
        self.answers = asyncio.Event()
        self.answers.set()
        self.now = loop.time()
        monkeypatch.setattr(loop, "getaddrinfo", self.ask)
        monkeypatch.setattr(Names, "_now", lambda _: self.now)

    async def ask(self, host, port, *, type):
        self.asked.append(host)
        await self.answers.wait()
        if self.missing:
            raise socket.gaierror(socket.EAI_NONAME if self.missing is True else self.missing, "")
        return FOUND


@pytest.fixture
async def server(monkeypatch) -> NameServer:
    return NameServer(asyncio.get_running_loop(), monkeypatch)


async def test_all_who_wait_for_a_name_share_one_lookup(server):
    server.answers.clear()
    known = Names()
    waiting = [asyncio.ensure_future(known.resolve("a.example", 443)) for _ in range(50)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    server.answers.set()
    got = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(got[0], asyncio.CancelledError) and got[1:] == [FOUND] * 49
    assert server.asked == ["a.example"]


async def test_a_known_name_is_found_at_once_while_it_is_looked_up_again(server):
    known = Names()
    await known.resolve("a.example", 443)
    server.now += names.FRESH_SECONDS
    server.answers.clear()
    assert await asyncio.wait_for(known.resolve("a.example", 443), 1) == FOUND
    await asyncio.sleep(0)
    assert server.asked == ["a.example"] * 2


async def test_an_address_that_does_not_answer_is_looked_up_again(server):
    known = Names()
    for _ in range(2):
        await known.resolve("a.example", 443)
        known.forget("a.example", 443)
    assert len(server.asked) == 2


async def test_what_may_pass_is_not_remembered(server):
    server.missing = socket.EAI_AGAIN
    known = Names()
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            await known.resolve("a.example", 443)
    assert len(server.asked) == 2


async def test_addresses_that_did_not_answer_are_better_than_none(server):
    known = Names()
    await known.resolve("a.example", 443)
    known.forget("a.example", 443)
    server.missing = True
    assert await known.resolve("a.example", 443) == FOUND


async def test_old_addresses_are_better_than_none(server):
    known = Names()
    await known.resolve("a.example", 443)
    server.missing = True
    for times in (2, 3, 4):
        server.now += names.FRESH_SECONDS
        async with asyncio.timeout(5):
            while len(server.asked) < times:  # behind the answer's back, once the time before is over
                assert await known.resolve("a.example", 443) == FOUND
                await asyncio.sleep(0)
    assert len(server.asked) == 4


async def test_a_missing_name_is_not_asked_for_again_for_some_seconds(server):
    server.missing = True
    known = Names()
    for _ in range(20):
        with pytest.raises(UnableToResolve):
            await known.resolve("a.example", 443)
    assert len(server.asked) == 1
    server.now += names.MISSING_SECONDS
    server.missing = False
    assert await known.resolve("a.example", 443) == FOUND


async def test_slow_names_are_refused_in_the_end_and_known_ones_found_beside_them(server):
    known = Names()
    await known.resolve("known.example", 443)
    server.now += names.FRESH_SECONDS
    server.answers.clear()
    slow = [asyncio.ensure_future(known.resolve(f"{n}.example", 443)) for n in range(names.MOST_LOOKUPS)]
    await asyncio.sleep(0)
    with pytest.raises(UnableToResolve):
        await known.resolve("one-more.example", 443)
    assert await known.resolve("known.example", 443) == FOUND
    known.forget("known.example", 443)
    assert await known.resolve("known.example", 443) == FOUND, "which did not answer, but is better than none"
    server.answers.set()
    assert await asyncio.gather(*slow) == [FOUND] * names.MOST_LOOKUPS
