"""The counters that all gateways share, in Valkey: what is used of each limit in each window.

Every step is one script on the server, so that nobody reads what another is about to change. A counter that is flushed
is raised again from the log (`seed`), which is the slow truth behind it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, cast

import redis
import redis.asyncio

KEPT_SECONDS = 3600  # after its window: the last calls of it may still be going on
PREFIX: Final = "understudy:limit"

# need, lease, amount, floor, until -> granted (-1: not so much is left), used
TAKE: Final = """
local used = tonumber(redis.call('GET', KEYS[1]) or '0')
local need, lease, amount, floor = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if need > 0 and used + need > amount then
  redis.call('SET', KEYS[2], '1', 'EXAT', ARGV[5])
  return {'-1', string.format('%.0f', used)}
end
local granted = need + math.max(0, math.min(lease, amount - floor - used - need))
if granted > 0 then
  redis.call('INCRBY', KEYS[1], string.format('%.0f', granted))
  redis.call('EXPIREAT', KEYS[1], ARGV[5])
end
return {string.format('%.0f', granted), string.format('%.0f', used + granted)}
"""
# n, until -> used
ADD: Final = """
local used = redis.call('INCRBY', KEYS[1], ARGV[1])
if used < 0 then redis.call('SET', KEYS[1], '0') used = 0 end
redis.call('EXPIREAT', KEYS[1], ARGV[2])
return string.format('%.0f', used)
"""
# logged, until -> used
SEED: Final = """
local used = tonumber(redis.call('GET', KEYS[1]) or '0')
if tonumber(ARGV[1]) > used then used = tonumber(ARGV[1]) redis.call('SET', KEYS[1], ARGV[1]) end
redis.call('EXPIREAT', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], '1', 'EXAT', ARGV[2])
return string.format('%.0f', used)
"""


class UnableToCount(Exception):
    """The counters cannot be reached; the message never shows their address."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a process was granted, and what is used or granted in all. `granted` is None where too little is left."""

    granted: int | None
    used: int


@dataclass(frozen=True, slots=True)
class Reading:
    """A counter as it stands. `seeded`: the log has been counted in; `refused`: a call did not fit any more."""

    used: int
    seeded: bool
    refused: bool


def counter_name(*, tenant_id: str, limit_id: str, period: str) -> str:
    """The key of one limit's counter in one window; no two tenants share one."""
    return f"{PREFIX}:{{{tenant_id}:{limit_id}}}:{period}"


class SharedCounters:
    """The gateway's side. Times are whole seconds since the epoch; `patience` is seconds for one step."""

    def __init__(self, url: str, *, patience: float) -> None:
        self._valkey = redis.asyncio.Redis.from_url(
            url, socket_timeout=patience, socket_connect_timeout=patience, retry=None, decode_responses=True
        )

    async def take(self, name: str, *, need: int, lease: int, amount: int, floor: int, until: int) -> Taken:
        """Take `need`, and up to `lease` ahead as long as more than `floor` stays. Raises UnableToCount."""
        keys = (name, f"{name}:refused")
        granted, used = await self._run(TAKE, keys, need, lease, amount, floor, until + KEPT_SECONDS)
        return Taken(int(granted) if int(granted) >= 0 else None, int(used))

    async def add(self, name: str, n: int, *, until: int) -> None:
        """Count `n`, whatever is left; less than nothing gives back. Raises UnableToCount."""
        await self._run(ADD, (name,), n, until + KEPT_SECONDS)

    async def close(self) -> None:
        """Give up the connections."""
        await self._valkey.aclose()

    async def _run(self, script: str, keys: tuple[str, ...], *values: int) -> Any:
        with _told_plainly():
            return await self._valkey.eval(script, len(keys), *keys, *map(str, values))


class Readings:
    """The side of everybody else, who only looks, and counts the log in."""

    def __init__(self, url: str, *, patience: float = 2.0) -> None:
        self._valkey = redis.Redis.from_url(
            url, socket_timeout=patience, socket_connect_timeout=patience, decode_responses=True
        )

    def read(self, names: Sequence[str]) -> list[Reading]:
        """Each counter, in order. Raises UnableToCount."""
        if not names:
            return []
        with _told_plainly():
            found = cast("list[str | None]", self._valkey.mget([k for name in names for k in _keys(name)]))
        return [
            Reading(int(used or 0), seeded is not None, refused is not None)
            for used, seeded, refused in zip(found[::3], found[1::3], found[2::3], strict=True)
        ]

    def seed(self, name: str, logged: int, *, until: int) -> int:
        """Raise a counter to what the log has, if it is below, once; gives what it is then. Raises UnableToCount."""
        keys = (name, f"{name}:seeded")
        with _told_plainly():
            return int(cast(str, self._valkey.eval(SEED, 2, *keys, str(logged), str(until + KEPT_SECONDS))))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._valkey.close()


def _keys(name: str) -> tuple[str, str, str]:
    return name, f"{name}:seeded", f"{name}:refused"


@contextmanager
def _told_plainly() -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, OSError, TimeoutError) as error:
        raise UnableToCount(type(error).__name__) from None
