"""An append-only ledger follows the facts, whatever comes late, moves or goes."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from billing.core.entries import Figures, Key, Written, find_adjustments

HOUR = datetime(2026, 3, 2, 12, tzinfo=UTC)
MONEY = st.decimals(0, 1000, places=10)
KEYS = st.builds(
    Key,
    kind=st.just("calls"),
    hour=st.integers(0, 2).map(lambda hours: HOUR + timedelta(hours=hours)),
    workload_id=st.sampled_from([None, UUID(int=1), UUID(int=2)]),
    arm=st.sampled_from(["teacher", "student"]),
    model=st.just("gpt-4o"),
    currency=st.just("USD"),
)
FIGURES = st.builds(
    Figures,
    calls=st.integers(0, 100),
    input_tokens=st.integers(0, 10**6),
    output_tokens=st.integers(0, 10**6),
    counterfactual=MONEY,
    actual=MONEY,
)
MEASURED = st.dictionaries(KEYS, FIGURES, max_size=6)


def append(written, adjustments):
    """What the database makes of it: sums and counts, and no sequence twice."""
    after = dict(written)
    for found in adjustments:
        so_far = after.get(found.key, Written(Figures(), 0))
        assert found.sequence == so_far.entries
        after[found.key] = Written(so_far.figures + found.figures, so_far.entries + 1)
    return after


@given(st.lists(MEASURED, min_size=1, max_size=5))
def test_after_every_look_the_sums_say_what_was_measured(looks):
    written = {}
    for measured in looks:
        written = append(written, find_adjustments(measured, written))
        for key in {**measured, **written}:
            assert written.get(key, Written(Figures(), 0)).figures == measured.get(key, Figures())


@given(MEASURED)
def test_a_second_look_adds_nothing(measured):
    assert find_adjustments(measured, append({}, find_adjustments(measured, {}))) == []


def test_what_is_left_of_two_doubts_is_no_reason_for_an_entry():
    key = Key("calls", HOUR, None, "student", "gpt-4o", "USD")
    written = {key: Written(Figures(calls=1, counterfactual=Decimal(1), counterfactual_variance=0.3), 1)}
    measured = {key: Figures(calls=1, counterfactual=Decimal(1), counterfactual_variance=0.1 + 0.2)}
    assert find_adjustments(measured, written) == []
