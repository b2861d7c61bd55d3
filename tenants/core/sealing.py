"""Authenticated encryption with the place a value belongs bound in, so that no sealed value opens anywhere else.

AES-256-GCM (NIST SP 800-38D) with the context as associated data; keys are derived per purpose with HKDF-SHA256
(RFC 5869). Layout: 1 version byte, 12 nonce bytes, ciphertext and tag.
"""

import os
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

DEMO_SECRET: Final = (
    "demo-secret-for-one-bare-machine-never-in-production"  # every process of such a machine, if none is set
)
VERSION: Final = b"\x01"
NONCE_BYTES: Final = 12
KEY_BYTES: Final = 32


class UnableToOpen(Exception):
    """The value was sealed with another key or for another place, or was tampered with."""


def derive_key(secret: bytes, *, purpose: str) -> bytes:
    """32 bytes for one purpose from a long secret; two purposes never share a key."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=f"understudy/{purpose}".encode()).derive(secret)


def new_key() -> bytes:
    """A fresh random data key of 32 bytes."""
    return os.urandom(KEY_BYTES)


@lru_cache(maxsize=1024)
def _cipher(key: bytes) -> AESGCM:
    return AESGCM(key)


def seal(key: bytes, plain: bytes, *, context: str) -> bytes:
    """Encrypt `plain` for `context` (`tenant/table/column/id/version`) under a 32-byte key."""
    nonce = os.urandom(NONCE_BYTES)
    return VERSION + nonce + _cipher(key).encrypt(nonce, plain, context.encode())


def open_sealed(key: bytes, sealed: bytes, *, context: str) -> bytes:
    """Decrypt what `seal` made for the same key and context. Raises UnableToOpen on anything else."""
    if sealed[:1] != VERSION or len(sealed) <= NONCE_BYTES:
        raise UnableToOpen("not a sealed value")
    nonce, body = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
    try:
        return _cipher(key).decrypt(nonce, body, context.encode())
    except InvalidTag as error:
        raise UnableToOpen("sealed for another place, or tampered with") from error
