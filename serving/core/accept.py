"""The one decision whether a student's answer is used; a certificate holds because live traffic asks here too."""

import math
from dataclasses import dataclass

from serving.core.confidence import score
from serving.core.gates import Acceptor, Evidence, Gate

NEVER = -math.inf  # the gated score of an answer that no threshold may accept


@dataclass(frozen=True, slots=True)
class Accept:
    """The student's answer is used; `score` in (0, 1) goes to the log."""

    score: float


@dataclass(frozen=True, slots=True)
class Defer:
    """The teacher is asked instead. `reason` is malformed, novel or unsure; `score` is None where none could be had."""

    reason: str
    score: float | None


def accept(answer: str | None, evidence: Evidence, gate: Gate) -> Accept | Defer:
    """Accept iff the answer is well formed, novelty >= epsilon and score >= threshold. A NaN anywhere defers."""
    if answer is None:
        return Defer("malformed", None)
    rated = score(gate.acceptor, evidence)
    if math.isnan(rated):
        return Defer("malformed", None)
    if _is_novel(evidence, gate.novelty_epsilon):
        return Defer("novel", rated)
    if rated >= gate.threshold:
        return Accept(rated)
    return Defer("unsure", rated)


def gated_score(answer: str | None, evidence: Evidence, *, acceptor: Acceptor, novelty_epsilon: float) -> float:
    """What `certify` and `choose_grid` rank a row by: its score, or `NEVER` where `accept` refuses at any threshold.

    For every finite threshold, `gated_score(...) >= threshold` exactly when `accept` returns Accept.
    """
    verdict = accept(answer, evidence, Gate(acceptor=acceptor, threshold=-math.inf, novelty_epsilon=novelty_epsilon))
    match verdict:
        case Accept(score=rated):
            return rated
        case Defer():
            return NEVER


def _is_novel(evidence: Evidence, epsilon: float) -> bool:
    # Written so that a NaN counts as novel: NaN compares false with everything.
    return not evidence.novelty >= epsilon
