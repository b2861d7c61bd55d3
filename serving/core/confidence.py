"""One number for how likely a student's answer equals the teacher's, bit for bit the same live and certified.

Plain Python, because the gateway runs it on every draft and imports no numpy.
"""

import math

from serving.core.gates import Acceptor, Evidence

FEATURES = ("weakest", "weakest_log_odds", "typical", "spread", "similarity", "neighbour_agreement")

_PROBABILITY_FLOOR = 1e-6  # a probability is never trusted beyond this; keeps the log-odds finite
_LOGIT_CEILING = 30.0  # exp() stays finite and the score stays inside (0, 1)


def features(evidence: Evidence) -> tuple[float, ...]:
    """The evidence as the numbers of `FEATURES`, in that order. Novelty is absent: it is a gate of its own.

    The weakest probability comes twice, as it is and as log-odds in nats: near 1, where thresholds lie, probabilities
    crowd together and log-odds do not.
    """
    return (
        evidence.weakest,
        _log_odds(evidence.weakest),
        evidence.typical,
        evidence.spread,
        evidence.similarity,
        evidence.neighbour_agreement,
    )


def score(acceptor: Acceptor, evidence: Evidence) -> float:
    """The estimated probability, in (0, 1), that the answer agrees with the teacher's; NaN if the evidence holds a NaN.

    Logistic regression on standardised features. Raises ValueError if the acceptor is not over `FEATURES`.
    """
    logit = acceptor.bias
    for value, mean, scale, weight in zip(
        features(evidence), acceptor.mean, acceptor.scale, acceptor.weights, strict=True
    ):
        logit += weight * (value - mean) / scale
    if math.isnan(logit):
        return math.nan
    return 1.0 / (1.0 + math.exp(-max(-_LOGIT_CEILING, min(_LOGIT_CEILING, logit))))


def _log_odds(probability: float) -> float:
    if math.isnan(probability):
        return math.nan  # min() and max() would turn it into a number
    clipped = max(_PROBABILITY_FLOOR, min(1.0 - _PROBABILITY_FLOOR, probability))
    return math.log(clipped / (1.0 - clipped))
