"""The encoder's door: a raw ASGI application with five routes, for callers on the same private network.

    PUT    /v1/adapters/{name}   {"path": directory}            load an artifact from the cache
    DELETE /v1/adapters/{name}                                   forget it
    GET    /v1/adapters                                          the names loaded
    POST   /v1/decide            {"adapter", "query", "answer"?} a Verdict
    GET    /readyz

An error is {"error": a sentence} and never repeats what was sent. Queries are not logged.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from serving.encoder.batching import MicroBatcher, UnableToQueue
from serving.encoder.index import Loaded, UnableToLoad, Verdict, load_adapter, resolve_inside
from training.lora.embed import Embedder

MAX_BODY = 256 * 1024  # bytes
MAX_QUERY = 20_000  # characters
ADAPTERS = "/v1/adapters/"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")

T = TypeVar("T")
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class UnableToServe(Exception):
    """A request that is answered with an error: its status and a sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class LoadRequest(msgspec.Struct, frozen=True):
    """The body of PUT /v1/adapters/{name}."""

    path: str


class DecideRequest(msgspec.Struct, frozen=True):
    """The body of POST /v1/decide; with `answer`, the neighbours are compared with it."""

    adapter: str
    query: str
    answer: str | None = None


@dataclass(slots=True)
class EncoderApp:
    """The application. `cache` is the only directory adapters are read from."""

    embedder: Embedder
    cache: Path
    adapters: dict[str, Loaded] = field(default_factory=dict)
    batcher: MicroBatcher = field(init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's event."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] != "http":
            return
        try:
            status, body = await self._route(scope["method"], scope["path"], receive)
        except UnableToServe as error:
            status, body = error.status, {"error": error.message}
        headers = [(b"content-type", b"application/json")]
        if status == 503:
            headers.append((b"retry-after", b"1"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": msgspec.json.encode(body)})

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.batcher = MicroBatcher(self.embedder)
                self.batcher.start()
                await self.batcher.embed("warm up")  # the first pass allocates and costs ten times a later one
            else:
                self.batcher.stop()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _route(self, method: str, path: str, receive: Receive) -> tuple[int, object]:
        match method, path:
            case "POST", "/v1/decide":
                return 200, await self._decide(await read_body(receive))
            case "GET", "/v1/adapters":
                return 200, {"adapters": sorted(self.adapters)}
            case "GET", "/readyz":
                return 200, {"ready": True}
            case (("PUT" | "DELETE"), _) if path.startswith(ADAPTERS):
                return await self._change(method, read_name(path), receive)
        known = path in ("/v1/decide", "/v1/adapters", "/readyz") or path.startswith(ADAPTERS)
        raise UnableToServe(405 if known else 404, "method not allowed" if known else "no such route")

    async def _decide(self, body: bytes) -> Verdict:
        ask = decode(body, DecideRequest)
        if len(ask.query) > MAX_QUERY:
            raise UnableToServe(413, f"the query is longer than {MAX_QUERY} characters")
        adapter = self.adapters.get(ask.adapter)
        if adapter is None:
            raise UnableToServe(404, "the adapter is not loaded")
        try:
            vector = await self.batcher.embed(ask.query)
        except UnableToQueue as error:
            raise UnableToServe(503, str(error)) from error
        return adapter.judge(vector, answer=ask.answer)

    async def _change(self, method: str, name: str, receive: Receive) -> tuple[int, object]:
        if method == "DELETE":
            if self.adapters.pop(name, None) is None:
                raise UnableToServe(404, "the adapter is not loaded")
            return 200, {"adapter": name}
        ask = decode(await read_body(receive), LoadRequest)
        try:
            directory = resolve_inside(ask.path, root=self.cache)
            loaded = await asyncio.to_thread(load_adapter, directory, name=name, width=self.embedder.width)
        except UnableToLoad as error:
            raise UnableToServe(422, str(error)) from error
        present = self.adapters.setdefault(name, loaded)
        if present.manifest != loaded.manifest:
            raise UnableToServe(409, "another artifact is loaded under this name")
        return 200, {"adapter": name, "rung": loaded.manifest.rung, "rows": len(loaded.answers)}


async def read_body(receive: Receive) -> bytes:
    """The request's body. Raises UnableToServe above MAX_BODY, or if the caller leaves before its end."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise UnableToServe(400, "the request was cut short")
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise UnableToServe(413, f"the body is larger than {MAX_BODY} bytes")
        if not message.get("more_body", False):
            return bytes(body)


def read_name(path: str) -> str:
    """The adapter's name in a path. Raises UnableToServe if it is not one."""
    name = path.removeprefix(ADAPTERS)
    if NAME.fullmatch(name) is None:
        raise UnableToServe(400, "not an adapter's name")
    return name


def decode(body: bytes, kind: type[T]) -> T:
    """The body as `kind`. Raises UnableToServe without repeating a word of it."""
    try:
        value = msgspec.json.decode(body, type=kind)
        msgspec.json.encode(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise UnableToServe(400, f"the body is not a {kind.__name__}") from error
    return value
