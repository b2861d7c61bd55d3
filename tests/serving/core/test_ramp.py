"""Holds the rollback to its promise over a rollout's whole life, and the ramp to its rules."""

import math
from typing import assert_never

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from serving.core.ramp import (
    Advance,
    Audits,
    Decision,
    Hold,
    RollBack,
    State,
    UnableToJudgeAudits,
    confidence_sequence,
    decide,
    log_e_value,
)

ALPHA, DELTA = 0.05, 0.1
LIFE = 1000
RUNS = 3000


@pytest.mark.parametrize("n", [1, 2, 10, 100, 200])
def test_the_e_value_is_worth_exactly_one_on_average_at_the_boundary(n):
    k = np.arange(n + 1)
    e_values = np.exp([log_e_value(int(each), n, ALPHA) for each in k])
    assert (binom.pmf(k, n, ALPHA) * e_values).sum() == pytest.approx(1.0)
    assert (binom.pmf(k, n, 0.03) * e_values).sum() < 1.0


def test_a_student_at_its_bound_is_rolled_back_in_at_most_delta_of_lives():
    stopped = first_rollbacks(ALPHA)
    allowed = DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / RUNS)
    assert np.isfinite(stopped).mean() <= allowed


def test_a_student_three_times_worse_than_promised_is_rolled_back_fast():
    stopped = first_rollbacks(3 * ALPHA)
    assert np.median(stopped) < 60
    assert (stopped <= 200).mean() > 0.95


def test_the_confidence_sequence_misses_the_risk_in_at_most_its_share_of_lives():
    risk = 0.08
    low_missed = boundary(lambda k, n: log_e_value(k, n, risk) >= math.log(1 / DELTA))
    high_missed = boundary(lambda k, n: refuted_from_above(n - k, n, risk))  # in agreeing rows, which it grows with
    differing = np.cumsum(np.random.default_rng(2).random((RUNS, LIFE)) < risk, axis=1)
    agreeing = np.arange(1, LIFE + 1) - differing
    allowed = DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / RUNS)
    assert (differing >= low_missed).any(axis=1).mean() <= allowed
    assert (agreeing >= high_missed).any(axis=1).mean() <= allowed


def test_the_high_end_of_a_good_student_falls_below_alpha_in_a_few_hundred_audits():
    needed = boundary(lambda k, n: refuted_from_above(n - k, n, ALPHA))
    agreeing = np.cumsum(np.random.default_rng(4).random((500, 3000)) >= 0.02, axis=1)
    extended = np.concatenate([needed, np.full(2000, np.inf)])
    first = np.argmax(agreeing >= extended, axis=1) + 1
    assert 100 < np.median(first) < 250


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(0, 400), st.floats(0.01, 0.5), st.floats(0.01, 0.4))
def test_the_decisions_and_the_reported_ends_agree(differing, agreeing, alpha, delta):
    n = differing + agreeing
    low, high = confidence_sequence(differing, n, delta)
    assert 0.0 <= low <= (differing / n if n else 1.0) <= high <= 1.0 or n == 0
    if abs(low - alpha) > 1e-9:
        assert (log_e_value(differing, n, alpha) >= math.log(1 / delta)) == (low > alpha)
    if abs(high - alpha) > 1e-9:
        assert (log_e_value(agreeing, n, 1 - alpha) >= math.log(1 / delta)) == (high < alpha)


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(0, 300), st.floats(0.005, 0.9))
def test_one_more_differing_answer_never_lowers_the_evidence(differing, agreeing, alpha):
    n = differing + agreeing + 1
    assert log_e_value(differing + 1, n, alpha) >= log_e_value(differing, n, alpha)


def test_the_evidence_stays_a_number_over_a_million_audits():
    assert log_e_value(0, 10**6, ALPHA) == pytest.approx(-math.log(10**6 + 1))
    assert log_e_value(10**6, 10**6, ALPHA) > 1e6
    assert log_e_value(0, 0, ALPHA) == 0.0


@pytest.mark.parametrize(
    ("state", "share", "to"),
    [
        (State.SHADOW, 0.0, Advance(State.CANARY, 0.05)),
        (State.CANARY, 0.05, Advance(State.RAMPING, 0.25)),
        (State.RAMPING, 0.25, Advance(State.RAMPING, 0.5)),
        (State.RAMPING, 0.5, Advance(State.FULL, 1.0)),
    ],
)
def test_a_hundred_new_audits_take_exactly_the_next_step(state, share, to):
    assert move(state, share=share, step=(2, 100), life=(8, 400)) == to
    assert move(state, share=share, step=(2, 99), life=(8, 400)) == Hold("more audits needed at this step", 1)


def test_a_full_rollout_stays_and_still_rolls_back():
    assert move(State.FULL, share=1.0, step=(20, 1000), life=(20, 1400)) == Hold("full", 0)
    assert isinstance(move(State.FULL, share=1.0, step=(0, 0), life=(60, 300)), RollBack)


@pytest.mark.parametrize(("state", "share"), [(State.SHADOW, 0.0), (State.CANARY, 0.05), (State.RAMPING, 0.5)])
def test_evidence_from_the_whole_life_rolls_back_even_where_this_step_looks_clean(state, share):
    verdict = move(state, share=share, step=(0, 100), life=(40, 200))
    assert isinstance(verdict, RollBack)
    assert verdict.log_e >= math.log(1 / DELTA)


@pytest.mark.parametrize("state", [State.HELD, State.ROLLED_BACK, State.SUPERSEDED])
def test_a_rollout_that_is_held_or_over_never_moves_by_itself(state):
    assert isinstance(move(state, share=0.25, step=(0, 500), life=(0, 500)), Hold)
    assert isinstance(move(state, share=0.25, step=(90, 100), life=(90, 100)), Hold)


def test_a_share_set_by_hand_goes_on_to_the_next_larger_one():
    assert move(State.RAMPING, share=0.3, step=(0, 100), life=(0, 100)) == Advance(State.RAMPING, 0.5)


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5), (0, -1)])
def test_counts_that_cannot_be_are_refused(k, n):
    with pytest.raises(UnableToJudgeAudits):
        log_e_value(k, n, ALPHA)
    with pytest.raises(UnableToJudgeAudits):
        move(State.CANARY, share=0.05, step=(0, 0), life=(k, n))


@pytest.mark.parametrize("level", [0.0, 1.0, math.nan])
def test_levels_that_cannot_be_are_refused(level):
    with pytest.raises(UnableToJudgeAudits):
        log_e_value(0, 5, level)
    with pytest.raises(UnableToJudgeAudits):
        decide(State.CANARY, share=0.05, step=Audits(0, 5), life=Audits(0, 5), alpha=ALPHA, delta=level)


@settings(deadline=None)
@given(st.sampled_from(State), st.floats(0, 1), st.integers(0, 300), st.integers(0, 300))
def test_every_decision_is_one_of_three(state, share, differing, agreeing):
    audits = (differing, differing + agreeing)
    assert name(move(state, share=share, step=audits, life=audits)) in {"advance", "hold", "roll back"}


def move(state, *, share, step, life):
    return decide(state, share=share, step=Audits(*step), life=Audits(*life), alpha=ALPHA, delta=DELTA)


def name(decision: Decision) -> str:
    match decision:
        case Advance():
            return "advance"
        case Hold():
            return "hold"
        case RollBack():
            return "roll back"
        case _:
            assert_never(decision)


def boundary(stops):
    """For n = 1 … LIFE, the smallest count at which `stops(count, n)`; inf where there is none. It grows with n."""
    found = np.full(LIFE, np.inf)
    k = 0
    for n in range(1, LIFE + 1):
        while k <= n and not stops(k, n):
            k += 1
        if k > n:
            k = n
            continue
        found[n - 1] = k
    return found


def refuted_from_above(k, n, risk):
    """Whether the high end of the confidence sequence lies below `risk`."""
    return log_e_value(n - k, n, 1 - risk) >= math.log(1 / DELTA)


def first_rollbacks(risk):
    """The audit at which each of RUNS lives is rolled back when looked at after every audit; inf for never."""
    limit = boundary(lambda k, n: log_e_value(k, n, ALPHA) >= math.log(1 / DELTA))
    over = np.cumsum(np.random.default_rng(1).random((RUNS, LIFE)) < risk, axis=1) >= limit
    return np.where(over.any(axis=1), over.argmax(axis=1) + 1, np.inf)
