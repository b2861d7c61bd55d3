"""Connections to providers, kept for the next call: the client behind `Upstream`.

Nothing is added to a call but what HTTP needs, no redirect is followed, no cookie kept, no body encoded or decoded.
A name is resolved once a minute; every address is checked as its socket is made.
"""

import asyncio
import socket
import ssl
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from aiohappyeyeballs import start_connection

from serving.gateway.connection import Connection, Exchange, Silent
from serving.gateway.metrics import Metrics
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

CONNECT_SECONDS = 10.0  # to resolve a name, connect, and agree on TLS
STALE_SECONDS = 1.0  # a kept connection that breaks later broke under this call
KEPT_SECONDS = 15.0  # for a connection that nobody uses
RESOLVED_SECONDS = 60.0
MOST_RESOLVED = 4096  # names
EYEBALLS_SECONDS = 0.25  # RFC 8305: before the next address is tried beside the first
WITHOUT_BODY = frozenset({"GET", "HEAD"})


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
        self._resolved: dict[Origin, tuple[float, list[Any]]] = {}
        self._sweep: asyncio.TimerHandle | None = None

    async def ask(self, method: str, url: str, *, headers: Headers, body: Body) -> Reply:
        """Send one call; returns when status and headers are there. Raises UnableToReach."""
        origin, authority, target = _parse_url(url)
        head = _make_head(method, authority, target, headers, body)
        connection = self._take_idle(origin) or await self._connect(origin)
        sent_at = self._loop.time()
        exchange = None
        try:
            exchange = _send(connection, head, body, headers=headers, has_body=method != "HEAD")
            await exchange.head()
        except Silent as error:
            raise UnableToReachInTime(down=True) from error
        except OSError as error:
            stale = connection.used and self._loop.time() - sent_at < STALE_SECONDS
            raise UnableToReach(untouched=stale and exchange is not None and not exchange.begun) from error
        finally:
            if exchange is None or not exchange.status:
                connection.abort()
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
        except TimeoutError as error:
            raise UnableToReach(down=True) from error
        except UnicodeError as error:  # a name that no server may be asked
            raise UnableToReach from error
        except OSError as error:  # TLS's too
            self._resolved.pop(origin, None)
            raise UnableToReach(untouched=True, down=True) from error
        self._metrics.connections_made += 1
        if connection.is_open:
            self._open[connection] = origin
        return connection

    async def _open_connection(self, origin: Origin) -> Connection:
        made = await start_connection(
            await self._resolve(origin),
            happy_eyeballs_delay=EYEBALLS_SECONDS,
            interleave=1,
            loop=self._loop,
            socket_factory=self._guard.open_socket,
        )
        connection = None
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            _, connection = await self._loop.create_connection(
                lambda: Connection(timeout=self._timeout, freed=self._keep, lost=self._forget),
                sock=made,
                ssl=self._tls if origin.is_secure else None,
                server_hostname=origin.host if origin.is_secure else None,
            )
        finally:
            if connection is None:
                made.close()
        return connection

    async def _resolve(self, origin: Origin) -> list[Any]:
        now = self._loop.time()
        at, found = self._resolved.get(origin, (0.0, []))
        if not found or now - at > RESOLVED_SECONDS:
            found = await self._loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
            if len(self._resolved) >= MOST_RESOLVED:
                self._resolved.clear()
            self._resolved[origin] = (now, found)
        return found

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

    __slots__ = ("_exchange", "headers", "status")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.status = exchange.status
        self.headers = returned_headers(exchange.headers)

    async def read(self) -> bytes:
        """The body as it comes, what is here already joined; empty at its end. Raises UnableToFinish."""
        try:
            return await self._exchange.read()
        except OSError as error:
            raise UnableToFinish from error

    def close(self) -> None:
        """Hang up if the body is not finished; harmless otherwise."""
        self._exchange.close()


def _send(connection: Connection, head: bytes, body: Body, *, headers: Headers, has_body: bool) -> Exchange:
    if body is None or isinstance(body, bytes):
        return connection.send(head, body or b"", has_body=has_body)
    return connection.send_parts(head, body, chunked=not _is_measured(headers))


def _make_head(method: str, authority: bytes, target: bytes, headers: Headers, body: Body) -> bytes:
    """Request line and headers. Raises UnableToReach on what would begin a line of its own."""
    lines = [b"%b %b HTTP/1.1\r\nhost: %b" % (method.encode(), target, authority)]
    lines += [b"%b: %b" % pair for pair in headers]
    if isinstance(body, bytes):
        lines.append(b"content-length: %d" % len(body))
    elif body is not None and not _is_measured(headers):
        lines.append(b"transfer-encoding: chunked")
    elif body is None and method not in WITHOUT_BODY:
        lines.append(b"content-length: 0")
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or b"\x00" in head:
        raise UnableToReach
    return head + b"\r\n\r\n"


def _is_measured(headers: Headers) -> bool:
    return any(name == b"content-length" for name, _ in headers)


@lru_cache(maxsize=1024)
def _parse_url(url: str) -> tuple[Origin, bytes, bytes]:
    """Origin, host header, and target. Raises UnableToReach where there is no host to ask."""
    scheme, _, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    try:
        found = urlsplit(f"{scheme}://{authority}")
        host, port = (found.hostname or "").encode("idna").decode(), found.port
        target = b"/" + path.encode("latin-1")
    except ValueError as error:  # a port that is none, a name that no server may be asked
        raise UnableToReach from error
    if not host or scheme not in ("http", "https"):
        raise UnableToReach
    named = f"[{host}]" if ":" in host else host
    header = named if port is None else f"{named}:{port}"
    secure = scheme == "https"
    return Origin(host, port or (443 if secure else 80), secure), header.encode(), target
