"""The ladder's first rung: a linear head on sentence embeddings, for workloads whose answers are labels."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

STRENGTHS = (1.0, 5.0, 20.0, 60.0)  # inverse L2 penalties tried; unit-length rows want a weak one
INNER_SHARE = 0.2  # of the training rows, held out to choose among them

Matrix = NDArray[np.float32]


class UnableToFitHead(Exception):
    """The training rows hold fewer than two labels: there is nothing to tell apart."""


@dataclass(frozen=True, slots=True)
class Head:
    """softmax(weights @ embedding + bias) over `labels`."""

    labels: tuple[str, ...]  # [L]
    weights: Matrix  # [L, width]
    bias: Matrix  # [L]
    strength: float  # the inverse penalty that was chosen


def fit_head(vectors: Matrix, answers: Sequence[str], *, seed: int) -> Head:
    """Multinomial logistic regression on vectors [n, width]. Raises UnableToFitHead with fewer than two labels."""
    if len(set(answers)) < 2:
        raise UnableToFitHead("the training rows hold fewer than two labels")
    strength = _choose_strength(vectors, list(answers), seed=seed)
    model = _fit(vectors, list(answers), strength)
    weights, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps only the second label's row; softmax over (0, z) is its sigmoid
        weights, bias = np.vstack([np.zeros_like(weights), weights]), np.array([0.0, bias[0]])
    labels = tuple(str(label) for label in model.classes_)
    return Head(labels, weights.astype(np.float32), bias.astype(np.float32), strength)


def _choose_strength(vectors: Matrix, answers: list[str], *, seed: int) -> float:
    """The strength with the least log loss on held-out rows: what is certified are probabilities, not hits."""
    often = Counter(answers)
    repeated = np.array([often[answer] > 1 for answer in answers])
    rows = np.flatnonzero(repeated)  # a label seen once cannot be on both sides
    targets = np.array(answers)[rows]
    labels = len(set(targets))
    if labels < 2 or int(len(rows) * INNER_SHARE) < labels:
        return STRENGTHS[1]
    fit, held = train_test_split(rows, test_size=INNER_SHARE, random_state=seed, stratify=targets)
    losses = [_measure_loss(vectors, np.array(answers), fit, held, strength) for strength in STRENGTHS]
    return STRENGTHS[int(np.argmin(losses))]


def _measure_loss(
    vectors: Matrix, answers: NDArray[np.str_], fit: NDArray[np.int64], held: NDArray[np.int64], strength: float
) -> float:
    model = _fit(vectors[fit], list(answers[fit]), strength)
    column = np.searchsorted(model.classes_, answers[held])
    chosen = model.predict_proba(vectors[held])[np.arange(len(held)), column]
    return float(-np.log(np.maximum(chosen, 1e-12)).mean())


def _fit(vectors: Matrix, answers: list[str], strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=1000, tol=1e-3).fit(vectors, answers)
