"""Prices as facts in time: seeded from the providers' published lists, and looked up for the instant of a call."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Self

from django.db import transaction
from django.db.models import Manager

from ingestion.core.calls import Arm, CallRecord, Dialect, Usage
from ingestion.core.rating import Rates, cost
from ingestion.models import Price
from ingestion.price_list import SOURCE, ListedPrice, listed_prices, models_priced, priced_as


def seed_prices(now: datetime) -> int:
    """Bring the price rows up to the published list; the number of rows opened.

    A model seen first gets its published history. A model whose price changed since gets its row closed and a new one
    opened at `now`: what calls were charged until then stands. Rows are never edited otherwise, so a second run, or one
    beside it, does nothing.
    """
    return record_prices(Price.objects, listed_prices(now), now=now)


def record_prices(rows: "Manager[Price]", listed: Iterable[ListedPrice], *, now: datetime) -> int:
    """As `seed_prices`, into the given rows (a migration brings its own) and from the given list."""
    by_model: dict[tuple[str, str], list[ListedPrice]] = defaultdict(list)
    for price in listed:
        by_model[price.provider, price.model].append(price)
    in_force = {(row.provider, row.model): row for row in rows.filter(valid_until=None)}
    first_seen = [
        _row(rows, price, until=until)
        for name, history in by_model.items()
        if name not in in_force
        for price, until in _with_ends(history)
    ]
    rows.bulk_create(first_seen, ignore_conflicts=True)
    changed = [
        _replace(rows, row, by_model[name][-1], now=now)
        for name, row in in_force.items()
        if name in by_model and _rates(row) != by_model[name][-1].rates
    ]
    return len(first_seen) + sum(changed)


def rates_in_force(now: datetime, *, currency: str) -> dict[str, Rates]:
    """What a million tokens cost now, by `provider/model`, where it is charged in `currency`."""
    rows = Price.objects.filter(valid_from__lte=now, currency=currency).exclude(valid_until__lte=now)
    return {f"{row.provider}/{row.model}": _rates(row) for row in rows.order_by("valid_from")}


class PriceBook:
    """All prices in memory, for a batch of calls. Looks a model up by its own name first, then by its published one."""

    def __init__(self, periods: Mapping[tuple[str, str], Sequence[tuple[datetime, datetime | None, Rates]]]) -> None:
        self._periods = periods
        self._names: dict[tuple[str, str], tuple[str, str] | None] = {}

    @classmethod
    def load(cls, now: datetime) -> Self:
        """The book as of `now`: every price that has begun, past ones too, since late calls come at old prices."""
        periods: dict[tuple[str, str], list[tuple[datetime, datetime | None, Rates]]] = defaultdict(list)
        for row in Price.objects.filter(valid_from__lte=now).order_by("-valid_from"):
            periods[row.provider, row.model].append((row.valid_from, row.valid_until, _rates(row)))
        return cls(periods)

    def rates(self, *, provider: str, model: str, at: datetime) -> Rates | None:
        """A model's rates at an instant; periods are half-open. None where no price is known."""
        name = self._name(provider, model)
        for valid_from, valid_until, rates in self._periods.get(name, ()) if name else ():
            if valid_from <= at and (valid_until is None or at < valid_until):
                return rates
        return None

    def cost(self, *, provider: str, model: str, usage: Usage, at: datetime) -> Decimal | None:
        """What a call cost in the currency of `rates`, unrounded. None where no price is known: unknown is not free."""
        rates = self.rates(provider=provider, model=model, at=at)
        return None if rates is None else cost(usage, rates)

    def cost_of(self, record: CallRecord) -> Decimal | None:
        """What the teacher charged for a call: nothing where the student answered or the call failed."""
        if record.arm == Arm.STUDENT or record.status >= 400:
            return Decimal(0)
        usage = Usage(
            input_tokens=record.input_tokens,
            output_tokens=record.output_tokens,
            cached_input_tokens=record.cached_input_tokens,
            cache_write_tokens=record.cache_write_tokens,
        )
        provider, at = record.provider or Dialect(record.dialect).provider, datetime.fromtimestamp(record.at, UTC)
        model = self.model_of(provider, record.asked_model, record.answered_model, at=at)
        return self.cost(provider=provider, model=model, usage=usage, at=at)

    def model_of(self, provider: str, asked: str, answered: str, *, at: datetime) -> str:
        """Which name a call is priced under."""
        *earlier, last = models_priced(provider, asked, answered)
        return next((name for name in earlier if self.rates(provider=provider, model=name, at=at) is not None), last)

    def _name(self, provider: str, model: str) -> tuple[str, str] | None:
        asked = (provider, model)
        if asked not in self._names:
            self._names[asked] = next((name for name in priced_as(*asked) if name in self._periods), None)
        return self._names[asked]


def _rates(row: Price) -> Rates:
    return Rates(
        input=row.input_per_million,
        output=row.output_per_million,
        cached_input=row.cached_input_per_million,
        cache_write=row.cache_write_per_million,
        currency=row.currency,
    )


def _row(rows: "Manager[Price]", price: ListedPrice, *, until: datetime | None, since: datetime | None = None) -> Price:
    return rows.model(
        provider=price.provider,
        model=price.model,
        currency=price.rates.currency,
        input_per_million=price.rates.input,
        output_per_million=price.rates.output,
        cached_input_per_million=price.rates.cached_input,
        cache_write_per_million=price.rates.cache_write,
        valid_from=since or price.valid_from,
        valid_until=until,
        source=SOURCE,
    )


def _with_ends(history: Sequence[ListedPrice]) -> list[tuple[ListedPrice, datetime | None]]:
    ends: list[datetime | None] = [price.valid_from for price in history[1:]]
    return list(zip(history, [*ends, None], strict=True))


def _replace(rows: "Manager[Price]", row: Price, price: ListedPrice, *, now: datetime) -> bool:
    """Close a row and open its successor, or do neither. False if another run was first."""
    with transaction.atomic(using=rows.db):
        closed = rows.filter(id=row.id, valid_until=None, valid_from__lt=now).update(valid_until=now)
        if closed:
            _row(rows, price, until=None, since=now).save(using=rows.db)
    return bool(closed)
