"""The call, on one screen: who asks, what they ask, who should answer, the answer, and the memory of it."""

import os
import random
import sys
import time
from dataclasses import dataclass
from functools import partial

import msgspec

from ingestion.core.calls import Arm, Ask, Dialect
from ingestion.core.dialects import UnableToParse, parse_ask
from ingestion.core.edits import ask_usage
from ingestion.core.fingerprint import fingerprint
from serving.core.destinations import destinations_for
from serving.core.routing import Route, choose
from serving.core.snapshot import RouteEntry, Snapshot
from serving.gateway.attempt import NOT_TRIED, Attempt, Students, attempt
from serving.gateway.authenticate import Caller, authenticate
from serving.gateway.call import Call
from serving.gateway.capture import Capture, Recorder, call_headers, student_outcome
from serving.gateway.failover import Heard, ask_in_turn
from serving.gateway.limits import BUT_MONEY, MONEY, Limits, Reservation
from serving.gateway.memory import UNCOUNTED, Hold, Memory
from serving.gateway.messages import Departure, make_call_id, read_body, send_whole
from serving.gateway.metrics import Metrics
from serving.gateway.refusals import Refused, no_snapshot, too_large, too_many_calls, too_much_held
from serving.gateway.relay import relay
from serving.gateway.snapshot_file import SnapshotFile
from serving.gateway.teachers import Teachers
from serving.gateway.wire import Request, Send, TooLarge, TooMuch


@dataclass(frozen=True, slots=True)
class Gateway:
    """What every call shares."""

    snapshots: SnapshotFile
    teachers: Teachers
    students: Students
    recorder: Recorder
    limits: Limits
    metrics: Metrics
    memory: Memory
    max_body_bytes: int
    max_passed_bytes: int


async def answer_call(request: Request, gateway: Gateway) -> None:
    """Answer one call: the student if it is sure, the teacher if not; remember it either way. Raises Refused, Gone."""
    with Hold(gateway.memory) as hold:
        at, started = time.time(), time.perf_counter()
        caller, raw = await read_call(request, gateway, hold)
        snapshot = snapshot_in_force(gateway)
        heard = Heard(_read_ask(request, raw, hold), request)
        call, entry = _route(caller, heard, request, hold=hold, at=at, started=started)
        with call.reservation as reservation, Departure(request.watch) as departure:
            limit = partial(gateway.limits.reserve, reservation, caller, heard.ask, entry, call.destinations, snapshot)
            if call.route.arm is not Arm.STUDENT:
                await limit()
                await _answer_by_teacher(call, NOT_TRIED, heard=heard, request=request, gateway=gateway)
            else:
                await limit(measures=BUT_MONEY)  # a student's answers spend none, also where none is left
                tried = await _try_student(call, entry, snapshot=snapshot, gateway=gateway)
                if tried.answer is None:
                    await limit(measures=MONEY)
                    await _answer_by_teacher(call, tried, heard=heard, request=request, gateway=gateway)
                else:
                    await _answer_by_student(call, tried, send=request.send, recorder=gateway.recorder)
        gateway.metrics.departed += departure.left


def snapshot_in_force(gateway: Gateway) -> Snapshot:
    """The snapshot that this call is answered from. Raises Refused before there is one."""
    snapshot = gateway.snapshots.current()
    if snapshot is None:
        raise no_snapshot()
    return snapshot


def begin(hold: Hold, caller: Caller) -> None:
    """One call more of this caller's tenant, wherever it goes. Raises Refused where there are too many already."""
    if not hold.begin(caller.key.tenant_id):
        raise too_many_calls(hold.most_calls)


async def read_call(request: Request, gateway: Gateway, hold: Hold) -> tuple[Caller, bytes]:
    """Who calls, asked before the body is read and, where the world has changed meanwhile, after it; and the body.

    Raises Refused, Gone.
    """
    snapshot = snapshot_in_force(gateway)
    caller = authenticate(request, snapshot)
    begin(hold, caller)
    try:
        raw = await read_body(request, limit=gateway.max_body_bytes, hold=hold)
    except TooLarge as long:
        raise too_large(gateway.max_body_bytes) from long
    except TooMuch as much:
        raise too_much_held(gateway.memory.most) from much
    if (now := snapshot_in_force(gateway)) is not snapshot:
        caller = authenticate(request, now)
    return caller, raw


def _read_ask(request: Request, raw: bytes, hold: Hold) -> Ask:
    try:
        ask = parse_ask(request.dialect, raw, model=request.path_model)
    except UnableToParse as error:
        raise Refused(400, "invalid_request_error", error.message, param=error.param) from error
    if len(raw) > UNCOUNTED:
        _hold_texts(hold, ask)
    return ask


def _hold_texts(hold: Hold, ask: Ask) -> None:
    """What was read of a long body takes as much again, or four times that: one odd letter makes all others wide."""
    size = sum([sys.getsizeof(message.text) for message in ask.messages])
    if not hold.take(size, size=size):
        raise too_much_held(hold.most)


def _route(
    caller: Caller, heard: Heard, request: Request, *, hold: Hold, at: float, started: float
) -> tuple[Call, RouteEntry | None]:
    """Find where the call may go, and its workload, and draw who answers."""
    destinations = destinations_for(caller.tenant, request.provider, heard.ask.model)
    if heard.ask.stateful:
        destinations = destinations[:1]  # what another provider keeps could not be continued
    heard.check(destinations)
    ask = heard.at(destinations[0])
    mark = fingerprint(ask, teacher=destinations[0].teacher)
    entry = caller.tenant.routes.get(mark)
    share = entry.log_share if entry else 1.0
    call = Call(
        id=make_call_id(at=at, entropy=os.urandom(10)),
        caller=caller,
        ask=ask,
        destinations=destinations,
        fingerprint=mark,
        workload_id=entry.workload_id if entry else None,
        route=_choose(caller, ask, entry),
        sampled=share >= 1.0 or random.random() < share,
        reservation=Reservation(),
        hold=hold,
        at=at,
        started=started,
    )
    return call, entry


def _choose(caller: Caller, ask: Ask, entry: RouteEntry | None) -> Route:
    if entry is None:
        return Route(Arm.TEACHER, "unknown_workload")
    if caller.wants_teacher:
        return Route(Arm.TEACHER, "override")
    if caller.wants_no_log or not caller.tenant.log_content:
        return Route(Arm.TEACHER, "log_off")  # what may not be remembered cannot be audited
    return choose(entry, ask, draw=random.random(), audit_draw=random.random(), shadow_draw=random.random())


async def _try_student(call: Call, entry: RouteEntry | None, *, snapshot: Snapshot, gateway: Gateway) -> Attempt:
    query = call.route.query
    if entry is None or entry.student is None or entry.gate is None:
        return NOT_TRIED
    if call.route.arm is not Arm.STUDENT or query is None:
        return NOT_TRIED
    return await attempt(
        entry.student,
        entry.gate,
        query,
        ask=call.ask,
        call_id=call.id,
        created=int(call.at),
        students=gateway.students,
        snapshot=snapshot,
        salt=call.caller.tenant.salt,
        estimate=partial(gateway.recorder.lengths.estimate, call.caller.key.tenant_id, call.fingerprint),
    )


def _turn(call: Call, capture: Capture, heard: Heard, number: int) -> bytes:
    """The body for the call's destination of this number, which it goes on to unless it is the first."""
    if number:
        call = msgspec.structs.replace(call, ask=heard.at(call.destinations[number]), failovers=number)
        capture.fail_over(call)
    return ask_usage(call.ask.raw) if capture.hides else call.ask.raw


def _may_ask_usage(ask: Ask) -> bool:
    """Whether a stream would tell its usage if asked to, and its caller says nothing of that."""
    return ask.stream and ask.include_usage is None and ask.dialect is Dialect.OPENAI


async def _answer_by_student(call: Call, tried: Attempt, *, send: Send, recorder: Recorder) -> None:
    recorder.record(call, tried, student_outcome(call, tried))
    if recorder.settled is not None:
        await recorder.settled()
    kind = b"text/event-stream; charset=utf-8" if call.ask.stream else b"application/json"
    headers = [(b"content-type", kind), *call_headers(call, tried)]
    await send_whole(send, status=200, headers=headers, body=tried.body)


async def _answer_by_teacher(call: Call, tried: Attempt, *, heard: Heard, request: Request, gateway: Gateway) -> None:
    """Ask the teacher and pass the answer on. However it ends, also by a caller who left, it is recorded once."""
    asks_usage = call.caller.tenant.ask_usage and _may_ask_usage(call.ask)
    capture = Capture(call, tried, recorder=gateway.recorder, asks_usage=asks_usage)
    reply = None
    try:
        reply = await ask_in_turn(
            request,
            call.caller,
            call.destinations,
            turn=partial(_turn, call, capture, heard),
            again=not call.ask.tied,  # a conversation kept by the provider must not grow twice
            placed=capture.leave_queue,
            teachers=gateway.teachers,
        )
        await relay(reply, capture, send=request.send, extra=capture.headers)
    except Refused as refused:
        capture.refuse(status=refused.status)
        refused.extra = capture.headers
        await capture.settle()
        raise refused
    finally:
        if reply is not None:
            reply.close()
        capture.keep(complete=False)
