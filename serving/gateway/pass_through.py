"""Carries what we have no student for to the tenant's own provider: files, embeddings, images, whatever comes next.

Data flow: the key is looked up → the body goes up as it comes, bounded, and is kept where it is JSON and not too long
→ the answer comes down as it comes → model and usage are read from it → one record, unless nothing was asked of a
model (GET, HEAD).
"""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator

from ingestion.core.calls import Arm
from ingestion.core.dialects import parse_passing_ask
from serving.core.routing import Route
from serving.gateway.answer import Gateway, snapshot_in_force
from serving.gateway.attempt import NOT_TRIED
from serving.gateway.authenticate import Caller, authenticate
from serving.gateway.capture import Call, Capture, call_headers
from serving.gateway.refusals import Refused, too_large
from serving.gateway.relay import relay, relay_unrecorded
from serving.gateway.upstream import Body, Reply
from serving.gateway.wire import Departure, Message, Receive, Request, make_call_id

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
UNRECORDED = frozenset({"GET", "HEAD"})
# They leave nothing behind at the provider, so that one it has not worked on may be sent again.
REPEATABLE = frozenset({"/v1/completions", "/v1/embeddings", "/v1/messages/count_tokens", "/v1/moderations"})
PASSED = Route(Arm.TEACHER, "passed_through")
PARTS_AHEAD = 4  # of a body that the provider takes more slowly than the caller sends it
# What one server takes for another path than the next one does: dot segments, however they are spelt, and empty ones.
_ODD_PATH = re.compile(rb"//|(?:/|\\|%2f|%5c)(?:\.|%2e){1,2}(?=/|\\|%2f|%5c|$)", re.IGNORECASE)


def may_pass(method: str, path: bytes) -> bool:
    """Whether this raw path is one for the tenant's provider: it stays below `/v1/` however it is read."""
    return method in METHODS and path.startswith(b"/v1/") and not _ODD_PATH.search(path)


async def pass_through(request: Request, method: str, gateway: Gateway) -> None:
    """Pass one request and its answer on. Raises Refused."""
    at, started = time.time(), time.perf_counter()
    fields = dict(request.headers)
    caller = authenticate(fields, request.dialect, snapshot_in_force(gateway))
    limit = gateway.max_body_bytes if _is_repeatable(request) else gateway.max_passed_bytes
    announced = fields.get(b"content-length", b"")
    if announced.isdigit() and int(announced) > limit:
        raise too_large(limit)
    keeps = _is_json(fields.get(b"content-type", b""))
    uplink = Uplink(request.receive, limit=limit, kept=gateway.max_body_bytes if keeps else 0)
    with uplink:
        passage = Passage(request, method, caller, uplink, gateway)
        if method in UNRECORDED:
            await passage.unrecorded()
        else:
            await passage.recorded(call_id=make_call_id(at=at, entropy=os.urandom(10)), at=at, started=started)
    gateway.metrics.departed += uplink.left


class Uplink(Departure):
    """A request's body on its way up, and the watch for a caller who leaves: both are told by `receive`."""

    def __init__(self, receive: Receive, *, limit: int, kept: int) -> None:
        """`limit` and `kept` are bytes: more than the one ends the call, more than the other is not kept."""
        super().__init__(receive)
        self.too_large = False
        self.limit = limit
        self._kept = kept
        self._size = 0
        self._whole: list[bytes] = []
        self._parts: asyncio.Queue[bytes | None] = asyncio.Queue(PARTS_AHEAD)

    async def parts(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises ConnectionAbortedError where it is too large, which breaks the call upwards."""
        while (part := await self._parts.get()) is not None:
            yield part
        if self.too_large:
            raise ConnectionAbortedError

    async def whole(self) -> bytes:
        """The body once all of it is here, so that it can be sent again. Raises ConnectionAbortedError like `parts`."""
        return b"".join([part async for part in self.parts()])

    @property
    def kept(self) -> bytes:
        """The body as far as it came; empty where it is not to be kept."""
        return b"".join(self._whole)

    async def _take(self, message: Message) -> None:
        if self.too_large:
            return
        part = message.get("body", b"")
        self._size += len(part)
        self.too_large = self._size > self.limit
        if self._size > self._kept:
            self._whole.clear()
        else:
            self._whole.append(part)
        if part and not self.too_large:
            await self._parts.put(part)
        if self.too_large or not message.get("more_body", False):
            await self._parts.put(None)


class Passage:
    """One request and its answer in passing."""

    def __init__(self, request: Request, method: str, caller: Caller, uplink: Uplink, gateway: Gateway) -> None:
        self._request = request
        self._method = method
        self._caller = caller
        self._uplink = uplink
        self._gateway = gateway
        self._again = _is_repeatable(request)

    async def unrecorded(self) -> None:
        """Nothing is asked of a model."""
        reply = await self._ask()
        try:
            await relay_unrecorded(reply, send=self._request.send)
        finally:
            reply.close()

    async def recorded(self, *, call_id: str, at: float, started: float) -> None:
        """However it ends, it is recorded once."""
        reply, capture = None, None
        try:
            reply = await self._ask()
            call = self._call(call_id, at, started)
            capture = Capture(call, NOT_TRIED, recorder=self._gateway.recorder)
            await relay(reply, capture, send=self._request.send, extra=call_headers(call, NOT_TRIED))
        except Refused as refused:
            call = self._call(call_id, at, started)
            capture = capture or Capture(call, NOT_TRIED, recorder=self._gateway.recorder)
            capture.refuse(status=refused.status)
            refused.extra = call_headers(call, NOT_TRIED)
            raise
        finally:
            if reply is not None:
                reply.close()
            if capture is not None:
                capture.keep(complete=False)

    async def _ask(self) -> Reply:
        try:
            body: Body = None
            if _has_body(self._request):
                body = await self._uplink.whole() if self._again else self._uplink.parts()
            return await self._gateway.teachers.ask(
                self._request, self._caller, method=self._method, body=body, again=self._again
            )
        except (Refused, ConnectionAbortedError) as error:
            if self._uplink.too_large:
                raise too_large(self._uplink.limit) from error
            raise

    def _call(self, call_id: str, at: float, started: float) -> Call:
        return Call(
            id=call_id,
            caller=self._caller,
            ask=parse_passing_ask(self._request.dialect, self._uplink.kept),
            fingerprint="",
            workload_id=None,
            route=PASSED,
            at=at,
            started=started,
            understood=False,
        )


def _is_repeatable(request: Request) -> bool:
    return request.target.partition("?")[0] in REPEATABLE


def _has_body(request: Request) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in request.headers)


def _is_json(kind: bytes) -> bool:
    return kind.partition(b";")[0].strip().lower() == b"application/json"
