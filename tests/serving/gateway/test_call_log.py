"""A line a call for whoever collects them: its facts, no word of anybody's, and nobody waits for it."""

import asyncio
import json
import os
import subprocess
import sys

import pytest

from ingestion.core.calls import CallRecord
from serving.gateway import call_log
from serving.gateway.call_log import AT_ONCE, CallLog, batches
from tests.fakes.serve import free_port, wait_for
from tests.serving.gateway.cast import PLAIN, TENANT, Stage, openai_ask, post


def record() -> CallRecord:
    return CallRecord(id="c", tenant_id=TENANT, key_id="k", at=1_700_000_000.0, dialect="openai", asked_model="m")


def test_every_call_is_a_line_of_facts_and_of_no_words(stage: Stage, tmp_path):
    stage.publish()
    port, path = free_port(), tmp_path / "out"
    with path.open("wb") as out:
        environ = stage.environ(port, CALL_LOG="1")
        process = subprocess.Popen([sys.executable, "-m", "serving.gateway"], env=environ, stdout=out)
    try:
        wait_for(lambda: reaches(port), every=0.05)
        for query in ("my secret parcel", "another secret"):
            got = asyncio.run(post(f"http://127.0.0.1:{port}", json=openai_ask(query=query, user="secret-person")))
        asyncio.run(post(f"http://127.0.0.1:{port}", json=openai_ask("secret-model")))
        wait_for(lambda: path.read_bytes().count(b"\n") == 3, every=0.05)
    finally:
        process.terminate()
        process.wait(15)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[1]["call"] == got.headers["x-understudy-call"]
    assert (lines[1]["tenant_id"], lines[1]["arm"], lines[1]["status"]) == (TENANT, "teacher", 200)
    assert 0 < lines[1]["queue_ms"] <= lines[1]["first_byte_ms"] <= lines[1]["total_ms"]
    everything = path.read_text()
    assert "secret" not in everything and PLAIN.plain not in everything


def reaches(port: int) -> bool:
    try:
        return asyncio.run(post(f"http://127.0.0.1:{port}", path="/readyz")).status is not None
    except OSError:
        return False


async def test_lines_that_nobody_takes_are_dropped_and_counted_and_the_rest_goes_on(monkeypatch):
    monkeypatch.setattr(call_log, "MOST_WAITING", 2000)
    reading, writing = os.pipe()
    log = CallLog(writing)
    for _ in range(50):
        log.note(record())
    assert 0 < log.dropped < 50
    dropped = log.dropped
    await log.close()
    got = os.read(reading, 65_536)
    assert got.count(b"\n") == 50 - dropped
    log.note(record())
    await log.close()
    assert log.dropped == dropped and os.read(reading, 65_536).count(b"\n") == 1
    os.close(reading)
    log.note(record())
    await log.close()
    assert log.dropped == dropped + 1
    os.close(writing)


@pytest.mark.parametrize("count", [0, 1, 300])
def test_what_is_written_as_one_is_whole_lines_that_a_pipe_takes_as_one(count):
    lines = [b"x" * (number % 97) + b"\n" for number in range(count)]
    found = batches(lines)
    assert b"".join(found) == b"".join(lines)
    assert all(len(batch) <= AT_ONCE and (batch.endswith(b"\n") or not batch) for batch in found)
