"""What one call costs in the gateway: `python -m bench.gateway`, about 20 seconds, loopback only.

The gateway has one core to itself, an instant upstream and the load generator share another. A call is the whole
product: key, parse, fingerprint, forward, read the answer, seal both bodies, write the spool. CPU is the gateway
process's own time from /proc, so it holds also on a busy machine, where calls a second do not.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import uvloop

from serving.core.snapshot import KeyEntry, ProviderEntry, Snapshot, TenantEntry
from serving.gateway.settings import snapshot_key
from serving.gateway.snapshot_file import write_snapshot
from tenants.core.keys import mint_key

KEY = mint_key(b"b" * 32).plain
SECRET = b"a secret for measurements, and for nothing else"
PORTS = {"upstream": 18901, "gateway": 18902}
CHUNKS = 20
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Measured:
    """One row of the table. Latencies are milliseconds as the caller sees them."""

    name: str
    calls: int
    seconds: float
    cpu_seconds: float
    p50: float
    p99: float

    def line(self) -> str:
        """The row as text."""
        rate, cost = self.calls / self.seconds, self.cpu_seconds / self.calls * 1e6
        return f"{self.name:<34}{rate:>9.0f}{cost:>12.0f}{self.p50:>9.2f}{self.p99:>9.2f}"


def make_request(*, stream: bool) -> bytes:
    """A request of about 1.4 kB."""
    body = {
        "model": "gpt-4o",
        "messages": [
            {"role": "system", "content": "You route customer messages to one of eight labels. " * 15},
            {"role": "user", "content": "Where is my shipment? It was due on Monday. " * 10},
        ],
        **({"stream": True} if stream else {}),
    }
    raw = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n".encode() + raw


def make_answers() -> tuple[bytes, bytes]:
    """An answer of about 0.6 kB, and a stream of CHUNKS events, as HTTP responses."""
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
    return whole, head + parts


class Upstream(asyncio.Protocol):
    """Answers each request the moment it is whole."""

    answers = make_answers()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self.transport = transport
        self.pending = b""

    def data_received(self, data: bytes) -> None:
        """Answer, as a stream where one is asked for."""
        self.pending += data
        head, found, body = self.pending.partition(b"\r\n\r\n")
        if not found:
            return
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        if len(body) >= length:
            self.pending = b""
            self.transport.write(self.answers[b'"stream"' in body])  # type: ignore[attr-defined]


class Caller(asyncio.Protocol):
    """One connection that calls again as soon as it is answered, until `until`."""

    def __init__(self, request: bytes, *, stream: bool, until: float, took: list[float]) -> None:
        self.request = request
        self.stream = stream
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
        self.transport.write(self.request)  # type: ignore[attr-defined]

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

    def is_whole(self) -> bool:
        """Whether the answer's last byte is here."""
        if self.stream:
            return self.got.endswith(b"0\r\n\r\n")
        head, found, body = self.got.partition(b"\r\n\r\n")
        if not found:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"the gateway answered {head[:40]!r}")
        return len(body) >= next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))


async def load(*, connections: int, stream: bool, seconds: float) -> list[float]:
    """Seconds that each call took."""
    took: list[float] = []
    until = time.perf_counter() + seconds
    loop = asyncio.get_running_loop()
    request = make_request(stream=stream)
    make = partial(Caller, request, stream=stream, until=until, took=took)
    made = [await loop.create_connection(make, "127.0.0.1", PORTS["gateway"]) for _ in range(connections)]
    await asyncio.gather(*(caller.done for _, caller in made))
    return took


def measure(name: str, *, pid: int, connections: int, stream: bool, seconds: float) -> Measured:
    """Warm up, then measure one kind of load."""
    uvloop.run(load(connections=connections, stream=stream, seconds=0.5))
    cpu, started = cpu_seconds(pid), time.perf_counter()
    took = sorted(uvloop.run(load(connections=connections, stream=stream, seconds=seconds)))
    spent = time.perf_counter() - started
    p50, p99 = (took[int(len(took) * share)] * 1000 for share in (0.5, 0.99))
    return Measured(name, len(took), spent, cpu_seconds(pid) - cpu, p50, p99)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def run_upstream() -> None:
    """The upstream's process."""

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", PORTS["upstream"])
        await server.serve_forever()

    uvloop.run(serve())


def publish(path: Path) -> None:
    """A snapshot with one key."""
    providers = {"openai": ProviderEntry(base_url=f"http://127.0.0.1:{PORTS['upstream']}", credential="x")}
    tenant = TenantEntry(active=True, data_key=b"d" * 32, subject_key=b"s" * 32, salt="x", providers=providers)
    keys = {mint_key(b"b" * 32).digest: KeyEntry(tenant_id="t", key_id="k")}
    snapshot = Snapshot(version=1, made_at=0.0, keys=keys, tenants={"t": tenant})
    write_snapshot(path, snapshot, key=snapshot_key(SECRET))


def wait_until_ready(process: subprocess.Popen[bytes]) -> None:
    """Poll until the gateway listens."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(f"http://127.0.0.1:{PORTS['gateway']}/readyz"):
                return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the gateway did not start")


def main() -> None:
    """Measure and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    options.add_argument("--connections", type=int, default=64)
    chosen = options.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    upstream = multiprocessing.Process(target=run_upstream, daemon=True)
    os.sched_setaffinity(0, {cores[-1]})
    upstream.start()
    with tempfile.TemporaryDirectory() as directory:
        publish(Path(directory) / "snapshot")
        paths = {"SNAPSHOT_FILE": f"{directory}/snapshot", "SPOOL_DIR": f"{directory}/spool"}
        environ = {**os.environ, **paths, "SECRET_KEY": SECRET.decode(), "GATEWAY_PORT": str(PORTS["gateway"])}
        gateway = subprocess.Popen([sys.executable, "-m", "serving.gateway"], env=environ)
        os.sched_setaffinity(gateway.pid, {cores[0]})
        try:
            wait_until_ready(gateway)
            print(f"{'':<34}{'calls/s':>9}{'CPU µs/call':>12}{'p50 ms':>9}{'p99 ms':>9}")
            for name, connections, stream in (
                (f"whole answers, {chosen.connections} connections", chosen.connections, False),
                ("whole answers, 1 connection", 1, False),
                (f"streams of {CHUNKS}, {chosen.connections} connections", chosen.connections, True),
            ):
                row = measure(name, pid=gateway.pid, connections=connections, stream=stream, seconds=chosen.seconds)
                print(row.line(), flush=True)
        finally:
            gateway.terminate()
            gateway.wait(10)
            upstream.terminate()


if __name__ == "__main__":
    main()
