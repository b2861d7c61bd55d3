"""The promise behind every report: what a caller has in full is in the log, also when the gateway is killed; unless
less was asked for, which then is what is lost.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter

import aiohttp
import pytest

from tests.fakes.serve import free_port, wait_for
from tests.serving.gateway.cast import PLAIN, SECRET, Stage, openai_ask, read_spool
from tests.serving.gateway.crowd import IN_FLIGHT, cut_off, wait_until_ready

LEVELS = pytest.mark.parametrize("process", ["memory", "os", "disk"], indirect=True)


@pytest.fixture
def process(stage, request):
    """A gateway in a process of its own, which acknowledges as the test says, and its URL."""
    stage.publish()
    port = free_port()
    environ = stage.environ(port, CAPTURE_ACK=getattr(request, "param", ""))
    gateway = subprocess.Popen([sys.executable, "-m", "serving.gateway"], env=environ)
    yield gateway, f"http://127.0.0.1:{port}"
    gateway.kill()
    gateway.wait(10)


@pytest.mark.parametrize("process", ["os", "disk"], indirect=True)
def test_a_gateway_killed_amid_a_thousand_calls_has_recorded_every_answer_it_gave_once(stage: Stage, process):
    gateway, url = process
    whole = asyncio.run(cut_off(url, key=PLAIN.plain, cut=gateway.kill))
    assert gateway.wait(10) == -signal.SIGKILL
    recorded = Counter(record.id for record in read_spool(stage.spool_dir))
    assert len(whole) == len(set(whole)) >= IN_FLIGHT
    assert set(whole) <= set(recorded)
    assert set(recorded.values()) == {1}


@pytest.mark.parametrize("process", ["memory"], indirect=True)
def test_a_gateway_killed_loses_of_what_it_holds_in_memory_only_the_last_moment(stage: Stage, process):
    gateway, url = process
    ids = asyncio.run(call_often(url, times=200))
    wait_for(lambda: len(read_spool(stage.spool_dir)) == 200)  # by itself, soon
    whole = asyncio.run(cut_off(url, key=PLAIN.plain, cut=gateway.kill))
    assert gateway.wait(10) == -signal.SIGKILL
    recorded = Counter(record.id for record in read_spool(stage.spool_dir))
    assert set(ids) <= set(recorded)
    assert set(recorded.values()) == {1}
    assert len(set(whole) & set(recorded)) >= len(whole) // 2


async def call_often(url: str, *, times: int) -> list[str]:
    """The ids of so many answers."""
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {PLAIN.plain}"}) as http:
        await wait_until_ready(http, url)

        async def call() -> str:
            async with http.post(f"{url}/v1/chat/completions", json=openai_ask()) as answer:
                await answer.read()
                return answer.headers["x-understudy-call"]

        return await asyncio.gather(*(call() for _ in range(times)))


@LEVELS
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
    everything = {**os.environ, **settings, "PRODUCTION": "1"}  # elsewhere there are defaults
    environ = {name: value for name, value in everything.items() if name != missing}
    done = subprocess.run([sys.executable, "-m", "serving.gateway"], env=environ, capture_output=True, timeout=30)
    assert (done.returncode, missing in done.stderr.decode()) == (2, True)
