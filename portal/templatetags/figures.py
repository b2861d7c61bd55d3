"""How figures are written on pages: money with its currency, shares in per cent, long numbers in threes."""

from decimal import Decimal

from django import template

register = template.Library()
SIGNS = {"USD": "$", "EUR": "€", "GBP": "£"}


@register.filter
def money(amount: Decimal | float | None, currency: str = "USD") -> str:
    """An amount for reading: cents where it is whole money, more digits where it is less than a cent."""
    if amount is None:
        return "–"
    exact = Decimal(amount)
    places = 2 if exact == 0 or abs(exact) >= 1 else 4 if abs(exact) >= Decimal("0.0001") else 6
    sign = "−" if exact < 0 else ""
    symbol = SIGNS.get(currency)
    figure = f"{abs(exact):,.{places}f}"
    return f"{sign}{symbol}{figure}" if symbol else f"{sign}{figure} {currency}"


@register.filter
def percent(share: float | None, places: int = 1) -> str:
    """A share in [0, 1] as per cent, with a space that doesn't break."""
    return "–" if share is None else f"{share:.{places}%}".replace("%", "\u00a0%")


@register.filter
def term(share: Decimal) -> str:
    """A share that was agreed on, as per cent to its last digit."""
    return f"{(share * 100).normalize():f}\u00a0%"


@register.filter
def count(number: float | None) -> str:
    """A whole number in groups of three."""
    return "–" if number is None else f"{number:,.0f}"


@register.filter
def words(code: str) -> str:
    """A code word as people write it."""
    return str(code).replace("_", " ")


@register.filter
def in_unit(amount: Decimal, measure: str) -> str:
    """An amount of what a limit measures: dollars, tokens or requests."""
    return money(amount) if measure == "spend" else f"{amount:,.0f} {measure}"
