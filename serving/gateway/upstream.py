"""The way to the teacher: the caller's bytes out, the provider's bytes back, and another credential.

`Upstream` is the whole interface, so that a leaner client can stand in for aiohttp where it measures better.

    UnableToReach
    └── UnableToReachInTime
    UnableToFinish          after the status line: the provider broke off
"""

import time
from collections.abc import AsyncIterator, Iterable
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Protocol
from weakref import WeakSet

import aiohttp
from yarl import URL

from ingestion.core.calls import Dialect
from serving.gateway.metrics import Metrics
from serving.gateway.wire import Headers
from tenants.addresses import AddressGuard

Body = bytes | AsyncIterator[bytes] | None  # a request's, whole or as it comes

CONNECT_SECONDS = 10.0
STALE_SECONDS = 1.0  # a kept connection that breaks later broke under this call
LONGEST_HEADER = 65_536  # bytes of a status line or a header: a teacher may echo what it was asked
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer "
    b"transfer-encoding upgrade expect".split()
)
# Ours, or bound to the connection the caller made to us; the credential is replaced. The last would make of a look at
# something, which leaves no record, a call that should.
NEVER_SENT = HOP_BY_HOP | {
    *(b"host", b"content-length", b"authorization", b"x-api-key", b"api-key", b"accept-encoding", b"cookie"),
    *(b"x-http-method-override", b"x-http-method", b"x-method-override"),
}
NEVER_RETURNED = HOP_BY_HOP | {b"set-cookie"}
OURS = b"x-understudy-"
VIA = "1.1 understudy"  # RFC 9110, section 7.6.3: a call that comes back to us has gone in a circle
# aiohttp adds these on its own where the caller sent none; the teacher should see what the caller sent.
ADDED_BY_AIOHTTP = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class UnableToReach(Exception):
    """The teacher gave no status line.

    `untouched`: it cannot have worked on the call, so that one may be sent again: no connection was made, or one from
    an earlier call turned out closed at once. `down`: that speaks against the teacher, not against this call.
    """

    def __init__(self, *, untouched: bool = False, down: bool = False) -> None:
        super().__init__()
        self.untouched = untouched
        self.down = down


class UnableToReachInTime(UnableToReach):
    """No status line from the teacher in time."""


class UnableToFinish(Exception):
    """The teacher broke off in the middle of its answer, or fell silent for too long."""


class Reply(Protocol):
    """A teacher's answer whose body has not been read yet. `headers` are fit to be passed on."""

    status: int
    headers: Headers

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, what one read delivered joined. Raises UnableToFinish."""
        ...

    def close(self) -> None:
        """Hang up if the body is not finished; harmless otherwise."""
        ...


class Upstream(Protocol):
    """A client to teachers."""

    async def ask(self, method: str, url: str, *, headers: Iterable[tuple[str, str]], body: Body) -> Reply:
        """Send one call; returns when status and headers are there. Raises UnableToReach."""
        ...

    async def close(self) -> None:
        """Give up all connections."""
        ...


class AiohttpUpstream:
    """aiohttp with everything off that would change bytes, follow a redirect, or remember a cookie."""

    def __init__(self, *, timeout: float, allow_private: bool, metrics: Metrics) -> None:
        """`timeout` is seconds of silence, to the first byte and between two reads. Needs a running loop."""
        guard = AddressGuard(allow_private=allow_private)
        self._session = aiohttp.ClientSession(
            connector=Connector(metrics=metrics, guard=guard),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=timeout),
            skip_auto_headers=ADDED_BY_AIOHTTP,
            max_line_size=LONGEST_HEADER,
            max_field_size=LONGEST_HEADER,
        )

    async def ask(self, method: str, url: str, *, headers: Iterable[tuple[str, str]], body: Body) -> Reply:
        """Send one call; returns when status and headers are there. Raises UnableToReach."""
        _reused_at.set(None)
        try:
            response = await self._session.request(
                method, _parse_url(url), headers=headers, data=body, allow_redirects=False
            )
        except aiohttp.ConnectionTimeoutError as error:
            raise UnableToReach(down=True) from error
        except TimeoutError as error:
            raise UnableToReachInTime(down=True) from error
        except aiohttp.ClientConnectorError as error:
            raise UnableToReach(untouched=True, down=True) from error
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            raise UnableToReach(untouched=_was_stale()) from error
        except (aiohttp.ClientError, OSError, UnicodeError) as error:  # the last: a name that no server may be asked
            raise UnableToReach from error
        return AiohttpReply(response)

    async def close(self) -> None:
        """Give up all connections."""
        await self._session.close()


_reused_at: ContextVar[float | None] = ContextVar("reused_at", default=None)  # a reading of the clock, in each call


def _was_stale() -> bool:
    """Whether the call's connection was kept from an earlier one and broke so soon that it was closed before."""
    reused_at = _reused_at.get()
    return reused_at is not None and time.monotonic() - reused_at < STALE_SECONDS


class Connector(aiohttp.TCPConnector):
    """Knows which connections served a call before. (aiohttp's own tracing tells too, at a tenth of a call's cost.)"""

    def __init__(self, *, metrics: Metrics, guard: AddressGuard) -> None:
        super().__init__(limit=0, ttl_dns_cache=60, socket_factory=guard.open_socket)
        self._metrics = metrics
        self._used: WeakSet[object] = WeakSet()

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        """A connection for one call, in the call's own task."""
        connection = await super().connect(req, traces, timeout)
        if connection.protocol in self._used:
            self._metrics.connections_reused += 1
            _reused_at.set(time.monotonic())
        else:
            self._metrics.connections_made += 1
            self._used.add(connection.protocol)
        return connection


class AiohttpReply:
    """A `Reply` by aiohttp."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers = returned_headers(response.raw_headers)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, what one read delivered joined. Raises UnableToFinish."""
        read = self._response.content.readany
        try:
            while chunk := await read():
                yield chunk
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UnableToFinish from error

    def close(self) -> None:
        """Hang up if the body is not finished; harmless otherwise."""
        self._response.close()


@lru_cache(maxsize=1024)
def _parse_url(url: str) -> URL:
    return URL(url, encoded=True)


def sent_headers(given: Iterable[tuple[bytes, bytes]], *, dialect: Dialect, credential: str) -> list[tuple[str, str]]:
    """The caller's headers as the teacher gets them: no hop-by-hop ones, none of ours, the tenant's own credential.

    `given` has lower-case names (as ASGI does). The body is asked for unencoded, so that capture can read it.
    """
    given = list(given)
    dropped = NEVER_SENT | _named_by_connection(given)
    kept = [
        (name.decode("latin-1"), value.decode("utf-8", "replace"))
        for name, value in given
        if name not in dropped and not name.startswith(OURS)
    ]
    kept += [("accept-encoding", "identity"), ("via", VIA)]
    if dialect is Dialect.ANTHROPIC:
        kept.append(("x-api-key", credential))
    else:
        kept.append(("authorization", f"Bearer {credential}"))
    return kept


def returned_headers(given: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The teacher's headers as the caller gets them: no hop-by-hop ones, no cookies, and none that only we may set."""
    lowered = [(name.lower(), value) for name, value in given]
    dropped = NEVER_RETURNED | _named_by_connection(lowered)
    return [(name, value) for name, value in lowered if name not in dropped and not name.startswith(OURS)]


def _named_by_connection(headers: Iterable[tuple[bytes, bytes]]) -> set[bytes]:
    """Header names that the Connection header declares hop-by-hop (RFC 9110, section 7.6.1)."""
    return {part.strip().lower() for name, value in headers if name == b"connection" for part in value.split(b",")}
