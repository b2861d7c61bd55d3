"""Passes a teacher's answer on as it comes, and holds back only what would be its last bytes until it is remembered."""

from serving.gateway.capture import Capture
from serving.gateway.messages import send_part, send_start
from serving.gateway.refusals import teacher_unreachable
from serving.gateway.upstream import Reply, UnableToFinish
from serving.gateway.wire import Headers, Send


async def relay_unrecorded(reply: Reply, *, send: Send) -> None:
    """Pass `reply` on as it comes. Raises Refused if it breaks before the first part."""
    outlet = Outlet(send, status=reply.status, headers=reply.headers)
    try:
        while chunk := await reply.read():
            await outlet.part(chunk)
    except UnableToFinish as error:
        if not outlet.started:
            raise teacher_unreachable() from error
        return
    await outlet.part(b"", last=True)


class Outlet:
    """The way to the caller. Status and headers leave with the first part, so that until then another can be sent."""

    def __init__(self, send: Send, *, status: int, headers: Headers) -> None:
        self._send = send
        self._status = status
        self._headers = headers
        self.started = False

    async def part(self, body: bytes, *, last: bool = False) -> None:
        """Send a part of the body."""
        if not self.started:
            self.started = True
            await send_start(self._send, status=self._status, headers=self._headers)
        await send_part(self._send, body, last=last)


async def relay(reply: Reply, capture: Capture, *, send: Send, extra: Headers) -> None:
    """Pass `reply` on with the `extra` headers, through `capture`. Raises Refused if it breaks before the first part.

    A reply that breaks later is left unfinished: the server then closes the connection, which tells the caller.
    """
    capture.begin(status=reply.status, headers=reply.headers)
    headers = [pair for pair in reply.headers if pair[0] != b"content-length"] if capture.hides else reply.headers
    outlet = Outlet(send, status=reply.status, headers=[*headers, *extra])
    try:
        await _pass_on(reply, capture, outlet)
    except UnableToFinish as error:
        if not outlet.started:
            raise teacher_unreachable() from error


async def _pass_on(reply: Reply, capture: Capture, outlet: Outlet) -> None:
    held = b""
    while chunk := await reply.read():
        chunk = capture.feed(chunk)
        if capture.finished:
            capture.keep(complete=True)
            if capture.waits:
                await capture.settle()
        if held:
            await outlet.part(held)
        held = b"" if capture.live else chunk
        if chunk and capture.live:
            await outlet.part(chunk)
        if reply.is_over:
            break
    held += capture.flush()
    capture.keep(complete=capture.whole)
    if capture.waits:
        await capture.settle()
    await outlet.part(held, last=True)
