"""A provider that says what it is told to, byte for byte, and a loop's clock moved by hand."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nX-Kept: Yes\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;note=x\r\nhel\r\n2\r\nlo\r\n0\r\nx-late: 1\r\n\r\n"


class Provider:
    """A server that says what it is told to, byte for byte. `heard` is each request as it came, by connection."""

    def __init__(self, *answers: bytes, pieces: int = 0, closes: bool = False) -> None:
        self.answers = list(answers)
        self.heard: list[list[bytes]] = []
        self.pieces = pieces
        self.closes = closes

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard: list[bytes] = []
        self.heard.append(heard)
        while head := await read_head(reader):
            heard.append(head + await read_sent(reader, head))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            step = self.pieces or len(answer) or 1
            for start in range(0, len(answer), step):
                writer.write(answer[start : start + step])
                await writer.drain()
                await asyncio.sleep(0)
            if self.closes:
                break
        writer.close()


async def read_head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


async def read_sent(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """A request's body as it came over the wire."""
    if b"transfer-encoding: chunked" in head:
        return await reader.readuntil(b"0\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if line.startswith(b"content-length: ")]
    return await reader.readexactly(int(lines[0][16:])) if lines else b""


@asynccontextmanager
async def serve(script: Script, **options) -> AsyncIterator[str]:
    server = await asyncio.start_server(script, "127.0.0.1", 0, **options)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def settled(count: Callable[[], int], *, seconds: float) -> None:
    """Return once something has been counted, and nothing more for a while."""
    before = 0
    async with asyncio.timeout(30):
        while not before or before != count():
            before = count()
            await asyncio.sleep(seconds)


async def parts(*given_parts: bytes) -> AsyncIterator[bytes]:
    for part in given_parts:
        await asyncio.sleep(0)
        yield part


class Clock:
    """A loop's time and timers, moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when, then) -> None:
        self.timers.append((when, then))

    def advance(self, seconds) -> None:
        self.now += seconds
        while due := [timer for timer in self.timers if timer[0] <= self.now]:
            self.timers.remove(due[0])
            due[0][1]()


class Wire(asyncio.Transport):
    """A transport that leads nowhere."""

    def write(self, data) -> None:
        pass

    def abort(self) -> None:
        pass
