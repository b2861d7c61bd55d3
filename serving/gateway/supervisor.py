"""Several gateway processes on one port: starts them, replaces one that ends, and all of them one by one on SIGHUP.

All accept from one listening socket, which stays open whoever comes and goes: a connection that nobody has taken yet
waits for the next process (with a socket each, those that wait on a socket that is closed would be lost). A process is
started as a program, not forked, so that after a SIGHUP new code is in force (settings are the supervisor's own, as it
was started with them).
"""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import tempfile
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from serving.gateway.slot import Slot

PROGRAM = (sys.executable, "-m", "serving.gateway")
READY_SECONDS = 60.0  # a process that cannot answer calls by then does not replace one that can
STOP_SECONDS = 40.0  # after SIGTERM; the processes themselves take no longer than 35
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before a process that ended is started again
STEADY_SECONDS = 60.0  # one that lived so long is no sign that the next will end at once

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Worker:
    """One process. `kept`: when it ends by itself, another takes its place."""

    number: int
    process: asyncio.subprocess.Process
    line: socket.socket
    born: float
    kept: bool

    async def is_ready(self) -> bool:
        """Whether it can answer calls, within READY_SECONDS."""
        told = asyncio.get_running_loop().sock_recv(self.line, 1)
        with contextlib.suppress(OSError, TimeoutError):
            return bool(await asyncio.wait_for(told, READY_SECONDS))
        return False

    def leave(self, how: signal.Signals) -> None:
        """Tell it to end; what has ended already hears nothing."""
        self.kept = False
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(how)


class Supervisor:
    """Keeps so many `processes` at work on `listening`, until SIGTERM or SIGINT."""

    def __init__(self, listening: socket.socket, *, processes: int) -> None:
        self._listening = listening
        self._processes = processes
        self._workers: set[Worker] = set()
        self._numbers: set[int] = set()
        self._watches: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._renew = asyncio.Event()
        self._pause = FIRST_PAUSE

    async def run(self) -> None:
        """Start the processes and keep them; returns when all have ended."""
        loop = asyncio.get_running_loop()
        for told in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(told, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._renew.set)
        with tempfile.TemporaryDirectory(prefix="understudy-gateway-") as directory:
            self._directory = Path(directory)
            for _ in range(self._processes):
                await self._start(kept=True, eager=True)
            renewing = asyncio.create_task(self._renew_when_told())
            await self._stop.wait()
            self._listening.close()  # who calls from now on is refused, and not left waiting for nobody
            renewing.cancel()
            await self._end()

    async def _start(self, *, kept: bool, eager: bool = False) -> Worker:
        number = next(free for free in count() if free not in self._numbers)
        self._numbers.add(number)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        slot = Slot(self._listening, theirs, number, self._directory, eager)
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *PROGRAM, *slot.arguments(), pass_fds=(self._listening.fileno(), theirs.fileno())
                )
        except OSError:
            self._numbers.discard(number)
            ours.close()
            raise
        worker = Worker(slot.number, process, ours, born=asyncio.get_running_loop().time(), kept=kept)
        self._workers.add(worker)
        if self._stop.is_set():
            worker.leave(signal.SIGTERM)
        watch = asyncio.create_task(self._watch(worker))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)
        return worker

    async def _watch(self, worker: Worker) -> None:
        """Wait for its end, and start another if it was not told to."""
        code = await worker.process.wait()
        self._workers.discard(worker)
        self._numbers.discard(worker.number)
        worker.line.close()
        if not worker.kept or self._stop.is_set():
            return
        lived = asyncio.get_running_loop().time() - worker.born
        self._pause = FIRST_PAUSE if lived > STEADY_SECONDS else min(2 * self._pause, LONGEST_PAUSE)
        logger.error("gateway process %d ended by itself (%d): another starts", worker.number, code)
        await self._replace()

    async def _replace(self) -> None:
        """Start another after a pause, and another pause where none can be started."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), self._pause)
            if self._stop.is_set():
                return
            try:
                await self._start(kept=True)
                return
            except OSError as error:
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
                logger.error("no gateway process can be started: %s", error.strerror)

    async def _renew_when_told(self) -> None:
        while True:
            await self._renew.wait()
            self._renew.clear()
            await self._renew_all()

    async def _renew_all(self) -> None:
        """One after the other, so that as many as ever can answer at any moment."""
        for old in [worker for worker in self._workers if worker.kept]:
            try:
                new = await self._start(kept=False)
            except OSError as error:
                logger.error("no gateway process can be started, the old ones stay: %s", error.strerror)
                return
            if not await new.is_ready() or new not in self._workers:
                new.leave(signal.SIGKILL)
                logger.error("a new gateway process cannot answer calls: the old ones stay")
                return
            surplus = old if old in self._workers else new  # one that ended meanwhile has been replaced already
            new.kept = True
            surplus.leave(signal.SIGUSR1)
        logger.info("all gateway processes are new")

    async def _end(self) -> None:
        for worker in self._workers:
            worker.leave(signal.SIGTERM)
        if self._watches:
            await asyncio.wait(self._watches, timeout=STOP_SECONDS)
        for worker in self._workers:
            worker.leave(signal.SIGKILL)
        if self._watches:
            await asyncio.wait(self._watches, timeout=STOP_SECONDS)
