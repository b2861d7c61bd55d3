"""Answers kept for a day by their callers' idempotency keys, in Valkey: sealed before they come here.

One hash a key: the digest of what was asked, and either the token of whoever is answering it, or the answer, or that it
was not kept. Each change is one script on the server, so that of two who ask at once one answers.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from serving.valkey import connect

PREFIX: Final = "understudy:once"
CLAIM_SECONDS = 60  # whoever answers renews it meanwhile, and has died if it ends
KEPT_SECONDS = 86_400
MOST_CONNECTIONS = 64  # of a process
MOST_TENANTS = 1000  # whose places are remembered; beyond, those that nobody waits for are forgotten
MOST_TENANT_BYTES = 64 * 2**20  # of one tenant's answers in a day; those beyond are not kept
KEY_BYTES = 512  # what a key takes besides its answer
OVER_SECONDS = 600  # how long a key is remembered whose answer was beyond
LEFT_ALONE_SECONDS = 1.0  # after nobody answered several times in a row: no call waits to take a key meanwhile
FAILURES = 3
MOST_CLAIMS = 8  # of one tenant at once; more wait, so that no tenant's keep the others' waiting

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


logger = logging.getLogger(__name__)


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
        self._valkey = connect(url, patience=patience, connections=MOST_CONNECTIONS)
        self._patience = patience
        self._places = asyncio.Semaphore(MOST_CONNECTIONS)
        self._claiming: dict[str, asyncio.Semaphore] = {}
        self._failures = 0  # in a row
        self._away_until = 0.0

    async def claim(self, claim: Claim, *, digest: bytes) -> Earlier | None:
        """Take the key; or what is there already. Raises UnableToKeep, and then it may be taken all the same."""
        if time.monotonic() < self._away_until:
            raise UnableToKeep("left alone")
        async with self._place(claim.tenant_id):
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

    @asynccontextmanager
    async def _place(self, tenant_id: str) -> AsyncIterator[None]:
        """One of the tenant's own places. Raises UnableToKeep where none comes in time."""
        if len(self._claiming) > MOST_TENANTS:
            self._claiming = {name: places for name, places in self._claiming.items() if places.locked()}
        places = self._claiming.setdefault(tenant_id, asyncio.Semaphore(MOST_CLAIMS))
        try:
            async with asyncio.timeout(self._patience):
                await places.acquire()
        except TimeoutError:
            raise UnableToKeep("no place") from None
        try:
            yield
        finally:
            places.release()

    async def _run(self, script: str, *names: str, arguments: tuple[bytes | str | int, ...]) -> Any:
        try:
            async with self._places:  # as many as there are connections, so that to wait for one says nothing of Valkey
                found = await self._valkey.eval(script, len(names), *names, *arguments)
        except redis.ResponseError as error:  # it answers, but not to this: it is full, say
            raise UnableToKeep(type(error).__name__) from None
        except (redis.RedisError, OSError) as error:
            self._note_failure(type(error).__name__)
            raise UnableToKeep(type(error).__name__) from None
        self._failures = 0
        return found

    def _note_failure(self, kind: str) -> None:
        if not self._failures:
            logger.warning("answers are not kept: %s", kind)
        self._failures += 1
        if self._failures >= FAILURES:
            self._away_until = time.monotonic() + LEFT_ALONE_SECONDS
