"""Holds that a call is sent again only where the provider asks for it, and soon."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.core.retries import FIRST, LONGEST_WAIT, MOST, PAYS, earn, wait_asked_for


@pytest.mark.parametrize(
    ("status", "headers", "wait"),
    [
        (429, {b"retry-after": b"2"}, 2.0),
        (503, {b"retry-after": b"0"}, 0.0),
        (529, {b"retry-after": b" 1.5 "}, 1.5),
        (429, {b"retry-after-ms": b"250", b"retry-after": b"1"}, 0.25),
        (429, {b"retry-after-ms": b"soon", b"retry-after": b"1"}, 1.0),
        (429, {b"retry-after": b"5", b"x-should-retry": b"true"}, 5.0),
        (429, {b"retry-after": b"1", b"x-should-retry": b"False"}, None),
        (429, {b"retry-after": b"6"}, None),
        (429, {}, None),
        (429, {b"retry-after": b"Fri, 27 Nov 2026 07:28:00 GMT"}, None),
        (429, {b"retry-after": b"-1"}, None),
        (429, {b"retry-after": b"nan"}, None),
        (429, {b"retry-after": b"1e0"}, None),
        (429, {b"retry-after": b"."}, None),
        (500, {b"retry-after": b"1"}, None),
        (200, {b"retry-after": b"1"}, None),
        (408, {b"retry-after": b"1"}, None),
    ],
)
def test_only_a_busy_provider_is_asked_again_when_it_says_when(status, headers, wait):
    assert wait_asked_for(status, headers.items()) == wait


@given(status=st.sampled_from([429, 503, 529]), value=st.binary(max_size=30), name=st.sampled_from([b"", b"-ms"]))
def test_no_wait_is_longer_than_the_bound_whatever_the_header_says(status, value, name):
    wait = wait_asked_for(status, [(b"retry-after" + name, value)])
    assert wait is None or 0.0 <= wait <= LONGEST_WAIT


def test_ten_calls_earn_one_retry_and_a_quiet_day_does_not_earn_a_storm():
    budget = 0.0
    for _ in range(10):
        budget = earn(budget)
    assert budget == pytest.approx(10 * PAYS) and FIRST < MOST
    for _ in range(1000):
        budget = earn(budget)
    assert budget == MOST
