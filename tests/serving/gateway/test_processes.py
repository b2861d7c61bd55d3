"""Several processes on one port: none of them, nor their replacement, is ever noticed by a caller."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from serving.gateway.listener import listen
from tests.fakes.serve import free_port, wait_for
from tests.serving.gateway.cast import PLAIN, Stage, openai_ask, read_spool
from tests.serving.gateway.crowd import wait_until_ready

AT_ONCE = 24
NEW_CONNECTION = {"connection": "close"}  # for each call
REVOKED_SECONDS = 5.0
BODY = json.dumps(openai_ask()).encode()
HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {PLAIN.plain}\r\n"
CALL = f"{HEAD}content-length: {len(BODY)}\r\n\r\n".encode() + BODY


@dataclass
class Household:
    """A supervisor as an operator starts it, and what can be seen of its processes."""

    process: subprocess.Popen[bytes]
    url: str
    known: set[int] = field(default_factory=set)

    def workers(self) -> set[int]:
        found = children(self.process.pid)
        self.known |= found
        return found

    def scrape(self) -> str:
        return urllib.request.urlopen(f"{self.url}/metrics", timeout=10).read().decode()

    def wait_ready(self, count: int = 2) -> set[int]:
        """Until so many processes have told their numbers."""
        wait_for(lambda: len(self.workers()) == count and self.told() >= count, patience=30, every=0.05)
        return self.workers()

    def told(self) -> int:
        with suppress(OSError):
            return self.scrape().count("understudy_snapshot_version{")
        return 0


def children(pid: int) -> set[int]:
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def is_running(pid: int) -> bool:
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture
def household(stage: Stage, request):
    """Of two processes, or of as many as the test is parametrized with."""
    stage.publish()
    port = free_port()
    environ = stage.environ(port, GATEWAY_PROCESSES=str(getattr(request, "param", 2)))
    process = subprocess.Popen([sys.executable, "-m", "serving.gateway"], env=environ)
    found = Household(process, f"http://127.0.0.1:{port}")
    yield found
    with suppress(FileNotFoundError, ProcessLookupError):
        found.workers()
    process.kill()
    process.wait(10)
    wait_for(lambda: not any(map(is_running, found.known)), patience=60, every=0.05)


@dataclass
class Kept:
    """A connection that is called on again and again, and never made anew."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def to(cls, url: str) -> "Kept":
        host, _, port = url.removeprefix("http://").partition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def call(self) -> int:
        """The status of one answer."""
        self.writer.write(CALL)
        head = await self.reader.readuntil(b"\r\n\r\n")
        await self.reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        return int(head.split()[1])

    @property
    def port(self) -> int:
        """This end's, by which the other knows the connection."""
        return int(self.writer.get_extra_info("sockname")[1])


def holders(pids: set[int], ports: set[int]) -> set[int]:
    """Those of the processes that hold a connection from one of the ports."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if int(row[2].rpartition(":")[2], 16) in ports}
    return {pid for pid in pids if any(links_to(descriptor, sockets) for descriptor in descriptors(pid))}


def descriptors(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/fd").iterdir())


def links_to(descriptor: Path, targets: set[str]) -> bool:
    with suppress(FileNotFoundError):  # closed meanwhile
        return os.readlink(descriptor) in targets
    return False


class Crowd:
    """Callers who keep their connections and call again and again; what each got is noted."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = f"{url}/v1/chat/completions"
        self.enough = asyncio.Event()
        self.whole: list[str] = []
        self.failed: list[str] = []

    async def call(self, number: int) -> None:
        while not self.enough.is_set():
            model = "gpt-4o" if number % 2 else f"delay-{10 * number}"
            try:
                ask, headers = openai_ask(model, stream=number % 2 == 1), NEW_CONNECTION if number % 4 == 0 else {}
                async with self._http.post(self._url, json=ask, headers=headers) as answer:
                    await answer.read()
                    assert answer.status == 200
                    self.whole.append(answer.headers["x-understudy-call"])
            except (AssertionError, aiohttp.ClientError, OSError) as error:
                self.failed.append(type(error).__name__)


async def call_while(household: Household, happens) -> Crowd:
    """Have a crowd call from before `happens()` until after it."""
    headers = {"authorization": f"Bearer {PLAIN.plain}"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as http:
        await wait_until_ready(http, household.url)
        crowd = Crowd(http, household.url)
        callers = [asyncio.create_task(crowd.call(number)) for number in range(AT_ONCE)]
        await until(lambda: len(crowd.whole) > 100)
        await asyncio.to_thread(happens)
        seen = len(crowd.whole)
        await until(lambda: len(crowd.whole) > seen + 100)
        crowd.enough.set()
        await asyncio.gather(*callers)
    return crowd


async def until(condition) -> None:
    async with asyncio.timeout(40):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_rolling_restart_fails_no_call_and_replaces_every_process(stage: Stage, household: Household):
    first = household.wait_ready()

    def renew() -> None:
        household.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(household.workers()) == 2 and not first & household.workers(), patience=60, every=0.05)

    crowd = asyncio.run(call_while(household, renew))
    assert crowd.failed == []
    household.process.terminate()
    assert household.process.wait(60) == 0
    recorded = Counter(record.id for record in read_spool(stage.spool_dir))
    assert recorded == Counter(crowd.whole)


def test_a_process_that_is_killed_is_replaced_and_what_it_answered_is_recorded(stage: Stage, household: Household):
    victim = min(household.wait_ready())

    def kill() -> None:
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: len(household.workers() - {victim}) == 2, patience=30, every=0.05)

    crowd = asyncio.run(call_while(household, kill))
    assert len(crowd.failed) <= AT_ONCE  # what it had in hand
    household.process.terminate()
    assert household.process.wait(60) == 0
    recorded = Counter(record.id for record in read_spool(stage.spool_dir))
    assert set(crowd.whole) <= set(recorded)
    assert set(recorded.values()) == {1}


def test_processes_that_could_not_answer_do_not_replace_those_that_can(stage: Stage, household: Household):
    first = household.wait_ready()
    snapshot = stage.directory / "snapshot.sealed"
    snapshot.write_bytes(b"damaged")

    def renew() -> None:
        household.process.send_signal(signal.SIGHUP)
        new = wait_for(lambda: household.workers() - first, patience=30, every=0.05)
        os.kill(min(new), signal.SIGKILL)  # instead of the minute that it would be given
        wait_for(lambda: household.workers() == first, patience=30, every=0.05)

    crowd = asyncio.run(call_while(household, renew))
    assert crowd.failed == []
    assert household.workers() == first


def test_the_processes_end_with_their_supervisor_even_if_it_is_killed(household: Household):
    workers = household.wait_ready()
    household.process.kill()
    wait_for(lambda: not any(map(is_running, workers)), patience=30, every=0.05)


def test_whichever_process_is_asked_gives_the_numbers_of_all(stage: Stage, household: Household):
    household.wait_ready()
    crowd = asyncio.run(call_while(household, lambda: None))
    lines = household.scrape().splitlines()
    assert {line for line in lines if line.startswith("understudy_snapshot_version{")} == {
        f'understudy_snapshot_version{{process="{number}"}} 1.0' for number in (0, 1)
    }
    assert sum(line == "# TYPE understudy_calls_total counter" for line in lines) == 1

    def counted() -> float:
        told = [line for line in household.scrape().splitlines() if line.startswith("understudy_calls_total{")]
        return sum(float(line.rpartition(" ")[2]) for line in told)

    wait_for(lambda: counted() == len(crowd.whole))


@pytest.mark.parametrize("household", [4], indirect=True)
def test_a_revoked_key_is_refused_by_every_process_on_every_open_connection_within_seconds(
    stage: Stage, household: Household
):
    workers = household.wait_ready(4)
    took = asyncio.run(revoke_under_way(stage, household.url, workers))
    assert max(took) <= REVOKED_SECONDS


async def revoke_under_way(stage: Stage, url: str, workers: set[int]) -> list[float]:
    """How many seconds after the snapshot was written each connection was refused; all of the processes hold some."""
    kept: list[Kept] = []
    async with asyncio.timeout(40):
        while holders(workers, {one.port for one in kept}) != workers:
            kept += await asyncio.gather(*[Kept.to(url) for _ in range(AT_ONCE)])
            assert set(await asyncio.gather(*[one.call() for one in kept])) == {200}
        started = time.monotonic()
        stage.publish(without=PLAIN.digest)

        async def call_until_refused(one: Kept) -> float:
            while await one.call() == 200:
                await asyncio.sleep(0.05)
            elapsed = time.monotonic() - started
            assert [await one.call() for _ in range(3)] == [401] * 3
            return elapsed

        took = await asyncio.gather(*map(call_until_refused, kept))
    for one in kept:
        one.writer.close()
    return took


def test_a_port_that_is_taken_is_said_to_be(stage: Stage):
    port = free_port()
    environ = {**os.environ, "GATEWAY_PORT": str(port), "GATEWAY_PROCESSES": "2", "STATE_DIR": str(stage.directory)}
    with listen("127.0.0.1", port):
        done = subprocess.run([sys.executable, "-m", "serving.gateway"], env=environ, capture_output=True, timeout=30)
    assert (done.returncode, b"GATEWAY_PORT" in done.stderr) == (2, True)
