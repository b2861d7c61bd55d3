"""Addresses of providers' names, looked up once for all who wait, and kept for a while.

A known name is served from here while it is looked up again, so that a slow name server delays no call to it. One that
does not exist is not looked up again for some seconds. Only so many are looked up at once, for all tenants together:
while all of those are slow, names that are not known yet are not found.
"""

import asyncio
import socket
from typing import Any

FRESH_SECONDS = 60.0
MISSING_SECONDS = 5.0  # for which a name that was not found is not looked up again
MOST_NAMES = 4096
MOST_LOOKUPS = 64  # at once
MISSING = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})
FORGOTTEN = float("-inf")

Addresses = list[tuple[Any, ...]]  # as `getaddrinfo` gives them
Name = tuple[str, int]  # host and port


class UnableToResolve(OSError):
    """There is no such name, or no name server says."""


class TooManyLookups(UnableToResolve):
    """So many names are looked up at this moment that this one is not."""


class Names:
    """The names that this process knows. Needs a running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._known: dict[Name, tuple[float, Addresses]] = {}  # when; empty where it was not found
        self._lookups: dict[Name, asyncio.Task[Addresses]] = {}

    async def resolve(self, host: str, port: int) -> Addresses:
        """The addresses of a name. Raises UnableToResolve, UnicodeError on what is no name."""
        name = (host, port)
        at, found = self._known.get(name, (FORGOTTEN, []))
        age = self._now() - at
        if found and at != FORGOTTEN:
            if age >= FRESH_SECONDS and len(self._lookups) < MOST_LOOKUPS:
                self._look_up(name)
        elif age >= MISSING_SECONDS and not (found and len(self._lookups) >= MOST_LOOKUPS):
            found = await asyncio.shield(self._look_up(name)) or found
        if not found:
            raise UnableToResolve("no such name")
        return found

    def forget(self, host: str, port: int) -> None:
        """Look a name up again the next time: its addresses do not answer. They stay in case no others are found."""
        found = self._known.get((host, port), (FORGOTTEN, []))[1]
        if found:
            self._known[host, port] = (FORGOTTEN, found)

    def _look_up(self, name: Name) -> asyncio.Task[Addresses]:
        lookup = self._lookups.get(name)
        if lookup is None:
            if len(self._lookups) >= MOST_LOOKUPS:
                raise TooManyLookups("too many names are being looked up")
            lookup = self._lookups[name] = self._loop.create_task(self._ask(name))
            lookup.add_done_callback(lambda done: self._end(name, done))
        return lookup

    async def _ask(self, name: Name) -> Addresses:
        try:
            found = list(await self._loop.getaddrinfo(*name, type=socket.SOCK_STREAM))
        except socket.gaierror as error:
            found = self._known.get(name, (FORGOTTEN, []))[1]  # old addresses are better than none
            if not found and error.errno not in MISSING:
                raise  # what may pass is not remembered
        self._remember(name, found)
        return found

    def _remember(self, name: Name, found: Addresses) -> None:
        if name not in self._known and len(self._known) >= MOST_NAMES:
            del self._known[next(iter(self._known))]
        self._known[name] = (self._now(), found)

    def _end(self, name: Name, lookup: asyncio.Task[Addresses]) -> None:
        del self._lookups[name]
        if not lookup.cancelled():
            lookup.exception()  # is told to whoever waits, if anybody does

    def _now(self) -> float:
        return self._loop.time()
