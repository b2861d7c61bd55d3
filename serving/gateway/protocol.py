"""One caller's connection: HTTP/1.1 outside, ASGI inside, and bounds on what a caller may send, and on how slowly.

llhttp reads the requests (by httptools). An answer's head leaves with the first part of its body, in one write. Nothing
is timed for a caller who sends a request in one piece and reads the answer: a connection has one timer at most, which
is looked at when it rings and not moved with every byte.
"""

import asyncio
import time
from collections import deque
from typing import Any
from urllib.parse import unquote

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, parse_url
from uvicorn import Config
from uvicorn.server import ServerState

from ingestion.core.calls import Dialect
from ingestion.core.dialects import render_error
from serving.gateway.exchange import STATUS_LINES, Exchange
from serving.gateway.wire import Headers

MOST_HEAD = 65_536  # bytes of request line and headers
HEAD_SECONDS = 20.0  # for a head to be whole, from the first byte or from when the connection was made
BODY_SECONDS = 60.0  # without a byte of a body that is not whole
READER_SECONDS = 60.0  # without a caller's taking what waits for it
UNUSED_SECONDS = 75.0  # between two requests

TOO_LONG = "The request line and the headers are longer than 65,536 bytes."
TOO_SLOW = "The request did not arrive in time."
NO_HTTP = "This is no HTTP request."
KINDS = {400: "invalid_request_error", 408: "timeout_error", 431: "invalid_request_error"}


class Connection(asyncio.Protocol):
    """A caller's connection: requests are answered in turn. Made by the server, of which it keeps the state."""

    transport: asyncio.Transport

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.unused_since = 0.0  # by the monotonic clock
        self.exchange: Exchange | None = None  # the one that is being answered, or was last
        self.writable: asyncio.Future[None] | None = None  # set while the caller does not take what waits for it
        self._app = config.loaded_app
        self._state = server_state
        self._loop = asyncio.get_running_loop()
        self._parser = HttpRequestParser(self)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)  # what follows the last answer is dropped
        self._arriving: Exchange | None = None  # the one whose request is being read
        self._queue: deque[Exchange] = deque()
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head = 0  # bytes of a head that is not whole
        self._in_head = False
        self._is_reading = True
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None

    # what the server does

    def shutdown(self) -> None:
        """Hang up, after the answer under way."""
        if self.exchange is None or self.exchange.complete:
            self.transport.close()
        else:
            self.exchange.keeps_open = False

    @property
    def is_unused(self) -> bool:
        """Whether no answer is under way."""
        return self.exchange is None or self.exchange.complete

    # what an exchange asks

    @property
    def defaults(self) -> Headers:
        """Headers that every answer gets."""
        return self._state.default_headers

    def end(self, exchange: Exchange) -> None:
        """The exchange's answer is whole: the next one's turn."""
        self._state.total_requests += 1
        self.unused_since = time.monotonic()
        if not exchange.keeps_open:
            self.transport.close()
        if self.transport.is_closing():
            return
        if self._queue:
            self._start(self._queue.popleft())
        else:
            self.read_on()
            if self._arriving is None and not self._in_head:
                self._expect(UNUSED_SECONDS)

    def read_on(self) -> None:
        """There is room for more of a body, or for the next request."""
        if not self._is_reading and not self._queue:
            self._is_reading = True
            self.transport.resume_reading()

    def hold(self) -> None:
        """What has come is enough for now."""
        if self._is_reading:
            self._is_reading = False
            self.transport.pause_reading()

    # what the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a first request, though not for ever."""
        self.transport = transport  # type: ignore[assignment]  # a stream's transport reads and writes
        self._state.connections.add(self)  # type: ignore[arg-type]  # uvicorn names its own protocols only
        self.unused_since = time.monotonic()
        self._expect(HEAD_SECONDS)

    def connection_lost(self, error: Exception | None) -> None:
        """The caller has left, or was hung up on."""
        self._state.connections.discard(self)
        self._deadline = None
        for timer in (self._timer, self._reader_timer):
            if timer is not None:
                timer.cancel()
        self._wake_writer()
        self._queue.clear()
        if self.exchange is not None:
            self.exchange.depart()

    def data_received(self, data: bytes) -> None:
        """Take what came; what is whole needs no bound."""
        if self.transport.is_closing():
            return
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            return  # the app declines
        except HttpParserError:
            self._refuse(400, NO_HTTP)
            return
        if self._in_head:
            self._head += len(data)
            if self._head > MOST_HEAD:
                self._refuse(431, TOO_LONG)
            elif self._deadline is None:
                self._expect(HEAD_SECONDS)
        elif self._arriving is not None:
            self._expect(BODY_SECONDS)

    def pause_writing(self) -> None:
        """The caller does not take what waits for it."""
        self.writable = self._loop.create_future()
        self._reader_timer = self._loop.call_later(READER_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The caller takes it again."""
        if self._reader_timer is not None:
            self._reader_timer.cancel()
        self._wake_writer()

    # what the parser tells

    def on_message_begin(self) -> None:
        """A head begins."""
        self._url, self._headers = b"", []
        self._in_head, self._head, self._deadline = True, 0, None

    def on_url(self, url: bytes) -> None:
        """A part of the address."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; those after a body are not for us."""
        if self._in_head:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """A head is whole: its body begins, if it has one."""
        self._in_head, self._deadline = False, None
        if self.transport.is_closing():
            return
        size = len(self._url)
        for name, value in self._headers:
            size += len(name) + len(value) + 4
        if size > MOST_HEAD:
            self._in_head = True
            self._refuse(431, TOO_LONG)
            return
        self._arriving = exchange = self._make_exchange()
        if self.is_unused:
            self._start(exchange)
        else:
            self._queue.append(exchange)
            self.hold()

    def on_body(self, body: bytes) -> None:
        """A part of a body; of a request that was refused, none is wanted."""
        if self._arriving is not None and self._arriving.take(body):
            self.hold()

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._deadline = None
        arriving, self._arriving = self._arriving, None
        if arriving is not None:
            arriving.take_end()
            if arriving.complete and arriving is self.exchange and not self.transport.is_closing():
                self._expect(UNUSED_SECONDS)  # it was answered before it was whole

    def _make_exchange(self) -> Exchange:
        parser, headers = self._parser, self._headers
        url = parse_url(self._url)
        path: bytes = url.path or b"/"
        plain = path.decode("ascii")
        version: str = parser.get_http_version()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "method": parser.get_method().decode("ascii"),
            "path": unquote(plain) if "%" in plain else plain,
            "raw_path": path,
            "query_string": url.query or b"",
            "headers": headers,
        }
        return Exchange(self, scope, keeps_open=version == "1.1" and parser.should_keep_alive())

    def _start(self, exchange: Exchange) -> None:
        self.exchange = exchange
        exchange.task = self._loop.create_task(exchange.run(self._app, self._state.tasks))
        self._state.tasks.add(exchange.task)

    # time

    def _expect(self, seconds: float) -> None:
        """Something has to come within so many seconds from now."""
        self._deadline = deadline = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._look)
        elif self._arriving is not None and not self._is_reading:  # we are those who are slow
            self._expect(BODY_SECONDS)
        else:
            self._refuse(408, TOO_SLOW)

    def _wake_writer(self) -> None:
        if self.writable is not None and not self.writable.done():
            self.writable.set_result(None)
        self.writable = None

    def _refuse(self, status: int, message: str) -> None:
        """Say no and hang up. Nothing is said where it would be taken for an earlier request's answer, or a part of it,
        nor where nothing was asked.
        """
        self._deadline = None
        if self.transport.is_closing():
            return
        asked = self._in_head or self._arriving is not None or status == 400
        if asked and not self._is_answering():
            body = render_error(Dialect.OPENAI, status=status, kind=KINDS[status], message=message)
            head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
            self.transport.write(STATUS_LINES[status] + head + body)
        self.transport.close()

    def _is_answering(self) -> bool:
        """Whether what is said now would not be the answer to what is being read."""
        if self.exchange is None or self.exchange.complete:
            return False
        return self.exchange.started or self.exchange is not self._arriving
