"""The counters that all gateways share, in Valkey: what is used of each limit in each window.

One hash a limit and window: what each process has taken of it, what the log has beyond that, and their sum. A process
tells what it has taken in all, and never a difference: a step whose reply was lost is put right by the next, and a
counter that was flushed is filled again by those who have taken of it. Each step is one script on the server, so that
nobody reads what another is about to change.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, cast

import redis

from serving.valkey import connect

PREFIX: Final = "understudy:limit"

# process, mine (taken by it), need, ahead, lease, amount, floor, until -> granted (-1: not so much is left), used.
# What a process had taken before a flush is in the log's part, as far as the log has been counted in.
STEP: Final = """
local function number(field) return tonumber(redis.call('HGET', KEYS[1], field) or '0') end
local function text(value) return string.format('%.0f', value) end
local mine, need, ahead = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local lease, amount, floor = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local last = redis.call('HGET', KEYS[1], ARGV[1])
local used = number('total') + mine - tonumber(last or '0')
if not last and mine > 0 then
  local covered = math.min(number('log'), mine)
  if covered > 0 then
    redis.call('HSET', KEYS[1], 'log', text(number('log') - covered))
    used = used - covered
  end
end
local left = amount - used - need
local granted = need + math.max(0, math.min(ahead, left), math.min(lease, left - floor))
if need > 0 and used + need > amount then
  granted = -1
  if amount - used <= floor then redis.call('HSET', KEYS[1], 'refused', ARGV[6]) end
end
local taken = math.max(0, granted)
redis.call('HSET', KEYS[1], ARGV[1], text(mine + taken), 'total', text(used + taken))
redis.call('EXPIREAT', KEYS[1], ARGV[8])
return {text(granted), text(used + taken)}
"""
# logged, until -> used
SEED: Final = """
local used = tonumber(redis.call('HGET', KEYS[1], 'total') or '0')
local beyond = math.max(0, tonumber(ARGV[1]) - used)
redis.call('HINCRBY', KEYS[1], 'log', string.format('%.0f', beyond))
redis.call('HSET', KEYS[1], 'total', string.format('%.0f', used + beyond), 'seeded', '1')
redis.call('EXPIREAT', KEYS[1], ARGV[2])
return string.format('%.0f', used + beyond)
"""


class UnableToCount(Exception):
    """A counter cannot be read or changed; the message is a kind of error and never an address.

    `away`: none can, since nobody answers.
    """

    def __init__(self, kind: str, *, away: bool) -> None:
        super().__init__(kind)
        self.away = away


@dataclass(frozen=True, slots=True)
class Step:
    """What a process tells a counter, and asks of it, in the limit's unit.

    It has `taken` so much in all. It takes `need`, or nothing; besides the more of `ahead`, as far as that is left, and
    `lease`, as far as `floor` of the `amount` stays. `until` is when the counter may go, in seconds since the epoch.
    """

    taken: int
    amount: int
    floor: int
    until: int
    need: int = 0
    ahead: int = 0
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """What a process was granted, and what is used or taken in all. `granted` is None where too little is left."""

    granted: int | None
    used: int


@dataclass(frozen=True, slots=True)
class Reading:
    """A counter as it stands. `seeded`: the log has been counted in; `refused`: the amount that a call did not fit in,
    with most of it used; 0 where none was refused so.
    """

    used: int
    seeded: bool
    refused: int


def counter_name(*, tenant_id: str, limit_id: str, period: str) -> str:
    """The key of one limit's counter in one window; no two tenants share one."""
    return f"{PREFIX}:{{{tenant_id}:{limit_id}}}:{period}"


class SharedCounters:
    """The gateway's side. `process` is this one's name, like no other's; `patience` is seconds for one step."""

    def __init__(self, url: str, *, process: str, patience: float) -> None:
        self._process = f"p:{process}"
        self._valkey = connect(url, patience=patience)

    async def step(self, name: str, step: Step) -> Taken:
        """Tell what this process has taken in all, and take more. Raises UnableToCount."""
        values = (step.taken, step.need, step.ahead, step.lease, step.amount, step.floor, step.until)
        with _told_plainly():
            granted, used = await self._valkey.eval(STEP, 1, name, self._process, *map(str, values))
        return Taken(int(granted) if int(granted) >= 0 else None, int(used))

    async def close(self) -> None:
        """Give up the connections."""
        await self._valkey.aclose()


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
        with _told_plainly(), self._valkey.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.hmget(name, ["total", "seeded", "refused"])
            found = cast("list[list[str | None]]", pipeline.execute())
        return [Reading(int(used or 0), seeded is not None, int(refused or 0)) for used, seeded, refused in found]

    def seed(self, name: str, logged: int, *, until: int) -> int:
        """Raise a counter to what the log has, if it is below; gives what it is then. Raises UnableToCount."""
        with _told_plainly():
            return int(cast(str, self._valkey.eval(SEED, 1, name, str(logged), str(until))))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._valkey.close()


@contextmanager
def _told_plainly() -> Iterator[Any]:
    try:
        yield
    except redis.ResponseError as error:  # it answers, but not to this: it is full, say
        raise UnableToCount(type(error).__name__, away=False) from None
    except (redis.RedisError, OSError) as error:
        raise UnableToCount(type(error).__name__, away=True) from None
