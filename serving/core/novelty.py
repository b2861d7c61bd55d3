"""Says how unusual a query is for an adapter: confidence is not novelty, and a student can be sure of nonsense."""

import math
from bisect import bisect_left
from collections.abc import Sequence


def p_value(distance: float, reference: Sequence[float]) -> float:
    """The conformal p-value (1 + #{reference >= distance}) / (n + 1), in (0, 1]; small is novel.

    `reference` holds distances to the k-th nearest training row, sorted ascending: of the tuning rows, and of each
    training row to the others; `distance` is the query's. For a query exchangeable with the tuning split, ranked among
    it alone, P(p <= ε) <= ε (Vovk et al. 2005); the training rows' own distances, to one row fewer, come from the same
    traffic and make the rank finer. The least possible value is 1/(n + 1): the gate at ε = 2 % needs 50 reference rows
    before it can ever fire. A distance that is not a number gives 0.0, which no gate lets pass.
    """
    if math.isnan(distance):
        return 0.0
    at_least = len(reference) - bisect_left(reference, distance)
    return (1 + at_least) / (len(reference) + 1)
