"""Says what is wrong with a setting's value before a process does anything with it, and never repeats the value.

A validator of environs must raise: what it returns is not looked at. An error of the standard library quotes what it
could not read, which may be half of a password, so none is shown as a cause.
"""

from collections.abc import Callable, Iterable
from urllib.parse import SplitResult, urlsplit

import dj_database_url
from environs import ValidationError, validate

SHARE = validate.Range(min=0, max=1)
POSITIVE_SHARE = validate.Range(min=0, max=1, min_inclusive=False)
NOT_NEGATIVE = validate.Range(min=0)


def allow_blank(check: Callable[[str], None]) -> Callable[[str], None]:
    """For a variable that an empty line in an env file unsets."""

    def check_unless_blank(value: str) -> None:
        if value:
            check(value)

    return check_unless_blank


def check_http_urls(urls: Iterable[str]) -> None:
    """Every one of them is an address that a path can be written behind. Raises ValidationError."""
    for url in urls:
        check_http_url(url)


def check_http_url(url: str) -> None:
    """An address that a path can be written behind. Raises ValidationError."""
    parts = _split(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValidationError("Must begin with http:// or https:// and name a host.")
    if url.endswith("/") or set(url) & set("?# ") or not url.isprintable():
        raise ValidationError("Must have no slash at its end, no space, no query and no fragment.")


def check_broker_url(url: str) -> None:
    """An address that redis-py and Celery's kombu both take; a socket file is only the former's.

    Raises ValidationError.
    """
    parts = _split(url)
    if parts.scheme not in {"redis", "rediss"} or not parts.hostname:
        raise ValidationError("Must begin with redis:// or rediss:// and name a host.")
    if parts.path.strip("/") and not parts.path.strip("/").isdecimal():
        raise ValidationError("Must name its database by a number.")


def check_store_url(url: str) -> None:
    """A place that adapters can be kept: a directory from the root on, or a bucket. Raises ValidationError."""
    if not url.startswith("file:///") and not (url.startswith("s3://") and _split(url).netloc):
        raise ValidationError("Must be file:///… from the root on, or s3://bucket/prefix.")


def check_database_url(url: str) -> None:
    """A PostgreSQL's address as Django will read it. Raises ValidationError."""
    try:
        found = dj_database_url.parse(url)
    except ValueError:
        raise ValidationError("Not a URL: is everything in it percent-encoded that must be?") from None
    if found.get("ENGINE") != "django.db.backends.postgresql":
        raise ValidationError("Must begin with postgresql://.")
    if not found.get("NAME"):
        raise ValidationError("Must name a database.")


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # read here, since a bad one is noticed only when it is
    except ValueError:
        raise ValidationError("Not a URL: is everything in it percent-encoded that must be?") from None
    return parts
