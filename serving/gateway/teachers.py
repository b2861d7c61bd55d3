"""The lanes to the tenants' providers, kept apart: one that is stuck or gone slows nobody but its own callers.

Each tenant's lane to each of its destinations has so many calls in flight, and as many waiting for a place (a
bulkhead); a breaker, so that what cannot be reached is said to be so at once; and a budget of retries, for calls that
the provider has not worked on.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from serving.core.breaker import CLOSED, Breaker, after_failure, after_passing, seconds_to_wait
from serving.core.destinations import target_at
from serving.core.retries import FIRST, earn, wait_asked_for
from serving.core.snapshot import ProviderEntry
from serving.gateway.authenticate import Caller
from serving.gateway.metrics import Metrics
from serving.gateway.refusals import (
    Refused,
    no_place_in_time,
    teacher_late,
    teacher_left_alone,
    teacher_unreachable,
    too_many_in_flight,
)
from serving.gateway.upstream import Body, Reply, UnableToReach, UnableToReachInTime, Upstream, sent_headers
from serving.gateway.wire import Headers, Request

LONGEST_WAIT = 30.0  # seconds, for a place
BEFORE_AGAIN: Final = 0.1  # seconds before a second try at what could not be reached
IDLE_LANES: Final = 10_000  # beyond so many, those that nobody uses are forgotten


@dataclass(slots=True)
class Lane:
    """One tenant's lane to one of its destinations."""

    in_flight: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)
    breaker: Breaker = CLOSED
    retries: float = FIRST

    def take(self, *, most: int) -> bool:
        """Take a place, if there is one."""
        if self.in_flight >= most:
            return False
        self.in_flight += 1
        return True

    async def wait(self, *, most: int) -> None:
        """Wait for a place, where all are taken. Raises Refused where as many wait already, or none came in time."""
        if len(self.waiting) >= most:
            raise too_many_in_flight(2 * most)
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        if not await self._wait(turn):
            raise no_place_in_time()

    async def _wait(self, turn: asyncio.Future[None]) -> bool:
        """Whether the turn came in time."""
        try:
            done, _ = await asyncio.wait([turn], timeout=LONGEST_WAIT)
        except asyncio.CancelledError:
            self._step_out(turn)
            raise
        if not done:
            self._step_out(turn)
        return bool(done)

    def _step_out(self, turn: asyncio.Future[None]) -> None:
        if turn.done():
            self.leave()  # the place came in the same moment
        else:
            turn.cancel()
            self.waiting.remove(turn)

    def leave(self) -> None:
        """Give the place to the next who waits."""
        if self.waiting:
            self.waiting.popleft().set_result(None)
        else:
            self.in_flight -= 1

    def take_retry(self) -> bool:
        """Whether one more retry is in the budget; it is used up then."""
        if self.retries < 1.0:
            return False
        self.retries -= 1.0
        return True

    @property
    def is_forgettable(self) -> bool:
        """Whether a new one would do as well."""
        return not self.in_flight and self.breaker is CLOSED


class _Errand:
    """What is sent to a destination."""

    __slots__ = ("base_url", "body", "headers", "method", "target")

    def __init__(self, method: str, base_url: str, target: str, headers: Headers, body: Body) -> None:
        self.method = method
        self.base_url = base_url
        self.target = target
        self.headers = headers
        self.body = body

    @property
    def is_whole(self) -> bool:
        """Whether all of the body is here, so that what goes wrong is not the caller's doing."""
        return self.body is None or isinstance(self.body, bytes)


class Teachers:
    """All lanes of this process. `most` bounds the calls in flight on each, and those that wait besides. A destination
    that is not the last may be silent for `silence_before_next` seconds before the next one is asked.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        most: int,
        metrics: Metrics,
        silence_before_next: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._upstream = upstream
        self._most = most
        self.metrics = metrics
        self._silence_before_next = silence_before_next
        self._lanes: dict[tuple[str, str, str], Lane] = {}

    async def ask(
        self,
        request: Request,
        caller: Caller,
        destination: ProviderEntry,
        *,
        method: str,
        body: Body,
        again: bool,
        patient: bool = True,
        placed: Callable[[], None] = lambda: None,
    ) -> Reply:
        """Send the caller's request to one of the tenant's own destinations. Raises Refused.

        `again`: it may be sent a second time where the provider did not work on it, or asks for that. Not `patient`: it
        waits for nothing, neither for a place nor as long as a busy provider asks for, and bears less silence. `placed`
        is called once the call has its place, which the reply holds until it is closed.
        """
        lane = self._lane(caller.key.tenant_id, destination)
        if not lane.take(most=self._most):
            if not patient:
                raise too_many_in_flight(self._most)
            await lane.wait(most=self._most)
        placed()
        reply = None
        try:
            reply = await self._ask(lane, _errand(request, destination, method, body), again=again, patient=patient)
        finally:
            if reply is None:
                lane.leave()
        reply.on_close = lane.leave
        return reply

    async def close(self) -> None:
        """Give up all connections."""
        await self._upstream.close()

    def _lane(self, tenant_id: str, destination: ProviderEntry) -> Lane:
        key = (tenant_id, destination.base_url, destination.id)
        lane = self._lanes.get(key)
        if lane is None:
            if len(self._lanes) >= IDLE_LANES:
                self._lanes = {name: used for name, used in self._lanes.items() if not used.is_forgettable}
            lane = self._lanes[key] = Lane()
        return lane

    async def _ask(self, lane: Lane, errand: _Errand, *, again: bool, patient: bool) -> Reply:
        lane.retries = earn(lane.retries)
        try:
            reply = await self._try(lane, errand, patient=patient)
        except UnableToReach as error:
            if not (again and error.untouched and lane.take_retry()):
                raise _refusal(error) from error
            self.metrics.count_retry(why="unreachable")
            await asyncio.sleep(BEFORE_AGAIN)
        else:
            wait = wait_asked_for(reply.status, reply.headers) if again and patient else None
            if wait is None or not lane.take_retry():
                return reply
            reply.close()
            self.metrics.count_retry(why="busy")
            await asyncio.sleep(wait)
        try:
            return await self._try(lane, errand, patient=patient)
        except UnableToReach as error:
            raise _refusal(error) from error

    async def _try(self, lane: Lane, errand: _Errand, *, patient: bool) -> Reply:
        if lane.breaker is not CLOSED:
            now = self._clock()
            if seconds := seconds_to_wait(lane.breaker, now=now):
                raise teacher_left_alone(seconds)
            if errand.is_whole:  # else nobody knows when it ends: no probe
                lane.breaker = after_passing(lane.breaker, now=now)
        opened = lane.breaker.opened
        try:
            reply = await (self._send(errand) if patient else self._send_in_haste(errand))
        except UnableToReach as error:
            if error.down and errand.is_whole:
                lane.breaker = after_failure(lane.breaker, opened=opened, now=self._clock())
            raise
        lane.breaker = CLOSED
        return reply

    def _send(self, errand: _Errand) -> Awaitable[Reply]:
        return self._upstream.ask(
            errand.method, errand.base_url, errand.target, headers=errand.headers, body=errand.body
        )

    async def _send_in_haste(self, errand: _Errand) -> Reply:
        """Another destination waits, so this one may be silent for less long; which counts against it all the same."""
        try:
            async with asyncio.timeout(self._silence_before_next):
                return await self._send(errand)
        except TimeoutError as silence:
            raise UnableToReachInTime(down=True) from silence


def _errand(request: Request, destination: ProviderEntry, method: str, body: Body) -> _Errand:
    headers = sent_headers(
        request.headers,
        provider=destination.provider,
        credential=destination.credential,
        usual=destination.usual,
    )
    if not isinstance(body, bytes):  # whose length only the caller knows
        headers += [(name, value.strip()) for name, value in request.headers if name == b"content-length"]
    target = target_at(destination, request.target, provider=request.provider)
    return _Errand(method, destination.base_url, target, headers, body)


def _refusal(error: UnableToReach) -> Refused:
    return teacher_late() if isinstance(error, UnableToReachInTime) else teacher_unreachable()
