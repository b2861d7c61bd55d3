"""Slows down guessing of passwords and sign-ups in bulk: counted by address, where all web processes see the count."""

from typing import Final

import redis
from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest

ALLOWED: Final = {"failed-log-in": 10, "sign-up": 20}
WINDOW_SECONDS: Final = 15 * 60


class UnableToCount(Exception):
    """Valkey does not answer. Nobody is let in uncounted."""


def is_throttled(request: HttpRequest, what: str) -> bool:
    """Whether an address has used up its tries at `what`. Raises UnableToCount."""
    try:
        return int(cache.get(_key(request, what)) or 0) >= ALLOWED[what]
    except redis.RedisError as error:
        raise UnableToCount("tries can not be counted at the moment") from error


def count_try(request: HttpRequest, what: str) -> None:
    """Add one; the window runs from an address's first. Raises UnableToCount."""
    key = _key(request, what)
    try:
        if not cache.add(key, 1, WINDOW_SECONDS):
            cache.incr(key)
    except ValueError:  # the window ended between the two
        cache.set(key, 1, WINDOW_SECONDS)
    except redis.RedisError as error:
        raise UnableToCount("tries can not be counted at the moment") from error


def address_of(request: HttpRequest) -> str:
    """The caller's address; behind our own proxy the one it wrote last, since earlier ones may be invented."""
    if settings.SECURE_PROXY_SSL_HEADER is not None:
        forwarded = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
        if forwarded:
            return forwarded[:64]
    return str(request.META.get("REMOTE_ADDR", ""))


def _key(request: HttpRequest, what: str) -> str:
    return f"{what}:{address_of(request)}"
