"""A call costs its tokens at the price in force, to the last decimal."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from ingestion.core.calls import Usage
from ingestion.core.rating import Rates, cost

RATES = Rates(
    input=Decimal("2.50"),
    output=Decimal("10"),
    cached_input=Decimal("1.25"),
    cache_write=Decimal("3.125"),
    currency="USD",
)
tokens = st.integers(0, 10**7)


def test_each_sort_of_token_has_its_rate():
    usage = Usage(input_tokens=1000, output_tokens=100, cached_input_tokens=600, cache_write_tokens=200)
    assert cost(usage, RATES) == Decimal("0.000500") + Decimal("0.000750") + Decimal("0.000625") + Decimal("0.001000")


def test_one_token_is_not_rounded_away():
    assert cost(Usage(input_tokens=1, output_tokens=0), RATES) == Decimal("0.0000025")


@given(st.builds(Usage, tokens, tokens, tokens, tokens))
def test_no_count_earns_the_caller_money(usage):
    assert cost(usage, RATES) >= 0
