"""One request on a caller's connection and its answer, as an ASGI application sees them.

Besides ASGI's own there is one extension, `departure`: `scope["extensions"]["departure"](call)` has `call` called once
the caller has left, where `receive` alone would take a task that waits for it; None takes that back. It raises Gone
where the caller has left already.
"""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, Protocol

from uvicorn._types import ASGI3Application

from serving.gateway.messages import join_head
from serving.gateway.wire import Gone, Headers, Message

MOST_BUFFERED: Final = 65_536  # bytes of a body that nobody has asked for, before reading stops
JOINED: Final = 65_536  # bytes that are copied once rather than sent as two
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
STATUSES_WITHOUT_BODY: Final = frozenset({204, 304})

logger = logging.getLogger(__name__)


def _status_line(status: int) -> bytes:
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


STATUS_LINES: Final = {status: _status_line(status) for status in range(100, 600)}


class Line(Protocol):
    """What an exchange needs of its connection."""

    transport: asyncio.Transport
    writable: asyncio.Future[None] | None  # there while the caller does not take what waits for it

    @property
    def defaults(self) -> Headers:
        """Headers that every answer gets."""
        ...

    def read_on(self) -> None:
        """There is room for more of the body."""
        ...

    def end(self, exchange: "CallerExchange") -> None:
        """The answer is whole."""
        ...

    def hang_up(self) -> None:
        """Let what waits go out, and close."""
        ...

    def cut(self) -> None:
        """Close so that the caller sees that something is missing."""
        ...


class CallerExchange:
    """Starts with a request's head; `take` brings its body."""

    __slots__ = (
        *("_bodiless", "_chunked", "_continues", "_head", "_left", "_line", "_on_departure", "_parts", "_size"),
        *("_told", "_waiter", "_whole", "complete", "departed", "keeps_open", "scope", "started", "task"),
    )

    def __init__(self, line: Line, scope: dict[str, Any], *, keeps_open: bool) -> None:
        scope["extensions"] = {"departure": self._watch}
        self.scope = scope
        self.keeps_open = keeps_open  # whether another request may follow on the connection
        self.departed = False
        self.started = False  # the answer has a status
        self.complete = False  # the answer is whole
        self.task: asyncio.Task[None] | None = None
        self._line = line
        self._continues = self._asks_to_continue()  # the body waits for our word
        self._parts: list[bytes] = []
        self._size = 0
        self._whole = False  # all of the request is here
        self._told = False  # and was received
        self._waiter: asyncio.Future[None] | None = None
        self._on_departure: Callable[[], None] | None = None
        self._head = b""  # of the answer, until its first part
        self._bodiless = False
        self._chunked = False
        self._left: int | None = None  # bytes of the answer to come, where its head says how long it is

    def _asks_to_continue(self) -> bool:
        if self.scope["http_version"] != "1.1":
            return False
        return any(name == b"expect" and value.lower() == b"100-continue" for name, value in self.scope["headers"])

    async def run(self, app: ASGI3Application, tasks: set[asyncio.Task[None]]) -> None:
        """Have it answered. An answer that stays without its end is ended by hanging up, which tells the caller."""
        try:
            await app(self.scope, self.receive, self.send)  # type: ignore[arg-type]  # ASGI's messages are dictionaries
        except Exception as error:  # noqa: BLE001  the process edge: one call's bug must not reach another
            logger.error("an answer broke: %s", type(error).__name__)
        finally:
            if self.task is not None:
                tasks.discard(self.task)
                self.task = None
            del self.scope["extensions"]  # which leads back here
            if not self.complete and not self.departed:
                self._break_off()

    # ASGI

    async def receive(self) -> Message:
        """The next of the request's body; after its end, that the caller has left or is answered."""
        while not (self.departed or self.complete):
            self._say_continue()
            if self._parts or (self._whole and not self._told):
                return self._next()
            self._line.read_on()
            await self._wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """The status and headers, or a part of the body. Raises RuntimeError, ValueError where that makes no answer."""
        if self._line.writable is not None and not self.departed:
            await asyncio.wait([self._line.writable])
        if self.departed or self._line.transport.is_closing():
            return
        if message["type"] == "http.response.start":
            self._begin(message["status"], message["headers"])
        else:
            self._send_part(message["body"], more=message["more_body"])

    def _watch(self, call: Callable[[], None] | None) -> None:
        if call is not None and self.departed:
            raise Gone
        self._on_departure = call

    # what the connection tells

    def take(self, body: bytes) -> bool:
        """Take a part of the body; gives whether that is enough for now."""
        if self.complete:
            return False
        self._parts.append(body)
        self._size += len(body)
        self._wake()
        return self._size > MOST_BUFFERED

    def take_end(self) -> None:
        """The body is whole."""
        self._whole = True
        self._wake()

    def depart(self) -> None:
        """The caller has left."""
        if not self.complete:
            self.departed = True
            self._wake()
            if self._on_departure is not None:
                self._on_departure()

    # the request

    def _say_continue(self) -> None:
        if self._continues and not (self._parts or self._whole or self.started):
            self._line.transport.write(CONTINUE)
        self._continues = False

    def _next(self) -> Message:
        self._line.read_on()  # also where nothing more is to come: else nobody would see the caller leave
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        self._told = self._whole
        return {"type": "http.request", "body": body, "more_body": not self._whole}

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # the answer

    def _begin(self, status: int, headers: Headers) -> None:
        found = dict(headers)
        if self.started or b"transfer-encoding" in found:
            raise RuntimeError("not the beginning of an answer")
        length = found.get(b"content-length")
        self._bodiless = status in STATUSES_WITHOUT_BODY or self.scope["method"] == "HEAD"
        self._chunked = length is None and not self._bodiless and self.scope["http_version"] == "1.1"
        self._left = None if length is None else int(length)
        head = [STATUS_LINES[status]]
        head += [b"%b: %b\r\n" % pair for pair in headers]
        head += [b"%b: %b\r\n" % pair for pair in self._line.defaults]
        if self._chunked:
            head.append(b"transfer-encoding: chunked\r\n")
        closes = b"connection: close\r\n" in head
        # What follows half a request is its other half.
        self.keeps_open = self.keeps_open and not closes and self._whole
        if not self.keeps_open and not closes:
            head.append(b"connection: close\r\n")
        self._head = join_head(head)
        self.started = True

    def _break_off(self) -> None:
        """Hang up in the middle. Where the end is the connection's own, it must not look like one."""
        if self.started and not self._head and self._left is None and not self._chunked:
            self._line.cut()
        else:
            self._line.hang_up()

    def _send_part(self, body: bytes, *, more: bool) -> None:
        if self.complete or not self.started:
            raise RuntimeError("not a part of an answer")
        framed = self._frame(body, more=more)
        head, self._head = self._head, b""
        if head and len(framed) > JOINED:
            self._line.transport.writelines((head, framed))
        elif head or framed:
            self._line.transport.write(head + framed)
        if not more:
            self.complete = True
            self._wake()
            self._line.end(self)

    def _frame(self, body: bytes, *, more: bool) -> bytes:
        if self._bodiless:
            return b""
        if self._chunked:
            framed = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return framed if more else framed + b"0\r\n\r\n"
        if self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("an answer that is not as long as it says")
        return body
