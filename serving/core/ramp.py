"""Decides from audits alone whether a rollout may take a step, must wait, or must go back to the teacher.

Every number here may be looked at after each audit, as often as one likes: the tests are e-processes, so false alarms
stay at most δ over the whole life of a rollout (Ville's inequality). An audit must be a random draw from what the risk
α is about: of student answers for the per-answer promise; of all eligible calls, deferred ones counting as agreeing,
for the per-call promise.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

AUDITS_PER_STEP = 100


class State(StrEnum):
    """Where a rollout stands. Held is left by a person or a newer student, rolled back and superseded never."""

    SHADOW = "shadow"
    CANARY = "canary"
    RAMPING = "ramping"
    FULL = "full"
    HELD = "held"
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"


# Shares are of the eligible calls that the control arm leaves.
STEPS: tuple[tuple[State, float], ...] = (
    (State.SHADOW, 0.0),
    (State.CANARY, 0.05),
    (State.RAMPING, 0.25),
    (State.RAMPING, 0.5),
    (State.FULL, 1.0),
)


class UnableToJudgeAudits(Exception):
    """The counts or the levels cannot be: differing outside [0, count], or alpha or delta outside (0, 1)."""


@dataclass(frozen=True, slots=True)
class Audits:
    """How many answers were put to the teacher too, and how many of them differed."""

    differing: int
    count: int


@dataclass(frozen=True, slots=True)
class Advance:
    """Take the step: the rollout's new state and student share."""

    to_state: State
    share: float


@dataclass(frozen=True, slots=True)
class Hold:
    """Stay. `needed` is how many more audits this step wants; 0 where audits are not what is missing."""

    reason: str
    needed: int


@dataclass(frozen=True, slots=True)
class RollBack:
    """Give all traffic back to the teacher: `log_e` (nats) has reached ln(1/δ)."""

    log_e: float


Decision = Advance | Hold | RollBack


def decide(state: State, *, share: float, step: Audits, life: Audits, alpha: float, delta: float) -> Decision:
    """The next move of a rollout in `state` at student share `share`.

    `step` counts the audits since this step began, `life` those of this adapter's whole rollout, shadow ones included;
    in shadow an audit is one whose draft the gate accepted. Rolls back, from any state in play, at e-value >= 1/δ
    against `risk <= alpha`; advances on 100 audits at this step. Raises UnableToJudgeAudits.
    """
    _check(step.differing, step.count)
    if state in (State.HELD, State.ROLLED_BACK, State.SUPERSEDED):
        return Hold(state.replace("_", " "), 0)
    log_e = log_e_value(life.differing, life.count, alpha)
    if log_e >= _log_limit(delta):
        return RollBack(log_e)
    following = next(((to, portion) for to, portion in STEPS if portion > share), None)
    if state is State.FULL or following is None:
        return Hold("full", 0)
    if step.count < AUDITS_PER_STEP:
        return Hold("more audits needed at this step", AUDITS_PER_STEP - step.count)
    return Advance(*following)


def log_e_value(k: int, n: int, alpha: float) -> float:
    """The evidence, in nats, against `risk <= alpha` after `k` of `n` audits differed: an e-process in n.

    ln of the binomial likelihood ratio against alpha, averaged over a uniform mixture of risks in (alpha, 1]:
    ∫ qᵏ(1−q)ⁿ⁻ᵏ dq / ((1−α) αᵏ(1−α)ⁿ⁻ᵏ). Each factor has expectation <= 1 at any risk <= alpha, since q > alpha, so the
    product is a supermartingale there and P(ever >= ln 1/δ) <= δ. Raises UnableToJudgeAudits.
    Source: Robbins 1970 (mixtures); Ramdas et al. 2023, "Game-theoretic statistics and safe anytime-valid inference".
    """
    _check(k, n)
    _check_level(alpha)
    log_beta = math.lgamma(k + 1) + math.lgamma(n - k + 1) - math.lgamma(n + 2)
    above = _log_binomial_cdf(k, n + 1, alpha)  # = ln P(Beta(k+1, n−k+1) > alpha)
    return log_beta + above - k * math.log(alpha) - (n - k + 1) * math.log1p(-alpha)


def confidence_sequence(k: int, n: int, delta: float) -> tuple[float, float]:
    """The ends between which the risk lies, valid at all n at once: each end with probability 1 − δ, both with 1 − 2δ.

    The same tests as the decisions, inverted: the low end is above alpha exactly when the rollout is rolled back.
    Raises UnableToJudgeAudits.
    """
    _check(k, n)
    limit = _log_limit(delta)
    return _lower_end(k, n, limit), 1.0 - _lower_end(n - k, n, limit)


def _lower_end(k: int, n: int, limit: float) -> float:
    """The largest risk that `k` of `n` refutes from below, by bisection: the e-value falls as the risk rises."""
    low, high = 0.0, 1.0
    for _ in range(48):
        middle = (low + high) / 2
        if log_e_value(k, n, middle) >= limit:
            low = middle
        else:
            high = middle
    return low


def _log_binomial_cdf(k: int, n: int, p: float) -> float:
    """ln P(Binomial(n, p) <= k) for 0 <= k < n, exact also where the probability itself would underflow.

    Sums the tail that begins beside k and falls away from there: the lower one, or one minus the upper one.
    """
    if k < (n + 1) * p:
        return _log_tail(k, n, p)
    return math.log1p(-math.exp(_log_tail(n - k - 1, n, 1.0 - p)))


def _log_tail(k: int, n: int, p: float) -> float:
    """ln of the sum of Binomial(n, p) probabilities at k, k−1, …, 0, for k at or below the mode."""
    log_first = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p)
    log_first += (n - k) * math.log1p(-p)
    total = term = 1.0
    for j in range(k, 0, -1):
        term *= j * (1.0 - p) / ((n - j + 1) * p)
        total += term
        if term < total * 1e-17:
            break
    return log_first + math.log(total)


def _log_limit(delta: float) -> float:
    _check_level(delta)
    return -math.log(delta)


def _check(k: int, n: int) -> None:
    if not 0 <= k <= n:
        raise UnableToJudgeAudits("differing audits must lie between 0 and the count")


def _check_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise UnableToJudgeAudits("alpha and delta lie strictly between 0 and 1")
