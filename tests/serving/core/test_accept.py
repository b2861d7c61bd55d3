"""Holds the one decision to its rule: nothing malformed, nothing novel, nothing unsure."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.core.accept import NEVER, Accept, Defer, accept, gated_score
from serving.core.gates import Acceptor, Evidence, Gate

ACCEPTOR = Acceptor(mean=(0.0,) * 6, scale=(1.0,) * 6, weights=(1.0, 0.0, 0.0, 0.0, 0.0, 0.0), bias=0.0)
anything = st.floats(0, 1) | st.just(math.nan)
answers = st.none() | st.just("refund")


def test_a_sure_and_familiar_answer_is_accepted():
    assert isinstance(accept("refund", seen(), gate(0.5)), Accept)


def test_a_malformed_answer_is_deferred_however_sure():
    assert accept(None, seen(), gate(0.0)) == Defer("malformed", None)


def test_a_novel_query_is_deferred_however_sure():
    verdict = accept("refund", seen(novelty=0.009), gate(0.0))
    assert isinstance(verdict, Defer)
    assert verdict.reason == "novel"
    assert isinstance(accept("refund", seen(novelty=0.01), gate(0.0)), Accept)


def test_an_unsure_answer_is_deferred_with_its_score():
    verdict = accept("refund", seen(weakest=0.1), gate(0.7))
    assert isinstance(verdict, Defer)
    assert verdict.reason == "unsure"
    assert verdict.score == pytest.approx(1 / (1 + math.exp(-0.1)))


@pytest.mark.parametrize("change", [{"weakest": math.nan}, {"novelty": math.nan}, {"spread": math.nan}])
def test_evidence_that_is_no_number_is_never_accepted(change):
    assert isinstance(accept("refund", seen(**change), gate(0.0)), Defer)
    assert isinstance(accept("refund", seen(**change), gate(-math.inf)), Defer)


def test_a_threshold_that_is_no_number_accepts_nothing():
    assert isinstance(accept("refund", seen(), gate(math.nan)), Defer)


@given(answers, anything, anything, st.floats(0, 1))
def test_a_row_ranks_above_a_threshold_exactly_when_it_is_accepted_there(answer, weakest, novelty, threshold):
    evidence = seen(weakest=weakest, novelty=novelty)
    ranked = gated_score(answer, evidence, acceptor=ACCEPTOR, novelty_epsilon=0.01)
    assert (ranked >= threshold) == isinstance(accept(answer, evidence, gate(threshold)), Accept)
    assert ranked == NEVER or 0.0 < ranked < 1.0


def seen(**change):
    values = {
        "weakest": 0.9,
        "typical": 0.9,
        "spread": 0.1,
        "similarity": 0.8,
        "neighbour_agreement": 1.0,
        "novelty": 0.5,
    }
    return Evidence(**{**values, **change})


def gate(threshold):
    return Gate(acceptor=ACCEPTOR, threshold=threshold, novelty_epsilon=0.01)
