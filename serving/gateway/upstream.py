"""The way to the teacher: the caller's bytes out, the provider's bytes back, and another credential.

`Upstream` is the whole interface; `serving.gateway.pool` is the client behind it.

    UnableToReach
    └── UnableToReachInTime
    UnableToFinish          after the status line: the provider broke off
"""

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final, Protocol

from ingestion.core.calls import Provider
from serving.gateway.wire import Headers

Body = bytes | AsyncIterator[bytes] | None  # a request's, whole or as it comes

HOP_BY_HOP: Final = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer "
    b"transfer-encoding upgrade expect".split()
)
# Ours, or bound to the connection the caller made to us; the credential is replaced. The last would make of a look at
# something, which leaves no record, a call that should.
NEVER_SENT: Final = HOP_BY_HOP | {
    *(b"host", b"content-length", b"authorization", b"x-api-key", b"api-key", b"accept-encoding", b"cookie"),
    *(b"x-http-method-override", b"x-http-method", b"x-method-override"),
}
ACCOUNT: Final = frozenset({b"openai-organization", b"openai-project"})
# The last are orders to a proxy before us, to give out files of its own or to keep an answer for others.
NEVER_RETURNED: Final = HOP_BY_HOP | {b"set-cookie", b"x-accel-redirect", b"x-accel-expires", b"x-sendfile"}
OURS: Final = b"x-understudy-"
_CREDENTIAL_HEADERS: dict[str, tuple[bytes, bytes]] = {
    Provider.OPENAI: (b"authorization", b"Bearer "),
    Provider.ANTHROPIC: (b"x-api-key", b""),
    Provider.AZURE: (b"api-key", b""),
}
VIA: Final = b"1.1 understudy"  # RFC 9110, section 7.6.3: a call that comes back to us has gone in a circle


class UnableToReach(Exception):
    """The teacher gave no status line.

    `untouched`: it cannot have worked on the call, and another try may go better at once: it was refused a connection,
    or one from an earlier call turned out closed. `down`: that speaks against the teacher, not against this call.
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
    """A teacher's answer whose body has not been read yet. `headers` are fit to be passed on.

    `on_close`, if it is set, is called once, as the reply is closed.
    """

    status: int
    headers: Headers
    on_close: Callable[[], None] | None

    @property
    def is_over(self) -> bool:
        """Whether the body has been read to its end: another read would only say so."""
        ...

    async def read(self) -> bytes:
        """The body as it comes, what is here already joined; empty at its end. Raises UnableToFinish."""
        ...

    def close(self) -> None:
        """Hang up if the body is not finished; harmless otherwise."""
        ...


class Upstream(Protocol):
    """A client to teachers."""

    async def ask(self, method: str, base_url: str, target: str, *, headers: Headers, body: Body) -> Reply:
        """Send one call; returns when status and headers are there. Raises UnableToReach.

        `target` is what follows `base_url`: the path and the query. A body that is on its way still has the length that
        `headers` give it, or is sent in chunks.
        """
        ...

    async def close(self) -> None:
        """Give up all connections."""
        ...


def sent_headers(given: Headers, *, provider: str, credential: str, usual: bool = True) -> Headers:
    """The caller's headers as the teacher gets them: no hop-by-hop ones, none of ours, the tenant's own credential.

    `given` has lower-case names (as ASGI does). The body is asked for unencoded, so that capture can read it. Under
    another credential than the `usual` one, the caller's account is nobody's business, and would be refused.
    """
    dropped = _dropped(NEVER_SENT if usual else NEVER_SENT | ACCOUNT, given)
    kept = [pair for pair in given if pair[0] not in dropped and not pair[0].startswith(OURS)]
    kept += [(b"accept-encoding", b"identity"), (b"via", VIA)]
    name, scheme = _CREDENTIAL_HEADERS[provider]
    kept.append((name, scheme + credential.encode()))
    return kept


def returned_headers(given: Headers) -> Headers:
    """The teacher's headers as the caller gets them: no hop-by-hop ones, no cookies, and none that only we may set.

    `given` has lower-case names.
    """
    dropped = _dropped(NEVER_RETURNED, given)
    return [pair for pair in given if pair[0] not in dropped and not pair[0].startswith(OURS)]


def _dropped(always: frozenset[bytes], headers: Headers) -> Iterable[bytes]:
    """Also the names that the Connection header declares hop-by-hop (RFC 9110, section 7.6.1)."""
    named = [value for name, value in headers if name == b"connection"]
    if not named or named == [b"keep-alive"] or named == [b"close"]:
        return always
    return always | {part.strip().lower() for value in named for part in value.split(b",")}
