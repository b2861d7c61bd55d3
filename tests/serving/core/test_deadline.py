"""A student's deadline follows what it takes, and never locks it out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.core import deadline
from serving.core.deadline import FEWEST, FLOOR, LATE, SAMPLES, TIMES, Deadlines, deadline_after

LONGEST = 3.0


def draft(known: Deadlines, seconds: float, *, times: int = 1, adapter: str = "a") -> int:
    """Let it draft, as the gateway would: gives how often it was late."""
    late = 0
    for _ in range(times):
        allowed = known.of(adapter)
        if seconds <= allowed:
            known.made(adapter, seconds)
        else:
            known.missed(adapter, allowed)
            late += 1
    return late


def test_until_enough_is_known_the_deadline_is_the_longest():
    known = Deadlines(LONGEST)
    assert known.of("a") == LONGEST
    draft(known, 0.1, times=FEWEST - 1)
    assert known.of("a") == LONGEST
    draft(known, 0.1)
    assert known.of("a") == pytest.approx(TIMES * 0.1)
    assert known.of("another") == LONGEST


def test_a_fast_student_gets_the_floor_and_a_slow_one_the_longest():
    known = Deadlines(LONGEST)
    draft(known, 0.002, times=FEWEST, adapter="fast")
    draft(known, 2.9, times=FEWEST, adapter="slow")
    assert (known.of("fast"), known.of("slow")) == (FLOOR, LONGEST)
    assert deadline_after([0.001], longest=0.05) == 0.05  # where what was set is below the floor


def test_one_draft_in_a_hundred_that_hangs_does_not_make_the_others_wait():
    known = Deadlines(LONGEST)
    draft(known, 0.1, times=SAMPLES)
    for _ in range(20):
        assert draft(known, 99.0) == 1
        draft(known, 0.1, times=149)
        assert known.of("a") == pytest.approx(TIMES * 0.1)


@pytest.mark.parametrize("slow", [0.2, 1.0, 2.9])
def test_a_student_whose_engine_became_slower_is_let_in_again_within_a_few_calls(slow):
    known = Deadlines(LONGEST)
    draft(known, 0.01, times=10 * SAMPLES)
    assert known.of("a") == FLOOR
    assert draft(known, slow, times=1000) <= 4 * LATE
    assert known.of("a") >= slow


def test_a_student_that_hangs_for_long_gets_the_longest_deadline_again_and_then_a_short_one_once_it_is_well():
    known = Deadlines(LONGEST)
    draft(known, 0.01, times=SAMPLES)
    draft(known, 99.0, times=4 * LATE)
    assert known.of("a") == LONGEST
    draft(known, 0.01, times=SAMPLES + FEWEST)
    assert known.of("a") == FLOOR


def test_the_adapter_longest_unused_is_forgotten_first(monkeypatch):
    monkeypatch.setattr(deadline, "MOST_ADAPTERS", 2)
    known = Deadlines(LONGEST)
    for adapter in ("a", "b", "a", "c"):
        draft(known, 0.01, times=FEWEST, adapter=adapter)
    assert [known.of(adapter) for adapter in "abc"] == [FLOOR, LONGEST, FLOOR]


@given(st.lists(st.floats(0.0001, 100.0), max_size=400), st.floats(0.01, 60.0))
def test_whatever_it_takes_the_deadline_stays_within_bounds_and_once_all_are_late_becomes_the_longest(takes, longest):
    known = Deadlines(longest)
    for seconds in takes:
        draft(known, seconds)
        assert min(FLOOR, longest) <= known.of("a") <= longest
    draft(known, longest + 1, times=FEWEST + 8 * LATE)
    assert known.of("a") == longest
