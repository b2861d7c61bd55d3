"""What a call that the student answered would have cost at the teacher's: the baseline of every saving, and its doubt.

The teacher's tokens of such a call are unknown, and the student's are counted by another tokenizer, so they are never
used. They are estimated by the calls of the same workload that the teacher did answer, the control arm first. A cost
is linear in tokens, so the mean cost at the asked-for model's rates is the cost of the mean tokens, and the spread of
the costs carries the spread of all token counts together.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final, Self

MINIMUM_CONTROL: Final = 30  # fewer control calls than this, and all that the teacher answered are taken instead
MONEY_STEP: Final = Decimal("1e-10")  # what a money column holds
Z95: Final = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Sample:
    """Costs of teacher-answered calls at given rates, as sums, so that hours add up to any longer while."""

    calls: int = 0
    total: Decimal = Decimal(0)
    squares: Decimal = Decimal(0)

    def __add__(self, other: Self) -> "Sample":
        return Sample(self.calls + other.calls, self.total + other.total, self.squares + other.squares)


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the teacher takes for one call of a workload: the mean of `sample` calls, and the variance between calls."""

    per_call: Decimal
    variance: float
    sample: int


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """What calls would have cost. `variance` is that of the calls' own spread and adds up over any sets of calls;
    `shared_error` is the standard error of the mean they all share, and adds up as it is within a workload."""

    amount: Decimal
    variance: float
    shared_error: float


NONE = Sample()


def estimate_baseline(*, control: Sample, answered: Sample, guessed: Sample = NONE) -> Baseline | None:
    """The mean of the control arm; of all metered teacher-answered calls where that is too small; where those are too,
    of all whose usage was told or guessed: traffic that is only streamed, without a count, has a price as well.

    None below two calls: a saving that cannot be shown is not claimed. The mean is rounded to a money column's step
    here, per call, so that any way of parting calls into entries adds up exactly.
    """
    enough = (sample for sample in (control, answered) if sample.calls >= MINIMUM_CONTROL)
    sample = next(enough, max(guessed, answered, key=lambda found: found.calls))
    if sample.calls < 2:
        return None
    spread = sample.squares - sample.total * sample.total / sample.calls
    return Baseline(
        per_call=(sample.total / sample.calls).quantize(MONEY_STEP, ROUND_HALF_EVEN),
        variance=max(0.0, float(spread / (sample.calls - 1))),
        sample=sample.calls,
    )


def price_counterfactual(calls: int, baseline: Baseline | None) -> Counterfactual:
    """What `calls` calls would have cost; nothing where there is no baseline."""
    if baseline is None:
        return Counterfactual(Decimal(0), 0.0, 0.0)
    return Counterfactual(
        amount=calls * baseline.per_call,
        variance=calls * baseline.variance,
        shared_error=calls * math.sqrt(baseline.variance / baseline.sample),
    )


def find_interval(amount: Decimal, parts: Iterable[tuple[float, float]]) -> tuple[Decimal, Decimal]:
    """The 95 % interval of a sum around its estimate, by the normal approximation.

    `parts` are (variance, shared error) of each workload. Within a workload the error of the mean is one and the same
    for all calls and has been added up as it is; between workloads errors are independent.
    """
    deviation = math.sqrt(sum(max(0.0, variance) + shared * shared for variance, shared in parts))
    reach = Decimal(Z95 * deviation).quantize(MONEY_STEP, ROUND_HALF_EVEN)
    return amount - reach, amount + reach
