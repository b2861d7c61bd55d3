"""Decides whether a call may be sent to a provider again: only where that is safe, asked for, soon, and seldom.

Safe: the provider did no work for it, and the caller has seen nothing of an answer. A retry budget (gRPC's proposal A6
has one) keeps a provider in trouble from getting many more calls than its callers make: each call earns a part of a
retry, each retry takes a whole one.
"""

from collections.abc import Iterable
from typing import Final

PAYS: Final = 0.1  # of a retry, earned by each call
FIRST: Final = 3.0  # retries that a provider nobody has called yet may need
MOST: Final = 10.0  # retries that can be saved up
LONGEST_WAIT = 5.0  # seconds: with a longer one the caller is better served by the provider's own words
_BUSY: Final = frozenset({429, 503, 529})


def earn(budget: float) -> float:
    """The budget after one more call."""
    return min(budget + PAYS, MOST)


def wait_asked_for(status: int, headers: Iterable[tuple[bytes, bytes]]) -> float | None:
    """Seconds after which a provider that refused for being busy wants to be asked again; None: do not.

    `headers` have lower-case names. Read are `retry-after-ms` and `retry-after` in seconds (RFC 9110, 10.2.3; its dates
    are for hours, not for a call that waits), and the vendors' `x-should-retry`.
    """
    if status not in _BUSY:
        return None
    found = dict(headers)
    if found.get(b"x-should-retry", b"").strip().lower() == b"false":
        return None
    waits = (_read(found.get(b"retry-after-ms", b""), 1000.0), _read(found.get(b"retry-after", b""), 1.0))
    wait = next((wait for wait in waits if wait is not None), None)
    return wait if wait is not None and wait <= LONGEST_WAIT else None


def _read(value: bytes, unit: float) -> float | None:
    digits = value.strip()
    whole, _, part = digits.partition(b".")
    if len(digits) > 12 or not whole.isdigit() or (part and not part.isdigit()):
        return None
    return float(digits) / unit
