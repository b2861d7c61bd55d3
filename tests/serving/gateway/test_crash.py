"""The promise behind every report: what a caller has in full is in the log, also when the gateway is killed."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter

import aiohttp
import pytest

from tests.fakes.serve import free_port
from tests.serving.gateway.cast import PLAIN, SECRET, Stage, openai_ask, read_spool

IN_FLIGHT = 1000


@pytest.fixture
def process(stage):
    """A gateway in a process of its own, and its URL."""
    stage.publish()
    port = free_port()
    environ = {
        **os.environ,
        "SNAPSHOT_FILE": str(stage.directory / "snapshot.sealed"),
        "SPOOL_DIR": str(stage.spool_dir),
        "SECRET_KEY": SECRET.decode(),
        "GATEWAY_PORT": str(port),
    }
    gateway = subprocess.Popen([sys.executable, "-m", "serving.gateway"], env=environ)
    yield gateway, f"http://127.0.0.1:{port}"
    gateway.kill()
    gateway.wait(10)


async def wait_until_ready(http: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                async with http.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.02)


async def call_until_cut_off(http: aiohttp.ClientSession, url: str, *, number: int, whole: list[str]) -> None:
    """Call again and again; note the id of each answer that was read to its end."""
    ask = openai_ask("gpt-4o", stream=True) if number % 10 == 0 else openai_ask(f"delay-{number % 400}")
    while True:
        try:
            async with http.post(f"{url}/v1/chat/completions", json=ask) as answer:
                await answer.read()
                whole.append(answer.headers["x-understudy-call"])
        except (aiohttp.ClientError, OSError):
            return


async def kill_amid_calls(gateway: subprocess.Popen, url: str) -> list[str]:
    headers = {"authorization": f"Bearer {PLAIN.plain}"}
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0)
    whole: list[str] = []
    async with aiohttp.ClientSession(headers=headers, connector=connector, timeout=timeout) as http:
        await wait_until_ready(http, url)
        calls = [
            asyncio.create_task(call_until_cut_off(http, url, number=number, whole=whole))
            for number in range(IN_FLIGHT)
        ]
        async with asyncio.timeout(40):
            while len(whole) < IN_FLIGHT * 3 // 2:
                await asyncio.sleep(0.001)
        gateway.send_signal(signal.SIGKILL)
        await asyncio.gather(*calls)
    return whole


def test_a_gateway_killed_amid_a_thousand_calls_has_recorded_every_answer_it_gave_once(stage: Stage, process):
    gateway, url = process
    whole = asyncio.run(kill_amid_calls(gateway, url))
    assert gateway.wait(10) == -signal.SIGKILL
    recorded = Counter(record.id for record in read_spool(stage.spool_dir))
    assert len(whole) == len(set(whole)) >= IN_FLIGHT
    assert set(whole) <= set(recorded)
    assert set(recorded.values()) == {1}


def test_a_gateway_told_to_stop_finishes_the_calls_it_has(stage: Stage, process):
    gateway, url = process

    async def call_while_stopping() -> int:
        async with aiohttp.ClientSession(headers={"authorization": f"Bearer {PLAIN.plain}"}) as http:
            await wait_until_ready(http, url)
            asking = asyncio.create_task(http.post(f"{url}/v1/chat/completions", json=openai_ask("delay-300")))
            while not stage.teacher.seen:
                await asyncio.sleep(0.001)
            gateway.terminate()
            answer = await asking
            await answer.read()
            return answer.status

    assert asyncio.run(call_while_stopping()) == 200
    assert gateway.wait(10) in (0, -signal.SIGTERM)
    assert stage.record().complete


@pytest.mark.parametrize("missing", ["SNAPSHOT_FILE", "SPOOL_DIR", "SECRET_KEY"])
def test_a_gateway_without_a_setting_names_it_and_does_not_start(missing, tmp_path):
    settings = {"SNAPSHOT_FILE": str(tmp_path / "s"), "SPOOL_DIR": str(tmp_path), "SECRET_KEY": SECRET.decode()}
    environ = {name: value for name, value in {**os.environ, **settings}.items() if name != missing}
    done = subprocess.run([sys.executable, "-m", "serving.gateway"], env=environ, capture_output=True, timeout=30)
    assert (done.returncode, missing in done.stderr.decode()) == (2, True)
