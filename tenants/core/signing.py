"""Signatures on outgoing webhooks, as the Standard Webhooks specification 1.0 has them (standardwebhooks.com)."""

import hmac
from base64 import b64decode, b64encode
from hashlib import sha256

SECRET_PREFIX = "whsec_"


def encode_secret(entropy: bytes) -> str:
    """The secret as its owner sees it: `whsec_` and base64."""
    return SECRET_PREFIX + b64encode(entropy).decode()


def sign(secret: str, *, message_id: str, at: int, body: bytes) -> str:
    """The `webhook-signature` header: HMAC-SHA256 of `id.timestamp.body`; `at` is whole seconds since the epoch."""
    key = b64decode(secret.removeprefix(SECRET_PREFIX))
    digest = hmac.new(key, f"{message_id}.{at}.".encode() + body, sha256).digest()
    return "v1," + b64encode(digest).decode()
