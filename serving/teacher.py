"""Asks the teacher a second time, for an audit: the caller's own bytes, the tenant's own credential, no redirects."""

from dataclasses import dataclass, field

import aiohttp

from ingestion.core.calls import Answer, Ask, Dialect, Provider
from ingestion.core.dialects import parse_answer
from ingestion.core.edits import set_model
from ingestion.core.reading import UnableToParse
from ingestion.core.sse import StreamReader

SECONDS = 30.0  # an audit's answers are short, and a worker waits
LONGEST = 8_000_000  # bytes of an answer
PATHS = {
    Dialect.OPENAI: "/v1/chat/completions",
    Dialect.RESPONSES: "/v1/responses",
    Dialect.ANTHROPIC: "/v1/messages",
}


class UnableToAsk(Exception):
    """The teacher gave no answer; `reason` is a word: teacher_down, teacher_429, malformed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Teacher:
    """Where a provider's questions go, and with what credential."""

    provider: str
    base_url: str
    credential: str = field(repr=False)


async def ask_teacher(teacher: Teacher, ask: Ask, *, http: aiohttp.ClientSession) -> Answer:
    """The teacher's whole answer to the ask. Raises UnableToAsk."""
    azure = teacher.provider == Provider.AZURE  # its body may leave the model to the path, which is another one here
    url = teacher.base_url.rstrip("/") + ("/openai" if azure else "") + PATHS[ask.dialect]
    sent = _with_model(ask) if azure else ask.raw
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    try:
        async with http.post(
            url, data=sent, headers=_headers(teacher), timeout=timeout, allow_redirects=False
        ) as response:
            body = await _whole(response)
            status = response.status
    except (aiohttp.ClientError, OSError, TimeoutError, UnicodeError) as error:
        raise UnableToAsk("teacher_down") from error
    if status != 200:
        raise UnableToAsk(f"teacher_{status}")
    return _read(ask, body)


def _with_model(ask: Ask) -> bytes:
    try:
        return set_model(ask.raw, ask.model)
    except UnableToParse as error:
        raise UnableToAsk("malformed") from error


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    """The body to its end; one read gives only what has arrived."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > LONGEST:
            raise UnableToAsk("too_long")
        parts.append(part)
    return b"".join(parts)


def _read(ask: Ask, body: bytes) -> Answer:
    try:
        if not ask.stream:
            return parse_answer(ask.dialect, body)
        reader = StreamReader(ask.dialect)
        reader.feed(body)
        if reader.broken or not reader.finished:
            raise UnableToAsk("broken_stream")
        return reader.answer()
    except UnableToParse as error:
        raise UnableToAsk("malformed") from error


def _headers(teacher: Teacher) -> dict[str, str]:
    headers = {"content-type": "application/json"}
    if teacher.provider == Provider.ANTHROPIC:
        return {**headers, "x-api-key": teacher.credential, "anthropic-version": "2023-06-01"}
    if teacher.provider == Provider.AZURE:
        return {**headers, "api-key": teacher.credential}
    return {**headers, "authorization": f"Bearer {teacher.credential}"}
