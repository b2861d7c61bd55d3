"""One caller's connection: HTTP/1.1 outside, ASGI inside, and bounds on what a caller may send, and on how slowly.

llhttp reads the requests (by httptools). An answer's head leaves with the first part of its body, in one write. Nothing
is timed for a caller who sends a request in one piece and reads the answer: a connection has one timer at most, which
is looked at when it rings and not moved with every byte. (Another runs while a caller does not take what waits for it.)
"""

import asyncio
import fcntl
import socket
import struct
import sys
import termios
import time
from collections import deque
from contextlib import suppress
from typing import Any, Final
from urllib.parse import unquote

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, parse_url
from uvicorn import Config
from uvicorn.server import ServerState

from ingestion.core.calls import Dialect
from ingestion.core.dialects import render_error
from serving.gateway.exchange import STATUS_LINES, CallerExchange
from serving.gateway.wire import Headers

MOST_HEAD: Final = 65_536  # bytes of request line and headers, or of what frames a body, in one go
MOST_QUEUED: Final = 16  # requests that wait for the answers before theirs
MOST_DRAINED = 16_000_000  # bytes of a request that was answered before it was whole
DRAIN_SECONDS = 10.0  # and for how long they are read, so that its caller sees the answer
HEAD_SECONDS = 20.0  # for a head to be whole, from the first byte or from when the connection was made
BODY_SECONDS = 60.0  # without a byte of a body that is not whole
MOST_UNSENT: Final = (
    65_536  # bytes of answers that the system keeps for a caller who takes nothing; else it keeps megabytes
)
READER_SECONDS = 60.0  # without a caller's taking what waits for it
UNUSED_SECONDS = 75.0  # between two requests

TOO_LONG: Final = "The request line and the headers are longer than 65,536 bytes."
TOO_SLOW: Final = "The request did not arrive in time."
NO_HTTP: Final = "This is no HTTP request."
KINDS: Final = {400: "invalid_request_error", 408: "timeout_error", 431: "invalid_request_error"}


class CallerConnection:
    """A caller's connection: requests are answered in turn. Made by the server, of which it keeps the state.

    An `asyncio.Protocol` in all but its bases, which mypyc could not compile.
    """

    __deletable__ = ("_parser",)  # mypyc wants to know

    transport: asyncio.Transport

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.unused_since = 0.0  # by the monotonic clock
        self.exchange: CallerExchange | None = None  # the one that is being answered, or was last
        self.writable: asyncio.Future[None] | None = None  # set while the caller does not take what waits for it
        self._app = config.loaded_app
        self._most = config.limit_concurrency  # connections
        self._state = server_state
        self._loop = asyncio.get_running_loop()
        self._parser = HttpRequestParser(self)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)  # what follows the last answer is dropped
        self._arriving: CallerExchange | None = None  # the one whose request is being read
        self._queue: deque[CallerExchange] = deque()
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._framing = 0  # bytes that are no body's: of a head, of trailers, of what chunks are wrapped in
        self._begun = 0  # heads that began in what was read last
        self._in_head = False
        self._is_deaf = False  # what comes is dropped
        self._drained: int | None = None  # bytes, of a request that nobody waits for any more
        self._is_reading = True
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None

    # what the server does

    def shutdown(self) -> None:
        """Hang up, after the answer under way."""
        if self.exchange is not None and not self.exchange.complete:
            self.exchange.keeps_open = False
        elif self.transport.is_closing():
            self.cut()
        else:
            self.hang_up()

    @property
    def is_unused(self) -> bool:
        """Whether no answer is under way."""
        return self.exchange is None or self.exchange.complete

    # what an exchange asks

    @property
    def defaults(self) -> Headers:
        """Headers that every answer gets."""
        return self._state.default_headers

    def end(self, exchange: CallerExchange) -> None:
        """The exchange's answer is whole: the next one's turn."""
        self._state.total_requests += 1
        self.unused_since = time.monotonic()
        if not exchange.keeps_open:
            self._leave(exchange)
        elif self.transport.is_closing():
            return
        elif self._queue:
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

    def hang_up(self) -> None:
        """Let what waits go out, and close; though not for a caller who does not take it."""
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.close()
            self._watch_reader()

    def cut(self) -> None:
        """Close so that the caller sees that something is missing."""
        with suppress(OSError, ValueError):  # it may be closed already
            made = self.transport.get_extra_info("socket")
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def hold(self) -> None:
        """What has come is enough for now."""
        if self._is_reading:
            self._is_reading = False
            self.transport.pause_reading()

    # what the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a first request, though not for ever."""
        self.transport = transport  # type: ignore[assignment]  # a stream's transport reads and writes
        with suppress(OSError):  # the caller may have left already
            made = self.transport.get_extra_info("socket")
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MOST_UNSENT)
        self._state.connections.add(self)  # type: ignore[arg-type]  # uvicorn names its own protocols only
        if self._most is not None and len(self._state.connections) > self._most:
            self.cut()
            return
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
        # What leads back here goes, so that no closed connection waits for the collector, whose rounds hold up calls.
        self._timer = self._reader_timer = self._arriving = self.exchange = None
        del self._parser

    def data_received(self, data: bytes) -> None:
        """Take what came; what is whole needs no bound."""
        if self._is_deaf or self.transport.is_closing():
            return
        is_first, self._begun = self._arriving is None and not self._in_head, 0
        self._framing += len(data)  # what turns out to be a body's, or an earlier request's, takes it back
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._is_deaf = True  # nobody knows where a request ends; the app declines
        except HttpParserError:
            self._refuse(400, NO_HTTP)
        else:
            if is_first and self._begun == 1 and self._in_head:
                self._framing = len(data)  # all of it is this head's
            self._bound(len(data))

    def _bound(self, size: int) -> None:
        """See to it that a request that is not whole yet goes on, and comes to an end."""
        if self._framing > MOST_HEAD and (self._in_head or self._arriving is not None):
            self._refuse(431, TOO_LONG)
        elif self._drained is not None:
            self._drained += size
            if self._drained > MOST_DRAINED:
                self.hang_up()
        elif self._arriving is not None:
            self._expect(BODY_SECONDS)
        elif self._in_head and self._deadline is None:
            self._expect(HEAD_SECONDS)

    def eof_received(self) -> None:
        """The caller says no more, and so will hear no more: whoever half closes may be gone."""
        self.hang_up()

    def pause_writing(self) -> None:
        """The caller does not take what waits for it."""
        self.writable = self._loop.create_future()
        self._watch_reader()

    def resume_writing(self) -> None:
        """The caller takes it again."""
        if self._reader_timer is not None:
            self._reader_timer.cancel()
        if self.transport.is_closing():
            self._watch_reader()
        self._wake_writer()

    # what the parser tells

    def on_message_begin(self) -> None:
        """A head begins."""
        self._begun += 1
        self._url, self._headers = b"", []
        self._in_head, self._framing, self._deadline = True, 0, None

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
        if self._is_deaf or self.transport.is_closing():
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
            self._wait_in_line(exchange)

    def _wait_in_line(self, exchange: CallerExchange) -> None:
        self._queue.append(exchange)
        self.hold()
        if len(self._queue) == MOST_QUEUED:
            exchange.keeps_open = False

    def on_body(self, body: bytes) -> None:
        """A part of a body; of a request that was refused, none is wanted."""
        self._framing = 0
        if self._arriving is not None and self._arriving.take(body):
            self.hold()

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._framing, self._deadline = 0, None
        arriving, self._arriving = self._arriving, None
        if arriving is not None:
            arriving.take_end()
            self._is_deaf = self._is_deaf or len(self._queue) == MOST_QUEUED
        if self._drained is not None:
            self.hang_up()

    def _make_exchange(self) -> CallerExchange:
        parser, headers = self._parser, self._headers
        url: Any = parse_url(self._url)  # some of whose parts are None, whatever its types say
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
        keeps_open = version == "1.1" and parser.should_keep_alive() and not parser.should_upgrade()
        return CallerExchange(self, scope, keeps_open=keeps_open)

    def _leave(self, exchange: CallerExchange) -> None:
        """Close after the last answer: where its request is not whole, once that is, or after a while."""
        if exchange is not self._arriving:
            self.hang_up()
            return
        self._drained = 0
        self._expect(DRAIN_SECONDS)
        self.read_on()

    def _start(self, exchange: CallerExchange) -> None:
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
        elif self._is_ours_to_go_on():
            self._expect(BODY_SECONDS)
        else:
            self._refuse(408, TOO_SLOW)

    def _is_ours_to_go_on(self) -> bool:
        """Whether it is not the caller who is slow: nothing is read, or an answer is under way before it is whole."""
        if not self._is_reading or (self._in_head and not self.is_unused):
            return True
        return self._arriving is not None and self._arriving.started and not self._arriving.complete

    def _watch_reader(self) -> None:
        """See in a while whether the caller has taken any of what waits now."""
        if self._reader_timer is not None:
            self._reader_timer.cancel()
        if self.transport.get_write_buffer_size():
            self._reader_timer = self._loop.call_later(READER_SECONDS, self._look_at_reader, self._untaken())

    def _look_at_reader(self, waited: int) -> None:
        if self._untaken() < waited:
            self._watch_reader()
        else:
            self.cut()

    def _untaken(self) -> int:
        """Bytes that the caller has not acknowledged: here, and in the system's buffer, which may hold megabytes."""
        queued = bytes(4)
        with suppress(OSError, ValueError):  # it may be closed already
            queued = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, queued)
        return self.transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)

    def _wake_writer(self) -> None:
        if self.writable is not None and not self.writable.done():
            self.writable.set_result(None)
        self.writable = None

    def _refuse(self, status: int, message: str) -> None:
        """Say no and hang up. Nothing is said where it would be taken for an earlier request's answer, or a part of it,
        nor where nothing was asked.
        """
        if self.transport.is_closing():
            return
        asked = self._in_head or self._arriving is not None or status == 400
        if asked and not self._is_answering():
            body = render_error(Dialect.OPENAI, status=status, kind=KINDS[status], message=message)
            head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
            self.transport.write(STATUS_LINES[status] + head + body)
        self.hang_up()

    def _is_answering(self) -> bool:
        """Whether what is said now would not be the answer to what is being read."""
        if self.exchange is None:
            return False
        return self.exchange.started if self.exchange is self._arriving else not self.exchange.complete
