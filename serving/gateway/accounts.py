"""What one process knows of each limit: what it has taken ahead, what of that is spare, and what all have used.

Each process takes a little of a limit ahead (a lease) from the counter that all share, so that a warm call asks nobody;
with little left every call asks. Where the counter cannot be reached, a process goes on from what it last knew of it
and counts by itself: so many processes can then spend at most so many times what was left.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from serving.core.limits import LimitEntry, Period, floor_of, lease_of
from serving.counters import Step, Taken, UnableToCount

WAIT_SECONDS = 5.0  # for a turn at the shared counter, while it answers those before; then a process counts by itself
LEFT_ALONE_SECONDS = 1.0  # after nobody answered: no call waits for the counters meanwhile
REFUSED_SECONDS = 0.1  # a limit that had not so much left is not asked for as much again meanwhile


class Counters(Protocol):
    """What is shared; `serving.counters.SharedCounters` is the real one."""

    async def step(self, name: str, step: Step) -> Taken:
        """Tell what is taken, and take more. Raises UnableToCount."""
        ...


class Account:
    """One limit in one window, as this process knows it.

    `taken` is all that this process has taken, `spare` what of it no call has used or set aside; below zero, calls have
    used more than is taken. `used` is the shared counter when it was last seen, with what this process changed since.
    """

    def __init__(
        self,
        limit: LimitEntry,
        period: Period,
        counters: Counters,
        *,
        name: str,
        blindly: Callable[[], None] = lambda: None,
    ) -> None:
        self.limit = limit
        self.period = period
        self.spare = 0
        self.taken = 0
        self.used = 0
        self.is_touched = False
        self._wanted = 0  # by calls that wait
        self._counters = counters
        self._name = name
        self._blindly = blindly  # called where a call is counted by this process alone
        self._lock = asyncio.Lock()
        self._evening: asyncio.Task[None] | None = None
        self._refused = (0, 0.0)  # as much as this was, until then by the loop's clock

    @property
    def left(self) -> int:
        """What this process knows to be left for the next call."""
        return max(0, self.limit.amount - self.used + self.spare)

    async def take(self, n: int) -> bool:
        """Set `n` aside; False where so much is not left. It waits WAIT_SECONDS at most."""
        self.is_touched = True
        if self.spare >= n:
            self.spare -= n
        elif self._was_refused(n) or not await self._take_more(n):
            return False
        if self.spare < self._lease // 2 and not self._is_near:
            self._even_out()
        return True

    def give_back(self, n: int) -> None:
        """`n` of what was set aside was not used; less than nothing: so much more was."""
        self.spare = max(self.spare + n, -self.limit.amount)  # more than everything is not worth counting
        if not 0 <= self.spare <= self._most_spare:
            self._even_out()

    async def hand_in(self) -> None:
        """Give back what is spare, and have what was overdrawn counted. Raises UnableToCount."""
        async with self._lock:
            self._drop(self.spare)
            await self._step()

    async def even_out(self) -> None:
        """Have what was overdrawn counted, give back what is too much, and take ahead where enough is left."""
        async with self._lock:
            try:
                while not 0 <= self.spare <= self._most_spare:  # calls go on meanwhile
                    if self.spare > 0:
                        self._drop(self.spare - self._most_spare // 2)
                    await self._step()
                if not self._is_near and self.spare < self._lease // 2:
                    await self._step(lease=self._lease)
            except UnableToCount:
                return  # the next step tells all of it

    @property
    def _lease(self) -> int:
        return lease_of(self.limit.amount)

    @property
    def _most_spare(self) -> int:
        """So much may be kept ahead."""
        return 0 if self._is_near else 2 * self._lease

    @property
    def _is_near(self) -> bool:
        return self.limit.amount - self.used <= floor_of(self.limit.amount)

    async def _take_more(self, n: int) -> bool:
        self._wanted += n
        try:
            async with asyncio.timeout(WAIT_SECONDS), self._lock:
                return not self._was_refused(n) and await self._take_shared(n)
        except (UnableToCount, TimeoutError):
            return self._take_blind(n)
        finally:
            self._wanted -= n

    async def _take_shared(self, n: int) -> bool:
        aside = min(n, max(self.spare, 0))  # no other call takes it while this one waits
        self.spare -= aside
        granted = aside == n
        try:
            if not granted:
                granted = await self._step(need=n - aside, ahead=self._wanted - n, lease=self._lease)
        finally:
            self.spare += aside - n if granted else aside
        if not granted:
            self._refused = (n, asyncio.get_running_loop().time() + REFUSED_SECONDS)
        return granted

    def _take_blind(self, n: int) -> bool:
        """By this process's own count, of what it last knew to be left."""
        if self.left < n:
            return False
        self._drop(min(0, self.spare - n))
        self.spare -= n
        self._blindly()
        return True

    def _was_refused(self, n: int) -> bool:
        least, until = self._refused
        return until > 0 and n >= least and asyncio.get_running_loop().time() < until

    async def _step(self, *, need: int = 0, ahead: int = 0, lease: int = 0) -> bool:
        """Tell what is taken, and take more; False where `need` is not left. `ahead` is for the calls that wait behind
        this one, so that one step serves them all.
        """
        self._drop(min(0, self.spare))
        amount = self.limit.amount
        step = Step(self.taken, amount, floor_of(amount), self.period.kept_until, need=need, ahead=ahead, lease=lease)
        taken = await self._counters.step(self._name, step)
        self.used = taken.used + self.taken - step.taken  # of what was taken blindly meanwhile it knows nothing yet
        self.taken += taken.granted or 0
        self.spare += taken.granted or 0
        return taken.granted is not None

    def _drop(self, n: int) -> None:
        """Hold `n` less, all of it spare; less than nothing: so much more."""
        self.spare -= n
        self.taken -= n
        self.used -= n

    def _even_out(self) -> None:
        if self._evening is None or self._evening.done():
            self._evening = asyncio.get_running_loop().create_task(self.even_out())


class Reach:
    """The shared counters, left alone for a moment after nobody answered."""

    def __init__(self, counters: Counters | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._counters = counters
        self._clock = clock
        self._away_until = 0.0

    async def step(self, name: str, step: Step) -> Taken:
        """As the counters do. Raises UnableToCount, at once where nobody answered a moment ago."""
        if self._counters is None or self._clock() < self._away_until:
            raise UnableToCount("left alone", away=True)
        try:
            return await self._counters.step(name, step)
        except UnableToCount as error:
            if error.away:
                self._away_until = self._clock() + LEFT_ALONE_SECONDS
            raise
