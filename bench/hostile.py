"""Whether strangers can break a gateway, or its other callers: `python -m bench.hostile`, a minute, loopback only.

One kind of hostile input after the other (`foes.py`) goes to a gateway process in which good callers, plain and
streamed in turn, are answered at an even pace. The bar: no server error of ours, no good call harmed, and never more
than 200 MiB above what the process held before. A good call is harmed that is not answered, whole and as its own,
within two seconds. What providers answer to hostile calls is fine where they are asked; memory's highest point is the
kernel's own (VmHWM).
"""

import argparse
import asyncio
import os
import re
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from urllib.request import urlopen

import uvloop

from bench.foes import Kind, Provider, make_bomb, make_kinds
from bench.gateway import gateway, upstream
from bench.load import CHUNKS, Target, make_request
from bench.soak import resident, throw_away

NEIGHBOURS = 16  # good callers, each on a connection of its own
EVERY = 0.08  # seconds between two calls of one of them
HARMED_SECONDS = 2.0
ANSWER_SECONDS = 3.0  # for a foe's answer, before it leaves
PAUSE = 0.02  # between two requests of one foe
MOST_GROWTH = 200.0  # MiB
DEAF = 4096  # bytes that wait for one who reads nothing
KEPT = 65_536  # bytes of an answer that a foe keeps
LOOK_SECONDS = 0.5
_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
_PEAK = re.compile(r"VmHWM:\s+(\d+) kB")
_OURS = re.compile(r'understudy_(?:calls|refusals)_total\{.*status="5.*\} (\d+)')


class Neighbour:
    """A good caller. `took` are the seconds of each call; `harmed` says what happened to those that went wrong."""

    numbers = count(10_000)

    def __init__(self, target: Target) -> None:
        self._target = target
        self._line: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.took: list[float] = []
        self.harmed: Counter[str] = Counter()

    async def run(self, *, offset: float) -> None:
        """Call for ever."""
        loop = asyncio.get_running_loop()
        due = loop.time() + offset
        for streams in cycle((False, True)):
            await asyncio.sleep(due - loop.time())
            started = loop.time()
            wrong = await self._try(next(self.numbers) % 100_000, streams=streams)
            self.took.append(loop.time() - started)
            if wrong:
                self.harmed[wrong] += 1
            due = max(due + EVERY, loop.time())

    async def _try(self, number: int, *, streams: bool) -> str:
        """What went wrong, if anything."""
        nonce = f"nonce{number:05}"
        try:
            async with asyncio.timeout(HARMED_SECONDS):
                status, body = await self._call(nonce, streams=streams)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            self._line = None
            return type(error).__name__
        if status != 200:
            return str(status)
        return "" if body.count(nonce.encode()) == (CHUNKS - 1 if streams else 1) else "another's answer"

    async def _call(self, nonce: str, *, streams: bool) -> tuple[int, bytes]:
        if self._line is None:
            self._line = await asyncio.open_connection("127.0.0.1", self._target.port)
        reader, writer = self._line
        writer.write(make_request(self._target, stream=streams, model=nonce))
        return await read_answer(reader)


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    _, measured, rest = head.partition(b"content-length: ")
    if measured:
        return int(head.split()[1]), await reader.readexactly(int(rest.partition(b"\r\n")[0]))
    parts = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    await reader.readexactly(2)
    return int(head.split()[1]), b"".join(parts)


@dataclass(slots=True)
class Seen:
    """What foes of one kind got: answers by the first digit of their status, "cut", or "none" in time."""

    sent: int = 0
    got: Counter[str] = field(default_factory=Counter)


async def attack(kind: Kind, target: Target) -> Seen:
    """Send this kind from all of its lines for as long as it says."""
    seen, requests = Seen(), cycle(kind.requests)

    async def keep_sending() -> None:
        for request in requests:
            if seen.sent >= kind.most:
                return
            seen.sent += 1
            for status in await send(request, kind, target):
                seen.got[status] += 1
            await asyncio.sleep(PAUSE)

    senders = [asyncio.create_task(keep_sending()) for _ in range(kind.lines)]
    await asyncio.sleep(kind.seconds)
    for sender in senders:
        sender.cancel()
    ended = await asyncio.gather(*senders, return_exceptions=True)
    for failure in ended:
        if isinstance(failure, Exception):
            raise failure
    return seen


async def send(request: bytes, kind: Kind, target: Target) -> list[str]:
    """Send one request on a new line; gives how it was answered, each answer by its first digit."""
    got = bytearray()
    async with line(target, deaf=kind.deaf) as (reader, writer):
        if kind.deaf:
            writer.write(request)
            await asyncio.sleep(kind.seconds)
            return []
        hearing = asyncio.create_task(hear(reader, got))
        try:
            with suppress(OSError):  # hung up on while there was more to say
                await put(request, writer, every=kind.every, ends=hearing.done)
            await asyncio.wait([hearing], timeout=ANSWER_SECONDS)
        finally:
            hearing.cancel()
    return found_in(got) or ["cut" if hearing.done() else "none"]


async def hear(reader: asyncio.StreamReader, got: bytearray) -> None:
    """Note the beginning of what is said, until the line is closed."""
    with suppress(OSError):
        while part := await reader.read(KEPT):
            got += part[: KEPT - len(got)]


@asynccontextmanager
async def line(target: Target, *, deaf: bool) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection, dropped afterwards without a word. Who is deaf lets the system take hardly more than it does."""
    made = socket.socket()
    made.setblocking(False)
    if deaf:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DEAF)
    await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", target.port))
    reader, writer = await asyncio.open_connection(sock=made, limit=DEAF if deaf else KEPT)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def put(request: bytes, writer: asyncio.StreamWriter, *, every: float, ends: Callable[[], bool]) -> None:
    """All at once, or a byte each so many seconds until the line `ends`."""
    if not every:
        writer.write(request)
        await writer.drain()
        return
    for byte in request:
        if ends():
            return
        writer.write(bytes([byte]))
        await asyncio.sleep(every)


def found_in(got: bytearray) -> list[str]:
    """The answers' classes."""
    return [f"{status[:1].decode()}xx" for status in _STATUS.findall(got)]


@dataclass(frozen=True, slots=True)
class Row:
    """One kind, and what it did. `peak` and `after` are MiB; latencies are milliseconds."""

    kind: str
    seen: Seen
    ours: int  # server errors that the gateway itself counts
    good: int
    harmed: Counter[str]
    p99: float
    slowest: float
    peak: float
    after: float

    def line(self) -> str:
        """The row as text."""
        counts = "".join(f"{self.seen.got[name]:>7}" for name in ("2xx", "4xx", "cut", "none"))
        calls = f"{self.ours + self.seen.got['5xx']:>6}{self.good:>7}{self.harmed.total():>8}"
        times = f"{self.p99:>8.0f}{self.slowest:>9.0f}"
        why = "  " + ", ".join(f"{name} × {times}" for name, times in self.harmed.items()) if self.harmed else ""
        return f"{self.kind:<34}{self.seen.sent:>7}{counts}{calls}{times}{self.peak:>7.0f}{self.after:>7.0f}{why}"


HEADINGS = (
    f"{'':<34}{'sent':>7}{'2xx':>7}{'4xx':>7}{'cut':>7}{'none':>7}{'5xx':>6}"
    f"{'good':>7}{'harmed':>8}{'p99 ms':>8}{'slowest':>9}{'peak':>7}{'after':>7}"
)


async def measure(kind: Kind, target: Target, neighbours: list[Neighbour]) -> Row:
    """One kind, beside the neighbours."""
    errors = await asyncio.to_thread(server_errors, target)
    for neighbour in neighbours:
        neighbour.took.clear()
        neighbour.harmed.clear()
    forget_peak(target.pid)
    seen = await attack(kind, target)
    peak = read_peak(target.pid)
    took = sorted(second for neighbour in neighbours for second in neighbour.took)
    harmed = sum((neighbour.harmed for neighbour in neighbours), Counter[str]())
    return Row(
        kind=kind.name,
        seen=seen,
        ours=await asyncio.to_thread(server_errors, target) - errors,
        good=len(took),
        harmed=harmed,
        p99=took[int(len(took) * 0.99)] * 1000 if took else float("inf"),
        slowest=took[-1] * 1000 if took else float("inf"),
        peak=peak,
        after=resident(target.pid),
    )


def server_errors(target: Target) -> int:
    """How many there have been, by the gateway's own count."""
    with urlopen(f"http://127.0.0.1:{target.port}/metrics", timeout=10) as page:
        return sum(map(int, map(float, _OURS.findall(page.read().decode()))))


def forget_peak(pid: int) -> None:
    """Let the kernel note memory's highest point from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def read_peak(pid: int) -> float:
    """MiB."""
    found = _PEAK.search(Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else float("inf")


async def run(target: Target, kinds: list[Kind]) -> bool:
    """Every kind in turn; gives whether the bar was met."""
    neighbours = [Neighbour(target) for _ in range(NEIGHBOURS)]
    calls = [
        asyncio.create_task(neighbour.run(offset=number * EVERY / NEIGHBOURS))
        for number, neighbour in enumerate(neighbours)
    ]
    cleaning = asyncio.create_task(clean(target))
    calm = await measure(Kind("nobody hostile", (), lines=0, seconds=3), target, neighbours)
    rows = [calm]
    print(HEADINGS + "\n" + calm.line(), flush=True)
    for kind in kinds:
        rows.append(await measure(kind, target, neighbours))
        print(rows[-1].line(), flush=True)
    for task in (*calls, cleaning):
        task.cancel()
    return judge(rows, before=calm.after)


async def clean(target: Target) -> None:
    """Take what is recorded, as a feed would."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        await asyncio.to_thread(throw_away, target)


def judge(rows: list[Row], *, before: float) -> bool:
    """Print the bar and what was measured."""
    errors = sum(row.ours + row.seen.got["5xx"] for row in rows)
    harmed = sum(row.harmed.total() for row in rows)
    growth = max(row.peak for row in rows) - before
    print(f"\nserver errors: {errors}; good calls harmed: {harmed} of {sum(row.good for row in rows)}")
    print(f"memory: {growth:.0f} MiB above {before:.0f} at most; {rows[-1].after - before:.0f} at the end")
    return errors == 0 and harmed == 0 and growth <= MOST_GROWTH


def main() -> int:
    """0 if the bar was met."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", default="", help="kinds whose name has this in it")
    chosen = options.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    make_bomb()  # before the provider's process is made, which would keep its callers waiting
    with upstream(cores[-1], Provider), gateway(cores[0]) as ours:
        kinds = [kind for kind in make_kinds(ours.headers["authorization"]) if chosen.only in kind.name]
        return 0 if uvloop.run(run(ours, kinds)) else 1


if __name__ == "__main__":
    sys.exit(main())
