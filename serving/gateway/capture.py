"""Remembers one call: reads the answer as it passes, and writes the record before its last byte may leave."""

import hmac
import time
import zlib
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Final, Protocol

import msgspec

from ingestion.core.calls import LONGEST_MODEL, Answer, Arm, CallRecord, Usage, body_context
from ingestion.core.dialects import UnableToParse, parse_answer, parse_passing_answer
from ingestion.core.reading import MOST_TOKENS
from ingestion.core.sse import StreamReader
from ingestion.core.usage_chunk import UsageHider
from ingestion.spool import UnableToRecord
from serving.core.estimate import CHARS_PER_TOKEN, Lengths
from serving.core.limits import most_input
from serving.core.routing import Route
from serving.gateway.attempt import NOT_TRIED, Attempt
from serving.gateway.call import Call, Outcome
from serving.gateway.call_log import CallLog
from serving.gateway.commit import Losses
from serving.gateway.metrics import Metrics
from serving.gateway.wire import Headers
from tenants.core.sealing import seal

SENT: Final = frozenset({499, 504})  # no answer came, but the provider may have worked on one
MOST_CAPTURED: Final = 32_000_000  # bytes of an answer that are read; more passes through unread
MOST_UNFOLDED: Final = 4_000_000  # bytes that an encoded answer may unfold to; more passes as it is, and is not kept
MOST_PASSED_KEPT: Final = 1_000_000  # bytes of a body that passed through and is kept: nobody learns from a longer one


class Appends(Protocol):
    """What the recorder needs of a spool."""

    def append(self, record: CallRecord) -> None:
        """Take the record as safely as it was asked to. Raises UnableToRecord."""
        ...


class Recorder:
    """Writes records to the spool and counts them. A full disk costs the record, not the call.

    `settled`, where there is one, is awaited after a record and before the last bytes of what it records may leave.
    """

    def __init__(
        self,
        spool: Appends,
        *,
        metrics: Metrics,
        lines: CallLog | None = None,
        settled: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.lengths = Lengths()
        self.settled = settled
        self._lines = lines
        self._spool = spool
        self._metrics = metrics
        self._losses = Losses(metrics)

    def record(self, call: Call, attempt: Attempt, outcome: Outcome) -> None:
        """Append one record; returns when it is in the log as `commit.py` has it, or is counted as lost."""
        seconds = time.perf_counter() - call.started
        record = make_record(call, attempt, outcome, total_ms=seconds * 1000)
        paid = record.arm != Arm.STUDENT
        asked, answered = record.asked_model, record.answered_model
        call.reservation.settle(_use(call, outcome), record.provider, asked=asked, answered=answered, paid=paid)
        try:
            self._append(record)
            self._losses.failing = False
        except UnableToRecord as error:
            self._losses.add(1, why=str(error))
        self._metrics.count_call(
            dialect=record.dialect, arm=record.arm, status=record.status, reason=record.reason, seconds=seconds
        )
        if self._lines is not None:
            self._lines.note(record)
        if attempt.draft is not None:
            self._metrics.count_student(seconds=attempt.draft.ms / 1000)

    def _append(self, record: CallRecord) -> None:
        """With little room left the facts of a call may fit where its words do not. Raises UnableToRecord."""
        try:
            self._spool.append(record)
        except UnableToRecord:
            if record.request_sealed is None and record.response_sealed is None:
                raise
            self._spool.append(_without_words(record))
            self._metrics.unrecorded_words += 1

    def count_let_go(self) -> None:
        """One answer more that there was no room to read."""
        self._metrics.answers_let_go += 1


class Capture:
    """Reads a teacher's answer as it passes, and records it once: `keep` may be called again and does nothing then.

    `asks_usage`: the provider was asked for a chunk that the caller did not ask for, and must not see.
    """

    def __init__(self, call: Call, attempt: Attempt, *, recorder: Recorder, asks_usage: bool = False) -> None:
        self._call = call
        self._attempt = attempt
        self._recorder = recorder
        self._kept = False
        self._waits = recorder.settled is not None
        self._status = 0
        self._encoding = b""
        self._reader: StreamReader | None = None
        self._hider = UsageHider() if asks_usage else None
        self._parts: list[bytes] = []
        self._size = 0
        self._hold = call.hold
        self._came = 0  # bytes
        self._most = MOST_CAPTURED
        self._queue_ms = 0.0
        self._first_byte_ms = 0.0

    def fail_over(self, call: Call) -> None:
        """The call goes on to its next destination."""
        self._call = call

    def leave_queue(self) -> None:
        """The teacher is about to be asked."""
        self._queue_ms = (time.perf_counter() - self._call.started) * 1000

    def begin(self, *, status: int, headers: Headers) -> None:
        """Note how the answer comes; a readable stream is followed event by event."""
        self._status = status
        found = dict(headers)
        self._encoding = found.get(b"content-encoding", b"").strip().lower()
        streams = found.get(b"content-type", b"").startswith(b"text/event-stream")
        if not self._call.understood and not streams and b"json" not in found.get(b"content-type", b""):
            self._most, self._hold = 0, None  # a file, a picture, a voice: no answer to learn from
        if streams and self._encoding in (b"", b"identity"):
            self._reader = StreamReader(self._call.ask.dialect)
        else:
            self._hider = None

    @property
    def headers(self) -> Headers:
        """What the caller may know of how the call is answered."""
        return call_headers(self._call, self._attempt)

    @property
    def live(self) -> bool:
        """Whether the answer's end shows in it; else each part waits until it is known not to be the last."""
        return self._reader is not None and not (self._reader.broken and self._call.understood)

    @property
    def finished(self) -> bool:
        """Whether the stream's terminal event has passed."""
        return self._reader is not None and self._reader.finished

    @property
    def whole(self) -> bool:
        """At the end of the body: whether that was all of the answer."""
        return self._reader is None or self._reader.finished or not self._call.understood

    @property
    def hides(self) -> bool:
        """Whether the caller is shown less than the provider sends."""
        return self._hider is not None

    @property
    def waits(self) -> bool:
        """Whether `settle` is to be awaited between `keep` and the answer's end."""
        return self._waits

    def feed(self, chunk: bytes) -> bytes:
        """Take what came, and give what of it is to be passed on."""
        if not self._first_byte_ms:
            self._first_byte_ms = (time.perf_counter() - self._call.started) * 1000
        self._came += len(chunk)
        if self._hold is not None and not self._hold.take(len(chunk), size=self._came):
            self._let_go()
        if self._reader is not None:
            self._reader.feed(chunk)
        if self._hider is not None:
            chunk = self._hider.feed(chunk)
            if self.finished:
                chunk += self._hider.flush()
        self._size += len(chunk)
        if self._size <= self._most:
            self._parts.append(chunk)
        else:
            self._hold = None
            self._parts.clear()  # it will not be kept, so it is not held either
        return chunk

    def _let_go(self) -> None:
        """There is no room for more of it: it passes through unread, and is recorded as far as that goes."""
        self._hold, self._most = None, -1
        self._recorder.count_let_go()
        if self._reader is not None:
            self._reader.give_up()

    def flush(self) -> bytes:
        """What is still to be passed on at the end of the body."""
        held = self._hider.flush() if self._hider is not None else b""
        if held:
            self._size += len(held)
            self._parts.append(held)
        return held

    def refuse(self, *, status: int) -> None:
        """The teacher gave no answer; the caller gets our error. Recorded as such."""
        self._status = status
        self._parts.clear()
        self.keep(complete=False)

    def keep(self, *, complete: bool) -> None:
        """Record the call as it stands now."""
        if not self._kept:
            self._kept = True
            self._recorder.record(self._call, self._attempt, self._outcome(complete=complete))

    async def settle(self) -> None:
        """Wait, once, until what was kept is as safe as it is to be."""
        if self._waits and self._recorder.settled is not None:
            self._waits = False
            await self._recorder.settled()

    def _outcome(self, *, complete: bool) -> Outcome:
        body = _decoded(b"".join(self._parts), self._encoding) if self._size <= self._most else None
        answer = self._answer(body)
        written = self._written()
        usage, estimated = _usage(self._call, answer, self._status, written=written, lengths=self._recorder.lengths)
        told = self._reader.announced if estimated and self._reader is not None else None
        if told is not None and told.input_tokens:
            usage = msgspec.structs.replace(told, output_tokens=usage.output_tokens)
        return Outcome(
            status=self._status or 499,  # left, or shut down, before the teacher said anything
            complete=complete,
            body=body if self._is_to_be_kept(body) else None,
            answer=answer,
            usage=usage,
            estimated=estimated,
            queue_ms=self._queue_ms,
            first_byte_ms=self._first_byte_ms,
            written=written,
        )

    def _written(self) -> int:
        """By all that passed where what it says is not known."""
        if self._reader is None:
            size = self._size if self._call.is_written else 0  # a file, a list, a voice: no tokens
        elif self._reader.broken or not (self._reader.output_chars or self._call.understood):
            size = self._size
        else:
            size = self._reader.output_chars
        return -(-size // CHARS_PER_TOKEN)

    def _is_to_be_kept(self, body: bytes | None) -> bool:
        """Of what passes through, only what answers a request that was read: else an erasure could not find it."""
        if self._call.understood or body is None:
            return True
        return bool(self._call.ask.raw) and len(body) <= MOST_PASSED_KEPT

    def _answer(self, body: bytes | None) -> Answer | None:
        if self._status != 200:
            return None
        if self._reader is not None:
            return self._reader.answer()
        try:
            parse = parse_answer if self._call.understood else parse_passing_answer
            return parse(self._call.ask.dialect, body) if body else None
        except UnableToParse:
            return None


def student_outcome(call: Call, attempt: Attempt) -> Outcome:
    """A student's accepted answer, just before it is sent in one piece. Raises ValueError where there is none."""
    if attempt.answer is None or attempt.answer.usage is None:
        raise ValueError("no answer of a student")
    return Outcome(
        status=200,
        complete=True,
        body=attempt.body,
        answer=attempt.answer,
        usage=attempt.answer.usage,
        estimated=True,
        first_byte_ms=(time.perf_counter() - call.started) * 1000,
    )


def make_record(call: Call, attempt: Attempt, outcome: Outcome, *, total_ms: float) -> CallRecord:
    """All facts of a call, its bodies sealed with the tenant's data key unless content is off."""
    arm, reason = _arm(call.route, attempt)
    tenant, ask, route, draft = call.caller.tenant, call.ask, call.route, attempt.draft
    keeps_content = tenant.log_content and not call.caller.wants_no_log and _is_drawn(call)
    compares = attempt is NOT_TRIED and not call.failovers  # with its own teacher, not with one that stood in for it
    return CallRecord(
        id=call.id,
        tenant_id=call.caller.key.tenant_id,
        key_id=call.caller.key.key_id,
        at=call.at,
        dialect=ask.dialect,
        asked_model=ask.model[:LONGEST_MODEL],
        answered_model=outcome.answer.model[:LONGEST_MODEL] if outcome.answer else "",
        provider=call.destination.provider,
        credential_id=call.destination.id or None,
        failovers=call.failovers,
        fingerprint=call.fingerprint,
        workload_id=call.workload_id,
        arm=arm,
        reason=reason,
        adapter=attempt.adapter,
        score=attempt.score,
        novelty=draft.evidence.novelty if draft else None,
        wants_audit=route.wants_audit and arm is Arm.STUDENT and keeps_content,
        wants_shadow=route.wants_shadow and compares and keeps_content,
        propensity=route.propensity,
        status=outcome.status,
        finish=outcome.answer.finish if outcome.answer else "",
        stream=ask.stream,
        complete=outcome.complete,
        input_tokens=outcome.usage.input_tokens,
        output_tokens=outcome.usage.output_tokens,
        cached_input_tokens=outcome.usage.cached_input_tokens,
        cache_write_tokens=outcome.usage.cache_write_tokens,
        usage_estimated=outcome.estimated,
        student_input_tokens=draft.input_tokens if draft else 0,
        student_output_tokens=draft.output_tokens if draft else 0,
        student_ms=draft.ms if draft else 0.0,
        queue_ms=outcome.queue_ms,
        first_byte_ms=outcome.first_byte_ms,
        total_ms=total_ms,
        subject_hmac=_hide_subject(tenant.subject_key, ask.subject),
        request_sealed=_seal(call, ask.raw, "request") if keeps_content else None,
        response_sealed=_seal(call, outcome.body, "response") if keeps_content and outcome.body is not None else None,
    )


def _without_words(record: CallRecord) -> CallRecord:
    return msgspec.structs.replace(
        record, request_sealed=None, response_sealed=None, wants_audit=False, wants_shadow=False
    )


def _is_drawn(call: Call) -> bool:
    """What a comparison needs is kept whatever share of the workload is."""
    return call.sampled or call.route.wants_audit or call.route.wants_shadow


def call_headers(call: Call, attempt: Attempt) -> Headers:
    """What a caller may know of how the call was answered."""
    arm, _ = _arm(call.route, attempt)
    headers: Headers = [(b"x-understudy-call", call.id.encode()), (b"x-understudy-arm", arm.encode())]
    if call.workload_id:
        headers.append((b"x-understudy-workload", call.workload_id.encode()))
    if attempt.answer is not None:
        headers.append((b"x-understudy-adapter", attempt.adapter.encode()))
    if call.failovers:
        headers.append((b"x-understudy-failovers", b"%d" % call.failovers))
    return headers


def _arm(route: Route, attempt: Attempt) -> tuple[Arm, str]:
    if attempt.answer is not None:
        return Arm.STUDENT, attempt.reason
    if attempt is not NOT_TRIED:
        return Arm.FALLBACK, attempt.reason
    return route.arm, route.reason


def _usage(call: Call, answer: Answer | None, status: int, *, written: int, lengths: Lengths) -> tuple[Usage, bool]:
    """The provider's count, or ours and True. A refused call costs nothing, nor does what we have no measure of."""
    tenant_id = call.caller.key.tenant_id
    if answer is not None and answer.usage is not None and call.asks_model:
        lengths.learn(tenant_id, call.fingerprint, call.ask, answer, answer.usage)
        return answer.usage, False
    if status == 200 and written and not call.understood and call.asks_model:
        return Usage(input_tokens=call.sent // CHARS_PER_TOKEN, output_tokens=min(written, MOST_TOKENS)), True
    if status != 200 or not call.understood:
        return Usage(input_tokens=0, output_tokens=0), False
    return lengths.estimate(tenant_id, call.fingerprint, call.ask, answer), True


def _use(call: Call, outcome: Outcome) -> Usage | None:
    """What counts for limits; None where nobody can say. More than an estimate in the log, so that no way of asking is
    a way past a limit: there, what was sent and what came back count by their length.
    """
    told = outcome.answer is not None and outcome.answer.usage is not None
    if told:
        return outcome.usage
    if outcome.status in SENT or (outcome.status == 200 and call.ask.tied):
        return None
    if outcome.status != 200 or not (call.understood or outcome.written):
        return Usage(input_tokens=0, output_tokens=0)
    written = max(outcome.usage.output_tokens, outcome.written)
    return Usage(input_tokens=max(most_input(call.ask), outcome.usage.input_tokens), output_tokens=written)


def _hide_subject(key: bytes, subject: str | None) -> str:
    """Erasure must find a person's calls without the log knowing the person."""
    return hmac.new(key, subject.encode("utf-8", "surrogatepass"), sha256).hexdigest() if subject else ""


def _seal(call: Call, body: bytes, column: str) -> bytes:
    tenant_id = call.caller.key.tenant_id
    return seal(call.caller.tenant.data_key, body, context=body_context(call.id, tenant_id, column))


def _decoded(body: bytes, encoding: bytes) -> bytes | None:
    """The body unencoded, for a provider that encodes though asked not to; None if that is not ours to undo, or too
    much: every other call waits for this one.
    """
    if encoding in (b"", b"identity"):
        return body
    if encoding not in (b"gzip", b"deflate"):
        return None
    try:
        unfolded = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(body, MOST_UNFOLDED + 1)
    except zlib.error:
        return None
    return unfolded if len(unfolded) <= MOST_UNFOLDED else None
