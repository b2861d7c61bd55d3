"""A warm call asks no database: by PostgreSQL's own count of transactions, with a gateway that could reach it."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator

import aiohttp
import psycopg
import pytest

from tests.fakes.serve import free_port, wait_for
from tests.serving.gateway.cast import PLAIN, Stage, openai_ask
from tests.serving.gateway.crowd import wait_until_ready

CALLS = 200
COUNTED = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"


@pytest.fixture
def own(stage: Stage) -> Iterator[str]:
    """A gateway in a process of its own, which is told where the database is as all others are."""
    stage.publish()
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "serving.gateway"], env=stage.environ(port))
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(15)


async def ask(url: str, times: int) -> None:
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {PLAIN.plain}"}) as http:
        await wait_until_ready(http, url)
        for number in range(times):
            body = openai_ask(query=f"parcel {number}", stream=number % 2 == 0)
            async with http.post(f"{url}/v1/chat/completions", json=body) as answer:
                assert answer.status == 200 and await answer.read()


def transactions(database: psycopg.Connection) -> int:
    """So far, of everybody on this database."""
    database.execute("SELECT pg_stat_force_next_flush()")
    database.execute("SELECT pg_stat_clear_snapshot()")
    [count] = database.execute(COUNTED).fetchone()
    return count


def test_calls_begin_no_transaction(own, stage):
    with psycopg.connect(os.environ["OWNER_DATABASE_URL"], autocommit=True) as database:
        asyncio.run(ask(own, 10))
        before = transactions(database)
        asyncio.run(ask(own, CALLS))
        assert transactions(database) - before < CALLS // 2  # our own looks, and what the server does by itself
        for _ in range(CALLS):
            database.execute("SELECT 1")
        wait_for(lambda: transactions(database) - before >= CALLS, every=0.2)  # one a call would have been seen
    assert len(stage.teacher.seen) == 10 + CALLS
