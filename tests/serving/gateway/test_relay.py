"""The last-byte law, in its exact order: the record is with the operating system before the last bytes are sent."""

import pytest

from ingestion.core.calls import Arm, Dialect
from ingestion.core.dialects import parse_ask
from ingestion.spool import UnableToRecord
from serving.core.routing import Route
from serving.core.snapshot import KeyEntry, ProviderEntry, TenantEntry
from serving.gateway.attempt import NOT_TRIED
from serving.gateway.authenticate import Caller
from serving.gateway.call import Call
from serving.gateway.capture import Capture, Recorder
from serving.gateway.metrics import Metrics
from serving.gateway.refusals import Refused
from serving.gateway.relay import relay
from serving.gateway.upstream import UnableToFinish
from tests.fakes.teacher import anthropic_events, openai_body, openai_events, responses_events


class Canned:
    """A reply whose chunks are given; `breaks` after the last."""

    def __init__(self, chunks: list[bytes], *, kind: bytes, breaks: bool = False, headers=()) -> None:
        self.status = 200
        self.on_close = None
        self.headers = [(b"content-type", kind), *headers]
        self._chunks = iter(chunks)
        self._breaks = breaks

    async def read(self) -> bytes:
        chunk = next(self._chunks, b"")
        if not chunk and self._breaks:
            raise UnableToFinish
        return chunk

    @property
    def is_over(self) -> bool:
        return False

    def close(self) -> None:
        pass


class Log:
    """What happened in which order: what was sent, and "recorded"."""

    def __init__(self, *, full: bool = False) -> None:
        self.events: list[object] = []
        self.records = []
        self._full = full

    def append(self, record) -> None:
        if self._full:
            raise UnableToRecord("full")
        self.records.append(record)
        self.events.append("recorded")

    async def settled(self) -> None:
        self.events.append("settled")

    async def send(self, message) -> None:
        if message["type"] == "http.response.body":
            self.events.append(message["body"] if message["more_body"] else (message["body"], "end"))


def make_capture(log: Log, *, dialect: Dialect = Dialect.OPENAI, settles=False) -> tuple[Capture, Metrics]:
    tenant = TenantEntry(active=True, data_key=b"d" * 32, subject_key=b"s" * 32, salt="x")
    caller = Caller(key=KeyEntry(tenant_id="t", key_id="k"), tenant=tenant)
    raw = b'{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hello there"}]}'
    call = Call(
        id="c",
        caller=caller,
        ask=parse_ask(dialect, raw),
        destinations=(ProviderEntry(base_url="", credential=""),),
        fingerprint="f",
        workload_id=None,
        route=Route(Arm.TEACHER, "unknown_workload"),
        at=1.0,
        started=1.0,
    )
    metrics = Metrics(snapshot=lambda: (1, 0))
    recorder = Recorder(log, metrics=metrics, settled=log.settled if settles else None)
    return Capture(call, NOT_TRIED, recorder=recorder), metrics


async def pass_on(reply: Canned, log: Log, *, dialect: Dialect = Dialect.OPENAI, settles=False) -> Metrics:
    capture, metrics = make_capture(log, dialect=dialect, settles=settles)
    await relay(reply, capture, send=log.send, extra=[])
    return metrics


SSE = b"text/event-stream"


@pytest.mark.parametrize(
    ("dialect", "events"),
    [
        (Dialect.OPENAI, openai_events("m", {})),
        (Dialect.RESPONSES, responses_events("m", {})),
        (Dialect.ANTHROPIC, anthropic_events("m", {})),
    ],
)
async def test_a_stream_is_recorded_just_before_its_terminal_event_is_sent(dialect, events):
    log = Log()
    await pass_on(Canned(events, kind=SSE), log, dialect=dialect)
    assert log.events == [*events[:-1], "recorded", events[-1], (b"", "end")]


async def test_a_stream_cut_anywhere_is_still_recorded_before_its_end_is_sent():
    whole = b"".join(openai_events("m", {}))
    for cut in range(len(whole) - 20, len(whole)):
        log = Log()
        await pass_on(Canned([whole[:cut], whole[cut:]], kind=SSE), log)
        assert [event for event in log.events if event != "recorded"] == [whole[:cut], whole[cut:], (b"", "end")]
        assert log.events.index("recorded") < log.events.index(whole[cut:])


@pytest.mark.parametrize("cut", [0, 1])
async def test_where_a_record_has_to_settle_only_what_would_be_the_last_part_waits_for_it_and_once(cut):
    events = openai_events("m", {})[: -cut or None]
    log = Log()
    await pass_on(Canned(events, kind=SSE), log, settles=True)
    end = ["recorded", "settled", events[-1]] if not cut else [events[-1], "recorded", "settled"]
    assert log.events == [*events[:-1], *end, (b"", "end")]
    log, body = Log(), openai_body("m")
    await pass_on(Canned([body[:50], body[50:]], kind=b"application/json"), log, settles=True)
    assert log.events == [body[:50], "recorded", "settled", (body[50:], "end")]


async def test_a_body_is_recorded_before_its_last_chunk_is_sent():
    body = openai_body("m")
    log = Log()
    await pass_on(Canned([body[:50], body[50:90], body[90:]], kind=b"application/json"), log)
    assert log.events == [body[:50], body[50:90], "recorded", (body[90:], "end")]
    assert log.records[0].output_tokens == 4


async def test_a_stream_that_cannot_be_read_is_held_back_by_one_chunk():
    for headers in ([(b"content-encoding", b"br")], []):
        chunks = [b"data: {not json}\n\n", b"two", b"data: [DONE]\n\n"]
        log = Log()
        await pass_on(Canned(chunks, kind=SSE, headers=headers), log)
        assert log.events == [*chunks[:-1], "recorded", (chunks[-1], "end")]


async def test_what_breaks_before_the_first_byte_went_out_is_refused_and_later_left_unfinished():
    log = Log()
    with pytest.raises(Refused) as refused:
        await pass_on(Canned([b"{"], kind=b"application/json", breaks=True), log)
    assert (refused.value.status, log.events) == (502, [])
    await pass_on(Canned([b"a", b"b"], kind=b"application/json", breaks=True), log)
    assert log.events == [b"a"]


async def test_a_record_that_cannot_be_kept_is_counted_and_the_answer_sent():
    log = Log(full=True)
    metrics = await pass_on(Canned([b"{}"], kind=b"application/json"), log)
    assert (log.events, metrics.unrecorded) == ([(b"{}", "end")], 1)


async def test_a_call_is_recorded_once_however_often_its_end_is_met():
    log = Log()
    capture, _ = make_capture(log)
    capture.begin(status=200, headers=[])
    for complete in (True, False, True):
        capture.keep(complete=complete)
    assert [record.complete for record in log.records] == [True]
