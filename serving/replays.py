"""Answers kept for a day by their callers' idempotency keys, in Valkey: sealed before they come here.

One hash a key: the digest of what was asked, and either the token of whoever is answering it, or the answer, or that it
was not kept. Each change is one script on the server, so that of two who ask at once one answers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import redis
import redis.asyncio

PREFIX: Final = "understudy:once"
CLAIM_SECONDS = 660  # whoever answers has died if it takes longer
KEPT_SECONDS = 86_400
MOST_TENANT_BYTES = 64 * 2**20  # of one tenant's answers in a day; those beyond are not kept
MOST_CONNECTIONS = 16

# digest, token, seconds -> nothing (claimed), or what is there: digest, token, answer
CLAIM: Final = """
local digest = redis.call('HGET', KEYS[1], 'digest')
if digest then return redis.call('HMGET', KEYS[1], 'digest', 'token', 'answer') end
redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'token', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return false
"""
# token, answer, seconds, most bytes of the tenant
KEEP: Final = """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return end
redis.call('HDEL', KEYS[1], 'token')
redis.call('EXPIRE', KEYS[1], ARGV[3])
local used = redis.call('INCRBY', KEYS[2], #ARGV[2])
if used == #ARGV[2] then redis.call('EXPIRE', KEYS[2], ARGV[3]) end
if #ARGV[2] > 0 and used <= tonumber(ARGV[4]) then redis.call('HSET', KEYS[1], 'answer', ARGV[2]) end
"""
# token
RELEASE: Final = """
if redis.call('HGET', KEYS[1], 'token') == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


class UnableToKeep(Exception):
    """Nobody answers, or not to this; the message is a kind of error and never an address."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """What is there of an earlier call under the same key. Neither answered nor with an `answer`: it was not kept."""

    digest: bytes
    is_under_way: bool
    answer: bytes | None = field(repr=False)


class KeptAnswers:
    """The answers of all tenants; `patience` is seconds for one step."""

    def __init__(self, url: str, *, patience: float) -> None:
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=MOST_CONNECTIONS,
            timeout=patience,
            socket_timeout=patience,
            socket_connect_timeout=patience,
            retry=None,
        )
        self._valkey = redis.asyncio.Redis.from_pool(pool)

    async def claim(self, tenant_id: str, key: str, *, digest: bytes, token: str) -> Earlier | None:
        """Take the key for the call of `token`; or what is there already. Raises UnableToKeep."""
        with _told_plainly():
            found = await self._valkey.eval(CLAIM, 1, _name(tenant_id, key), digest, token, CLAIM_SECONDS)
        if found is None:
            return None
        earlier, answering, answer = found
        return Earlier(earlier, answering is not None, answer)

    async def keep(self, tenant_id: str, key: str, *, token: str, answer: bytes) -> None:
        """Keep the answer, or with an empty one only that there was one. Raises UnableToKeep."""
        names = _name(tenant_id, key), f"{PREFIX}:{{{tenant_id}}}/bytes"
        with _told_plainly():
            await self._valkey.eval(KEEP, 2, *names, token, answer, KEPT_SECONDS, MOST_TENANT_BYTES)

    async def release(self, tenant_id: str, key: str, *, token: str) -> None:
        """Let the next call under the key be answered afresh. Raises UnableToKeep."""
        with _told_plainly():
            await self._valkey.eval(RELEASE, 1, _name(tenant_id, key), token)

    async def close(self) -> None:
        """Give up the connections."""
        await self._valkey.aclose()


def _name(tenant_id: str, key: str) -> str:
    return f"{PREFIX}:{{{tenant_id}}}:{key}"


@contextmanager
def _told_plainly() -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, OSError, TimeoutError) as error:
        raise UnableToKeep(type(error).__name__) from None
