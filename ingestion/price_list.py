"""What the providers publish, read from the `genai-prices` data set: the one file that knows its shapes.

Rates above a provider's long-context tier (100,000 input tokens and more) are not told apart: routine calls, the only
ones a student may take over, are far below it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final

from genai_prices import __version__
from genai_prices.data import providers
from genai_prices.types import ModelInfo, ModelPrice, StartDateConstraint, TieredPrices

from ingestion.core.calls import Provider
from ingestion.core.rating import Rates

SOURCE: Final = f"genai-prices {__version__}"
ALWAYS: Final = datetime(2020, 1, 1, tzinfo=UTC)  # the start of a price whose first day nobody published
_PROVIDERS: Final = {provider.id: provider for provider in providers if provider.id in set(Provider)}

_SOLD_BY: Final = {Provider.AZURE.value: Provider.OPENAI.value}  # at the same list prices


@dataclass(frozen=True, slots=True)
class ListedPrice:
    """A model's published rates, in force from an instant until the next one of that model."""

    provider: str
    model: str
    valid_from: datetime
    rates: Rates


def listed_prices(now: datetime) -> list[ListedPrice]:
    """Every token-priced model of every provider we speak to, each model's oldest price first, none of the future."""
    return [
        listed
        for name, provider in _PROVIDERS.items()
        for model in provider.models
        for listed in _history(name, model)
        if listed.valid_from <= now
    ]


def models_priced(provider: str, asked: str, answered: str) -> tuple[str, ...]:
    """The names that a call's price may be entered under, the first that has one counts: the answering model's; before
    it, where a deployment has a name of its own, that.
    """
    return (asked, answered) if provider == Provider.AZURE and answered else (answered or asked,)


def priced_as(provider: str, model: str) -> list[tuple[str, str]]:
    """The providers and names under which a model's price may be found, the likeliest first: as it is called, then as
    its provider publishes it (a dated snapshot's price is its model's), then as they whose models it sells do.
    """
    found = []
    for seller in (provider, _SOLD_BY.get(provider)):
        if seller is not None:
            listed = _listed_name(seller, model)
            found += [(seller, model), *([(seller, listed)] if listed and listed != model else [])]
    return found


def _listed_name(provider: str, model: str) -> str | None:
    listed = _PROVIDERS.get(provider)
    found = listed.find_model(model) if listed else None
    return found.id if found else None


def _history(provider: str, model: ModelInfo) -> Iterator[ListedPrice]:
    for prices, valid_from in _versions(model):
        rates = _rates(prices)
        if rates is not None:
            yield ListedPrice(provider, model.id, valid_from, rates)


def _versions(model: ModelInfo) -> Iterator[tuple[ModelPrice, datetime]]:
    if isinstance(model.prices, ModelPrice):
        yield model.prices, ALWAYS
        return
    for version in model.prices:
        if version.constraint is None:
            yield version.prices, ALWAYS
        elif isinstance(version.constraint, StartDateConstraint):
            yield version.prices, _midnight(version.constraint.start_date)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _rates(prices: ModelPrice) -> Rates | None:
    """None for what is not sold by the token. Without a price of their own, cached tokens cost what fresh ones do."""
    fresh, output = _base(prices.input_mtok), _base(prices.output_mtok)
    if output is None and prices.output_audio_mtok is None and prices.requests_kcount is None:
        output = Decimal(0)  # an embedding's: nothing is written
    if fresh is None or output is None:
        return None
    cached, write = _base(prices.cache_read_mtok), _base(prices.cache_write_mtok)
    return Rates(
        input=fresh,
        output=output,
        cached_input=fresh if cached is None else cached,
        cache_write=fresh if write is None else write,
        currency="USD",
    )


def _base(price: Decimal | TieredPrices | None) -> Decimal | None:
    return price.base if isinstance(price, TieredPrices) else price
