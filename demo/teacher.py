"""Stands in for the two providers while the demo runs, so that it needs no account and costs nothing.

    python -m demo.teacher --port 9100 --credential demo-teacher-key

Serves POST /v1/chat/completions (OpenAI's format), POST /v1/messages (Anthropic's), GET /v1/models, and GET /readyz
with the count of answered calls. Waits before it answers, as a provider would; everything else is in `expert`.
"""

import argparse
import asyncio
import hmac
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from random import Random
from typing import Any

import uvicorn

from demo.expert import UnableToAnswer, answer
from demo.wire import write_error, write_events, write_models, write_reply
from demo.workloads import DIALECTS

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

DEFAULT_CREDENTIAL = "demo-teacher-key"
MAX_BODY_BYTES = 4 * 1024 * 1024
_DIALECTS = {"/v1/chat/completions": "openai", "/v1/messages": "anthropic"}
_JITTER = 0.25  # latency varies by this share either way
_FIRST_BYTE_SHARE = 0.6  # of a stream's latency, the part before its first event


@dataclass(frozen=True, slots=True)
class Manner:
    """How the teacher behaves: the credential it takes and its mean latency in milliseconds."""

    credential: str = DEFAULT_CREDENTIAL
    latency_ms: float = 40.0
    dialects: tuple[str, ...] = DIALECTS  # a provider that speaks only one refuses the other's credential


class Teacher:
    """The ASGI application."""

    def __init__(self, manner: Manner, *, rng: Random, clock: Callable[[], float]) -> None:
        self._manner, self._rng, self._clock = manner, rng, clock
        self._numbers = itertools.count(1)
        self._answered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Routes one request by exact path; other scopes are left alone."""
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        path = scope["path"]
        if path == "/readyz":
            await _send_body(send, 200, json.dumps({"calls": self._answered}).encode())
            return
        dialect = _DIALECTS.get(path) or ("anthropic" if "anthropic-version" in headers else "openai")
        try:
            self._authorise(headers, dialect)
            await self._serve(scope, receive, send, dialect, headers)
        except UnableToAnswer as refused:
            await _send_body(send, refused.status, write_error(refused.status, refused.message, dialect=dialect))

    def _authorise(self, headers: dict[str, str], dialect: str) -> None:
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        offered = headers.get("x-api-key") or bearer
        known = hmac.compare_digest(offered.encode(), self._manner.credential.encode())
        if not known or dialect not in self._manner.dialects:
            raise UnableToAnswer("Incorrect API key provided", status=401)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, dialect: str, headers: dict[str, str]) -> None:
        if scope["path"] == "/v1/models" and scope["method"] == "GET":
            await _send_body(send, 200, write_models(dialect=dialect))
            return
        if scope["path"] not in _DIALECTS:
            raise UnableToAnswer("Unknown path", status=404)
        if scope["method"] != "POST":
            raise UnableToAnswer("Only POST is allowed here", status=405)
        if dialect == "anthropic" and "anthropic-version" not in headers:
            raise UnableToAnswer("anthropic-version: header is required")
        await self._reply(_read_json(await _receive_body(receive)), send, dialect)

    async def _reply(self, body: dict[str, object], send: Send, dialect: str) -> None:
        reply = answer(body, dialect=dialect)
        call_id, created = f"demo{next(self._numbers):012d}", int(self._clock())
        latency = self._manner.latency_ms / 1000 * self._rng.uniform(1 - _JITTER, 1 + _JITTER)
        if body.get("stream") is True:
            options = body.get("stream_options")
            include_usage = isinstance(options, dict) and options.get("include_usage") is True
            events = write_events(reply, dialect=dialect, call_id=call_id, created=created, include_usage=include_usage)
            await _send_events(send, events, latency)
        else:
            await asyncio.sleep(latency)
            await _send_body(send, 200, write_reply(reply, dialect=dialect, call_id=call_id, created=created))
        self._answered += 1


def _read_json(raw: bytes) -> dict[str, object]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise UnableToAnswer("The body is not valid JSON") from None
    if not isinstance(body, dict):
        raise UnableToAnswer("The body is not a JSON object")
    return body


async def _receive_body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if len(body) > MAX_BODY_BYTES:
            raise UnableToAnswer("The body is too large", status=413)
        if not message.get("more_body", False):
            return body


async def _send_body(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _send_events(send: Send, events: Iterator[bytes], latency: float) -> None:
    pieces = list(events)
    await asyncio.sleep(latency * _FIRST_BYTE_SHARE)
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        await asyncio.sleep(latency * (1 - _FIRST_BYTE_SHARE) / len(pieces))
    await send({"type": "http.response.body", "body": b""})


def main() -> None:
    """Reads the command line and serves until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m demo.teacher", description="A stand-in for both providers.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--credential", default=DEFAULT_CREDENTIAL)
    parser.add_argument("--latency-ms", type=float, default=40.0)
    wanted = parser.parse_args()
    app = Teacher(Manner(wanted.credential, wanted.latency_ms), rng=Random(), clock=time.time)
    uvicorn.run(app, host=wanted.host, port=wanted.port, log_level="warning", access_log=False, lifespan="off")


if __name__ == "__main__":
    main()
