"""Fits, on the tuning split, the logistic regression whose score decides which answers a student may give."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from serving.core.confidence import FEATURES, features
from serving.core.gates import Acceptor, Evidence

# What is believed before any row is seen, per standard deviation: sure, typical and well-neighboured answers agree more
# often. The fit shrinks towards this and not towards zero, so that a tuning split where all rows agree still yields an
# order.
_PRIOR = np.array([0.25, 0.25, 0.25, -0.25, 0.25, 0.25])
_PENALTY = 1.0  # weight of the prior, in rows
_ITERATIONS = 50
_CONVERGED = 1e-9
_FLAT = 1e-9  # a feature that varies less than this is constant: it is centred and left unscaled


class UnableToFitAcceptor(Exception):
    """There are no rows, the two sides differ in length, or a number is not finite."""


def fit_acceptor(evidence: Sequence[Evidence], agrees: Sequence[bool]) -> Acceptor:
    """Fit P(agrees | evidence) on `n` tuning rows: L2-penalised logistic regression by Newton steps (IRLS).

    Targets are smoothed to (n₊+1)/(n₊+2) and 1/(n₋+2) (Platt 1999), so the bias stays finite when all rows agree, or
    none. Deterministic. Raises UnableToFitAcceptor.
    """
    if not evidence or len(evidence) != len(agrees):
        raise UnableToFitAcceptor("evidence and agreement must be of one length, and not empty")
    raw = np.array([features(row) for row in evidence], dtype=np.float64)
    if not np.isfinite(raw).all():
        raise UnableToFitAcceptor("evidence holds a number that is not finite")
    mean = raw.mean(axis=0)
    spread = raw.std(axis=0)
    scale = np.where(spread > _FLAT, spread, 1.0)
    weights = _fit_weights((raw - mean) / scale, _smooth(np.asarray(agrees, dtype=bool)))
    return Acceptor(
        mean=tuple(mean.tolist()),
        scale=tuple(scale.tolist()),
        weights=tuple(weights[:-1].tolist()),
        bias=float(weights[-1]),
    )


def _smooth(agrees: NDArray[np.bool_]) -> NDArray[np.float64]:
    positives = int(agrees.sum())
    negatives = len(agrees) - positives
    return np.where(agrees, (positives + 1) / (positives + 2), 1 / (negatives + 2))


def _fit_weights(rows: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Minimise the penalised negative log-likelihood over [weights, bias]; `rows` is [n, features]."""
    design = np.hstack([rows, np.ones((len(rows), 1))])
    prior = np.append(_PRIOR, 0.0)
    penalty = np.append(np.full(len(FEATURES), _PENALTY), 0.0)  # the bias is free
    current = prior.copy()
    for _ in range(_ITERATIONS):
        gradient, hessian = _slopes(design, targets, current, prior, penalty)
        step = np.linalg.solve(hessian, gradient)
        before = _objective(design, targets, current, prior, penalty)
        # Newton overshoots where the curve is flat; halving until the objective falls makes it converge from anywhere.
        while _objective(design, targets, current - step, prior, penalty) > before and np.abs(step).max() > _CONVERGED:
            step = step / 2
        current = current - step
        if np.abs(step).max() <= _CONVERGED:
            break
    return current


def _slopes(
    design: NDArray[np.float64],
    targets: NDArray[np.float64],
    current: NDArray[np.float64],
    prior: NDArray[np.float64],
    penalty: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    predicted = 1.0 / (1.0 + np.exp(-np.clip(design @ current, -30, 30)))
    gradient = design.T @ (predicted - targets) + penalty * (current - prior)
    curvature = np.maximum(predicted * (1 - predicted), 1e-12)
    hessian = (design * curvature[:, None]).T @ design + np.diag(penalty)
    return gradient, hessian


def _objective(
    design: NDArray[np.float64],
    targets: NDArray[np.float64],
    current: NDArray[np.float64],
    prior: NDArray[np.float64],
    penalty: NDArray[np.float64],
) -> float:
    logits = design @ current
    likelihood = np.logaddexp(0.0, logits) - targets * logits
    return float(likelihood.sum() + (penalty * (current - prior) ** 2).sum() / 2)
