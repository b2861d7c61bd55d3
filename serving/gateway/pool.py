"""Connections to providers, kept for the next call: the client behind `Upstream`.

Nothing is added to a call but what HTTP needs, no redirect is followed, no cookie kept, no body encoded or decoded.
Every address is checked as its socket is made.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from aiohappyeyeballs import start_connection

from serving.gateway.connection import Connection, Exchange, Silent
from serving.gateway.messages import join_head
from serving.gateway.metrics import Metrics
from serving.gateway.names import Names, TooManyLookups
from serving.gateway.upstream import (
    Body,
    Reply,
    UnableToFinish,
    UnableToReach,
    UnableToReachInTime,
    returned_headers,
)
from serving.gateway.wire import Headers
from tenants.addresses import AddressGuard

CONNECT_SECONDS: Final = 10.0  # to resolve a name, connect, and agree on TLS
STALE_SECONDS = 1.0  # a kept connection that breaks later broke under this call
KEPT_SECONDS: Final = 15.0  # for a connection that nobody uses
EYEBALLS_SECONDS: Final = 0.25  # RFC 8305: before the next address is tried beside the first
WITHOUT_BODY: Final = frozenset({"GET", "HEAD"})
OFTEN_WITHOUT_BODY: Final = WITHOUT_BODY | {"DELETE"}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where connections lead."""

    host: str
    port: int
    is_secure: bool


class PooledUpstream:
    """Teachers over HTTP/1.1."""

    def __init__(self, *, timeout: float, allow_private: bool, metrics: Metrics) -> None:
        """`timeout` is seconds of silence, to the first byte and between two reads. Needs a running loop."""
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._guard = AddressGuard(allow_private=allow_private)
        self._metrics = metrics
        self._tls = ssl.create_default_context()
        self._tls.set_alpn_protocols(["http/1.1"])
        self._open: dict[Connection, Origin] = {}
        self._idle: dict[Origin, dict[Connection, float]] = {}  # since when, the newest last
        self._names = Names()
        self._sweep: asyncio.TimerHandle | None = None

    async def ask(self, method: str, base_url: str, target: str, *, headers: Headers, body: Body) -> Reply:
        """Send one call; returns when status and headers are there. Raises UnableToReach."""
        origin, authority, prefix = _parse_base(base_url)
        head = _make_head(method, authority, prefix + _encode(target), headers, body)
        connection = self._take_idle(origin) or await self._connect(origin)
        sent_at = self._loop.time()
        if body is not None and method in OFTEN_WITHOUT_BODY:
            connection.retire()  # a server that does not expect the body might take it for the next call
        exchange, is_heard = None, False
        try:
            exchange = _send(connection, head, body, headers=headers, has_body=method != "HEAD")
            await exchange.head()
            is_heard = True
        except Silent as silence:
            raise UnableToReachInTime(down=True) from silence
        except OSError as error:
            stale = connection.used and self._loop.time() - sent_at < STALE_SECONDS
            raise UnableToReach(untouched=stale and exchange is not None and not exchange.begun) from error
        finally:
            if exchange is None:
                connection.abort()
            elif not is_heard:  # also where the head came, and the task was cancelled before it went on
                exchange.close()
        return PooledReply(exchange)

    async def close(self) -> None:
        """Give up all connections."""
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self._open):
            connection.abort()

    def _take_idle(self, origin: Origin) -> Connection | None:
        """The connection that was used last, as the least likely to have been closed at the other end."""
        idle = self._idle.get(origin)
        while idle:
            connection, since = idle.popitem()
            if connection.is_open and self._loop.time() - since < KEPT_SECONDS:
                self._metrics.connections_reused += 1
                return connection
            connection.abort()
        return None

    async def _connect(self, origin: Origin) -> Connection:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = await self._open_connection(origin)
        except TimeoutError as silence:
            self._names.forget(origin.host, origin.port)
            raise UnableToReach(down=True) from silence
        except (UnicodeError, TooManyLookups) as refusal:  # a name that no server may be asked, or not now
            raise UnableToReach from refusal
        except OSError as error:  # TLS's too
            self._names.forget(origin.host, origin.port)
            raise UnableToReach(untouched=True, down=True) from error
        if not connection.is_open:
            raise UnableToReach(untouched=True, down=True)
        self._metrics.connections_made += 1
        self._open[connection] = origin
        return connection

    async def _open_connection(self, origin: Origin) -> Connection:
        made = await start_connection(
            await self._names.resolve(origin.host, origin.port),
            happy_eyeballs_delay=EYEBALLS_SECONDS,
            interleave=1,
            loop=self._loop,
            socket_factory=self._guard.open_socket,
        )
        transport, is_agreed = None, False
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            transport, connection = await self._loop.create_connection(
                self._make_connection,  # type: ignore[type-var]  # a protocol in all but its bases
                sock=made,
            )
            if origin.is_secure:
                connection.secure(await self._agree_on_tls(transport, connection, origin.host))
            is_agreed = True
        finally:
            if transport is None:
                made.close()
            elif not is_agreed:
                transport.abort()
        return connection

    def _make_connection(self) -> Connection:
        return Connection(timeout=self._timeout, freed=self._keep, lost=self._forget)

    async def _agree_on_tls(self, transport: asyncio.Transport, connection: Connection, host: str) -> asyncio.Transport:
        if transport.is_closing():  # else uvloop would begin on what is closed, and never tell
            raise ConnectionResetError
        protocol: Any = connection  # one in all but its bases
        agreed = await self._loop.start_tls(transport, protocol, self._tls, server_hostname=host)
        if agreed is None or agreed.is_closing():
            raise ConnectionResetError
        return agreed

    def _keep(self, connection: Connection) -> None:
        origin = self._open.get(connection)
        if origin is None:
            return
        self._idle.setdefault(origin, {})[connection] = self._loop.time()
        if self._sweep is None:
            self._sweep = self._loop.call_later(KEPT_SECONDS, self._close_old)

    def _forget(self, connection: Connection) -> None:
        origin = self._open.pop(connection, None)
        if origin is not None:
            self._idle.get(origin, {}).pop(connection, None)

    def _close_old(self) -> None:
        self._sweep = None
        before = self._loop.time() - KEPT_SECONDS
        for origin, idle in list(self._idle.items()):
            for connection in [connection for connection, since in idle.items() if since <= before]:
                del idle[connection]
                connection.abort()
            if not idle:
                del self._idle[origin]
        if self._idle:
            self._sweep = self._loop.call_later(KEPT_SECONDS, self._close_old)


class PooledReply:
    """A `Reply` on a pooled connection, which is free again once the answer is whole, read or not."""

    __slots__ = ("_exchange", "headers", "on_close", "status")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.on_close: Callable[[], None] | None = None
        self.status = exchange.status
        self.headers = returned_headers(exchange.headers)
        if self.status in (204, 304):  # the server would hold us to it
            self.headers = [pair for pair in self.headers if pair[0] != b"content-length"]

    @property
    def is_over(self) -> bool:
        """Whether the body has been read to its end."""
        return self._exchange.is_over

    async def read(self) -> bytes:
        """The body as it comes, what is here already joined; empty at its end. Raises UnableToFinish."""
        try:
            return await self._exchange.read()
        except OSError as error:
            raise UnableToFinish from error

    def close(self) -> None:
        """Hang up if the body is not finished; harmless otherwise."""
        self._exchange.close()
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            on_close()


def _send(connection: Connection, head: bytes, body: Body, *, headers: Headers, has_body: bool) -> Exchange:
    if body is None or isinstance(body, bytes):
        return connection.send(head, body or b"", has_body=has_body)
    return connection.send_parts(head, body, chunked=not _is_measured(headers), has_body=has_body)


def _make_head(method: str, authority: bytes, target: bytes, headers: Headers, body: Body) -> bytes:
    """Request line and headers. Raises UnableToReach on what would begin a line of its own."""
    lines = [b"%b %b HTTP/1.1\r\n" % (method.encode(), target), b"host: %b\r\n" % authority]
    lines += [b"%b: %b\r\n" % pair for pair in headers]
    if isinstance(body, bytes):
        lines.append(b"content-length: %d\r\n" % len(body))
    elif not _is_measured(headers) and (body is not None or method not in WITHOUT_BODY):
        lines.append(b"content-length: 0\r\n" if body is None else b"transfer-encoding: chunked\r\n")
    try:
        return join_head(lines)
    except ValueError as error:
        raise UnableToReach from error


def _is_measured(headers: Headers) -> bool:
    return any(name == b"content-length" for name, _ in headers)


def _encode(target: str) -> bytes:
    """Raises UnableToReach on a target that is no request line's."""
    try:
        return target.encode("latin-1")
    except UnicodeEncodeError as error:
        raise UnableToReach from error


@lru_cache(maxsize=1024)
def _parse_base(base_url: str) -> tuple[Origin, bytes, bytes]:
    """Origin, host header, and what comes before each target. Raises UnableToReach where there is no host to ask."""
    try:
        found = urlsplit(base_url)
        host, port = (found.hostname or "").encode("idna").decode(), found.port
    except ValueError as error:  # a port that is none, a name that no server may be asked
        raise UnableToReach from error
    if not host or found.scheme not in ("http", "https"):
        raise UnableToReach
    named = f"[{host}]" if ":" in host else host
    header = named if port is None else f"{named}:{port}"
    secure = found.scheme == "https"
    return Origin(host, port or (443 if secure else 80), secure), header.encode(), _encode(found.path.rstrip("/"))
