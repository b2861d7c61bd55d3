"""Holds the certificate to its promise: how often, over many samples, a certified threshold breaks alpha."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from serving.core.accept import NEVER, Accept, accept, gated_score
from serving.core.certify import (
    Certified,
    Mode,
    NotCertified,
    UnableToCertify,
    certify_per_answer,
    certify_per_call,
    choose_grid,
    clopper_pearson_interval,
    clopper_pearson_upper,
    rows_needed,
)
from serving.core.gates import Acceptor, Evidence, Gate

ALPHA, DELTA = 0.05, 0.1
RUNS = 400
ALLOWED = DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / RUNS)

# Scores are uniform on [0, 1], so the share accepted at threshold t is 1 − t. A population gives P(differ | score) and,
# integrated by hand, P(differ | score >= t).
SLOPED = (lambda s: 0.30 * (1 - s), lambda t: 0.15 * (1 - t))  # risk reaches alpha at t = 2/3
FLAT_JUST_TOO_BAD = (lambda s: np.full_like(s, 0.0501), lambda t: 0.0501)  # every certificate is a violation
SURE_AND_WRONG = (  # the surest tenth is the worst: the risk falls, then rises, as the threshold falls
    lambda s: np.where(s > 0.9, 0.12, 0.12 * (0.9 - s)),
    lambda t: 0.12 if t >= 0.9 else (0.012 + 0.06 * (0.9 - t) ** 2) / (1 - t),
)
USEFUL = (lambda s: 0.5 * (1 - s) ** 4, lambda t: 0.1 * (1 - t) ** 4)  # an oracle would answer 84 % of calls
POPULATIONS = {"sloped": SLOPED, "flat": FLAT_JUST_TOO_BAD, "sure_and_wrong": SURE_AND_WRONG}


@pytest.mark.parametrize("name", POPULATIONS)
def test_a_per_answer_threshold_breaks_its_bound_in_at_most_delta_of_samples(name):
    risk = POPULATIONS[name][1]
    outcomes = certify_many(certify_per_answer, POPULATIONS[name], Mode.PER_ANSWER)
    violations = sum(isinstance(found, Certified) and risk(found.threshold) > ALPHA for found in outcomes)
    assert violations / RUNS <= ALLOWED


@pytest.mark.parametrize("name", POPULATIONS)
def test_a_per_call_threshold_breaks_its_bound_in_at_most_delta_of_samples(name):
    risk = POPULATIONS[name][1]
    outcomes = certify_many(certify_per_call, POPULATIONS[name], Mode.PER_CALL, count=60)
    violations = sum(
        isinstance(found, Certified) and risk(found.threshold) * (1 - found.threshold) > ALPHA for found in outcomes
    )
    assert violations / RUNS <= ALLOWED


def test_the_empirical_threshold_would_have_broken_it():
    """The simulation can see a violation: what peers do, the lowest threshold that looks good, fails it clearly."""
    rng = np.random.default_rng(11)
    violations = 0
    for _ in range(200):
        scores, differs = draw_rows(SLOPED, 600, rng)
        order = np.argsort(-scores)
        shares = np.cumsum(differs[order]) / np.arange(1, 601)
        lowest = scores[order][np.flatnonzero(shares <= ALPHA)[-1]]
        violations += SLOPED[1](lowest) > ALPHA
    assert violations / 200 > 2 * DELTA


def test_most_samples_of_a_good_student_are_certified_with_useful_coverage():
    for certify, mode, least in (
        (certify_per_answer, Mode.PER_ANSWER, 0.65),
        (certify_per_call, Mode.PER_CALL, 0.7),
    ):
        outcomes = certify_many(certify, USEFUL, mode, runs=100)
        coverage = [found.coverage if isinstance(found, Certified) else 0.0 for found in outcomes]
        assert np.mean(coverage) > least, mode


@settings(deadline=None)
@given(st.integers(1, 2000), st.floats(0, 1), st.floats(0.001, 0.5))
def test_the_upper_bound_is_the_share_at_which_so_few_would_be_rare(n, portion, delta):
    k = min(n - 1, int(portion * n))
    upper = clopper_pearson_upper(k, n, delta)
    assert upper > k / n
    assert binom.cdf(k, n, upper) == pytest.approx(delta, rel=1e-6)


def test_bounds_of_nothing_and_of_everything_are_whole():
    assert clopper_pearson_upper(0, 0, DELTA) == 1.0
    assert clopper_pearson_interval(0, 0) == (0.0, 1.0)
    assert clopper_pearson_interval(5, 5)[1] == 1.0
    assert clopper_pearson_interval(10, 100) == pytest.approx((0.0490, 0.1762), abs=1e-4)  # R: binom.test(10, 100)


def test_forty_five_faultless_rows_are_the_fewest_that_pass():
    assert rows_needed(0.05, 0.1) == 45
    assert isinstance(certify_per_answer([0.9] * 45, [0] * 45, grid=[0.5], alpha=0.05, delta=0.1), Certified)
    refused = certify_per_answer([0.9] * 44, [0] * 44, grid=[0.5], alpha=0.05, delta=0.1)
    assert isinstance(refused, NotCertified)
    assert refused.more_rows_needed == 1


def test_testing_stops_at_the_first_failure_even_where_a_later_threshold_looks_good():
    scores = [0.9] * 20 + [0.5] * 980
    differs = [1] * 5 + [0] * 995
    found = certify_per_answer(scores, differs, grid=[0.8, 0.4], alpha=ALPHA, delta=DELTA)
    assert isinstance(found, NotCertified)
    assert found.curve[1].upper_bound <= ALPHA
    assert not found.curve[1].passed


def test_the_curve_has_a_row_for_every_threshold_and_the_certificate_is_its_last_passing_one():
    rng = np.random.default_rng(3)
    scores, differs = draw_rows(SLOPED, 2000, rng)
    grid = [0.95, 0.85, 0.75, 0.5, 0.2]
    found = certify_per_answer(scores, differs, grid=grid, alpha=ALPHA, delta=DELTA)
    assert isinstance(found, Certified)
    assert [point.threshold for point in found.curve] == grid
    flags = [point.passed for point in found.curve]
    assert flags == sorted(flags, reverse=True)
    last = [point for point in found.curve if point.passed][-1]
    assert (found.threshold, found.accepted, found.upper_bound) == (last.threshold, last.accepted, last.upper_bound)
    assert found.coverage == pytest.approx(found.accepted / 2000)
    assert found.differing == sum(d for s, d in zip(scores, differs, strict=True) if s >= found.threshold)


def test_rows_that_may_never_be_accepted_count_as_calls_and_not_as_answers():
    scores = [0.9] * 100 + [NEVER] * 100
    found = certify_per_answer(scores, [0] * 100 + [1] * 100, grid=[0.5], alpha=ALPHA, delta=DELTA)
    assert isinstance(found, Certified)
    assert (found.accepted, found.differing, found.coverage) == (100, 0, 0.5)
    assert choose_grid([NEVER] * 50, [0] * 50, n_calibration=100, alpha=ALPHA, delta=DELTA) == []
    nothing = certify_per_answer([NEVER] * 50, [0] * 50, grid=[], alpha=ALPHA, delta=DELTA)
    assert isinstance(nothing, NotCertified)
    assert nothing.more_rows_needed is None


def test_what_is_certified_is_what_accept_does_live():
    rng = np.random.default_rng(5)
    acceptor = Acceptor(mean=(0.0,) * 6, scale=(1.0,) * 6, weights=(2.0, 0.5, 1.0, -1.0, 1.0, 1.0), bias=-2.0)
    rows = [random_evidence(rng) for _ in range(800)]
    answers = [None if rng.random() < 0.05 else "yes" for _ in rows]
    scores = [
        gated_score(answer, row, acceptor=acceptor, novelty_epsilon=0.05)
        for answer, row in zip(answers, rows, strict=True)
    ]
    grid = choose_grid(scores, [0] * 800, n_calibration=800, alpha=ALPHA, delta=DELTA)
    found = certify_per_answer(scores, [0] * 800, grid=grid, alpha=ALPHA, delta=DELTA)
    assert isinstance(found, Certified)
    gate = Gate(acceptor=acceptor, threshold=found.threshold, novelty_epsilon=0.05)
    live = sum(isinstance(accept(answer, row, gate), Accept) for answer, row in zip(answers, rows, strict=True))
    assert live == found.accepted
    assert live < 800


def test_the_rows_said_to_be_missing_are_enough_if_the_shares_hold():
    scores, differs = [0.9] * 60 + [0.1] * 40, [1, 0, 0, 0, 0, 0, 0, 0, 0, 0] * 10
    differs = [1 if i == 0 else 0 for i in range(60)] + differs[:40]  # 1 of 60 differs among the sure
    refused = certify_per_answer(scores, differs, grid=[0.5], alpha=ALPHA, delta=DELTA)
    assert isinstance(refused, NotCertified)
    assert refused.more_rows_needed is not None
    assert refused.more_rows_needed > 0
    times = math.ceil((100 + refused.more_rows_needed) / 100)
    assert isinstance(
        certify_per_answer(scores * times, differs * times, grid=[0.5], alpha=ALPHA, delta=DELTA), Certified
    )


def test_a_student_that_differs_too_often_everywhere_is_not_helped_by_rows():
    refused = certify_per_answer([0.9] * 300, [1, 0] * 150, grid=[0.5], alpha=ALPHA, delta=DELTA)
    assert isinstance(refused, NotCertified)
    assert refused.more_rows_needed is None
    assert "too often" in refused.reason


@pytest.mark.parametrize("certify", [certify_per_answer, certify_per_call])
def test_no_rows_at_all_certify_nothing(certify):
    refused = certify([], [], grid=[0.5], alpha=ALPHA, delta=DELTA)
    assert isinstance(refused, NotCertified)
    assert refused.more_rows_needed == 45


@pytest.mark.parametrize(
    ("scores", "differs", "grid"),
    [
        ([0.5, 0.6], [0], [0.5]),
        ([0.5], [0.5], [0.5]),
        ([0.5], [2], [0.5]),
        ([math.nan], [0], [0.5]),
        ([0.5], [math.nan], [0.5]),
        ([0.5], [0], [0.4, 0.5]),
        ([0.5], [0], [0.5, 0.5]),
        ([0.5], [0], [-math.inf]),
    ],
)
def test_rows_or_grids_that_would_void_the_promise_are_refused(scores, differs, grid):
    with pytest.raises(UnableToCertify):
        certify_per_answer(scores, differs, grid=grid, alpha=ALPHA, delta=DELTA)


@pytest.mark.parametrize(("alpha", "delta"), [(0.0, 0.1), (1.0, 0.1), (0.05, 0.0), (0.05, 1.0)])
def test_levels_outside_the_open_unit_interval_are_refused(alpha, delta):
    with pytest.raises(UnableToCertify):
        certify_per_answer([0.5], [0], grid=[0.5], alpha=alpha, delta=delta)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([NEVER, 0.1, 0.5]) | st.floats(0, 1), st.booleans()), min_size=1, max_size=300),
    st.integers(0, 2000),
    st.sampled_from(Mode),
)
def test_a_grid_falls_strictly_is_short_and_can_be_certified_on(rows, n_calibration, mode):
    scores, differs = [row[0] for row in rows], [row[1] for row in rows]
    grid = choose_grid(scores, differs, n_calibration=n_calibration, alpha=ALPHA, delta=DELTA, mode=mode)
    assert len(grid) <= 16
    assert set(grid) <= set(scores) - {NEVER}
    certify_per_answer(scores, differs, grid=grid, alpha=ALPHA, delta=DELTA)


def test_a_grid_begins_where_enough_calibration_rows_will_be_accepted():
    rng = np.random.default_rng(9)
    for _ in range(20):
        scores, differs = draw_rows(SLOPED, 400, rng)
        grid = choose_grid(scores, differs, n_calibration=600, alpha=ALPHA, delta=DELTA)
        assert (scores >= grid[0]).mean() * 600 >= rows_needed(ALPHA, DELTA)
        assert 10 <= len(grid) <= 20


def certify_many(certify, population, mode, *, count=16, runs=RUNS):
    """One certificate a run: a fresh tuning sample for the grid, a fresh calibration sample for the promise."""
    rng = np.random.default_rng(20)
    outcomes = []
    for _ in range(runs):
        tuning_scores, tuning_losses = draw_rows(population, 400, rng)
        grid = choose_grid(
            tuning_scores, tuning_losses, n_calibration=600, alpha=ALPHA, delta=DELTA, mode=mode, count=count
        )
        scores, losses = draw_rows(population, 600, rng)
        outcomes.append(certify(scores, losses, grid=grid, alpha=ALPHA, delta=DELTA))
    return outcomes


def draw_rows(population, n, rng):
    scores = rng.random(n)
    return scores, (rng.random(n) < population[0](scores)).astype(int)


def random_evidence(rng):
    weakest, typical, agreement, novelty = rng.random(4)
    return Evidence(
        weakest=weakest,
        typical=typical,
        spread=2 * rng.random(),
        similarity=rng.random(),
        neighbour_agreement=agreement,
        novelty=novelty,
    )
