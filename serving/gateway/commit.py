"""How safe a call's record is once its caller has the last byte: three levels of acknowledgement, set by CAPTURE_ACK.

    memory   in this process, written to the system with others some milliseconds later. `kill -9` loses those
             milliseconds; a stop loses nothing.
    os       write(2) has returned. It survives the death of this process, also by `kill -9`; not a power cut.
    disk     an fdatasync(2) that began after that write has returned. It survives a power cut.

At `disk` one thread syncs, once at a time, for all the calls that wait: while it does, others write, and the next sync
is for all of those. Nobody waits for a disk for ever: after PATIENCE seconds of one sync, whoever waits is answered and
counted as unsettled, and so is everybody else at once until that sync returns. One that fails has its records counted
as unrecorded, since nobody can say what of them is on the disk, and its segment is written to no more.

In all three a record is lost where the disk is full or broken, and counted; the call is answered all the same.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Final

from ingestion.core.calls import CallRecord
from ingestion.spool import Spool, sync_directory
from serving.gateway.metrics import Metrics
from serving.gateway.settings import Ack

SEGMENT_BYTES: Final = 16 * 2**20
GROUP_SECONDS = 0.005  # how old a record gets in memory
GROUP_BYTES: Final = 131_072  # of records in memory, after which they are written at once
PATIENCE = 5.0  # seconds that one sync of the disk may take before nobody waits for it

logger = logging.getLogger(__name__)

Waiter = asyncio.Future[bool]  # True: settled; False: nobody knows, and it was long enough


class Losses:
    """Counts records that are not where they should be, and says so once each time that it begins."""

    def __init__(self, metrics: Metrics) -> None:
        self.failing = False
        self._metrics = metrics

    def add(self, count: int, *, why: str) -> None:
        """So many more. `why` says nothing of a call."""
        self._metrics.unrecorded += count
        if not self.failing:
            logger.error("calls go unrecorded: %s", why)
        self.failing = True


class Direct:
    """Acknowledges what the system has."""

    settled = None

    def __init__(self, spool: Spool) -> None:
        self.append = spool.append
        self._spool = spool

    async def close(self) -> None:
        """Let go of the segment."""
        self._spool.close()


class Grouped:
    """Acknowledges what this process has. Needs a running loop."""

    settled = None

    def __init__(self, spool: Spool, *, losses: Losses, seconds: float) -> None:
        """`seconds` is how long a record may wait to be written."""
        self._spool = spool
        self._losses = losses
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._frames: list[bytes] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None

    def append(self, record: CallRecord) -> None:
        """Take one record, to be written soon. Raises UnableToRecord for one that is too large."""
        frame = self._spool.frame(record)
        self._frames.append(frame)
        self._size += len(frame)
        if self._size >= GROUP_BYTES:
            self._flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._flush)

    async def close(self) -> None:
        """Write what waits, and let go of the segment."""
        self._flush()
        self._spool.close()

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        frames, self._frames, self._size = self._frames, [], 0
        if not frames:
            return
        rest = frames[self._spool.append_frames(frames) :]
        lost = sum(not self._spool.append_frames([frame]) for frame in rest)  # where a group does not fit, one may
        if lost:
            self._losses.add(lost, why="the disk is full or broken, or the spool has reached its bound")
        else:
            self._losses.failing = False


@dataclass(slots=True)
class Round:
    """One sync under way: of how many records and segments, counted from the first; for whom; what is closed then."""

    records: int
    segments: int
    waiting: list[Waiter]
    left: list[int]
    timer: asyncio.TimerHandle


class Committed:
    """Acknowledges what the disk has. Needs a running loop. `sync` is os.fdatasync; `patience` is seconds."""

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int,
        metrics: Metrics,
        sync: Callable[[int], None],
        patience: float,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._directory = directory
        self._metrics = metrics
        self._losses = Losses(metrics)
        self._sync = sync
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._left: list[int] = []  # segments that are written to no more, and not on the disk yet
        self._spool = Spool(directory, segment_bytes=segment_bytes, max_bytes=max_bytes, let_go=self._left.append)
        self._named = 0  # segments whose names are on the disk
        self._written = 0  # records
        self._safe = 0  # records of which nobody waits for any more: on the disk, or counted as lost
        self._round: Round | None = None
        self._begins = False  # a round, as soon as the calls have written that can in this turn of the loop
        self._stuck = False
        self._coming: list[Waiter] = []  # they wait for the round after this one
        self._work: SimpleQueue[tuple[list[int], bool] | None] = SimpleQueue()
        # No executor's: the interpreter would wait for it at its end, which a disk that never answers must not hold up.
        Thread(target=self._sync_all, name="commit", daemon=True).start()

    def append(self, record: CallRecord) -> None:
        """Write one record, and have it on the disk soon. Raises UnableToRecord."""
        self._spool.append(record)
        self._written += 1
        self._begin_soon()

    async def settled(self) -> None:
        """Return once all that was appended is on the disk, or lost and counted, or has taken too long."""
        if self._written != self._safe and (self._stuck or not await self._wait()):
            self._metrics.unsettled += 1

    async def close(self) -> None:
        """Have all on the disk, if it answers, and let go of the segments."""
        self._spool.close()
        if not self._stuck:
            waiter = self._loop.create_future()
            self._coming.append(waiter)
            self._begin_soon()
            await waiter
        self._stuck = self._begins = True  # what is still appended is written, and waits for nobody
        self._work.put(None)

    def _wait(self) -> Waiter:
        waiter: Waiter = self._loop.create_future()  # each has its own: one who leaves takes nobody along
        under_way = self._round
        if under_way is not None and under_way.records == self._written:
            under_way.waiting.append(waiter)
        else:
            self._coming.append(waiter)
        return waiter

    def _begin_soon(self) -> None:
        if self._round is None and not self._begins:
            self._begins = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._begins = False
        segments = self._spool.started
        left, waiting = self._left.copy(), self._coming
        self._left.clear()
        self._coming = []
        timer = self._loop.call_later(self._patience, self._give_up)
        self._round = Round(records=self._written, segments=segments, waiting=waiting, left=left, timer=timer)
        current = [] if self._spool.fd is None else [self._spool.fd]
        self._work.put(([*left, *current], segments != self._named))

    def _sync_all(self) -> None:
        """The thread. No segment is closed before it has done with it: that is left to `_end`."""
        while (work := self._work.get()) is not None:
            segments, named = work
            error = None
            try:
                for fd in segments:
                    self._sync(fd)
                if named:
                    sync_directory(self._directory)
            except OSError as failure:
                error = failure
            with suppress(RuntimeError):  # the loop has ended, and nobody waits
                self._loop.call_soon_threadsafe(self._end, error)

    def _end(self, error: OSError | None) -> None:
        ended, self._round = self._round, None
        if ended is None:
            return
        ended.timer.cancel()
        self._stuck = False
        self._note(ended, error)
        self._safe = ended.records
        _release(ended.waiting, settled=True)
        for fd in ended.left:
            with suppress(OSError):  # what closing could say, syncing has said
                os.close(fd)
        if self._written != self._safe or self._left or self._coming:
            self._begin()

    def _note(self, ended: Round, error: OSError | None) -> None:
        count = ended.records - self._safe
        if error is None:
            self._named = ended.segments
            self._losses.failing = self._losses.failing and not count
        else:
            # A later sync would succeed and say nothing of these: the system has forgotten what it could not write.
            self._spool.close()
            self._losses.add(count, why=f"syncing failed: {os.strerror(error.errno or 0)}")

    def _give_up(self) -> None:
        if self._round is not None:
            self._stuck = True
            logger.error("the disk takes more than %g s: calls do not wait for it", self._patience)
            waiting, self._round.waiting = self._round.waiting, []
            coming, self._coming = self._coming, []
            _release([*waiting, *coming], settled=False)


Log = Direct | Grouped | Committed


def open_log(directory: Path, ack: Ack, *, max_bytes: int, metrics: Metrics) -> Log:
    """The spool, behind what `ack` means. `max_bytes` bounds the directory. Needs a running loop. Raises UnableToRecord
    where nothing can be written there.
    """
    if ack is Ack.DISK:
        return Committed(directory, max_bytes=max_bytes, metrics=metrics, sync=os.fdatasync, patience=PATIENCE)
    spool = Spool(directory, segment_bytes=SEGMENT_BYTES, max_bytes=max_bytes)
    if ack is Ack.MEMORY:
        return Grouped(spool, losses=Losses(metrics), seconds=GROUP_SECONDS)
    return Direct(spool)


def _release(waiting: Iterable[Waiter], *, settled: bool) -> None:
    for waiter in waiting:
        if not waiter.done():  # it left
            waiter.set_result(settled)
