"""API keys: how one is made and recognised. Only the digest is stored; the prefix is for people to tell keys apart."""

import hashlib
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Final

ENTROPY_BYTES: Final = 32
PREFIX_CHARS: Final = 11


class UnableToMint(ValueError):
    """Too little entropy was handed in."""


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A fresh key. `plain` is shown once and never stored."""

    plain: str = field(repr=False)
    prefix: str
    digest: str


def mint_key(entropy: bytes) -> MintedKey:
    """Make a key of `us_` and 43 URL-safe characters from 32 random bytes. Raises UnableToMint on another length."""
    if len(entropy) != ENTROPY_BYTES:
        raise UnableToMint(f"a key takes {ENTROPY_BYTES} random bytes")
    plain = "us_" + urlsafe_b64encode(entropy).rstrip(b"=").decode()
    return MintedKey(plain=plain, prefix=plain[:PREFIX_CHARS], digest=digest_key(plain))


def digest_key(plain: str) -> str:
    """SHA-256 of the whole key, as 64 hex digits. Keys carry 256 bits of entropy, so no slow hash is needed."""
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()
