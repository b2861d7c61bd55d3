"""Answers a call once: a second one under the same `Idempotency-Key` gets the first one's answer, for a day.

Data flow: key and body are read → the key is claimed, or found → a new call is answered as ever while what is sent is
copied → a whole answer is sealed and kept before its last bytes leave, and anything else leaves the key free → a known
one's answer is sent again, asked of nobody and charged to nobody. Whose content is not logged has none kept either:
there the key does nothing. Where nobody keeps answers for now, calls are answered as if they had no key.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from hashlib import sha256
from secrets import token_hex
from typing import Any

import msgspec

from ingestion.core.calls import Dialect
from ingestion.core.dialects import UnableToParse, parse_answer
from ingestion.core.sse import StreamReader
from serving.gateway.answer import Gateway, answer_call, read_call
from serving.gateway.authenticate import Caller
from serving.gateway.memory import Hold
from serving.gateway.messages import send_whole
from serving.gateway.metrics import Metrics
from serving.gateway.refusals import Refused
from serving.gateway.wire import Headers, Message, Request, Send
from serving.kept_answers import CLAIM_SECONDS, Claim, Earlier, KeptAnswers, UnableToKeep
from tenants.core.sealing import UnableToOpen, open_sealed, seal

HEADER = b"idempotency-key"
LONGEST_KEY = 255
MOST_KEPT = 262_144  # bytes of an answer
REPLAYED = (b"x-understudy-replayed", b"true")

logger = logging.getLogger(__name__)


class Kept(msgspec.Struct, frozen=True):
    """An answer as it was sent."""

    status: int
    headers: Headers
    body: bytes


class Copy:
    """What is sent to a caller, copied as far as it may be kept. `keep` is awaited once, with None for too much, before
    the part leaves that makes it a whole answer; it goes on where its caller leaves meanwhile, and tells if it worked.
    """

    def __init__(
        self, send: Send, dialect: Dialect, *, keep: Callable[[Kept | None], Coroutine[Any, Any, bool]]
    ) -> None:
        self._keeping: asyncio.Task[bool] | None = None
        self._send = send
        self._dialect = dialect
        self._keep = keep
        self._status = 0
        self._headers: Headers = []
        self._reader: StreamReader | None = None
        self._parts: list[bytes] = []
        self._size = 0

    async def send(self, message: Message) -> None:
        """As ASGI has it."""
        if message["type"] == "http.response.start":
            self._begin(message["status"], message["headers"])
        elif self._keeping is None:
            self._take(message["body"])
            if self._is_whole(last=not message["more_body"]):
                self._keeping = asyncio.get_running_loop().create_task(self._keep(self._kept()))
                await asyncio.wait([self._keeping])
        await self._send(message)

    async def is_kept(self) -> bool:
        """Whether it was a whole answer, and is kept."""
        return self._keeping is not None and await self._keeping

    def _begin(self, status: int, headers: Headers) -> None:
        self._status = status
        self._headers = [pair for pair in headers if pair[0] != b"content-length"]
        if dict(headers).get(b"content-type", b"").startswith(b"text/event-stream"):
            self._reader = StreamReader(self._dialect)

    def _take(self, part: bytes) -> None:
        self._size += len(part)
        if self._reader is not None:
            self._reader.feed(part)
        if self._size <= MOST_KEPT:
            self._parts.append(part)
        elif self._parts:
            self._parts.clear()
            if self._reader is not None:
                self._reader.forget()

    def _is_whole(self, *, last: bool) -> bool:
        """Whether it is an answer, and all of one: callers may hang up once a stream's last event is there."""
        if self._status != 200:
            return False
        if self._reader is not None:
            return self._reader.finished and not self._reader.broken
        return last and (self._size > MOST_KEPT or _is_answer(self._dialect, b"".join(self._parts)))

    def _kept(self) -> Kept | None:
        return Kept(self._status, self._headers, b"".join(self._parts)) if self._size <= MOST_KEPT else None


def _is_answer(dialect: Dialect, body: bytes) -> bool:
    try:
        parse_answer(dialect, body)
    except UnableToParse:
        return False
    return True


async def answer_once(request: Request, gateway: Gateway, answers: KeptAnswers) -> None:
    """Answer as `answer_call` does, or again what was answered. Raises Refused, Gone."""
    key = _read_key(request)
    earlier = None
    with Hold(gateway.memory) as hold:
        caller, body = await read_call(request, gateway, hold)
        is_kept = caller.tenant.log_content and not caller.wants_no_log
        claim = Claim(caller.key.tenant_id, key, token_hex(16))
        digest = sha256(request.target.encode("latin-1") + b"\0" + body).digest()
        if is_kept:
            with _noted(gateway.metrics):
                earlier = await answers.claim(claim, digest=digest)
    request = msgspec.structs.replace(request, receive=_Again(body).receive)
    if not is_kept:
        await answer_call(request, gateway)
    elif earlier is None:  # also where nobody answered: it may be taken all the same
        await _answer_and_keep(request, gateway, answers, caller, claim)
    else:
        kept = _find(earlier, caller, claim, digest=digest)
        gateway.metrics.replayed += 1
        await send_whole(request.send, status=kept.status, headers=[*kept.headers, REPLAYED], body=kept.body)


async def _answer_and_keep(
    request: Request, gateway: Gateway, answers: KeptAnswers, caller: Caller, claim: Claim
) -> None:
    async def keep(kept: Kept | None) -> bool:
        worked = False
        with _noted(gateway.metrics):
            await answers.keep(claim, _sealed(kept, caller, claim))
            worked = True
        return worked

    copy = Copy(request.send, request.dialect, keep=keep)
    try:
        async with _renewed(answers, claim):
            await answer_call(msgspec.structs.replace(request, send=copy.send), gateway)
    finally:
        await asyncio.shield(_settle(copy, answers, claim, gateway.metrics))


async def _settle(copy: Copy, answers: KeptAnswers, claim: Claim, metrics: Metrics) -> None:
    """Leave the key free where nothing is kept under it."""
    if not await copy.is_kept():
        with _noted(metrics):
            await answers.release(claim)


@asynccontextmanager
async def _renewed(answers: KeptAnswers, claim: Claim) -> AsyncIterator[None]:
    """Hold the key however long the answer takes."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(CLAIM_SECONDS / 4)
            with suppress(UnableToKeep):
                await answers.renew(claim)

    renewing = asyncio.get_running_loop().create_task(renew())
    try:
        yield
    finally:
        renewing.cancel()


@contextmanager
def _noted(metrics: Metrics) -> Iterator[None]:
    """What cannot be kept is answered all the same, and counted."""
    try:
        yield
    except UnableToKeep:
        metrics.unkept += 1


def _find(earlier: Earlier, caller: Caller, claim: Claim, *, digest: bytes) -> Kept:
    """The earlier answer. Raises Refused where there is none to send."""
    if earlier.digest != digest:
        raise Refused(422, "invalid_request_error", "This Idempotency-Key came with another request.")
    if earlier.is_under_way:
        message = "A call with this Idempotency-Key is being answered."
        raise Refused(409, "invalid_request_error", message, retry_after=1)
    try:
        if earlier.answer is not None:
            opened = open_sealed(caller.tenant.data_key, earlier.answer, context=_context(claim))
            return msgspec.msgpack.decode(opened, type=Kept)
    except (UnableToOpen, msgspec.MsgspecError):
        logger.error("a kept answer cannot be read")
    message = "The call with this Idempotency-Key was answered, and the answer was not kept. Ask under another key."
    refused = Refused(409, "invalid_request_error", message)
    refused.extra = [(b"x-should-retry", b"false")]
    raise refused


def _sealed(kept: Kept | None, caller: Caller, claim: Claim) -> bytes:
    if kept is None:
        return b""
    return seal(caller.tenant.data_key, msgspec.msgpack.encode(kept), context=_context(claim))


def _context(claim: Claim) -> str:
    return f"{claim.tenant_id}/once/answer/{claim.key}/1"


def _read_key(request: Request) -> str:
    """A digest of the key, which may be anything. Raises Refused."""
    sent = request.fields[HEADER]
    if not 1 <= len(sent) <= LONGEST_KEY:
        message = f"Idempotency-Key has from 1 to {LONGEST_KEY} characters."
        raise Refused(400, "invalid_request_error", message)
    return sha256(sent).hexdigest()


class _Again:
    """A body that was read, to be received once more."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def receive(self) -> Message:
        return {"type": "http.request", "body": self._body, "more_body": False}
