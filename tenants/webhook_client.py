"""Posts to addresses that strangers chose, without letting them reach what only this machine can reach.

A name is judged by what it connects to: every socket is checked against the list below as it is made, after the
resolver, so no spelling of an address (`127.1`, full-width digits, `0x7f000001`) and no change of mind of a name server
gets past. The list is our own, because `ipaddress.is_global` lets NAT64, 6to4 and `::127.0.0.1` through.
"""

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

LIMIT_SECONDS = 10.0
MOST_READ = 64 * 1024
LONGEST_URL = 500
GONE = 410

BLOCKED: Final[tuple[IPv4Network | IPv6Network, ...]] = tuple(
    ip_network(block)
    for block in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT, and a cloud's metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a cloud's host, at a public address
        "169.254.0.0/16",  # link-local, and most clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments, and a cloud's metadata
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        # Of IPv6 only 2000::/3 is anybody's: the rest holds loopback, ::a.b.c.d, ::ffff:a.b.c.d, NAT64 (64:ff9b::),
        # unique local, link-local, site-local and multicast.
        "::/3",
        "4000::/2",
        "8000::/1",
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which wraps any IPv4 address
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)


class UnableToUseUrl(ValueError):
    """The URL is not one we would post to; the message may be shown to its owner."""


class BlockedAddress(PermissionError):
    """The name leads to an address on the list."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """How one attempt went: the receiver's status, or None and why there is none."""

    status: int | None
    fault: str = ""  # blocked, unreachable, timeout, bad_url, malformed

    @property
    def accepted(self) -> bool:
        """Any 2xx. A redirect is a refusal: it would lead away from what was signed for."""
        return self.status is not None and 200 <= self.status < 300


def check_url(url: str, *, allow_private: bool) -> str:
    """The URL, if it may be an endpoint: https, a host, no credentials. Raises UnableToUseUrl."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UnableToUseUrl("this is not a URL") from error
    if parts.scheme != "https" and not (allow_private and parts.scheme == "http"):
        raise UnableToUseUrl("the URL must begin with https://")
    if not host or port == 0 or len(url) > LONGEST_URL or any(letter.isspace() for letter in url):
        raise UnableToUseUrl("the URL needs a host, and no more than 500 characters")
    if parts.username is not None or parts.password is not None:
        raise UnableToUseUrl("the URL must not carry credentials: every message is signed instead")
    return url


def is_blocked(address: str) -> bool:
    """Whether nothing may be sent to a numeric address. What cannot be read is blocked."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return True
    return any(found in block for block in BLOCKED if block.version == found.version)


def post(url: str, *, body: bytes, headers: Mapping[str, str], allow_private: bool) -> Receipt:
    """Send one message and wait for its receipt, 10 s at most. The answer's body is read to a bound and dropped."""
    return asyncio.run(_post(url, body=body, headers=headers, allow_private=allow_private))


async def _post(url: str, *, body: bytes, headers: Mapping[str, str], allow_private: bool) -> Receipt:
    guard = _Guard(allow_private)
    connector = aiohttp.TCPConnector(limit=1, socket_factory=guard.open_socket, force_close=True)
    try:
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=LIMIT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        ) as http:
            return await _exchange(http, url, body, headers)
    except TimeoutError:
        return Receipt(None, "timeout")
    except (aiohttp.InvalidURL, UnicodeError):
        return Receipt(None, "bad_url")
    except aiohttp.ClientConnectorError:
        return Receipt(None, "blocked" if guard.refused else "unreachable")
    except (aiohttp.ClientError, OSError, ValueError):
        return Receipt(None, "malformed")


async def _exchange(http: aiohttp.ClientSession, url: str, body: bytes, headers: Mapping[str, str]) -> Receipt:
    async with http.post(url, data=body, headers=headers, allow_redirects=False) as answer:
        left = MOST_READ
        while left > 0 and (chunk := await answer.content.read(left)):
            left -= len(chunk)
        answer.close()
        return Receipt(answer.status)


class _Guard:
    """Makes the connector's sockets, each for the one resolved address that it will connect to."""

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private
        self.refused = False

    def open_socket(self, address: tuple[Any, ...]) -> socket.socket:
        """A socket for a `getaddrinfo` entry. Raises BlockedAddress, which the connector takes for a failed connect."""
        family, kind, protocol, _, endpoint = address
        if not self._allow_private and is_blocked(str(endpoint[0])):
            self.refused = True
            raise BlockedAddress("an address on the list")
        return socket.socket(family=family, type=kind, proto=protocol)
