"""Holds calls within their tenant's limits: what a call may take is set aside before it, and settled after it.

Each process takes a little of each limit ahead (a lease) from the counters that all share, so that a warm call asks
nobody; with little left every call asks. Where the counters cannot be reached, a process goes on from what it last
knew of them and counts by itself: so many processes can then spend at most so many times what was left.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol

from ingestion.core.calls import Ask, Dialect, Usage
from ingestion.core.rating import Rates
from serving.core.limits import (
    NOTHING,
    Demand,
    LimitEntry,
    Period,
    demand,
    find_rates,
    floor_of,
    lease_of,
    limits_on,
    most_input,
    most_output,
    period_of,
)
from serving.core.snapshot import RouteEntry, Snapshot
from serving.counters import Taken, UnableToCount, counter_name
from serving.gateway.authenticate import Caller
from serving.gateway.refusals import limit_reached

LEFT_ALONE_SECONDS = 1.0  # after the counters could not be reached: no call waits for them meanwhile
MOST_KEPT = 10_000  # accounts, and models' rates: beyond, those of past windows are forgotten

RatesOf = Callable[[str], Rates | None]  # by a model's name


class Counters(Protocol):
    """What is shared; `serving.counters.SharedCounters` is the real one."""

    async def take(self, name: str, *, need: int, lease: int, amount: int, floor: int, until: int) -> Taken:
        """Take some. Raises UnableToCount."""
        ...

    async def add(self, name: str, n: int, *, until: int) -> None:
        """Count some, whatever is left. Raises UnableToCount."""
        ...


class Account:
    """One limit in one window, as this process knows it.

    `spare` was taken and is not used; below zero, used and not taken. `used` is the shared counter when it was last
    seen, `blind` what was used since, while it could not be reached.
    """

    def __init__(self, limit: LimitEntry, period: Period, counters: Counters, *, name: str) -> None:
        self.limit = limit
        self.period = period
        self.spare = 0
        self.used = 0
        self.blind = 0
        self._counters = counters
        self._name = name
        self._lock = asyncio.Lock()
        self._evening: asyncio.Task[None] | None = None

    @property
    def left(self) -> int:
        """What this process knows to be left for the next call."""
        return max(0, self.limit.amount - self.used - self.blind + self.spare)

    async def take(self, n: int) -> bool:
        """Set `n` aside; False where so much is not left."""
        if self.spare < n:
            async with self._lock:
                if self.spare < n and not await self._take_more(n):
                    return False
        self.spare -= n
        if self.spare < lease_of(self.limit.amount) // 2 and not self._is_near:
            self._even_out()
        return True

    def give_back(self, n: int) -> None:
        """`n` of what was set aside was not used; less than nothing: so much more was."""
        self.spare += n
        if not 0 <= self.spare <= self._most_spare:
            self._even_out()

    async def even_out(self) -> None:
        """Take what was overspent, give back what is too much, and keep a lease where enough is left."""
        async with self._lock:
            try:
                while not 0 <= self.spare <= self._most_spare:  # calls go on meanwhile
                    await self._repay()
                    await self._return(self.spare - self._most_spare // 2)
                if not self._is_near and self.spare < lease_of(self.limit.amount) // 2:
                    await self._lease(0)
            except UnableToCount:
                return  # the next call finds out, and counts by itself

    @property
    def _most_spare(self) -> int:
        """So much may be kept ahead."""
        return 0 if self._is_near else 2 * lease_of(self.limit.amount)

    @property
    def _is_near(self) -> bool:
        return self.limit.amount - self.used <= floor_of(self.limit.amount)

    async def _take_more(self, n: int) -> bool:
        """Have `n` spare, of the shared counter's or, where that is away, by this process's own count."""
        try:
            await self._repay()
            return await self._lease(n - self.spare)
        except UnableToCount:
            if self.left < n:
                return False
            self.blind += n - self.spare
            self.spare = n
            return True

    async def _lease(self, need: int) -> bool:
        amount = self.limit.amount
        taken = await self._counters.take(
            self._name, need=need, lease=lease_of(amount), amount=amount, floor=floor_of(amount), until=self._until
        )
        self.used = taken.used
        self.spare += taken.granted or 0
        return taken.granted is not None

    async def _repay(self) -> None:
        """Have what was used without asking counted too."""
        blind, overdrawn = self.blind, max(0, -self.spare)  # as they are now: calls go on while this is counted
        if blind or overdrawn:
            await self._counters.add(self._name, blind + overdrawn, until=self._until)
            self.used += blind + overdrawn
            self.spare += overdrawn
            self.blind -= blind

    async def _return(self, n: int) -> None:
        if n <= 0:
            return
        self.spare -= n  # before anybody waits, or a call could take it meanwhile
        try:
            await self._counters.add(self._name, -n, until=self._until)
        except UnableToCount:
            self.spare += n
            raise
        self.used -= n

    @property
    def _until(self) -> int:
        return int(self.period.ends)

    def _even_out(self) -> None:
        if self._evening is None or self._evening.done():
            self._evening = asyncio.get_running_loop().create_task(self.even_out())


class Reach:
    """The shared counters, left alone for a moment after they could not be reached."""

    def __init__(self, counters: Counters | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._counters = counters
        self._clock = clock
        self._away_until = 0.0

    async def take(self, name: str, *, need: int, lease: int, amount: int, floor: int, until: int) -> Taken:
        """As the counters do. Raises UnableToCount, at once where they were away a moment ago."""
        with self._watched() as counters:
            return await counters.take(name, need=need, lease=lease, amount=amount, floor=floor, until=until)

    async def add(self, name: str, n: int, *, until: int) -> None:
        """As the counters do. Raises UnableToCount, at once where they were away a moment ago."""
        with self._watched() as counters:
            await counters.add(name, n, until=until)

    @contextmanager
    def _watched(self) -> Iterator[Counters]:
        if self._counters is None or self._clock() < self._away_until:
            raise UnableToCount("left alone")
        try:
            yield self._counters
        except UnableToCount:
            self._away_until = self._clock() + LEFT_ALONE_SECONDS
            raise


class Hold:
    """What one call has set aside. It is settled once, by what was used, or released as if nothing was."""

    def __init__(
        self, accounts: Sequence[Account] = (), *, reserved: Demand = NOTHING, rates: RatesOf | None = None
    ) -> None:
        self._accounts = accounts
        self._reserved = reserved
        self._rates = rates

    def settle(self, usage: Usage, *, model: str, paid: bool) -> None:
        """The call used so much of `model`; not `paid`: nobody charges the tenant for it."""
        if self._accounts:
            rates = self._rates(model) if paid and self._rates else None
            self._settle(demand(usage, rates))

    def release(self) -> None:
        """Give all back that was not settled."""
        self._settle(NOTHING)

    def __enter__(self) -> "Hold":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.release()

    def _settle(self, used: Demand) -> None:
        for account in self._accounts:
            measure = account.limit.measure
            account.give_back(self._reserved.of(measure) - used.of(measure))
        self._accounts = ()


class Limits:
    """All limits' accounts of this process. `clock` gives seconds since the epoch."""

    def __init__(self, counters: Counters | None, *, clock: Callable[[], float] = time.time) -> None:
        self._reach = Reach(counters)
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        self._rates: tuple[int, dict[tuple[str, str], Rates | None]] = (0, {})

    async def hold(self, caller: Caller, ask: Ask, route: RouteEntry | None, snapshot: Snapshot) -> Hold:
        """Set aside what the call may take. Raises Refused where a limit has not so much left."""
        reserved, rates = NOTHING, None
        if caller.tenant.limits:
            rates = partial(self._rates_of, snapshot, ask.dialect.provider)
            reserved = _most(ask, route, rates(ask.model))
        return await self._hold(caller, ask.dialect, route.workload_id if route else None, reserved, rates)

    async def hold_unread(self, caller: Caller, dialect: Dialect, snapshot: Snapshot) -> Hold:
        """As `hold`, for what passes through: what it takes is seen afterwards, so that there must be anything left."""
        rates = partial(self._rates_of, snapshot, dialect.provider)
        return await self._hold(caller, dialect, None, Demand(requests=1, tokens=1, spend=1), rates)

    async def _hold(
        self, caller: Caller, dialect: Dialect, workload_id: str | None, reserved: Demand, rates: RatesOf | None
    ) -> Hold:
        held: list[Account] = []
        now = self._clock()
        for limit in limits_on(caller.tenant.limits, key_id=caller.key.key_id, workload_id=workload_id):
            account = self._account(caller.key.tenant_id, limit, now=now)
            if not await account.take(reserved.of(limit.measure)):
                Hold(held, reserved=reserved).release()
                raise limit_reached(limit, dialect, left=account.left, ends=account.period.ends, now=now)
            held.append(account)
        return Hold(held, reserved=reserved, rates=rates) if held else NO_HOLD

    def _account(self, tenant_id: str, limit: LimitEntry, *, now: float) -> Account:
        known = self._accounts.get(limit.id)
        if known is None or not known.period.begins <= now < known.period.ends:
            period = period_of(limit.window, now=now)
            name = counter_name(tenant_id=tenant_id, limit_id=limit.id, period=period.name)
            if len(self._accounts) >= MOST_KEPT:
                self._accounts = {k: kept for k, kept in self._accounts.items() if now < kept.period.ends}
            known = self._accounts[limit.id] = Account(limit, period, self._reach, name=name)
        known.limit = limit
        return known

    def _rates_of(self, snapshot: Snapshot, provider: str, model: str) -> Rates | None:
        version, found = self._rates
        if version != snapshot.version or len(found) >= MOST_KEPT:
            found = {}
            self._rates = (snapshot.version, found)
        if (provider, model) not in found:
            found[provider, model] = find_rates(snapshot.rates, provider=provider, model=model)
        return found[provider, model]


def _most(ask: Ask, route: RouteEntry | None, rates: Rates | None) -> Demand:
    """The call at its dearest, as far as anybody can tell beforehand."""
    usual = route.usual_output if route else 0
    written = most_output(ask.max_tokens, usual=usual, answers=ask.n)
    return demand(Usage(input_tokens=most_input(ask), output_tokens=written), rates)


NO_HOLD = Hold()
