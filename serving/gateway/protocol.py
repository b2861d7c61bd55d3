"""One caller's connection: uvicorn's protocol, with bounds on what a caller may send, and on how slowly.

uvicorn bounds neither a request's head nor the time that anything takes. Nothing is timed here for a caller who sends a
request in one piece and reads the answer.
"""

import asyncio
import time

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ingestion.core.calls import Dialect
from ingestion.core.dialects import render_error

MOST_HEAD = 65_536  # bytes of request line and headers
HEAD_SECONDS = 20.0  # for a head to be whole, from the first byte or from when the connection was made
BODY_SECONDS = 60.0  # without a byte of a body that is not whole
READER_SECONDS = 60.0  # without a caller's taking what waits for it

TOO_LONG = "The request line and the headers are longer than 65,536 bytes."
TOO_SLOW = "The request did not arrive in time."
KINDS = {400: "invalid_request_error", 408: "timeout_error", 431: "invalid_request_error"}


class Connection(HttpToolsProtocol):
    """A caller's connection. Which of its timers runs is `_timer`'s to say: there is one at most."""

    unused_since = 0.0  # by the monotonic clock
    _head = 0  # bytes of a head that is not whole
    _in_head = False
    _in_body = False
    _timer: asyncio.TimerHandle | None = None
    _reader_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Wait for a first request, though not for ever."""
        super().connection_made(transport)
        self.unused_since = time.monotonic()
        self._await(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._await(None)
        if self._reader_timer is not None:
            self._reader_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; what is whole needs no bound."""
        super().data_received(data)
        if self._in_head:
            self._head += len(data)
            if self._head > MOST_HEAD:
                self._refuse(431, TOO_LONG)
            elif self._timer is None:
                self._await(HEAD_SECONDS)
        elif self._in_body:
            self._await(BODY_SECONDS)

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head, self._head = True, 0

    def on_headers_complete(self) -> None:
        """A head is whole: its body begins, if it has one."""
        self._await(None)
        if self.transport.is_closing():
            return
        self._in_head, self._in_body = False, True
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MOST_HEAD:
            self._refuse(431, TOO_LONG)
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._await(None)
        self._in_body = False
        if not self.transport.is_closing():
            super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body; of a request that was refused, none is wanted."""
        if not self.transport.is_closing():
            super().on_body(body)

    def on_response_complete(self) -> None:
        """An answer is whole."""
        self.unused_since = time.monotonic()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, in JSON as all refusals are."""
        self._refuse(400, msg)

    def pause_writing(self) -> None:
        """The caller does not take what waits for it."""
        super().pause_writing()
        self._reader_timer = self.loop.call_later(READER_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The caller takes it again."""
        if self._reader_timer is not None:
            self._reader_timer.cancel()
        super().resume_writing()

    def _await(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._be_late)

    def _be_late(self) -> None:
        self._timer = None
        if self._in_body and self.flow.read_paused:  # we are those who are slow: its provider takes no more
            self._await(BODY_SECONDS)
        else:
            self._refuse(408, TOO_SLOW)

    def _refuse(self, status: int, message: str) -> None:
        """Say no and hang up. Nothing is said where it would be taken for an earlier request's answer, or a part of it,
        nor where nothing was asked.
        """
        self._await(None)
        if self.transport.is_closing():
            return
        asked = self._in_head or self._in_body or status == 400
        if asked and not self._is_answering():
            body = render_error(Dialect.OPENAI, status=status, kind=KINDS[status], message=message)
            head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
            self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()

    def _is_answering(self) -> bool:
        if self.cycle is None or self.cycle.response_complete:
            return False
        return self.cycle.response_started or not self._in_body
