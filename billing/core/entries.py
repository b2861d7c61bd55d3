"""The arithmetic of an append-only ledger: what must be added to what is written so that it says what was measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Self
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Key:
    """What an entry is about. Entries of one key add up; `hour` is the start of a half-open hour, in UTC."""

    kind: str
    hour: datetime
    workload_id: UUID | None
    arm: str
    model: str
    currency: str

    def order(self) -> tuple[str, ...]:
        """By what keys are sorted."""
        return (self.hour.isoformat(), self.kind, str(self.workload_id), self.arm, self.model, self.currency)


@dataclass(frozen=True, slots=True)
class Figures:
    """What an entry says. All of it adds up; money is exact and unrounded."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    counterfactual: Decimal = Decimal(0)
    actual: Decimal = Decimal(0)
    counterfactual_variance: float = 0.0
    counterfactual_shared_error: float = 0.0

    def __add__(self, other: Self) -> "Figures":
        return self._with(other, 1)

    def __sub__(self, other: Self) -> "Figures":
        return self._with(other, -1)

    def _with(self, other: Self, sign: int) -> "Figures":
        return Figures(
            calls=self.calls + sign * other.calls,
            input_tokens=self.input_tokens + sign * other.input_tokens,
            output_tokens=self.output_tokens + sign * other.output_tokens,
            counterfactual=self.counterfactual + sign * other.counterfactual,
            actual=self.actual + sign * other.actual,
            counterfactual_variance=self.counterfactual_variance + sign * other.counterfactual_variance,
            counterfactual_shared_error=self.counterfactual_shared_error + sign * other.counterfactual_shared_error,
        )

    def says_something(self) -> bool:
        """Whether any exact figure is other than nought; what is left of two doubts is no reason for an entry."""
        return any((self.calls, self.input_tokens, self.output_tokens, self.counterfactual, self.actual))


@dataclass(frozen=True, slots=True)
class Written:
    """What the ledger holds for a key: the sum of its entries, and how many they are."""

    figures: Figures
    entries: int


@dataclass(frozen=True, slots=True)
class Adjustment:
    """An entry to append."""

    key: Key
    sequence: int
    figures: Figures


def find_adjustments(measured: Mapping[Key, Figures], written: Mapping[Key, Written]) -> list[Adjustment]:
    """The entries after which the ledger's sums equal what was measured; none if they do already.

    A key that is no longer measured, such as the calls of no workload once discovery has found theirs, is taken back.
    They come in one order, so that two who append them at once wait for each other and never in a circle.
    """
    nothing = Written(Figures(), 0)
    found = []
    for key in sorted({*measured, *written}, key=Key.order):
        so_far = written.get(key, nothing)
        change = measured.get(key, Figures()) - so_far.figures
        if change.says_something():
            found.append(Adjustment(key, so_far.entries, change))
    return found
