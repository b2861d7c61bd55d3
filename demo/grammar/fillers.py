"""Keeps the things that queries speak of: places, people, ids, dates, amounts."""

from collections.abc import Mapping
from random import Random

from demo.grammar.phrases import Filler, load_phrases

CURRENCIES = ("EUR", "USD", "GBP", "CHF", "PLN", "SEK")
_FILE = "fillers.txt"
_SIGNS = {"EUR": "€", "USD": "$", "GBP": "£"}


def options(section: str) -> tuple[str, ...]:
    """The things of one kind, such as `city`."""
    return load_phrases(_FILE)[section]


def all_options() -> list[str]:
    """Every word that a filler may write."""
    return [text for section in load_phrases(_FILE).values() for text in section]


def fill_shipment(rng: Random) -> str:
    """A shipment number in one of the shapes that customers write."""
    number = rng.randrange(10_000_000, 99_999_999)
    shapes = (
        f"SH-{number % 1_000_000:06d}",
        f"TRK{number}",
        f"#{number}",
        f"LX{number}DE",
        f"{number // 10_000}-{number % 10_000:04d}",
    )
    return rng.choice(shapes)


def fill_date(rng: Random) -> str:
    """A day, written in one of several ways."""
    day, month, year = rng.randrange(1, 29), rng.randrange(1, 13), rng.choice((2024, 2025, 2026))
    name = options("month")[month - 1]
    shapes = (
        f"{day} {name}",
        f"{name} {day}",
        f"{year}-{month:02d}-{day:02d}",
        f"{day:02d}.{month:02d}.{year}",
        f"{month}/{day}/{year}",
    )
    return rng.choice(shapes)


def fill_money(rng: Random) -> str:
    """An amount with its currency, written in one of several ways."""
    currency = rng.choice(CURRENCIES)
    value = rng.randrange(20, 9000)
    shapes = [f"{value} {currency}", f"{currency} {value:,}", f"{value}.{rng.randrange(100):02d} {currency}"]
    if currency in _SIGNS:
        shapes.append(f"{_SIGNS[currency]}{value}")
    return rng.choice(shapes)


def fill_weight(rng: Random) -> str:
    """A weight with its unit."""
    return rng.choice(
        (
            f"{rng.randrange(2, 900)} kg",
            f"{rng.randrange(2, 900)}kg",
            f"{rng.randrange(1, 24)} tonnes",
            f"{rng.randrange(5, 900)} lbs",
        )
    )


def fill_count(rng: Random) -> str:
    """A number of load units."""
    return f"{rng.randrange(2, 60)} {rng.choice(options('load_unit'))}"


def fill_address(rng: Random) -> str:
    """A street address."""
    return f"{rng.choice(options('street'))} {rng.randrange(1, 180)}, {rng.choice(options('city'))}"


def fill_invoice(rng: Random) -> str:
    """An invoice number."""
    number = rng.randrange(10_000, 999_999)
    return rng.choice((f"INV-{number}", f"F{number}", f"#{number}", f"2025/{number}"))


def _pick(section: str) -> Filler:
    return lambda rng: rng.choice(options(section))


FILLERS: Mapping[str, Filler] = {
    "shipment": fill_shipment,
    "date": fill_date,
    "money": fill_money,
    "weight": fill_weight,
    "count": fill_count,
    "address": fill_address,
    "invoice": fill_invoice,
    "city": _pick("city"),
    "country": _pick("country"),
    "name": lambda rng: f"{rng.choice(options('first_name'))} {rng.choice(options('surname'))}",
    "company": _pick("company"),
    "carrier": _pick("carrier"),
    "goods": _pick("goods"),
    "weekday": _pick("weekday"),
    "month": _pick("month"),
    "time": lambda rng: f"{rng.randrange(6, 21)}:{rng.choice(('00', '15', '30', '45'))}",
    "days": lambda rng: f"{rng.randrange(2, 15)} days",
    "hours": lambda rng: f"{rng.randrange(2, 72)} hours",
    "unit": lambda rng: f"{rng.choice('ABCDEFGHK')}{rng.randrange(1, 99)}",
}
