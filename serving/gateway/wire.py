"""ASGI's messages in words, so that the rest of the gateway reads as what it does."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ingestion.core.calls import Dialect

Message = dict[str, Any]
Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request in a dialect. Header names are lower case; `target` is the path and the query as sent."""

    dialect: Dialect
    target: str
    headers: Headers
    receive: Receive
    send: Send


class Gone(Exception):
    """The caller hung up before the request was whole."""


class TooLarge(Exception):
    """The request's body is over the limit."""


async def read_body(receive: Receive, *, announced: bytes, limit: int) -> bytes:
    """The whole request body; `announced` is its content-length, if any. Raises TooLarge (unread, if it can), Gone."""
    if announced.isdigit() and int(announced) > limit:
        raise TooLarge
    message = await receive()
    parts: list[bytes] = []
    size = 0
    while message["type"] == "http.request":
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise TooLarge
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)
        message = await receive()
    raise Gone


async def send_start(send: Send, *, status: int, headers: Headers) -> None:
    """The status line and headers."""
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def send_part(send: Send, body: bytes, *, last: bool = False) -> None:
    """A part of the body; `last` ends the answer."""
    await send({"type": "http.response.body", "body": body, "more_body": not last})


async def send_whole(send: Send, *, status: int, headers: Headers, body: bytes) -> None:
    """An answer in one piece."""
    await send_start(send, status=status, headers=[*headers, (b"content-length", b"%d" % len(body))])
    await send_part(send, body, last=True)


class Departure:
    """Cancels the task that answers as soon as the caller hangs up: `with Departure(receive):` around the answering.

    ASGI servers swallow what is sent to a caller who has left, so only `receive` tells. The cancellation is swallowed
    at the end of the block; code inside sees `CancelledError` and closes what it has open.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.left = False

    def __enter__(self) -> "Departure":
        work = asyncio.current_task()
        if work is None:
            raise RuntimeError("answering happens in a task")
        self._work = work
        self._watch = asyncio.get_running_loop().create_task(self._wait())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        self._watch.cancel()
        if self.left and kind is asyncio.CancelledError:
            self._work.uncancel()
            return True
        return False

    async def _wait(self) -> None:
        while (message := await self._receive())["type"] != "http.disconnect":
            await self._take(message)
        self.left = True
        self._work.cancel()

    async def _take(self, message: Message) -> None:
        """What comes besides: nothing once the body has been read."""


def make_call_id(*, at: float, entropy: bytes) -> str:
    """A UUIDv7 (RFC 9562): milliseconds of `at`, then 10 bytes of `entropy`. Ids sort by time."""
    value = int(at * 1000) << 80 | int.from_bytes(entropy[:10], "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(UUID(int=value))
