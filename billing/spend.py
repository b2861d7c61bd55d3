"""Adds the ledger up for those who ask: a workload's recent spend, a statement's line items."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db.models import F, Q, QuerySet, Sum

from billing.models import LedgerEntry, SavingsStatement
from ingestion.core.calls import Arm
from ingestion.models import Workload

NOTHING: Final = Decimal(0)
Kind = LedgerEntry.Kind


@dataclass(frozen=True, slots=True)
class Spend:
    """A workload's volume and money since an instant, in the words of a statement."""

    workload_id: UUID
    since: datetime
    calls: int
    student_calls: int
    counterfactual: Decimal
    teacher_cost: Decimal
    audit_cost: Decimal
    training_cost: Decimal
    serving_cost: Decimal
    currency: str

    @property
    def coverage(self) -> float:
        """Share of calls that the student answered."""
        return self.student_calls / self.calls if self.calls else 0.0

    @property
    def saving(self) -> Decimal:
        """What it saved, overheads counted; negative where they outweigh."""
        return self.counterfactual - self.teacher_cost - self.audit_cost - self.training_cost - self.serving_cost


def measure_spend(workload: Workload, *, since: datetime) -> Spend:
    """What the ledger says of a workload from `since` on, in the currency that statements are in."""
    entries: QuerySet[LedgerEntry] = LedgerEntry.objects.filter(
        workload_id=workload.id, hour__gte=since, currency=settings.CURRENCY
    )
    sums = entries.aggregate(
        n=Sum("calls", filter=Q(kind=Kind.CALLS), default=0),
        by_student=Sum("calls", filter=Q(kind=Kind.CALLS, arm=Arm.STUDENT), default=0),
        would=Sum("counterfactual", default=NOTHING),
        **{kind.value: Sum("actual", filter=Q(kind=kind), default=NOTHING) for kind in Kind},
    )
    return Spend(
        workload_id=workload.id,
        since=since,
        calls=sums["n"],
        student_calls=sums["by_student"],
        counterfactual=sums["would"],
        teacher_cost=sums[Kind.CALLS],
        audit_cost=sums[Kind.AUDIT],
        training_cost=sums[Kind.TRAINING],
        serving_cost=sums[Kind.SERVING],
        currency=settings.CURRENCY,
    )


def line_items(statement: SavingsStatement) -> QuerySet[Any]:
    """A statement's entries added up by kind, workload, arm and model, as mappings; they add up to its figures."""
    entries = LedgerEntry.objects.filter(
        hour__gte=statement.starts_at, hour__lt=statement.ends_at, currency=statement.currency
    )
    items: QuerySet[Any] = entries.values("kind", "workload_id", "arm", "model", "currency").annotate(
        n=Sum("calls"),
        read=Sum("input_tokens"),
        written=Sum("output_tokens"),
        would=Sum("counterfactual"),
        spent=Sum("actual"),
        saved=F("would") - F("spent"),
    )
    return items
