"""One line a call, for whoever collects a process's output: facts as JSON, and nothing that a person has written.

Nobody waits for it: lines are written by a thread, a few together, and dropped and counted where nobody takes them.
"""

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime

import orjson

from ingestion.core.calls import CallRecord

FLUSH_SECONDS = 0.1
AT_ONCE = 4096  # bytes: so many go into a pipe as one, beside those of other processes
MOST_WAITING = 2**20  # bytes of lines that nobody has taken yet

_FACTS = (
    *("tenant_id", "key_id", "workload_id", "dialect", "provider", "credential_id", "failovers", "arm", "reason"),
    *("adapter", "status", "finish", "stream", "complete", "input_tokens", "output_tokens", "usage_estimated"),
    *("student_ms", "queue_ms", "first_byte_ms", "total_ms"),
)


class CallLog:
    """Lines for this file descriptor. Needs a running loop; `write` is os.write."""

    def __init__(self, fd: int, *, write: Callable[[int, bytes], int] = os.write) -> None:
        self.dropped = 0
        self._fd = fd
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._lines: list[bytes] = []
        self._size = 0
        self._flushing: asyncio.Task[None] | None = None

    def note(self, record: CallRecord) -> None:
        """One call more."""
        line = make_line(record)
        if self._size + len(line) > MOST_WAITING:
            self.dropped += 1
            return
        self._lines.append(line)
        self._size += len(line)
        if self._flushing is None:
            self._flushing = self._loop.create_task(self._flush_soon())

    async def close(self) -> None:
        """Write what waits, if somebody takes it soon."""
        if self._flushing is not None:
            await asyncio.wait([self._flushing], timeout=1.0)

    async def _flush_soon(self) -> None:
        await asyncio.sleep(FLUSH_SECONDS)
        lines, self._lines = self._lines, []
        try:
            for batch in batches(lines):
                await self._loop.run_in_executor(None, self._write_whole, batch)
        except OSError:
            self.dropped += len(lines)
        self._size = sum(map(len, self._lines))
        self._flushing = self._loop.create_task(self._flush_soon()) if self._lines else None

    def _write_whole(self, data: bytes) -> None:
        while data:
            data = data[self._write(self._fd, data) :]


def make_line(record: CallRecord) -> bytes:
    """The facts of one call."""
    at = datetime.fromtimestamp(record.at, UTC).isoformat(timespec="milliseconds")
    return orjson.dumps({"at": at, "call": record.id} | {name: getattr(record, name) for name in _FACTS}) + b"\n"


def batches(lines: list[bytes]) -> list[bytes]:
    """The lines in order, as many together as may be written as one."""
    found = [b""]
    for line in lines:
        if len(found[-1]) + len(line) > AT_ONCE:
            found.append(b"")
        found[-1] += line
    return found
