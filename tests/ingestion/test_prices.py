"""Prices: published once, versioned afterwards, and looked up for the instant of the call."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connections

from ingestion.core.calls import Usage
from ingestion.core.rating import Rates
from ingestion.models import Price
from ingestion.price_list import ListedPrice, listed_prices
from ingestion.prices import PriceBook, record_prices, seed_prices

THEN = datetime(2025, 1, 1, tzinfo=UTC)
RATES = Rates(Decimal("2"), Decimal("8"), Decimal("0.5"), Decimal("2"), "USD")


@pytest.fixture
def probe(database):
    """A model of our own, so that the published rows stay as the migration left them."""
    yield ListedPrice("openai", "probe-1", THEN, RATES)
    Price.objects.filter(model__startswith="probe").delete()


def versions(model="probe-1"):
    return list(Price.objects.filter(model=model).order_by("valid_from"))


def test_a_fresh_installation_prices_its_first_call(database, now):
    usage = Usage(input_tokens=1000, output_tokens=10)
    assert PriceBook.load(now).cost(provider="openai", model="gpt-4o", usage=usage, at=now) == Decimal("0.0026")


@pytest.mark.parametrize(
    ("provider", "dated", "published"),
    [
        ("openai", "gpt-4o-2024-08-06", "gpt-4o"),
        ("openai", "gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("anthropic", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("anthropic", "claude-3-5-haiku-20241022", "claude-3-5-haiku-latest"),
    ],
)
def test_a_dated_model_name_has_the_price_of_its_published_name(database, now, provider, dated, published):
    book = PriceBook.load(now)
    found = book.rates(provider=provider, model=dated, at=now)
    assert found is not None
    assert found == book.rates(provider=provider, model=published, at=now)


def test_a_model_that_nobody_prices_costs_an_unknown_amount_and_not_nothing(database, now):
    usage = Usage(input_tokens=1, output_tokens=1)
    assert PriceBook.load(now).cost(provider="openai", model="in-house", usage=usage, at=now) is None
    assert PriceBook.load(now).cost(provider="nobody", model="gpt-4o", usage=usage, at=now) is None


def test_every_listed_price_of_today_is_in_force(database):
    today = datetime.now(UTC)
    seed_prices(today)
    book, newest = PriceBook.load(today), {(listed.provider, listed.model): listed for listed in listed_prices(today)}
    for (provider, model), listed in newest.items():
        assert book.rates(provider=provider, model=model, at=today) == listed.rates


def test_seeding_twice_opens_nothing(database):
    today = datetime.now(UTC)
    seed_prices(today)
    before = Price.objects.count()
    call_command("seed_prices", stdout=StringIO())
    assert seed_prices(today + timedelta(days=1)) == 0
    assert Price.objects.count() == before


def test_a_changed_price_closes_the_old_row_and_opens_a_new_one(probe, now):
    record_prices(Price.objects, [probe], now=now)
    dearer = replace(probe, rates=replace(RATES, input=Decimal("3")))
    later = now + timedelta(days=30)
    assert record_prices(Price.objects, [dearer], now=later) == 1
    assert record_prices(Price.objects, [dearer], now=later) == 0
    assert [(row.input_per_million, row.valid_from, row.valid_until) for row in versions()] == [
        (Decimal("2"), THEN, later),
        (Decimal("3"), later, None),
    ]


def test_a_call_has_the_price_of_its_own_instant(probe, now):
    record_prices(Price.objects, [probe], now=now)
    later = now + timedelta(days=30)
    record_prices(Price.objects, [replace(probe, rates=replace(RATES, input=Decimal("3")))], now=later)
    book = PriceBook.load(later)
    name = {"provider": "openai", "model": "probe-1"}
    assert book.rates(**name, at=later - timedelta(microseconds=1)).input == 2
    assert book.rates(**name, at=later).input == 3
    assert book.rates(**name, at=THEN - timedelta(days=1)) is None


def test_a_published_history_is_seeded_as_a_history(probe, now):
    second = replace(probe, valid_from=THEN + timedelta(days=90), rates=replace(RATES, output=Decimal("4")))
    assert record_prices(Price.objects, [probe, second], now=now) == 2
    assert [row.valid_until for row in versions()] == [second.valid_from, None]


def test_two_seedings_at_once_open_each_price_once(probe, now):
    def seed(_):
        try:
            return record_prices(Price.objects, [replace(probe, rates=replace(RATES, input=Decimal("5")))], now=now)
        finally:
            connections.close_all()

    record_prices(Price.objects, [probe], now=THEN)
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(seed, range(4))) == 1
    assert [row.input_per_million for row in versions()] == [Decimal("2"), Decimal("5")]
