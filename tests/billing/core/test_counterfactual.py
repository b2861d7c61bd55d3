"""The baseline of a saving: never from the student's tokens, exact in its sums, honest about its doubt."""

import random
import statistics
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.core.counterfactual import (
    MINIMUM_CONTROL,
    Sample,
    estimate_baseline,
    find_interval,
    price_counterfactual,
)
from ingestion.core.calls import Usage
from ingestion.core.rating import Rates, cost

RATES = Rates(Decimal("2.5"), Decimal("10"), Decimal("1.25"), Decimal("2.5"), "USD")
USAGES = st.builds(Usage, input_tokens=st.integers(0, 200_000), output_tokens=st.integers(0, 20_000))
COSTS = st.lists(USAGES.map(lambda usage: cost(usage, RATES)), min_size=2, max_size=60)


def sample_of(costs) -> Sample:
    return Sample(len(costs), sum(costs, Decimal(0)), sum((each * each for each in costs), Decimal(0)))


@given(COSTS)
def test_the_baseline_is_the_cost_of_the_mean_call(costs):
    baseline = estimate_baseline(control=Sample(), answered=sample_of(costs))
    assert abs(baseline.per_call - sum(costs) / len(costs)) <= Decimal("1e-10")
    assert baseline.variance == pytest.approx(float(statistics.variance(costs)), rel=1e-9, abs=1e-18)


@given(COSTS, st.lists(st.integers(0, 100_000), min_size=1, max_size=20))
def test_however_calls_are_parted_into_entries_they_add_up_exactly(costs, parts):
    baseline = estimate_baseline(control=Sample(), answered=sample_of(costs))
    whole = price_counterfactual(sum(parts), baseline)
    pieces = [price_counterfactual(calls, baseline) for calls in parts]
    assert sum(piece.amount for piece in pieces) == whole.amount
    assert whole.amount == whole.amount.quantize(Decimal("1e-10"))
    assert sum(piece.variance for piece in pieces) == pytest.approx(whole.variance)
    assert sum(piece.shared_error for piece in pieces) == pytest.approx(whole.shared_error)


@given(COSTS, st.integers(1, 59))
def test_hours_of_a_sample_add_up_to_the_sample_of_all(costs, cut):
    assert sample_of(costs[:cut]) + sample_of(costs[cut:]) == sample_of(costs)


@given(COSTS)
def test_the_control_arm_alone_speaks_once_it_is_large_enough(costs):
    small, large = [Decimal(1)] * (MINIMUM_CONTROL - 1), [Decimal(1)] * MINIMUM_CONTROL
    assert estimate_baseline(control=sample_of(large), answered=sample_of(costs)).per_call == 1
    everything = sample_of(costs)
    assert estimate_baseline(control=sample_of(small), answered=everything) == estimate_baseline(
        control=Sample(), answered=everything
    )


def test_traffic_that_tells_no_usage_is_priced_by_what_was_guessed_and_not_by_a_few_told_calls():
    told, all_of_it = sample_of([Decimal("0.001")] * 2), sample_of([Decimal("0.001")] * 2 + [Decimal("0.5")] * 500)
    assert estimate_baseline(control=Sample(), answered=told, guessed=all_of_it).per_call > Decimal("0.49")
    enough = sample_of([Decimal("0.3")] * MINIMUM_CONTROL)
    assert estimate_baseline(control=Sample(), answered=enough, guessed=all_of_it).per_call == Decimal("0.3")


@pytest.mark.parametrize("calls", [0, 1])
def test_a_saving_that_cannot_be_shown_is_not_claimed(calls):
    assert estimate_baseline(control=Sample(), answered=sample_of([Decimal(1)] * calls)) is None
    assert price_counterfactual(1000, None).amount == 0


@given(st.decimals("-1e6", "1e6", places=10), st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e3)), max_size=5))
def test_the_interval_is_around_the_estimate_and_grows_with_doubt(amount, parts):
    low, high = find_interval(amount, parts)
    assert low <= amount <= high
    assert high - amount == amount - low
    wider = find_interval(amount, [*parts, (1.0, 0.0)])
    assert wider[1] >= high


def test_the_interval_covers_the_true_cost_in_about_95_of_100_months():
    draw = random.Random(7)

    def call() -> Decimal:
        return cost(Usage(int(draw.gauss(900, 200)), int(draw.expovariate(1 / 40)) + 1), RATES)

    covered, months = 0, 400
    for _ in range(months):
        truth = sum(call() for _ in range(300))
        baseline = estimate_baseline(control=sample_of([call() for _ in range(40)]), answered=Sample())
        estimate = price_counterfactual(300, baseline)
        low, high = find_interval(estimate.amount, [(estimate.variance, estimate.shared_error)])
        covered += low <= truth <= high
    assert 0.91 <= covered / months <= 0.985
