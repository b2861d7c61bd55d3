"""Holds the p-value to its meaning: at most ε of familiar queries are called novel at ε."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serving.core.novelty import p_value

distances = st.lists(st.floats(0, 2), max_size=200).map(sorted)


@given(st.floats(0, 2), distances)
def test_a_p_value_counts_the_reference_at_least_as_far(distance, reference):
    farther = sum(each >= distance for each in reference)
    assert p_value(distance, reference) == (1 + farther) / (len(reference) + 1)


@given(st.floats(0, 2), st.floats(0, 2), distances)
def test_a_farther_query_is_never_less_novel(one, other, reference):
    near, far = sorted([one, other])
    assert p_value(far, reference) <= p_value(near, reference)


def test_at_most_epsilon_of_familiar_queries_are_called_novel():
    rng = np.random.default_rng(6)
    called = [p_value(rng.exponential(), np.sort(rng.exponential(size=199)).tolist()) <= 0.05 for _ in range(4000)]
    assert abs(np.mean(called) - 0.05) < 0.011


def test_a_query_beyond_all_that_was_seen_is_as_novel_as_the_sample_can_say():
    assert p_value(9.0, [0.1] * 99) == 0.01
    assert p_value(math.inf, [0.1] * 99) == 0.01


def test_a_distance_that_is_no_number_is_novel_at_any_level():
    assert p_value(math.nan, [0.1, 0.2]) == 0.0
