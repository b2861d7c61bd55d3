"""A webhook receiver: keeps what it is sent and answers as it is told to."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.fakes.asgi import read_body
from tests.fakes.serve import Served


@contextmanager
def listening_at(app) -> Iterator[str]:
    """The app's URL while it is served."""
    with Served(app) as served:
        yield served.url


@dataclass(frozen=True)
class Message:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Answers with `statuses` in turn, the last one for ever."""

    statuses: list[int] = field(default_factory=lambda: [204])
    extra_headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    chunks: int = 1
    messages: list[Message] = field(default_factory=list)

    async def __call__(self, scope, receive, send) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.messages.append(Message(scope["path"], headers, await read_body(receive)))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        await send({"type": "http.response.start", "status": status, "headers": self.extra_headers})
        for _ in range(self.chunks):
            await send({"type": "http.response.body", "body": self.body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
