"""Answers kept for a day by their callers' idempotency keys, in Valkey: sealed before they come here.

One hash a key: the digest of what was asked, and either the token of whoever is answering it, or the answer, or that it
was not kept. Each change is one script on the server, so that of two who ask at once one answers.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from serving.valkey import connect

PREFIX: Final = "understudy:once"
CLAIM_SECONDS = 60  # whoever answers renews it meanwhile, and has died if it ends
KEPT_SECONDS = 86_400
MOST_TENANT_BYTES = 64 * 2**20  # of one tenant's answers in a day; those beyond are not kept
KEY_BYTES = 512  # what a key takes besides its answer
OVER_SECONDS = 600  # how long a key is remembered whose answer was beyond
LEFT_ALONE_SECONDS = 1.0  # after nobody answered: no call waits meanwhile

# digest, token, seconds -> nothing (claimed), or what is there: digest, token, answer
CLAIM: Final = """
local digest = redis.call('HGET', KEYS[1], 'digest')
if digest then return redis.call('HMGET', KEYS[1], 'digest', 'token', 'answer') end
redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'token', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return false
"""
# token, answer, seconds, most bytes of the tenant, bytes of a key, seconds of one that is beyond
KEEP: Final = """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return end
redis.call('HDEL', KEYS[1], 'token')
local size = #ARGV[2] + tonumber(ARGV[5])
local used = redis.call('INCRBY', KEYS[2], size)
if used == size then redis.call('EXPIRE', KEYS[2], ARGV[3]) end
local fits = used <= tonumber(ARGV[4])
redis.call('EXPIRE', KEYS[1], fits and ARGV[3] or ARGV[6])
if fits and #ARGV[2] > 0 then redis.call('HSET', KEYS[1], 'answer', ARGV[2]) end
"""
# token, seconds
RENEW: Final = """
if redis.call('HGET', KEYS[1], 'token') == ARGV[1] then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
"""
# token
RELEASE: Final = """
if redis.call('HGET', KEYS[1], 'token') == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


class UnableToKeep(Exception):
    """Nobody answers, or not to this; the message is a kind of error and never an address."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One call's hold on a key; `token` is like no other call's."""

    tenant_id: str
    key: str
    token: str

    @property
    def name(self) -> str:
        """Where it lies; no two tenants' keys are in one place."""
        return f"{PREFIX}:{{{self.tenant_id}}}:{self.key}"


@dataclass(frozen=True, slots=True)
class Earlier:
    """What is there of an earlier call under the same key. Neither under way nor with an `answer`: it was not kept."""

    digest: bytes
    is_under_way: bool
    answer: bytes | None = field(repr=False)


class KeptAnswers:
    """The answers of all tenants; `patience` is seconds for one step."""

    def __init__(self, url: str, *, patience: float) -> None:
        self._valkey = connect(url, patience=patience)
        self._away_until = 0.0

    async def claim(self, claim: Claim, *, digest: bytes) -> Earlier | None:
        """Take the key; or what is there already. Raises UnableToKeep, and then it may be taken all the same."""
        found = await self._run(CLAIM, claim.name, arguments=(digest, claim.token, CLAIM_SECONDS))
        if found is None:
            return None
        earlier, answering, answer = found
        return Earlier(earlier, answering is not None, answer)

    async def renew(self, claim: Claim) -> None:
        """It is still being answered. Raises UnableToKeep."""
        await self._run(RENEW, claim.name, arguments=(claim.token, CLAIM_SECONDS))

    async def keep(self, claim: Claim, answer: bytes) -> None:
        """Keep the answer, or with an empty one only that there was one. Raises UnableToKeep."""
        bounds = (KEPT_SECONDS, MOST_TENANT_BYTES, KEY_BYTES, OVER_SECONDS)
        total = f"{PREFIX}:{{{claim.tenant_id}}}/bytes"
        await self._run(KEEP, claim.name, total, arguments=(claim.token, answer, *bounds))

    async def release(self, claim: Claim) -> None:
        """Let the next call under the key be answered afresh. Raises UnableToKeep."""
        await self._run(RELEASE, claim.name, arguments=(claim.token,))

    async def close(self) -> None:
        """Give up the connections."""
        await self._valkey.aclose()

    async def _run(self, script: str, *names: str, arguments: tuple[bytes | str | int, ...]) -> Any:
        if time.monotonic() < self._away_until:
            raise UnableToKeep("left alone")
        with self._told_plainly():
            return await self._valkey.eval(script, len(names), *names, *arguments)

    @contextmanager
    def _told_plainly(self) -> Iterator[None]:
        try:
            yield
        except redis.ResponseError as error:  # it answers, but not to this: it is full, say
            raise UnableToKeep(type(error).__name__) from None
        except (redis.RedisError, OSError) as error:
            self._away_until = time.monotonic() + LEFT_ALONE_SECONDS
            raise UnableToKeep(type(error).__name__) from None
