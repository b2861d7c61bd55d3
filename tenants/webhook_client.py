"""Posts to addresses that strangers chose, without letting them reach what only this machine can reach.

A name is judged by what it connects to: see `tenants.addresses`.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp

from tenants.addresses import AddressGuard

LIMIT_SECONDS = 10.0
MOST_READ = 64 * 1024
LONGEST_URL = 500
GONE = 410


class UnableToUseUrl(ValueError):
    """The URL is not one we would post to; the message may be shown to its owner."""


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


def post(url: str, *, body: bytes, headers: Mapping[str, str], allow_private: bool) -> Receipt:
    """Send one message and wait for its receipt, 10 s at most. The answer's body is read to a bound and dropped."""
    return asyncio.run(_post(url, body=body, headers=headers, allow_private=allow_private))


async def _post(url: str, *, body: bytes, headers: Mapping[str, str], allow_private: bool) -> Receipt:
    guard = AddressGuard(allow_private=allow_private)
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
