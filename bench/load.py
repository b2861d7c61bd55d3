"""A load of calls on loopback, and an upstream that answers at once: what the measurements of gateways share.

CPU is the measured process's own time from /proc, so it holds also on a busy machine, where calls a second do not.
"""

import asyncio
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import uvloop

CHUNKS = 20
TICKS = os.sysconf("SC_CLK_TCK")
PATH = "/v1/chat/completions"
UPSTREAM = 18901
PATIENCE = 60.0  # seconds for the last answers
_LENGTH = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)
_STREAMED = re.compile(rb'"stream":\s*true')


@dataclass(frozen=True, slots=True)
class Target:
    """What is called: a port of this machine, the process behind it, the headers it wants, and where it records."""

    name: str
    port: int
    pid: int
    headers: Mapping[str, str]
    spool: Path | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """One row of a table. Latencies are milliseconds as the caller sees them."""

    name: str
    calls: int
    seconds: float
    cpu_seconds: float
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.calls / self.seconds

    @property
    def cost(self) -> float:
        """CPU microseconds a call."""
        return self.cpu_seconds / self.calls * 1e6

    def line(self) -> str:
        """The row as text."""
        return f"{self.name:<38}{self.rate:>9.0f}{self.cost:>12.0f}{self.p50:>9.2f}{self.p99:>9.2f}"


HEADINGS = f"{'':<38}{'calls/s':>9}{'CPU µs/call':>12}{'p50 ms':>9}{'p99 ms':>9}"


def make_request(target: Target, *, stream: bool, model: str = "gpt-4o") -> bytes:
    """A request of about 1.4 kB."""
    body = {
        "model": model,
        "messages": [
            {"role": "system", "content": "You route customer messages to one of eight labels. " * 15},
            {"role": "user", "content": "Where is my shipment? It was due on Monday. " * 10},
        ],
        **({"stream": True} if stream else {}),
    }
    raw = json.dumps(body).encode()
    lines = [f"POST {PATH} HTTP/1.1", "host: x", "content-type: application/json", f"content-length: {len(raw)}"]
    lines += [f"{name}: {value}" for name, value in target.headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + raw


def make_answers() -> tuple[bytes, bytes, bytes]:
    """An answer of about 0.6 kB, a stream of CHUNKS events, and the beginning of one, as HTTP responses."""
    usage = {"prompt_tokens": 300, "completion_tokens": 2, "total_tokens": 302}
    choice = {"index": 0, "message": {"role": "assistant", "content": "word " * 60}, "finish_reason": "stop"}
    body = json.dumps(
        {"id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o", "choices": [choice], "usage": usage}
    )
    whole = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
    delta = {"id": "chatcmpl-1", "model": "gpt-4o", "choices": [{"index": 0, "delta": {"content": "word "}}]}
    events = [f"data: {json.dumps(delta)}\n\n".encode()] * (CHUNKS - 1) + [b"data: [DONE]\n\n"]
    parts = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return whole, head + parts, head + b"%x\r\n%b\r\n" % (len(events[0]), events[0])


class Upstream(asyncio.Protocol):
    """Answers each request the moment it is whole; of the model "idle" a stream begins and goes no further."""

    answers = make_answers()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self.transport = transport
        self.pending = b""

    def data_received(self, data: bytes) -> None:
        """Answer, as a stream where one is asked for."""
        self.pending += data
        head, found, body = self.pending.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        whole = len(body) >= int(length[1]) if length else b"chunked" not in head or body.endswith(b"0\r\n\r\n")
        if found and whole:
            self.pending = b""
            self.transport.write(self.answer(body))  # type: ignore[attr-defined]  # it writes

    def answer(self, body: bytes) -> bytes:
        """The HTTP response to a request with this body."""
        return self.answers[2 if b'"idle"' in body else int(_STREAMED.search(body) is not None)]


class Caller(asyncio.Protocol):
    """One connection that calls again as soon as it is answered, until `until`."""

    def __init__(self, request: bytes, *, until: float, took: list[float]) -> None:
        self.request = request
        self.until = until
        self.took = took
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Call."""
        self.transport = transport
        self.call()

    def call(self) -> None:
        """Send the request."""
        self.got = b""
        self.started = time.perf_counter()
        self.transport.write(self.request)  # type: ignore[attr-defined]  # it writes

    def data_received(self, data: bytes) -> None:
        """Call again once the answer is whole."""
        self.got += data
        if not self.is_whole():
            return
        now = time.perf_counter()
        self.took.append(now - self.started)
        if now < self.until:
            self.call()
        elif not self.done.done():
            self.transport.close()
            self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """A gateway that hangs up has not answered."""
        if not self.done.done():
            self.done.set_exception(ConnectionError("the gateway hung up"))

    def is_whole(self) -> bool:
        """Whether the answer's last byte is here."""
        if self.got.endswith(b"0\r\n\r\n") and b"chunked" in self.got:
            return True
        head, found, body = self.got.partition(b"\r\n\r\n")
        if found and not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"the gateway answered {head[:40]!r}")
        length = _LENGTH.search(head) if found else None
        return length is not None and len(body) >= int(length[1])


async def load(target: Target, *, connections: int, stream: bool, seconds: float) -> list[float]:
    """Seconds that each call took."""
    took: list[float] = []
    until = time.perf_counter() + seconds
    loop = asyncio.get_running_loop()
    make = partial(Caller, make_request(target, stream=stream), until=until, took=took)
    made = [await loop.create_connection(make, "127.0.0.1", target.port) for _ in range(connections)]
    await asyncio.wait_for(asyncio.gather(*(caller.done for _, caller in made)), seconds + PATIENCE)
    return took


def measure(target: Target, *, name: str = "", connections: int, stream: bool, seconds: float) -> Measured:
    """Warm up, then measure one kind of load."""
    uvloop.run(load(target, connections=connections, stream=stream, seconds=0.5))
    cpu, started = cpu_seconds(target.pid), time.perf_counter()
    took = sorted(uvloop.run(load(target, connections=connections, stream=stream, seconds=seconds)))
    spent = time.perf_counter() - started
    p50, p99 = (took[int(len(took) * share)] * 1000 for share in (0.5, 0.99))
    return Measured(name or target.name, len(took), spent, cpu_seconds(target.pid) - cpu, p50, p99)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def run_upstream(make: Callable[[], asyncio.Protocol] = Upstream) -> None:
    """The upstream's process."""

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", UPSTREAM)
        await server.serve_forever()

    uvloop.run(serve())


def wait_until_ready(target: Target, process: subprocess.Popen[bytes], *, path: str, patience: float = 20.0) -> None:
    """Poll until the gateway answers a GET. Raises SystemExit where it does not."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and process.poll() is None:
        line = HTTPConnection("127.0.0.1", target.port, timeout=5)
        try:
            line.request("GET", path)
            line.getresponse().read()
        except OSError:
            time.sleep(0.05)
        else:
            return
        finally:
            line.close()
    raise SystemExit(f"{target.name} did not start")
