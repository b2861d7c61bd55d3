"""Turns calibration rows into a promise: the threshold at which a student may answer, or why there is none yet.

Scores are `accept.gated_score` of rows drawn as live traffic is and used for nothing else; −inf marks a row that no
threshold accepts. Rows keep the order they came in (time), never one that follows score or loss. The grid comes from
the tuning split. Sources: Bates et al. 2021 (risk-controlling prediction sets), Angelopoulos et al. 2021 (Learn then
Test).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, bdtrik, betaincinv  # the ufuncs: scipy.stats checks its arguments at 20 times the cost

_Floats = NDArray[np.float64]

_SURE_ENOUGH = 0.9  # chance of passing that the grid's first threshold should have, by the tuning split's estimate
_LOOKS = 64  # places at which the tuning split is looked at while choosing the grid
_MOST_ROWS = 10_000_000  # "how many more" beyond this is no answer


class UnableToCertify(Exception):
    """The rows, the grid or the levels are not what certification can work on; the message names which."""


class Mode(StrEnum):
    """What at most alpha of is promised."""

    PER_ANSWER = "per_answer"  # of the student's answers, the share that differs
    PER_CALL = "per_call"  # of all calls, the share answered by the student and differing


@dataclass(frozen=True, slots=True)
class Point:
    """One threshold of the curve. `differing` is the sum of 0/1 losses.

    `passed` needs its own bound and all more cautious ones to be at most alpha.
    """

    threshold: float
    accepted: int
    differing: float
    upper_bound: float
    passed: bool


@dataclass(frozen=True, slots=True)
class Certified:
    """The promise holds at `threshold` with probability 1 − delta over the calibration sample. `coverage` in (0, 1]."""

    threshold: float
    alpha: float
    delta: float
    mode: Mode
    n_calibration: int
    accepted: int
    differing: float
    upper_bound: float
    coverage: float
    curve: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class NotCertified:
    """No threshold can be promised, for the `reason` given in a sentence.

    `more_rows_needed` estimates the calibration rows missing if the observed shares hold; None where more rows alone
    would not help.
    """

    reason: str
    more_rows_needed: int | None
    alpha: float
    delta: float
    mode: Mode
    n_calibration: int
    curve: tuple[Point, ...]


Certificate = Certified | NotCertified


def certify_per_answer(
    scores: ArrayLike, differs: ArrayLike, *, grid: Sequence[float], alpha: float, delta: float
) -> Certificate:
    """Certify `P(differ | student answers) <= alpha` by fixed-sequence testing along `grid`.

    `scores` [n] and `differs` [n] (0/1). The risk is not monotone in the threshold, so each is tested at level delta on
    its accepted rows, most cautious first, up to the first failure. Raises UnableToCertify.
    """
    losses = _read_differs(differs)
    return _certify(scores, losses, grid, alpha, delta, Mode.PER_ANSWER)


def certify_per_call(
    scores: ArrayLike, differs: ArrayLike, *, grid: Sequence[float], alpha: float, delta: float
) -> Certificate:
    """Certify `P(student answers and differs) <= alpha`. Shapes as for `certify_per_answer`.

    This risk only grows as the threshold falls, so the scan needs no correction for its length and a finer grid costs
    nothing. Raises UnableToCertify.
    """
    losses = _read_differs(differs)
    return _certify(scores, losses, grid, alpha, delta, Mode.PER_CALL)


def clopper_pearson_upper(k: float, n: float, delta: float) -> float:
    """The exact upper 1 − delta bound of a binomial share after k of n (Clopper & Pearson 1934); 1.0 for n = 0."""
    if k >= n:
        return 1.0
    return float(betaincinv(k + 1, n - k, 1.0 - delta))


def clopper_pearson_interval(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval of a binomial share after k of n at confidence `level`; (0, 1) for n = 0."""
    tail = (1.0 - level) / 2
    lower = 0.0 if k <= 0 else float(betaincinv(k, n - k + 1, tail))
    return lower, clopper_pearson_upper(k, n, tail)


def rows_needed(alpha: float, delta: float) -> int:
    """⌈ln δ / ln(1−α)⌉: accepted rows below which not even a faultless student passes. 45 for α = 0.05, δ = 0.1."""
    _check_levels(alpha, delta)
    return math.ceil(math.log(delta) / math.log1p(-alpha))


def choose_grid(
    scores_tuning: ArrayLike,
    losses_tuning: ArrayLike,
    *,
    n_calibration: int,
    alpha: float,
    delta: float,
    mode: Mode = Mode.PER_ANSWER,
    count: int = 16,
) -> list[float]:
    """At most `count` distinct thresholds, most cautious first, from the tuning split alone.

    Scores [n], losses [n], 0/1. The thresholds are quantiles of the tuning scores, evenly spaced in the share
    accepted. The first accepts, in expectation, at least `rows_needed` of the calibration rows, and more where that
    makes a pass likely: a fixed sequence that fails at its first threshold certifies nothing. The last is the largest
    share that the tuning split does not already speak against. Empty if no row may be accepted. Raises UnableToCertify.
    """
    scores, losses = _read_rows(scores_tuning, _read_differs(losses_tuning))
    order = np.argsort(-scores, kind="stable")
    usable = int(np.isfinite(scores).sum())
    if not usable:
        return []
    need = rows_needed(alpha, delta)
    fewest = min(usable, math.ceil(need * len(scores) / max(n_calibration, 1)))
    ranks = np.unique(np.linspace(max(fewest, 1), usable, _LOOKS).astype(np.int64))
    differing = np.cumsum(losses[order])[ranks - 1]
    start, end = _choose_ends(ranks, differing, len(scores), n_calibration, alpha, delta, mode)
    places = np.linspace(ranks[start], ranks[end], count).round().astype(np.int64)
    return sorted({float(scores[order[place - 1]]) for place in places}, reverse=True)


def _choose_ends(
    ranks: NDArray[np.int64],
    differing: _Floats,
    n_tuning: int,
    n_calibration: int,
    alpha: float,
    delta: float,
    mode: Mode,
) -> tuple[int, int]:
    """Indices into `ranks` of the first and last threshold's accepted tuning rows."""
    base = np.full(len(ranks), n_tuning) if mode is Mode.PER_CALL else ranks
    trials = (base * n_calibration) // n_tuning
    rate = np.minimum((differing + 0.5) / (base + 1), 1.0)
    chance = _chance_of_passing(trials, rate, alpha, delta)
    likely = np.flatnonzero(chance >= _SURE_ENOUGH)
    start = int(likely[0]) if len(likely) else int(np.argmax(chance))
    hopeful = np.flatnonzero(betaincinv(np.maximum(differing, 1e-9), base - differing + 1, 0.1) <= alpha)
    return start, max(start, int(hopeful[-1]) if len(hopeful) else start)


def _chance_of_passing(trials: NDArray[np.int64], rate: _Floats, alpha: float, delta: float) -> _Floats:
    """P(a Clopper–Pearson bound on `trials` rows is at most alpha) where each row differs with probability `rate`."""
    forgiven = np.ceil(bdtrik(delta, trials, alpha)) - 1  # the most differing rows k with P(Binomial <= k) < delta
    possible = (forgiven >= 0) & (bdtr(0, trials, alpha) <= delta)
    chance: _Floats = np.where(possible, bdtr(np.maximum(forgiven, 0), trials, rate), 0.0)
    return chance


def _certify(
    scores: ArrayLike, losses: _Floats, grid: Sequence[float], alpha: float, delta: float, mode: Mode
) -> Certificate:
    _check_levels(alpha, delta)
    _check_grid(grid)
    values, losses = _read_rows(scores, losses)
    bound = _BOUNDS[mode]
    curve: list[Point] = []
    reached = True
    for threshold in grid:
        taken = losses[values >= threshold]
        upper = bound(taken, len(values), delta)
        reached = reached and upper <= alpha
        curve.append(Point(threshold, len(taken), float(taken.sum()), upper, reached))
    passed = [point for point in curve if point.passed and point.accepted]
    if not passed:
        return _explain(tuple(curve), len(values), alpha, delta, mode)
    best = passed[-1]
    return Certified(
        threshold=best.threshold,
        alpha=alpha,
        delta=delta,
        mode=mode,
        n_calibration=len(values),
        accepted=best.accepted,
        differing=best.differing,
        upper_bound=best.upper_bound,
        coverage=best.accepted / len(values),
        curve=tuple(curve),
    )


def _bound_per_answer(taken: _Floats, total: int, delta: float) -> float:
    return clopper_pearson_upper(float(taken.sum()), len(taken), delta)


def _bound_per_call(taken: _Floats, total: int, delta: float) -> float:
    return clopper_pearson_upper(float(taken.sum()), total, delta)


_BOUNDS: dict[Mode, Callable[[_Floats, int, float], float]] = {
    Mode.PER_ANSWER: _bound_per_answer,
    Mode.PER_CALL: _bound_per_call,
}


def _explain(curve: tuple[Point, ...], total: int, alpha: float, delta: float, mode: Mode) -> NotCertified:
    """The refusal, with its reason in a sentence that the portal shows as it is."""
    more = _estimate_more_rows(curve, total, alpha, delta, mode)
    most = max((point.accepted for point in curve), default=0)
    if not most:
        reason = "No calibration row could be accepted at any threshold."
    elif most < rows_needed(alpha, delta) and mode is not Mode.PER_CALL:
        need = rows_needed(alpha, delta)
        reason = f"At most {most} calibration rows were accepted, and at least {need} are needed for any promise."
    elif more is None:
        reason = f"At every threshold the answers differ too often for a promise of {alpha:.1%}."
    else:
        reason = f"The calibration sample is too small to promise {alpha:.1%} at the most cautious threshold."
    return NotCertified(reason, more, alpha, delta, mode, total, curve)


def _estimate_more_rows(curve: tuple[Point, ...], total: int, alpha: float, delta: float, mode: Mode) -> int | None:
    if not total:
        return rows_needed(alpha, delta)
    wanted: list[float] = []
    for point in curve:
        base = total if mode is Mode.PER_CALL else point.accepted
        rows = _smallest_passing(point.differing / base, alpha, delta) if point.accepted else None
        if rows is not None:
            wanted.append(rows * total / base)
    return max(1, math.ceil(min(wanted)) - total) if wanted else None


def _smallest_passing(share: float, alpha: float, delta: float) -> int | None:
    """The fewest rows at which a Clopper–Pearson bound around `share` falls to alpha; None if too many."""
    high = rows_needed(alpha, delta)
    while clopper_pearson_upper(share * high, high, delta) > alpha:
        if share >= alpha or high > _MOST_ROWS:
            return None
        high *= 2
    low = high // 2
    while low < high:
        middle = (low + high) // 2
        if clopper_pearson_upper(share * middle, middle, delta) <= alpha:
            high = middle
        else:
            low = middle + 1
    return high


def _read_differs(differs: ArrayLike) -> _Floats:
    losses = np.asarray(differs, dtype=np.float64)
    if not np.isin(losses, (0.0, 1.0)).all():
        raise UnableToCertify("disagreements must be 0 or 1")
    return losses


def _read_rows(scores: ArrayLike, losses: _Floats) -> tuple[_Floats, _Floats]:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or values.shape != losses.shape:
        raise UnableToCertify("scores and losses must be flat and of one length")
    if np.isnan(values).any():
        raise UnableToCertify("a score is not a number")
    return values, losses


def _check_grid(grid: Sequence[float]) -> None:
    if not all(math.isfinite(threshold) for threshold in grid):
        raise UnableToCertify("a threshold is not finite")
    if any(later >= earlier for earlier, later in pairwise(grid)):
        raise UnableToCertify("thresholds must fall strictly: the most cautious comes first")


def _check_levels(alpha: float, delta: float) -> None:
    if not (0.0 < alpha < 1.0 and 0.0 < delta < 1.0):
        raise UnableToCertify("alpha and delta lie strictly between 0 and 1")
