"""Answers a call once: a second one under the same `Idempotency-Key` gets the first one's answer, for a day.

Data flow: key and body are read → the key is claimed, or found → a new call is answered as ever while what is sent
is copied → a whole answer is sealed and kept, and anything else leaves the key free → a known one's answer is sent
again, asked of nobody and charged to nobody. Whose content is not logged has none kept either: there the key does
nothing. Where nobody keeps answers for now, calls are answered as if they had no key.
"""

import logging
from hashlib import sha256
from secrets import token_hex

import msgspec

from ingestion.core.calls import Dialect
from ingestion.core.sse import StreamReader
from serving.gateway.answer import Gateway, answer_call, snapshot_in_force
from serving.gateway.authenticate import Caller, authenticate
from serving.gateway.refusals import Refused, too_large
from serving.gateway.wire import Headers, Message, Request, Send, TooLarge, read_body, send_whole
from serving.replays import Earlier, KeptAnswers, UnableToKeep
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
    """What is sent to a caller, copied as far as it is to be kept."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._status = 0
        self._headers: Headers = []
        self._parts: list[bytes] = []
        self._size = 0
        self._complete = False

    async def send(self, message: Message) -> None:
        """As ASGI has it."""
        await self._send(message)
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], message["headers"]
            return
        self._size += len(message["body"])
        self._complete = not message["more_body"]
        if self._size <= MOST_KEPT:
            self._parts.append(message["body"])

    def is_whole(self, dialect: Dialect) -> bool:
        """Whether it went out to its end, and was no error. Callers may hang up once a stream's last event is there."""
        if self._status != 200 or self._complete or self._size > MOST_KEPT:
            return self._status == 200 and self._complete
        reader = StreamReader(dialect)
        reader.feed(b"".join(self._parts))
        return reader.finished

    def kept(self) -> Kept | None:
        """What may be sent again; None where it is too much."""
        if self._size > MOST_KEPT:
            return None
        headers = [pair for pair in self._headers if pair[0] != b"content-length"]
        return Kept(self._status, headers, b"".join(self._parts))


async def answer_once(request: Request, gateway: Gateway, answers: KeptAnswers) -> None:
    """Answer as `answer_call` does, or again what was answered. Raises Refused, Gone."""
    caller = authenticate(request.fields, request.dialect, snapshot_in_force(gateway))
    if caller.wants_no_log or not caller.tenant.log_content:
        await answer_call(request, gateway)
        return
    key = _read_key(request)
    body = await _read(request, limit=gateway.max_body_bytes)
    request = msgspec.structs.replace(request, receive=_Again(body).receive)
    tenant_id, token = caller.key.tenant_id, token_hex(16)
    digest = sha256(request.target.encode("latin-1") + b"\0" + body).digest()
    try:
        earlier = await answers.claim(tenant_id, key, digest=digest, token=token)
    except UnableToKeep as error:
        gateway.metrics.unkept += 1
        logger.warning("answers are not kept: %s", error)
        await answer_call(request, gateway)
        return
    if earlier is None:
        await _answer_and_keep(request, gateway, answers, caller, key=key, token=token)
    else:
        kept = _find(earlier, caller, key, digest=digest)
        gateway.metrics.replayed += 1
        await send_whole(request.send, status=kept.status, headers=[*kept.headers, REPLAYED], body=kept.body)


async def _answer_and_keep(
    request: Request, gateway: Gateway, answers: KeptAnswers, caller: Caller, *, key: str, token: str
) -> None:
    copy = Copy(request.send)
    tenant_id = caller.key.tenant_id
    try:
        await answer_call(msgspec.structs.replace(request, send=copy.send), gateway)
    finally:
        try:
            if copy.is_whole(request.dialect):
                await answers.keep(tenant_id, key, token=token, answer=_sealed(copy.kept(), caller, key))
            else:
                await answers.release(tenant_id, key, token=token)
        except UnableToKeep as error:  # the claim ends by itself
            gateway.metrics.unkept += 1
            logger.warning("an answer is not kept: %s", error)


def _find(earlier: Earlier, caller: Caller, key: str, *, digest: bytes) -> Kept:
    """The earlier answer. Raises Refused where there is none to send."""
    if earlier.digest != digest:
        raise Refused(422, "invalid_request_error", "This Idempotency-Key came with another request.")
    if earlier.is_under_way:
        message = "A call with this Idempotency-Key is being answered."
        raise Refused(409, "invalid_request_error", message, retry_after=1)
    try:
        if earlier.answer is not None:
            opened = open_sealed(caller.tenant.data_key, earlier.answer, context=_context(caller, key))
            return msgspec.msgpack.decode(opened, type=Kept)
    except (UnableToOpen, msgspec.MsgspecError):
        logger.error("a kept answer cannot be read")
    message = "The call with this Idempotency-Key was answered, and the answer was not kept. Ask under another key."
    refused = Refused(409, "invalid_request_error", message)
    refused.extra = [(b"x-should-retry", b"false")]
    raise refused


def _sealed(kept: Kept | None, caller: Caller, key: str) -> bytes:
    if kept is None:
        return b""
    return seal(caller.tenant.data_key, msgspec.msgpack.encode(kept), context=_context(caller, key))


def _context(caller: Caller, key: str) -> str:
    return f"{caller.key.tenant_id}/once/answer/{key}/1"


def _read_key(request: Request) -> str:
    """A digest of the key, which may be anything. Raises Refused."""
    sent = request.fields[HEADER]
    if not 1 <= len(sent) <= LONGEST_KEY:
        message = f"Idempotency-Key has from 1 to {LONGEST_KEY} characters."
        raise Refused(400, "invalid_request_error", message)
    return sha256(sent).hexdigest()


async def _read(request: Request, *, limit: int) -> bytes:
    try:
        return await read_body(request.receive, announced=request.fields.get(b"content-length", b""), limit=limit)
    except TooLarge as error:
        raise too_large(limit) from error


class _Again:
    """A body that was read, to be received once more."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def receive(self) -> Message:
        return {"type": "http.request", "body": self._body, "more_body": False}
