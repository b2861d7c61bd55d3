"""Holds calls within their tenant's limits: what a call may take is set aside before it, and settled after it."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final

from ingestion.core.calls import LONGEST_MODEL, Ask, Dialect, Usage
from ingestion.core.rating import Rates
from ingestion.price_list import models_priced, priced_as
from serving.core.limits import (
    NOTHING,
    Demand,
    LimitEntry,
    Measure,
    demand,
    find_rates,
    limits_on,
    most_input,
    most_output,
    period_of,
)
from serving.core.snapshot import ProviderEntry, RouteEntry, Snapshot
from serving.counters import UnableToCount, counter_name
from serving.gateway.accounts import Account, Counters, Reach
from serving.gateway.authenticate import Caller
from serving.gateway.metrics import Metrics
from serving.gateway.refusals import limit_reached

MOST_ACCOUNTS: Final = 10_000  # beyond, those of past windows are forgotten
MOST_RATES: Final = 1000  # models whose rates are remembered
TEND_SECONDS = 10.0  # between two looks for what was taken ahead and is not used
HAND_IN_SECONDS: Final = 2.0  # as a process ends
EVERYTHING: Final = frozenset(Measure)
MONEY: Final = frozenset({Measure.SPEND})
BUT_MONEY: Final = EVERYTHING - MONEY

logger = logging.getLogger(__name__)

RatesOf = Callable[[str, str, str], Rates | None]  # by a provider, and a model's name as asked for and as answered


class Reservation:
    """What one call has set aside. It is settled once, by what was used, or released as if nothing was."""

    def __init__(self) -> None:
        self.accounts: list[Account] = []
        self.reserved = NOTHING
        self.rates: RatesOf | None = None

    def settle(self, usage: Usage | None, provider: str, *, asked: str, answered: str, paid: bool) -> None:
        """The call used so much of the provider's model; not `paid`: nobody charges the tenant for it. None: nobody can
        say, so all that was set aside counts as used.
        """
        if not self.accounts:
            return
        rates = self.rates(provider, asked, answered) if paid and self.rates else None
        self._settle(self.reserved if usage is None else demand(usage, rates))

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._settle(NOTHING)

    def _settle(self, used: Demand) -> None:
        for account in self.accounts:
            measure = account.limit.measure
            account.give_back(self.reserved.of(measure) - min(used.of(measure), account.limit.amount))
        self.accounts = []


class Limits:
    """All limits' accounts of this process. `clock` gives seconds since the epoch."""

    def __init__(self, counters: Counters | None, *, metrics: Metrics, clock: Callable[[], float] = time.time) -> None:
        self._reach = Reach(counters)
        self._metrics = metrics
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        self._rates: tuple[int, dict[tuple[str, ...], Rates | None]] = (0, {})

    async def reserve(
        self,
        reservation: Reservation,
        caller: Caller,
        ask: Ask,
        route: RouteEntry | None,
        destinations: Sequence[ProviderEntry],
        snapshot: Snapshot,
        *,
        measures: Collection[str] = EVERYTHING,
    ) -> None:
        """Set aside what the call may take of these measures at the dearest of its destinations. Raises Refused where a
        limit has not so much left. `ask` is as the caller said it.
        """
        limits = _limits_of(caller, snapshot)
        if limits:
            rates = partial(self._rates_of, snapshot)
            prices = [rates(one.provider, one.model or ask.model, "") for one in destinations]
            reservation.reserved, reservation.rates = _most(ask, route, prices), rates
            workload_id = route.workload_id if route else None
            await self._take(reservation, limits, caller, ask.dialect, workload_id=workload_id, measures=measures)

    async def reserve_unread(
        self, reservation: Reservation, caller: Caller, dialect: Dialect, *, snapshot: Snapshot
    ) -> None:
        """As `reserve`, for what passes through: what it takes is seen afterwards, so there must be anything left."""
        limits = _limits_of(caller, snapshot)
        if limits:
            reservation.reserved = Demand(requests=1, tokens=1, spend=1)
            reservation.rates = partial(self._rates_of, snapshot)
            await self._take(reservation, limits, caller, dialect, workload_id=None, measures=EVERYTHING)

    async def tend(self) -> None:
        """For ever: give back what was taken ahead and is not used, and tell a flushed counter what is taken."""
        while True:
            await asyncio.sleep(TEND_SECONDS)
            for account in list(self._accounts.values()):
                if account.is_touched:
                    account.is_touched = False
                elif account.taken:
                    await self._hand_in(account)

    async def close(self) -> None:
        """Give back all that is spare, as far as that goes in HAND_IN_SECONDS."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HAND_IN_SECONDS):
                for account in self._accounts.values():
                    await self._hand_in(account)

    async def _hand_in(self, account: Account) -> None:
        if self._clock() < account.period.ends:
            with contextlib.suppress(UnableToCount):
                await account.hand_in()

    async def _take(
        self,
        reservation: Reservation,
        limits: Collection[LimitEntry],
        caller: Caller,
        dialect: Dialect,
        *,
        workload_id: str | None,
        measures: Collection[str],
    ) -> None:
        now = self._clock()
        for limit in limits_on(limits, key_id=caller.key.key_id, workload_id=workload_id):
            if limit.measure in measures:
                account = self._account(caller.key.tenant_id, limit, now=now)
                need = reservation.reserved.of(limit.measure)
                if not await account.take(need):
                    raise limit_reached(limit, dialect, need=need, left=account.left, ends=account.period.ends, now=now)
                reservation.accounts.append(account)

    def _account(self, tenant_id: str, limit: LimitEntry, *, now: float) -> Account:
        known = self._accounts.get(limit.id)
        if known is None or not known.period.begins <= now < known.period.ends:
            period = period_of(limit.window, now=now)
            name = counter_name(tenant_id=tenant_id, limit_id=limit.id, period=period.name)
            if len(self._accounts) >= MOST_ACCOUNTS:
                self._accounts = {k: kept for k, kept in self._accounts.items() if now < kept.period.ends}
            known = self._accounts[limit.id] = Account(limit, period, self._reach, name=name, blindly=self._note_blind)
        known.limit = limit
        return known

    def _note_blind(self) -> None:
        if not self._metrics.counted_alone:
            logger.error("limits are counted by this process alone: the shared counters do not answer")
        self._metrics.counted_alone += 1

    def _rates_of(self, snapshot: Snapshot, provider: str, asked: str, answered: str) -> Rates | None:
        named = (provider, *(model[:LONGEST_MODEL] for model in models_priced(provider, asked, answered) if model))
        version, found = self._rates
        if version != snapshot.version or len(found) >= MOST_RATES:
            found = {}
            self._rates = (snapshot.version, found)
        if named not in found:
            names = [name for model in named[1:] for name in priced_as(provider, model)]
            found[named] = find_rates(snapshot.rates, names or [(provider, "")])
        return found[named]


def _limits_of(caller: Caller, snapshot: Snapshot) -> Collection[LimitEntry]:
    """The newest: a caller whose body comes slowly was let in by an older snapshot."""
    return snapshot.tenants.get(caller.key.tenant_id, caller.tenant).limits


def _most(ask: Ask, route: RouteEntry | None, prices: Collection[Rates | None]) -> Demand:
    """The call at its dearest, as far as anybody can tell beforehand."""
    usual = route.usual_output if route else 0
    written = most_output(ask.max_tokens, usual=usual, answers=ask.n)
    usage = Usage(input_tokens=most_input(ask), output_tokens=written)
    return max((demand(usage, rates) for rates in prices), key=lambda one: one.spend)
