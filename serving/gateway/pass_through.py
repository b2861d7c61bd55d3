"""Carries what we have no student for to the tenant's own provider: files, embeddings, images, whatever comes next.

Data flow: the key is looked up → the body goes up as it comes, bounded, and is kept where it is JSON and not too long
→ the answer comes down as it comes → model and usage are read from it → one record, unless nothing was asked of a
model (GET, HEAD).
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Collection, Sequence
from functools import partial
from typing import Self

import msgspec

from ingestion.core.calls import Arm, Ask
from ingestion.core.dialects import parse_passing_ask
from serving.core.destinations import destinations_for
from serving.core.limits import Measure, limits_on
from serving.core.paths import AZURE, is_odd, plain, twin_of
from serving.core.routing import Route
from serving.core.snapshot import ProviderEntry
from serving.gateway.answer import Gateway, begin, snapshot_in_force
from serving.gateway.attempt import NOT_TRIED
from serving.gateway.authenticate import Caller, authenticate
from serving.gateway.call import Call
from serving.gateway.capture import MOST_PASSED_KEPT, Capture
from serving.gateway.failover import Heard, ask_in_turn
from serving.gateway.limits import Reservation
from serving.gateway.memory import UNCOUNTED, Hold
from serving.gateway.messages import Departure, make_call_id
from serving.gateway.refusals import (
    Refused,
    body_incomplete,
    body_late,
    teacher_late,
    too_large,
    too_much_held,
    unmeasured,
)
from serving.gateway.relay import relay, relay_unrecorded
from serving.gateway.upstream import Reply
from serving.gateway.wire import Message, Receive, Request, Watch

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
UNRECORDED = frozenset({"GET", "HEAD"})
# They leave nothing behind at the provider, so that one it has not worked on may be sent again.
REPEATABLE = frozenset({b"/v1/completions", b"/v1/embeddings", b"/v1/messages/count_tokens", b"/v1/moderations"})
# They answer with an object that is there already, and repeat what it has used.
ON_WHAT_IS_KEPT = (b"/v1/chat/completions/", b"/v1/responses/")
WRITTEN = (b"/completions", b"/complete")  # by a model, so that what comes back is tokens
ASKING = b"/compact"  # but for this, which a model writes
# What they use is told elsewhere and later, or not in tokens at all.
UNMEASURED = (
    *(b"/v1/batches", b"/v1/messages/batches", b"/v1/fine_tuning", b"/v1/video", b"/v1/evals", b"/v1/containers"),
    *(b"/v1/threads", b"/v1/vector_stores", b"/v1/audio", b"/v1/images"),
)
PASSED = Route(Arm.TEACHER, "passed_through")
PARTS_AHEAD = 1  # of a body that the provider takes more slowly than the caller sends it
SILENT_SECONDS = 60.0  # without a byte from the caller, or without room for one at the provider
# They are about the provider's account, or make tokens by which calls would pass us by.
CLOSED = (b"/v1/organization", b"/v1/realtime", b"/v1/chatkit", b"/v1/deployments")


def may_pass(method: str, path: bytes, *, answered_here: Collection[bytes]) -> bool:
    """Whether this raw path is one for the tenant's provider: it stays below `/v1/` or Azure's `/openai/` however it is
    read, and is no other spelling of a path whose calls are answered here.
    """
    if method not in METHODS or not path.startswith((b"/v1/", AZURE)) or is_odd(path):
        return False
    meant = plain(path)
    twin = twin_of(path)[0] if path.startswith(AZURE) else path
    return (twin == meant or meant not in answered_here) and not meant.startswith(CLOSED)


async def pass_through(request: Request, method: str, gateway: Gateway) -> None:
    """Pass one request and its answer on. Raises Refused."""
    at, started = time.time(), time.perf_counter()
    snapshot = snapshot_in_force(gateway)
    caller = authenticate(request, snapshot)
    limit = gateway.max_body_bytes if _is_repeatable(request) else gateway.max_passed_bytes
    announced = request.fields.get(b"content-length", b"").strip()
    if announced.isdigit() and int(announced) > limit:
        raise too_large(limit)
    kept = (
        min(gateway.max_body_bytes, MOST_PASSED_KEPT) if _may_be_json(request.fields.get(b"content-type", b"")) else 0
    )
    recorded = method not in UNRECORDED
    if recorded:
        _check_measured(request, caller)
    hold = Hold(gateway.memory)
    uplink = Uplink(request.receive, request.watch, limit=limit, kept=kept, hold=hold, announced=announced)
    begin(hold, caller)
    with hold, Reservation() as reservation, uplink:
        if recorded:
            await gateway.limits.reserve_unread(reservation, caller, request.dialect, snapshot=snapshot)
        passage = Passage(request, method, caller, uplink, hold, gateway)
        if recorded:
            call_id = make_call_id(at=at, entropy=os.urandom(10))
            await passage.recorded(call_id=call_id, reservation=reservation, at=at, started=started)
        else:
            await passage.unrecorded()
    gateway.metrics.departed += uplink.left


def _check_measured(request: Request, caller: Caller) -> None:
    """Raise Refused for what is charged without our seeing it, where tokens or money are limited for this caller."""
    limits = limits_on(caller.tenant.limits, key_id=caller.key.key_id, workload_id=None)
    if _meant(request).startswith(UNMEASURED) and any(limit.measure != Measure.REQUESTS for limit in limits):
        raise unmeasured()


class BrokenOff(ConnectionAbortedError):
    """A request's body did not come as it was announced, or at all."""


class Uplink(Departure):
    """A request's body on its way up, and the watch for a caller who leaves."""

    def __init__(
        self, receive: Receive, watch: Watch, *, limit: int, kept: int, hold: Hold, announced: bytes = b""
    ) -> None:
        """`limit` and `kept` are bytes: more than the one ends the call, more than the other is not kept. `announced`
        is the content-length, if any.
        """
        super().__init__(watch)
        self._receive = receive
        self.refusal: Refused | None = None  # why the body broke off
        self.answered = False  # the provider has begun to
        self._limit = limit
        self._kept = kept
        self._hold = hold
        self._announced = announced
        self.size = 0  # bytes that came
        self._whole: list[bytes] = []
        self._parts: asyncio.Queue[bytes | None] = asyncio.Queue(PARTS_AHEAD)

    async def parts(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises BrokenOff, which breaks the call upwards, where it is too large, has not the
        length that was announced (the provider would take the next call's bytes for the rest), or does not go on.
        """
        while (part := await self._next()) is not None:
            yield part
        if self._announced.isdigit() and int(self._announced) != self.size:
            self.refusal = self.refusal or body_incomplete()
        if self.refusal is not None:
            raise BrokenOff

    async def _next(self) -> bytes | None:
        try:
            part = await asyncio.wait_for(self._parts.get(), SILENT_SECONDS)
        except TimeoutError as error:
            self.refusal = body_late()
            raise BrokenOff from error
        if part is not None:
            self._hold.give_back(len(part))
        return part

    async def whole(self) -> bytes:
        """The body once all of it is here, so that it can be sent again. Raises BrokenOff like `parts`, and where there
        is no room for it.
        """
        held, size = [], 0
        async for part in self.parts():
            size += len(part)
            if not self._hold.take(len(part), size=size):
                self.refusal = too_much_held(self._hold.most)
                raise BrokenOff
            held.append(part)
        return b"".join(held)

    @property
    def kept(self) -> bytes:
        """The body as far as it came; empty where it is not to be kept."""
        return b"".join(self._whole)

    async def _receive_all(self) -> None:
        while (message := await self._receive())["type"] == "http.request":
            await self._take(message)

    async def _take(self, message: Message) -> None:
        if self.refusal is not None:
            return
        part = message.get("body", b"")
        self.size += len(part)
        if self.size > self._limit:
            self.refusal = too_large(self._limit)
        if self.size > self._kept or not self._hold.take(len(part), size=self.size):
            self._kept = -1
            self._whole.clear()
        else:
            self._whole.append(part)
        if part and self.refusal is None:
            await self._hand_over(part)
        if self.refusal is not None or not message.get("more_body", False):
            await self._hand_on(None)

    async def _hand_over(self, part: bytes) -> None:
        """What the provider has not taken yet is held like what is kept."""
        if self._hold.take(len(part), size=self.size + UNCOUNTED):
            await self._hand_on(part)
        else:
            self.refusal = too_much_held(self._hold.most)

    async def _hand_on(self, part: bytes | None) -> None:
        try:
            await asyncio.wait_for(self._parts.put(part), SILENT_SECONDS)
        except TimeoutError:  # whoever leaves meanwhile is not heard of, so it ends here
            self.refusal = teacher_late()
            self._work.cancel()

    def __enter__(self) -> Self:
        super().__enter__()
        self._pump = asyncio.get_running_loop().create_task(self._receive_all())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        """Whoever did not leave is told why the call was cut, if nothing of an answer has gone out yet."""
        self._pump.cancel()
        if super().__exit__(kind, error, trace):
            return True
        if kind is asyncio.CancelledError and self.refusal is not None:
            self._work.uncancel()
            if not self.answered:
                raise self.refusal from error
            return True
        return False


class Passage:
    """One request and its answer in passing."""

    def __init__(
        self, request: Request, method: str, caller: Caller, uplink: Uplink, hold: Hold, gateway: Gateway
    ) -> None:
        self._request = request
        self._method = method
        self._caller = caller
        self._uplink = uplink
        self._hold = hold
        self._gateway = gateway
        self._destinations: Sequence[ProviderEntry] = caller.tenant.providers[request.provider][:1]
        self._failovers = 0
        self._said: Ask | None = None  # once all of it was read, also where that is too much to keep

    async def unrecorded(self) -> None:
        """Nothing is asked of a model."""
        reply = await self._ask()
        self._uplink.answered = True
        try:
            await relay_unrecorded(reply, send=self._request.send)
        finally:
            reply.close()

    async def recorded(self, *, call_id: str, reservation: Reservation, at: float, started: float) -> None:
        """However it ends, also by a caller who leaves before the provider has said anything, it is recorded once."""
        reply, capture = None, None
        try:
            reply = await self._ask()
            self._uplink.answered = True
            capture = self._capture(call_id, reservation, at, started)
            await relay(reply, capture, send=self._request.send, extra=capture.headers)
        except Refused as refused:
            capture = capture or self._capture(call_id, reservation, at, started)
            capture.refuse(status=refused.status)
            refused.extra = capture.headers
            await capture.settle()
            raise
        finally:
            if reply is not None:
                reply.close()
            capture = capture or self._capture(call_id, reservation, at, started)
            if reply is None and self._uplink.refusal is not None:
                capture.refuse(status=self._uplink.refusal.status)
                await capture.settle()
            capture.keep(complete=False)

    async def _ask(self) -> Reply:
        try:
            if _is_repeatable(self._request) and self._method == "POST" and _has_body(self._request):
                return await self._ask_in_turn(await self._uplink.whole())
            body = self._uplink.parts() if _has_body(self._request) else None
            return await self._gateway.teachers.ask(
                self._request, self._caller, self._destinations[0], method=self._method, body=body, again=False
            )
        except (BrokenOff, Refused) as error:
            if self._uplink.refusal is not None:
                raise self._uplink.refusal from error
            raise

    async def _ask_in_turn(self, body: bytes) -> Reply:
        """What leaves nothing behind is sent where its model goes."""
        request = self._request
        self._said = self._read(body)
        ask = msgspec.structs.replace(self._said, raw=body)
        self._destinations = destinations_for(self._caller.tenant, request.provider, ask.model)
        heard = Heard(ask, request)
        heard.check(self._destinations)
        return await ask_in_turn(
            request,
            self._caller,
            self._destinations,
            turn=partial(self._turn, heard),
            again=True,
            placed=lambda: None,
            teachers=self._gateway.teachers,
        )

    def _turn(self, heard: Heard, number: int) -> bytes:
        self._failovers = number
        return heard.at(self._destinations[number]).raw

    def _read(self, body: bytes) -> Ask:
        """What is asked, of the model that the path names, if it does: its provider reads no other."""
        ask = parse_passing_ask(self._request.dialect, body)
        named = self._request.path_model
        return msgspec.structs.replace(ask, model=named) if named else ask

    def _asked(self) -> Ask:
        """The same, of the model that it was sent on for."""
        kept, said = self._uplink.kept, self._said
        # What says whose it is in no way that an erasure could find has no `raw`.
        ask = self._read(kept) if said is None else msgspec.structs.replace(said, raw=kept if said.raw else b"")
        there = self._destinations[self._failovers].model
        return msgspec.structs.replace(ask, model=there) if there and ask.model else ask

    def _capture(self, call_id: str, reservation: Reservation, at: float, started: float) -> Capture:
        call = Call(
            id=call_id,
            caller=self._caller,
            ask=self._asked(),
            destinations=self._destinations,
            failovers=self._failovers,
            fingerprint="",
            workload_id=None,
            route=PASSED,
            reservation=reservation,
            hold=self._hold,
            at=at,
            started=started,
            understood=False,
            asks_model=_asks_model(self._request),
            is_written=_meant(self._request).endswith(WRITTEN),
            sent=self._uplink.size,
        )
        return Capture(call, NOT_TRIED, recorder=self._gateway.recorder)


def _meant(request: Request) -> bytes:
    """What its path asks for, however it is spelt."""
    return plain(request.target.partition("?")[0].encode("latin-1"))


def _asks_model(request: Request) -> bool:
    meant = _meant(request)
    return not meant.startswith(ON_WHAT_IS_KEPT) or meant.endswith(ASKING)


def _is_repeatable(request: Request) -> bool:
    return request.path in REPEATABLE


def _has_body(request: Request) -> bool:
    told = [(name, value.strip()) for name, value in request.headers]
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in told)


def _may_be_json(kind: bytes) -> bool:
    """Whether a provider might read it as JSON: some do whatever it is called, or if it is not called anything."""
    name = kind.partition(b";")[0].strip().lower()
    return not name or name == b"text/plain" or name.endswith(b"json")
