"""Holds the fitted acceptor to its use: surer answers score higher, and no sample makes it break."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.core.acceptor import UnableToFitAcceptor, fit_acceptor
from serving.core.confidence import score
from serving.core.gates import Evidence

unit = st.floats(0, 1)
rows = st.tuples(unit, unit, st.floats(0, 8), st.floats(-1, 1), unit, st.booleans())


def test_the_learned_score_ranks_new_answers_better_than_any_single_feature():
    fitted = fit_acceptor(*draw(2000, seed=1))
    evidence, agrees = draw(4000, seed=2)
    learned = rank_quality([score(fitted, row) for row in evidence], agrees)
    for name in ("weakest", "typical", "similarity", "neighbour_agreement"):
        assert learned > rank_quality([getattr(row, name) for row in evidence], agrees)


def test_the_score_is_calibrated_on_new_answers():
    fitted = fit_acceptor(*draw(2000, seed=1))
    evidence, agrees = draw(4000, seed=3)
    scores = np.array([score(fitted, row) for row in evidence])
    for low, high in ((0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        inside = (scores >= low) & (scores < high)
        assert abs(scores[inside].mean() - np.array(agrees)[inside].mean()) < 0.06


@pytest.mark.parametrize("agreement", [True, False])
def test_a_sample_of_one_mind_still_ranks_the_surer_answer_higher(agreement):
    evidence, _ = draw(100, seed=4)
    fitted = fit_acceptor(evidence, [agreement] * 100)
    assert score(fitted, make(0.99, 0.95, 0.1, 0.9, 1.0)) > score(fitted, make(0.3, 0.1, 2.0, 0.2, 0.0))
    mean = float(np.mean([score(fitted, row) for row in evidence]))
    assert mean > 0.9 if agreement else mean < 0.1


@settings(deadline=None, max_examples=60)
@given(st.lists(rows, min_size=1, max_size=60))
def test_any_finite_sample_gives_finite_parameters(sample):
    fitted = fit_acceptor([make(*row[:5]) for row in sample], [row[5] for row in sample])
    assert all(map(math.isfinite, (*fitted.mean, *fitted.scale, *fitted.weights, fitted.bias)))
    assert all(scale > 0 for scale in fitted.scale)
    assert 0.0 < score(fitted, make(*sample[0][:5])) < 1.0


def test_the_same_rows_give_the_same_acceptor():
    assert fit_acceptor(*draw(300, seed=5)) == fit_acceptor(*draw(300, seed=5))


@pytest.mark.parametrize("count", [0, 1])
def test_rows_that_are_missing_or_unpaired_are_refused(count):
    with pytest.raises(UnableToFitAcceptor):
        fit_acceptor([make(0.5, 0.5, 0.5, 0.5, 0.5)] * count, [True] * (count * 2))


def test_evidence_that_is_no_number_is_refused():
    with pytest.raises(UnableToFitAcceptor):
        fit_acceptor([make(0.5, 0.5, math.nan, 0.5, 0.5)], [True])


def draw(n, *, seed):
    """Answers whose chance of agreeing depends on all features, each of them noisy."""
    rng = np.random.default_rng(seed)
    skill = rng.normal(size=n)
    noisy = [1 / (1 + np.exp(-(skill + rng.normal(size=n)))) for _ in range(4)]
    agrees = rng.random(n) < 1 / (1 + np.exp(-(1 + 2 * skill)))
    evidence = [
        make(a, b, max(0.0, 2 - 2 * c), d, c) for a, b, c, d in zip(*(column.tolist() for column in noisy), strict=True)
    ]
    return evidence, agrees.tolist()


def make(weakest, typical, spread, similarity, agreement):
    return Evidence(
        weakest=weakest,
        typical=typical,
        spread=spread,
        similarity=similarity,
        neighbour_agreement=agreement,
        novelty=0.5,
    )


def rank_quality(scores, agrees):
    """The chance that an agreeing answer outranks a differing one."""
    order = np.argsort(np.argsort(scores, kind="stable"), kind="stable")
    agrees = np.array(agrees)
    positives = int(agrees.sum())
    return (order[agrees].sum() - positives * (positives - 1) / 2) / (positives * (len(agrees) - positives))
