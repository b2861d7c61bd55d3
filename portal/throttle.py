"""Slows down guessing of passwords and sign-ups in bulk: tries are counted where all web processes see the count.

Failed log-ins are counted twice: by the address they come from, and by the account they aim at, which many addresses
can share the guessing of. The account's count is not held against a device that has logged in to it before, so that
strangers' failures keep its owner out of new devices alone, and for a quarter of an hour.
"""

import unicodedata
from hashlib import sha256
from typing import Final

import redis
from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse

ALLOWED: Final = {"failed-log-in": 10, "failed-log-in-to-account": 30, "failed-password-change": 10, "sign-up": 20}
WINDOW_SECONDS: Final = 15 * 60
LONGEST_EMAIL: Final = 320
DEVICE_COOKIE: Final = "device"
DEVICE_SECONDS: Final = 180 * 24 * 3600


class UnableToCount(Exception):
    """Valkey does not answer. Nobody is let in uncounted."""


def is_throttled(what: str, who: str) -> bool:
    """Whether an address or an account has used up its tries at `what`. Raises UnableToCount."""
    try:
        return int(cache.get(_key(what, who)) or 0) >= ALLOWED[what]
    except redis.RedisError as error:
        raise UnableToCount("tries can not be counted at the moment") from error


def count_try(what: str, who: str) -> None:
    """Add one; the window runs from the first. Raises UnableToCount."""
    key = _key(what, who)
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


def account_of(email: str) -> str:
    """The account that an e-mail address names, as spelt by nobody in particular, and not readable."""
    spelt = unicodedata.normalize("NFKC", email[:LONGEST_EMAIL].strip()).lower()  # as the log-in form reads it
    return sha256(spelt.encode("utf-8", "surrogatepass")).hexdigest()


def knows_device(request: HttpRequest, account: str) -> bool:
    """Whether this browser has logged in to the account before."""
    known = request.get_signed_cookie(DEVICE_COOKIE, default="", salt=DEVICE_COOKIE, max_age=DEVICE_SECONDS)
    return known == account


def remember_device(response: HttpResponse, account: str) -> None:
    """Let this browser be told from a stranger's at later log-ins."""
    response.set_signed_cookie(
        DEVICE_COOKIE,
        account,
        salt=DEVICE_COOKIE,
        max_age=DEVICE_SECONDS,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )


def _key(what: str, who: str) -> str:
    return f"{what}:{who}"
