"""Why a certificate means something: what the student learnt from, was tuned on, and is judged by never overlap.

By time, since a student answers tomorrow's calls from yesterday's; and a cluster of near duplicates lives on one side.
"""

from collections.abc import Sequence
from enum import StrEnum
from itertools import accumulate


class Split(StrEnum):
    """What an example is for."""

    TRAIN = "train"
    TUNING = "tuning"  # thresholds and the acceptor are chosen here
    CALIBRATION = "calibration"  # looked at once, by the certificate


def assign_splits(
    *, clusters: Sequence[int], at: Sequence[float], shares: tuple[float, float, float] = (0.6, 0.15, 0.25)
) -> list[Split | None]:
    """A split per row: the oldest rows train, the newest calibrate, tuning in between.

    `clusters` and `at` (seconds) are parallel. A row whose cluster already lives in an earlier split is None: a near
    duplicate, to be dropped. `shares` are of all rows, in that order, and sum to 1. Raises ValueError on bad input.
    """
    if len(clusters) != len(at):
        raise ValueError("clusters and at must be of one length")
    if min(shares) < 0 or abs(sum(shares) - 1) > 1e-9:
        raise ValueError("shares must be non-negative and sum to 1")
    splits: list[Split | None] = [None] * len(at)
    homes: dict[int, Split] = {}
    ends = [round(share * len(at)) for share in accumulate(shares)]
    for place, row in enumerate(sorted(range(len(at)), key=at.__getitem__)):
        split = Split.TRAIN if place < ends[0] else Split.TUNING if place < ends[1] else Split.CALIBRATION
        if homes.setdefault(clusters[row], split) is split:
            splits[row] = split
    return splits
