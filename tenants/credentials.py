"""What a provider credential must be before it is kept: where calls may be sent, and what may travel in a header."""

import socket
from typing import Final
from urllib.parse import urlsplit

from django.conf import settings

from tenants.addresses import is_blocked

AZURE: Final = "azure"
PROVIDERS: Final = ("openai", "anthropic", AZURE)  # `Provider`, which is up the line: a test holds the two together
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
SECRET_PATTERN: Final = r"^[!-~]+\Z"
SECRET_RULE: Final = "A key travels in a header: printable ASCII, without spaces."


class UnableToSendThere(Exception):
    """Calls can't or mustn't be sent to this URL; the message says why, for people."""


def check_base_url(typed: str) -> str:
    """The URL without a slash or `/v1` at its end: https, or loopback where this isn't production.

    Raises UnableToSendThere.
    """
    typed = typed.strip().rstrip("/")
    host, scheme, port = _split(typed)
    if not host or set(typed) & set("?#@ "):
        raise UnableToSendThere("A plain URL, such as https://api.openai.com.")
    nearby = host in LOOPBACK and (settings.DEMO or not settings.PRODUCTION)
    if scheme != "https" and not (scheme == "http" and nearby):
        raise UnableToSendThere("Your key travels with every call: the URL must begin with https://.")
    if not settings.PROVIDER_ALLOW_PRIVATE and _leads_inside(host):
        raise UnableToSendThere("This address is not on the public internet.")
    ours = urlsplit(settings.GATEWAY_URL)
    if (host, port) == (ours.hostname, ours.port):
        raise UnableToSendThere("This is Understudy's own address: give the provider's.")
    return typed.removesuffix("/v1")


def _split(typed: str) -> tuple[str, str, int | None]:
    try:
        parts = urlsplit(typed)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError as error:
        raise UnableToSendThere("This is not a URL.") from error
    return host, parts.scheme, port


def _leads_inside(host: str) -> bool:
    """Whether a name or number leads to an address that only our own machines should reach."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False  # it leads nowhere now; calls to it will say so
    return any(is_blocked(str(entry[4][0])) for entry in found)
