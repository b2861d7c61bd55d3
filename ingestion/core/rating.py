"""What a call costs: a fact of the call, from its tokens and the price in force, exact and never rounded here."""

from dataclasses import dataclass
from decimal import Decimal

from ingestion.core.calls import Usage

_MILLION = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Rates:
    """Money per million tokens of each sort, in `currency` (ISO 4217)."""

    input: Decimal
    output: Decimal
    cached_input: Decimal
    cache_write: Decimal
    currency: str


def cost(usage: Usage, rates: Rates) -> Decimal:
    """The call's cost in the rates' currency, unrounded: rounding happens once, on the statement.

    Cached and cache-writing tokens are part of `input_tokens` and are charged at their own rates instead; a provider
    that counts more of them than input tokens is not credited for the difference.
    """
    fresh = max(0, usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens)
    total = (
        fresh * rates.input
        + usage.cached_input_tokens * rates.cached_input
        + usage.cache_write_tokens * rates.cache_write
        + usage.output_tokens * rates.output
    )
    return total / _MILLION
