"""ASGI's messages in words, so that the rest of the gateway reads as what it does."""

import asyncio
from collections.abc import Awaitable
from typing import Self

from mypy_extensions import mypyc_attr

from serving.gateway.memory import Hold
from serving.gateway.wire import Gone, Headers, Request, Send, TooLarge, TooMuch, Watch


async def read_body(request: Request, *, limit: int, hold: Hold) -> bytes:
    """The whole request body, as far as there is room for it.

    Raises TooLarge (unread, if it can), TooMuch, Gone.
    """
    announced = request.fields.get(b"content-length", b"")
    if announced.isdigit() and int(announced) > limit:
        raise TooLarge
    message = await request.receive()
    parts: list[bytes] = []
    size = 0
    while message["type"] == "http.request":
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise TooLarge
        if not hold.take(len(part), size=size):
            raise TooMuch
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)
        message = await request.receive()
    raise Gone


def join_head(lines: list[bytes]) -> bytes:
    """A head of these lines, each with its end. Raises ValueError where one would begin another."""
    head = b"".join(lines)
    if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or b"\x00" in head:
        raise ValueError("a line that is more than one")
    return head + b"\r\n"


def send_start(send: Send, *, status: int, headers: Headers) -> Awaitable[None]:
    """The status line and headers."""
    return send({"type": "http.response.start", "status": status, "headers": headers})


def send_part(send: Send, body: bytes, *, last: bool = False) -> Awaitable[None]:
    """A part of the body; `last` ends the answer."""
    return send({"type": "http.response.body", "body": body, "more_body": not last})


async def send_whole(send: Send, *, status: int, headers: Headers, body: bytes) -> None:
    """An answer in one piece."""
    await send_start(send, status=status, headers=[*headers, (b"content-length", b"%d" % len(body))])
    await send_part(send, body, last=True)


@mypyc_attr(allow_interpreted_subclasses=True)
class Departure:
    """Cancels the task that answers as soon as the caller hangs up: `with Departure(watch):` around the answering.

    What is sent to a caller who has left is swallowed, so only this tells. The cancellation is swallowed at the end of
    the block; code inside sees `CancelledError` and closes what it has open.
    """

    def __init__(self, watch: Watch) -> None:
        self.left = False
        self._watch = watch

    def __enter__(self) -> Self:
        work = asyncio.current_task()
        if work is None:
            raise RuntimeError("answering happens in a task")
        self._work = work
        self._watch(self._leave)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        self._watch(None)
        if self.left and kind is asyncio.CancelledError:
            self._work.uncancel()
            return True
        return False

    def _leave(self) -> None:
        self.left = True
        self._work.cancel()


def make_call_id(*, at: float, entropy: bytes) -> str:
    """A UUIDv7 (RFC 9562): milliseconds of `at`, then 10 bytes of `entropy`. Ids sort by time."""
    time, rest = f"{int(at * 1000):012x}", entropy.hex()
    return f"{time[:8]}-{time[8:]}-7{rest[:3]}-{'89ab'[entropy[9] & 3]}{rest[3:6]}-{rest[6:18]}"
