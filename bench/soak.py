"""Whether a gateway's memory stays what it is: `python -m bench.soak`, ten minutes, loopback only.

The gateway takes half of the calls that it could, plain and streamed in turn, at an even pace over 64 connections; what
it records is thrown away as a feed would. Resident memory is read every ten seconds. Before it, a thousand streams are
opened that say one word and then nothing.
"""

import argparse
import asyncio
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvloop

from bench.gateway import gateway, upstream
from bench.load import Target, make_request, measure

CONNECTIONS = 64
IDLE = 1000
LOOK_SECONDS = 10.0
MIB = 2**20


def resident(pid: int) -> float:
    """MiB of memory that the process holds now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


@contextmanager
def idle_streams(target: Target, count: int) -> Iterator[None]:
    """So many streams of which nothing more comes."""
    request = make_request(target, stream=True, model="idle")
    with ExitStack() as stack:
        for _ in range(count):
            caller = stack.enter_context(socket.create_connection(("127.0.0.1", target.port), timeout=10))
            caller.sendall(request)
            if not caller.recv(65_536).startswith(b"HTTP/1.1 200"):
                raise SystemExit("a stream was not begun")
        yield


class Pacer:
    """Calls on one connection at its share of the pace; `late` are calls that found the one before unanswered."""

    def __init__(self, requests: tuple[bytes, ...], *, every: float) -> None:
        self.requests = requests
        self.every = every
        self.answered = self.late = 0

    async def run(self, target: Target, *, until: float, offset: float) -> None:
        """Call until then, by the loop's clock."""
        loop = asyncio.get_running_loop()
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        due = loop.time() + offset
        while loop.time() < until:
            await asyncio.sleep(due - loop.time())
            self.late += loop.time() - due > self.every
            writer.write(self.requests[self.answered % len(self.requests)])
            await _read_answer(reader)
            self.answered += 1
            due = max(due + self.every, loop.time() - self.every)
        writer.close()


async def _read_answer(reader: asyncio.StreamReader) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if not head.startswith(b"http/1.1 200"):
        raise SystemExit(f"the gateway answered {head[:40]!r}")
    _, found, rest = head.partition(b"content-length: ")
    if found:
        await reader.readexactly(int(rest.partition(b"\r\n")[0]))
    else:
        await reader.readuntil(b"0\r\n\r\n")


async def soak(target: Target, *, rate: float, seconds: float) -> list[float]:
    """Resident MiB at each look."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    requests = (make_request(target, stream=False), make_request(target, stream=True))
    pacers = [Pacer(requests, every=CONNECTIONS / rate) for _ in range(CONNECTIONS)]
    runs = [
        asyncio.create_task(pacer.run(target, until=until, offset=number / rate)) for number, pacer in enumerate(pacers)
    ]
    looks = []
    while loop.time() < until:
        await asyncio.sleep(min(LOOK_SECONDS, max(0.0, until - loop.time())))
        throw_away(target)
        looks.append(resident(target.pid))
    await asyncio.gather(*runs)
    answered, late = (sum(getattr(pacer, name) for pacer in pacers) for name in ("answered", "late"))
    print(f"{answered} calls answered, {answered / seconds:.0f} a second; {late} came late")
    return looks


def throw_away(target: Target) -> None:
    """Delete the segments that nobody writes to any more."""
    for path in target.spool.glob("*.spool") if target.spool else ():
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
        path.unlink()


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=10.0)
    chosen = options.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    with upstream(cores[-1]), gateway(cores[0]) as ours:
        before = resident(ours.pid)
        with idle_streams(ours, IDLE):
            print(f"{IDLE} idle streams: {resident(ours.pid) - before:.1f} MiB more than {before:.1f}")
        most = measure(ours, connections=CONNECTIONS, stream=False, seconds=5).rate
        print(f"at most {most:.0f} calls a second; {chosen.minutes:g} minutes at half of that", flush=True)
        started = time.monotonic()
        looks = uvloop.run(soak(ours, rate=most / 2, seconds=chosen.minutes * 60))
        settled = looks[max(1, len(looks) // 10) :]
        spread = (max(settled) - min(settled)) / settled[0]
        print(f"resident MiB after each {LOOK_SECONDS:.0f} s: {' '.join(f'{look:.1f}' for look in looks)}")
        print(f"after the first tenth of {time.monotonic() - started:.0f} s they lie within {spread:.1%}")


if __name__ == "__main__":
    main()
