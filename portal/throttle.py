"""Slows down guessing of passwords and sign-ups in bulk: tries are counted where all web processes see the count.

Failed log-ins are counted twice: by the address they come from, and by the account they aim at, which many addresses
can share the guessing of. A device that has logged in to the account since its password last changed has a count of its
own there, so that strangers' failures keep the owner out of new devices alone, and for a quarter of an hour.
"""

import secrets
import unicodedata
from hashlib import sha256
from ipaddress import IPv6Address, ip_address
from typing import Final

import redis
from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse

from tenants.models import User

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
    """The caller's address; behind our own proxy the one it wrote last, since earlier ones may be invented.

    Of IPv6 the network that one customer is given (/64): within it a caller has as many addresses as they like.
    """
    address = str(request.META.get("REMOTE_ADDR", ""))
    if settings.SECURE_PROXY_SSL_HEADER is not None:
        address = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()[:64] or address
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    return str(parsed.ipv4_mapped or f"{IPv6Address(int(parsed) >> 64 << 64)}/64")


def account_of(email: str) -> str:
    """The account that an e-mail address names, as spelt by nobody in particular, and not readable."""
    return sha256(_spelt(email).encode("utf-8", "surrogatepass")).hexdigest()


def who_tries(request: HttpRequest, email: str) -> str:
    """Whose count a try at a password goes to: a device's that the account knows, or all strangers' together."""
    account = account_of(email)
    cookie = request.get_signed_cookie(DEVICE_COOKIE, default=None, salt=DEVICE_COOKIE, max_age=DEVICE_SECONDS) or ""
    device, _, stamp = cookie.partition(":")
    user = User.objects.filter(email=_spelt(email)).first() if stamp else None
    return f"{account}:{device}" if user is not None and secrets.compare_digest(stamp, _stamp(user)) else account


def remember_device(response: HttpResponse, user: User) -> None:
    """Let this browser be told from a stranger's at later log-ins, until the account has another password."""
    response.set_signed_cookie(
        DEVICE_COOKIE,
        f"{secrets.token_hex(8)}:{_stamp(user)}",
        salt=DEVICE_COOKIE,
        max_age=DEVICE_SECONDS,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )


def _spelt(email: str) -> str:
    return unicodedata.normalize("NFKC", email.strip()[:LONGEST_EMAIL]).lower()  # as the log-in form reads it


def _stamp(user: User) -> str:
    return sha256(f"{user.pk}/{user.get_session_auth_hash()}".encode()).hexdigest()


def _key(what: str, who: str) -> str:
    return f"{what}:{who}"
