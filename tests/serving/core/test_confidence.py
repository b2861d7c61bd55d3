"""Holds the score to what the gateway relies on: a probability, in plain Python, the same wherever it is computed."""

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.core.confidence import FEATURES, features, score
from serving.core.gates import Acceptor, Evidence

unit = st.floats(0, 1)
evidences = st.builds(
    Evidence,
    weakest=unit,
    typical=unit,
    spread=st.floats(0, 10),
    similarity=st.floats(-1, 1),
    neighbour_agreement=unit,
    novelty=st.floats(0.0001, 1),
)
numbers = st.tuples(*[st.floats(-100, 100)] * len(FEATURES))
acceptors = st.builds(
    Acceptor,
    mean=numbers,
    scale=st.tuples(*[st.floats(1e-6, 100)] * len(FEATURES)),
    weights=numbers,
    bias=st.floats(-100, 100),
)


@given(acceptors, evidences)
def test_a_score_lies_strictly_between_nought_and_one(acceptor, evidence):
    assert 0.0 < score(acceptor, evidence) < 1.0


@given(evidences)
def test_every_feature_of_finite_evidence_is_finite_and_named(evidence):
    values = features(evidence)
    assert len(values) == len(FEATURES)
    assert all(math.isfinite(value) for value in values)


@pytest.mark.parametrize("broken", ["weakest", "typical", "spread", "similarity", "neighbour_agreement"])
def test_evidence_that_is_no_number_gives_a_score_that_is_none(broken):
    values = {"weakest": 0.9, "typical": 0.9, "spread": 0.1, "similarity": 0.8, "neighbour_agreement": 1.0}
    evidence = Evidence(**{**values, broken: math.nan}, novelty=0.5)
    assert math.isnan(score(plain_acceptor(), evidence))


def test_an_acceptor_fitted_on_other_features_is_refused():
    evidence = Evidence(weakest=0.9, typical=0.9, spread=0.1, similarity=0.8, neighbour_agreement=1.0, novelty=0.5)
    with pytest.raises(ValueError, match="zip"):
        score(Acceptor(mean=(0.0,), scale=(1.0,), weights=(1.0,), bias=0.0), evidence)


def test_what_the_gateway_imports_from_here_pulls_in_no_numpy():
    modules = "serving.core.accept, serving.core.novelty, serving.core.routing"
    code = f"import sys, {modules}; print(sorted({{'numpy', 'scipy', 'django', 'torch'}} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def plain_acceptor():
    return Acceptor(mean=(0.0,) * 6, scale=(1.0,) * 6, weights=(1.0,) * 6, bias=0.0)
