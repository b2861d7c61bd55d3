"""One HTTP/1.1 connection to a provider: a call goes out, its answer comes in, and no byte of one call is another's.

llhttp reads the answers (by httptools, strictly, as it does the calls). What is decided here: when an answer is
over, whether the connection may serve another call, how long silence is borne, and when to stop reading for a caller
who reads slowly. Whoever sends what was not asked for loses the connection.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from mypy_extensions import mypyc_attr

from serving.gateway.wire import Headers

MOST_BUFFERED: Final = 262_144  # bytes of an answer that its caller has not taken yet, before reading stops
LONGEST_HEAD: Final = 262_144  # bytes that are no body, between two parts of one: a teacher may echo what it was asked
LAST_STATUS: Final = 599
JOINED: Final = 65_536  # bytes of a request that are copied once rather than sent as two


@mypyc_attr(native_class=False)
class Silent(TimeoutError):
    """The provider has sent nothing for too long."""


@mypyc_attr(native_class=False)
class Broken(ConnectionError):
    """The connection ended too early, or what came on it is no answer."""


class Exchange:
    """One call on a connection, and its answer as far as it has come. Made by `Connection.send`."""

    __slots__ = ("_connection", "_parts", "_size", "_waiter", "begun", "complete", "failure", "headers", "status")

    def __init__(self, connection: "Connection") -> None:
        self.status = 0  # 0 until the answer's head is here
        self.headers: Headers = []  # names in lower case
        self.begun = False  # a byte of an answer has come
        self.complete = False
        self.failure: BaseException | None = None  # why no more will come
        self._connection = connection
        self._parts: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None

    async def head(self) -> None:
        """Return once status and headers are here. Raises Silent, Broken, or what the request's body raised."""
        while not self.status:
            if self.failure is not None:
                raise self.failure
            await self._more()

    async def read(self) -> bytes:
        """The next bytes of the body, all that are here joined; empty at its end. Raises Silent, Broken."""
        while not self._parts:
            if self.complete:
                return b""
            if self.failure is not None:
                raise self.failure
            await self._more()
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        self._connection.resume(self)
        return data

    @property
    def is_over(self) -> bool:
        """Whether the body has been read to its end."""
        return self.complete and not self._parts

    def close(self) -> None:
        """Hang up if the answer is not complete; harmless otherwise."""
        if not self.complete:
            self._connection.abort()

    def take(self, part: bytes) -> bool:
        """Take a part of the body; gives whether that is enough for now."""
        self._parts.append(part)
        self._size += len(part)
        return self._size > MOST_BUFFERED

    def wake(self) -> None:
        """Let the reader look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _more(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


class Connection:
    """A connection on which one exchange at a time takes place; an `asyncio.Protocol` in all but its bases.

    `timeout` is seconds of silence while an answer is awaited. `freed` is called with the connection when it may serve
    another call, `lost` once when it is closed, however that came.
    """

    __deletable__ = ("_parser",)  # mypyc wants to know

    # Where the one answer that is being read stands: see `_start_answer`.
    _headers: Headers
    _overhead: int  # bytes since its head or the last part of its body: of a head, trailers, a chunk's extensions
    _headed: bool  # its head is here
    _provisional: bool  # what is here is a head of 1xx
    _over: bool  # its last byte is here
    _surplus: bool  # and more than that
    _keeps_open: bool  # the provider lets another call follow
    _until_close: bool  # it ends with the connection
    _ended: bool  # the provider has said that nothing follows

    def __init__(
        self, *, timeout: float, freed: Callable[["Connection"], None], lost: Callable[["Connection"], None]
    ) -> None:
        self.used = False  # it has served a call before
        self._timeout = timeout
        self._freed = freed
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._beneath: asyncio.Transport | None = None  # what TLS writes to
        self._parser = HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._upload: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self._reading = True
        self._has_body = True
        self._retired = False
        self._start_answer()

    # what the call does

    def send(self, head: bytes, body: bytes, *, has_body: bool = True) -> Exchange:
        """Send a request and await its answer, which has no body unless `has_body` (HEAD)."""
        exchange = self._begin(has_body=has_body)
        transport = self._open_transport()
        if len(body) <= JOINED:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        self._expect()
        return exchange

    def send_parts(self, head: bytes, parts: AsyncIterator[bytes], *, chunked: bool, has_body: bool = True) -> Exchange:
        """The same for a body that is still on its way: in chunks, or as long as the head says. Whatever `parts` raises
        breaks the connection, so that the provider does not take what came for all of it.
        """
        exchange = self._begin(has_body=has_body)
        self._open_transport().write(head)
        self._upload = self._loop.create_task(self._send_parts(parts, chunked=chunked))
        self._upload.add_done_callback(self._end_upload)
        return exchange

    def resume(self, exchange: Exchange) -> None:
        """The exchange's reader has caught up."""
        if not self._reading and exchange is self._exchange:
            self._reading = True
            self._open_transport().resume_reading()
            self._expect()

    def secure(self, transport: asyncio.Transport) -> None:
        """TLS is agreed on: from now on `transport` is written to, which writes to the one before."""
        self._beneath, self._transport = self._transport, transport

    def retire(self) -> None:
        """Let no call follow the one under way."""
        self._retired = True

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self._fail(Broken("hung up"))

    @property
    def is_open(self) -> bool:
        """Whether it is connected, as far as this end knows."""
        return self._transport is not None and not self._transport.is_closing()

    def _begin(self, *, has_body: bool) -> Exchange:
        self._has_body = has_body
        self._start_answer()
        self._exchange = Exchange(self)
        return self._exchange

    def _open_transport(self) -> asyncio.Transport:
        if self._transport is None:
            raise Broken("not connected")
        return self._transport

    async def _send_parts(self, parts: AsyncIterator[bytes], *, chunked: bool) -> None:
        async for part in parts:
            if not part:
                continue  # which would end the body, in chunks
            if self._writable is not None:
                await self._wait_until_writable(self._writable)
            self._open_transport().writelines((b"%x\r\n" % len(part), part, b"\r\n") if chunked else (part,))
        if chunked:
            self._open_transport().write(b"0\r\n\r\n")

    async def _wait_until_writable(self, writable: asyncio.Future[None]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await writable
        except TimeoutError as error:
            raise Silent from error

    def _end_upload(self, upload: asyncio.Task[None]) -> None:
        self._upload = None
        failure = Broken() if upload.cancelled() else upload.exception()
        if failure is None:
            self._expect()
        else:
            self._fail(failure)

    # silence

    def _expect(self) -> None:
        """From now on the provider is waited for."""
        if self._exchange is None or self._upload is not None:
            return
        self._deadline = self._loop.time() + self._timeout
        if self._timer is None:
            self._timer = self._loop.call_at(self._deadline, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._look)
        else:
            self._fail(Silent())

    # what the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self._transport = transport  # type: ignore[assignment]  # a stream's transport reads and writes

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer, or of nothing that was asked for."""
        exchange = self._exchange
        if exchange is None:
            self.abort()
            return
        exchange.begun = True
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._keeps_open = False
            if not self._over:
                self._fail(Broken(type(error).__name__))
                return
        if self._over:
            self._end(exchange)
        elif self._overhead > LONGEST_HEAD:
            self._fail(Broken("an endless head, or trailer"))
        else:
            if self._reading and self._upload is None:
                self._deadline = self._loop.time() + self._timeout
            exchange.wake()

    def eof_received(self) -> None:
        """The provider has ended what it says, where TLS is spoken by TLS's own word: whoever cuts the line cannot."""
        self._ended = True

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is closed; which ends an answer that has no other end."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        exchange = self._exchange
        if exchange is not None and error is None and self._until_close and self._ended:
            exchange.complete = True
        self._fail(Broken())
        self._lost(self)
        self._timer = None
        del self._parser  # which leads back here: a closed connection is gone without the collector

    def pause_writing(self) -> None:
        """The provider takes the request more slowly than it comes."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """It has caught up."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # what the parser tells

    def on_message_begin(self) -> None:
        """An answer begins: ours, or one more than was asked for."""
        self._surplus = self._over

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; those after the body (trailers) are not passed on."""
        if not self._headed:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is here; a provisional one (1xx) is not the answer's. Raises Broken on a status that is none."""
        status = self._parser.get_status_code()
        if status < 200:
            self._provisional = True
            return
        exchange = self._exchange
        if exchange is None or self._surplus:
            return
        if status > LAST_STATUS:
            raise Broken("no status")
        self._headed = True
        self._overhead = 0
        exchange.headers = self._headers
        exchange.status = status
        self._over = not self._has_body  # the parser, which does not know, would wait for one
        self._until_close = status not in (204, 304) and not _says_its_length(self._headers)

    def on_body(self, body: bytes) -> None:
        """A part of the body. Raises Broken where it is a provisional answer's, which has none."""
        self._overhead = 0
        exchange = self._exchange
        if self._provisional:
            raise Broken("a provisional answer with a body")
        if exchange is None or self._surplus or not self._has_body:
            return
        if exchange.take(body) and self._reading:
            self._reading = False
            self._deadline = None
            self._open_transport().pause_reading()

    def on_message_complete(self) -> None:
        """The answer is over, or the head before it."""
        if self._provisional:
            self._provisional = False
            self._headers = []
            return
        self._over = True
        self._keeps_open = self._has_body and self._parser.should_keep_alive()

    # the states of one answer

    def _start_answer(self) -> None:
        self._headers = []
        self._headed = False
        self._provisional = False
        self._over = False
        self._surplus = False
        self._keeps_open = False
        self._until_close = False
        self._ended = False
        self._overhead = 0

    def _end(self, exchange: Exchange) -> None:
        """The answer is whole: free the connection, unless either side is not done with it."""
        exchange.complete = True
        self._exchange = None
        self._deadline = None
        exchange.wake()
        if not (self._keeps_open and not self._surplus and not self._retired and self._is_sent() and self.is_open):
            self.abort()
            return
        if not self._reading:
            self._reading = True
            self._open_transport().resume_reading()
        self.used = True
        self._freed(self)

    def _is_sent(self) -> bool:
        """Whether nothing of the request is left here, for the next one to wait behind."""
        if self._upload is not None or self._writable is not None:
            return False
        return not any(way.get_write_buffer_size() for way in (self._transport, self._beneath) if way is not None)

    def _fail(self, failure: BaseException) -> None:
        exchange, self._exchange = self._exchange, None
        self._deadline = None
        if exchange is not None:
            exchange.failure = failure
            exchange.wake()
        if self._upload is not None:
            self._upload.cancel()
        if self._transport is not None:
            self._transport.abort()


def _says_its_length(headers: Headers) -> bool:
    """Whether the body's end can be told without the connection's (RFC 9112, section 6.3)."""
    coded = [value for name, value in headers if name == b"transfer-encoding"]
    if coded:
        return coded[-1].strip().lower().endswith(b"chunked")
    return any(name == b"content-length" for name, _ in headers)
