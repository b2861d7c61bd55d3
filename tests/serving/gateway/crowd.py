"""A thousand callers who call again and again until they are cut off, and know what they got in full."""

import asyncio
from collections.abc import Callable

import aiohttp

from tests.serving.gateway.cast import openai_ask

IN_FLIGHT = 1000


async def cut_off(url: str, *, key: str, cut: Callable[[], None]) -> list[str]:
    """Have the crowd call, `cut` them off in the middle, and give the ids of the answers they had in full by then."""
    timeout, connector = aiohttp.ClientTimeout(total=None), aiohttp.TCPConnector(limit=0)
    whole: list[str] = []
    headers = {"authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers, connector=connector, timeout=timeout) as http:
        await wait_until_ready(http, url)
        calls = [
            asyncio.create_task(call_until_cut_off(http, url, number=number, whole=whole))
            for number in range(IN_FLIGHT)
        ]
        async with asyncio.timeout(40):
            while len(whole) < IN_FLIGHT * 3 // 2:
                await asyncio.sleep(0.001)
        cut()
        await asyncio.gather(*calls)
    return whole


async def call_until_cut_off(http: aiohttp.ClientSession, url: str, *, number: int, whole: list[str]) -> None:
    ask = openai_ask("gpt-4o", stream=True) if number % 10 == 0 else openai_ask(f"delay-{number % 400}")
    while True:
        try:
            async with http.post(f"{url}/v1/chat/completions", json=ask) as answer:
                await answer.read()
                whole.append(answer.headers["x-understudy-call"])
        except (aiohttp.ClientError, OSError):
            return


async def wait_until_ready(http: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                async with http.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.02)
