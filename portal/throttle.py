"""Slows down guessing of passwords: failures are counted by address, where all web processes see the count."""

from typing import Final

import redis
from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest

ALLOWED_FAILURES: Final = 10
WINDOW_SECONDS: Final = 15 * 60


class UnableToCount(Exception):
    """Valkey does not answer. Nobody is let in uncounted."""


def is_throttled(request: HttpRequest) -> bool:
    """Whether an address has used its failures up. Raises UnableToCount."""
    try:
        return int(cache.get(_key(request)) or 0) >= ALLOWED_FAILURES
    except redis.RedisError as error:
        raise UnableToCount("log-in is not possible at the moment") from error


def count_failure(request: HttpRequest) -> None:
    """Add one; the window runs from an address's first failure. Raises UnableToCount."""
    key = _key(request)
    try:
        if not cache.add(key, 1, WINDOW_SECONDS):
            cache.incr(key)
    except ValueError:  # the window ended between the two
        cache.set(key, 1, WINDOW_SECONDS)
    except redis.RedisError as error:
        raise UnableToCount("log-in is not possible at the moment") from error


def address_of(request: HttpRequest) -> str:
    """The caller's address; behind our own proxy the one it wrote last, since earlier ones may be invented."""
    if settings.SECURE_PROXY_SSL_HEADER is not None:
        forwarded = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
        if forwarded:
            return forwarded[:64]
    return str(request.META.get("REMOTE_ADDR", ""))


def _key(request: HttpRequest) -> str:
    return f"log-in-failures:{address_of(request)}"
