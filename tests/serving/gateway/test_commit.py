"""What an acknowledgement means at each level, and that no disk, however slow or broken, keeps a caller for ever."""

import asyncio
import errno
import json
import logging
import os
import threading
from pathlib import Path

import pytest

from ingestion.core.calls import CallRecord, Dialect
from ingestion.spool import Spool, UnableToRecord
from serving.gateway import commit
from serving.gateway.commit import GROUP_BYTES, Committed, Grouped, Losses
from serving.gateway.metrics import Metrics
from serving.gateway.settings import Ack
from tests.fakes.encoder import decision
from tests.fakes.serve import wait_for
from tests.serving.gateway.cast import Stage, down, get, openai_ask, post, read_spool, serve_gateway, student

PATIENT = 30.0  # seconds: no test that does not say so is about a disk that takes too long


class Disk:
    """fdatasync that waits while it is `held`, and fails while it `fails`; `synced` are the files it was asked for."""

    def __init__(self, *, held: bool = False) -> None:
        self.fails = False
        self.begun = 0
        self.synced: list[str] = []
        self._passes = threading.Semaphore(0)
        self._held = held

    def __call__(self, fd: int) -> None:
        self.begun += 1
        if self._held and not self._passes.acquire(timeout=PATIENT):
            raise AssertionError("nobody let the disk go on")
        if self.fails:
            raise OSError(errno.EIO, "Input/output error")
        self.synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        os.fsync(fd)

    def pass_one(self) -> None:
        self._passes.release()

    def let_go(self) -> None:
        self._held = False
        self._passes.release()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(snapshot=lambda: (1, 0))


def committed(directory: Path, disk: Disk, metrics: Metrics, **changes) -> Committed:
    fixed = {"max_bytes": 10**8, "segment_bytes": 10**6, "patience": PATIENT}
    return Committed(directory, metrics=metrics, sync=disk, **(fixed | changes))


def a_record(call: object, size: int = 0) -> CallRecord:
    sealed = bytes(size)
    return CallRecord(
        id=str(call), tenant_id="t", key_id="k", at=1.5, dialect="openai", asked_model="m", request_sealed=sealed
    )


def call_at(log: Committed, number: object) -> "asyncio.Task[None]":
    async def call() -> None:
        log.append(a_record(number))
        await log.settled()

    return asyncio.create_task(call())


async def until(condition) -> None:
    async with asyncio.timeout(PATIENT):
        while not condition():
            await asyncio.sleep(0)


def ids(directory: Path) -> list[str]:
    return [record.id for record in read_spool(directory)]


def open_segments(directory: Path) -> list[str]:
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            continue
    return [link for link in links if link.startswith(str(directory)) and ".spool" in link]


# the disk


async def test_one_sync_is_for_all_who_wait_and_none_for_who_wrote_after_it_began(tmp_path, metrics):
    disk = Disk(held=True)
    log = committed(tmp_path, disk, metrics)
    first = [call_at(log, number) for number in range(100)]
    await until(lambda: disk.begun == 1)
    second = [call_at(log, number) for number in range(100, 300)]
    await until(lambda: len(ids(tmp_path)) == 300)
    disk.pass_one()
    await asyncio.gather(*first)
    await until(lambda: disk.begun == 2)
    assert not any(call.done() for call in second)
    disk.pass_one()
    await asyncio.gather(*second)
    assert disk.begun == 2
    disk.let_go()
    await log.close()
    assert (metrics.unrecorded, metrics.unsettled) == (0, 0)


async def test_a_record_that_is_there_already_waits_for_nothing(tmp_path, metrics):
    log = committed(tmp_path, Disk(), metrics)
    await call_at(log, 1)
    with pytest.raises(StopIteration):
        log.settled().send(None)
    await log.close()


async def test_segments_that_were_left_meanwhile_are_synced_too_then_closed_and_their_names_are_on_the_disk(
    tmp_path, metrics, monkeypatch
):
    directories = []
    monkeypatch.setattr(os, "fsync", lambda fd: directories.append(Path(f"/proc/self/fd/{fd}").readlink()))
    disk = Disk(held=True)
    log = committed(tmp_path, disk, metrics, segment_bytes=1)
    first = call_at(log, 0)
    await until(lambda: disk.begun == 1)
    rest = [call_at(log, number) for number in range(1, 5)]
    await until(lambda: len(ids(tmp_path)) == 5)
    assert len(open_segments(tmp_path)) == 5
    disk.let_go()
    await asyncio.gather(first, *rest)
    assert {path.name for path in tmp_path.glob("*.spool")} == set(disk.synced)
    assert [path for path in directories if path.is_dir()] == [tmp_path, tmp_path]
    assert len(open_segments(tmp_path)) == 1
    await log.close()
    assert open_segments(tmp_path) == []


async def test_who_leaves_while_waiting_takes_nobody_along(tmp_path, metrics):
    disk = Disk(held=True)
    log = committed(tmp_path, disk, metrics)
    leaves, stays = call_at(log, 1), call_at(log, 2)
    await until(lambda: disk.begun == 1)
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    assert not stays.done()
    disk.let_go()
    await stays
    await log.close()
    assert ids(tmp_path) == ["1", "2"]


async def test_a_sync_that_fails_costs_its_records_and_no_call_and_is_told_once(tmp_path, metrics, caplog):
    disk = Disk(held=True)
    log = committed(tmp_path, disk, metrics)
    disk.fails = True
    calls = [call_at(log, number) for number in range(3)]
    await until(lambda: disk.begun == 1)
    after = call_at(log, 3)
    await until(lambda: len(ids(tmp_path)) == 4)
    disk.let_go()
    await asyncio.gather(*calls, after)
    assert (metrics.unrecorded, metrics.unsettled) == (4, 0)
    assert [one.message for one in caplog.records] == ["calls go unrecorded: syncing failed: Input/output error"]
    disk.fails = False
    await call_at(log, 4)
    assert metrics.unrecorded == 4
    assert len(list(tmp_path.glob("*.spool"))) == 2  # what could not be synced is written to no more
    disk.fails = True
    await call_at(log, 5)
    assert (metrics.unrecorded, len(caplog.records)) == (5, 2)
    await log.close()


async def test_a_disk_that_does_not_answer_holds_each_caller_for_a_moment_and_then_nobody(tmp_path, metrics, caplog):
    disk = Disk(held=True)
    log = committed(tmp_path, disk, metrics, patience=0.05)
    first = call_at(log, 1)
    await until(lambda: disk.begun == 1)
    await asyncio.wait_for(asyncio.gather(first, call_at(log, 2)), PATIENT)
    assert metrics.unsettled == 2
    log.append(a_record(3))
    with pytest.raises(StopIteration):  # at once
        log.settled().send(None)
    assert (metrics.unsettled, disk.begun, len(caplog.records)) == (3, 1, 1)
    disk.let_go()
    await until(lambda: disk.begun == 2)
    await until(lambda: len(disk.synced) == 2)
    await call_at(log, 4)
    assert (metrics.unsettled, metrics.unrecorded) == (3, 0)
    await log.close()


@pytest.mark.parametrize("answers", [True, False])
async def test_a_stop_waits_for_the_disk_but_not_for_ever(tmp_path, metrics, answers):
    disk = Disk(held=True)
    log = committed(tmp_path, disk, metrics, patience=PATIENT if answers else 0.05)
    call = call_at(log, 1)
    await until(lambda: disk.begun == 1)
    stop = asyncio.create_task(log.close())
    if answers:
        disk.let_go()
    await asyncio.wait_for(asyncio.gather(stop, call), PATIENT)
    assert metrics.unsettled == int(not answers)
    disk.let_go()
    log.append(a_record(2))  # of a call that was cut
    await asyncio.wait_for(log.settled(), PATIENT)
    assert (ids(tmp_path), metrics.unsettled) == (["1", "2"], 1 + int(not answers))


async def test_a_disk_that_is_full_refuses_a_record_and_nobody_waits_for_it(tmp_path, metrics):
    disk = Disk()
    log = committed(tmp_path, disk, metrics, max_bytes=10)
    with pytest.raises(UnableToRecord):
        log.append(a_record(1))
    with pytest.raises(StopIteration):
        log.settled().send(None)
    await log.close()


# memory


class Writes:
    """os.write that counts, and takes only so many bytes at once while it is `full`."""

    def __init__(self) -> None:
        self.count = 0
        self.most: int | None = None

    def __call__(self, fd: int, data: bytes) -> int:
        self.count += 1
        return os.write(fd, data[: self.most])


def grouped(directory: Path, metrics: Metrics, write=os.write, *, seconds: float = 3600.0, max_bytes=10**8) -> Grouped:
    spool = Spool(directory, segment_bytes=10**6, max_bytes=max_bytes, write=write)
    return Grouped(spool, losses=Losses(metrics), seconds=seconds)


async def test_records_in_memory_are_written_together_and_soon(tmp_path, metrics):
    writes = Writes()
    log = grouped(tmp_path, metrics, writes, seconds=0.001)
    for number in range(50):
        log.append(a_record(number))
    assert (ids(tmp_path), writes.count) == ([], 0)
    await until(lambda: len(ids(tmp_path)) == 50)
    assert writes.count == 1
    log.append(a_record(50))
    await until(lambda: len(ids(tmp_path)) == 51)
    await log.close()


async def test_memory_is_bounded_and_at_a_stop_nothing_is_left_in_it(tmp_path, metrics):
    log = grouped(tmp_path, metrics)
    for number in range(10):
        log.append(a_record(number, size=GROUP_BYTES // 4))
    assert len(ids(tmp_path)) == 8
    await log.close()
    assert ids(tmp_path) == [str(number) for number in range(10)]
    assert metrics.unrecorded == 0


async def test_what_a_full_disk_did_not_take_of_a_group_is_counted_by_the_record_and_told_once(
    tmp_path, metrics, caplog
):
    writes = Writes()
    log = grouped(tmp_path, metrics, writes)
    for start in (0, 10):
        writes.most = 1000
        for number in range(start, start + 10):
            log.append(a_record(number, size=0 if number % 10 < 2 else 1000))
        await log.close()
        assert metrics.unrecorded == (start + 10) // 10 * 8
    assert len(caplog.records) == 1
    writes.most = None
    log.append(a_record("after"))
    await log.close()
    assert ids(tmp_path) == ["0", "1", "10", "11", "after"]


async def test_where_a_group_is_more_than_the_bound_the_records_that_fit_are_kept(tmp_path, metrics):
    log = grouped(tmp_path, metrics, max_bytes=2100)
    for number, size in enumerate((1000, 1000, 10)):
        log.append(a_record(number, size=size))
    await log.close()
    assert (ids(tmp_path), metrics.unrecorded) == (["0", "2"], 1)


# through the door


@pytest.fixture
def disk(monkeypatch) -> Disk:
    """The machine's."""
    disk = Disk(held=True)
    monkeypatch.setattr(os, "fdatasync", disk)
    yield disk
    disk.let_go()


@pytest.fixture
def durable(stage: Stage, disk: Disk, monkeypatch):
    """A gateway that acknowledges what the disk has, and a student who answers one kind of call."""
    monkeypatch.setattr(commit, "PATIENCE", PATIENT)
    stage.encoder.decisions["routing-head-7"] = decision("claim_damage")
    stage.cast_student(student(), (openai_ask(), Dialect.OPENAI))
    with serve_gateway(stage, capture_ack=Ack.DISK) as gateway:
        stage.url = gateway.url
        yield stage
        disk.let_go()


TO_TEACHER = {"model": "gpt-4o", "messages": [{"role": "user", "content": "anything"}]}
CALLS = {
    "teacher": ("/v1/chat/completions", TO_TEACHER),
    "streaming teacher": ("/v1/chat/completions", TO_TEACHER | {"stream": True}),
    "student": ("/v1/chat/completions", openai_ask()),
    "streaming student": ("/v1/chat/completions", openai_ask(stream=True)),
    "passed through": ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "words"}),
}


@pytest.mark.parametrize("call", CALLS)
async def test_whoever_answers_the_answer_ends_once_the_disk_has_its_record(durable, disk, call):
    path, ask = CALLS[call]
    calling = asyncio.create_task(post(durable.url, path=path, json=ask))
    await until(lambda: disk.begun == 1)
    assert (await get(f"{durable.url}/healthz")).status == 200
    assert not calling.done()
    disk.let_go()
    got = await calling
    assert got.status == 200
    assert durable.record().id == got.headers["x-understudy-call"]
    assert ("student" in call) == (got.headers["x-understudy-arm"] == "student")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
async def test_a_refusal_that_is_recorded_waits_for_the_disk_too(stage, disk, path):
    stage.urls["teacher"] = down()
    stage.publish()
    with serve_gateway(stage, capture_ack=Ack.DISK) as gateway:
        calling = asyncio.create_task(post(gateway.url, path=path, json=TO_TEACHER))
        await until(lambda: disk.begun == 1)
        assert (await get(f"{gateway.url}/healthz")).status == 200
        assert not calling.done()
        disk.let_go()
        assert (await calling).status == 502


async def test_a_caller_who_leaves_while_the_disk_is_waited_for_is_in_the_log_and_harms_nobody(durable, disk):
    leaving = asyncio.create_task(post(durable.url, json=TO_TEACHER))
    await until(lambda: disk.begun == 1)
    staying = asyncio.create_task(post(durable.url, json=TO_TEACHER))
    await asyncio.to_thread(durable.records, 2)
    leaving.cancel()
    told = b""
    async with asyncio.timeout(PATIENT):
        while b"understudy_departed_callers_total 1.0" not in told:
            told = (await get(f"{durable.url}/metrics")).body
    disk.let_go()
    assert (await staying).status == 200


async def test_a_disk_that_fails_costs_no_answer_and_is_counted(durable, disk):
    disk.fails = True
    disk.let_go()
    got = await post(durable.url, json=TO_TEACHER)
    assert json.loads(got.body)["choices"]
    told = (await get(f"{durable.url}/metrics")).body
    assert b"understudy_unrecorded_calls_total 1.0" in told and b"understudy_unsettled_calls_total 0.0" in told


async def test_a_gateway_that_stops_has_written_what_it_held_in_memory(stage, monkeypatch, caplog):
    monkeypatch.setattr(commit, "GROUP_SECONDS", 3600.0)
    stage.publish()
    with caplog.at_level(logging.ERROR), serve_gateway(stage, capture_ack=Ack.MEMORY) as gateway:
        got = await post(gateway.url, json=TO_TEACHER)
        assert read_spool(stage.spool_dir) == []
    assert wait_for(lambda: read_spool(stage.spool_dir))[0].id == got.headers["x-understudy-call"]
