"""What calls, audits, runs and replicas cost in some hours, as their own rows say it; the ledger is held to this."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db.models import Count, F, Q, Sum
from django.db.models.functions import TruncHour

from billing.baselines import Baselines
from billing.core.counterfactual import MONEY_STEP, price_counterfactual
from billing.core.entries import Figures, Key
from billing.models import LedgerEntry
from ingestion.core.calls import Arm, Dialect
from ingestion.core.rating import Rates
from ingestion.models import Call
from ingestion.prices import PriceBook
from serving.models import Audit
from training.models import TrainingRun

HOUR: Final = timedelta(hours=1)
_MS_PER_HOUR: Final = Decimal(3_600_000)
Measured = tuple[Key, Figures]


def measure(start: datetime, end: datetime, *, book: PriceBook) -> Mapping[Key, Figures]:
    """Everything the tenant in force spent, or would have, in the hours of [start, end)."""
    figures: dict[Key, Figures] = defaultdict(Figures)
    for measured in (_calls(start, end, book), _audits(start, end), _training(start, end), _serving(start, end)):
        for key, more in measured:
            figures[key] += more
    return figures


def _calls(start: datetime, end: datetime, book: PriceBook) -> Iterator[Measured]:
    """A failed call cost nothing and would have; one that the teacher answered would have cost what it did."""
    answered = Q(status__lt=400)
    found = (
        Call.objects.filter(at__gte=start, at__lt=end)
        .annotate(hour=TruncHour("at", tzinfo=UTC))
        .values("hour", "workload_id", "arm", "asked_model", "dialect", "provider", "currency")
        .annotate(
            calls=Count("id"),
            answered=Count("id", filter=answered),
            read=Sum("input_tokens"),
            wrote=Sum("output_tokens"),
            spent=Sum("teacher_cost", filter=answered),
        )
    )
    baselines = Baselines(start, end)
    for row in found:
        spent = row["spent"] or Decimal(0)
        facts = Figures(calls=row["calls"], input_tokens=row["read"], output_tokens=row["wrote"], actual=spent)
        by_student = row["arm"] == Arm.STUDENT
        would_have = _by_student(row, book, baselines) if by_student else Figures(counterfactual=spent)
        yield _key(LedgerEntry.Kind.CALLS, row, arm=row["arm"], model=row["asked_model"]), facts + would_have


def _by_student(row: Mapping[str, Any], book: PriceBook, baselines: Baselines) -> Figures:
    """What calls that the student answered would have cost, at the asked-for model's price at each call's instant."""
    figures = Figures()
    if row["workload_id"] is None:
        return figures
    for rates, calls in _rates_of(row, book).items():
        if rates is None or rates.currency != row["currency"]:
            continue  # no known price, no saving claimed
        baseline = baselines.find(workload_id=row["workload_id"], rates=rates, hour=row["hour"])
        estimate = price_counterfactual(calls, baseline)
        figures += Figures(
            counterfactual=estimate.amount,
            counterfactual_variance=estimate.variance,
            counterfactual_shared_error=estimate.shared_error,
        )
    return figures


def _rates_of(row: Mapping[str, Any], book: PriceBook) -> Mapping[Rates | None, int]:
    """How many calls had which rates: one and the same, but in an hour in which a price changed."""
    hour = row["hour"]
    at_start, at_end = (_rates_at(row, book, at) for at in (hour, hour + HOUR - timedelta(microseconds=1)))
    if at_start == at_end:
        return {at_start: row["answered"]}
    same = {name: row[name] for name in ("workload_id", "arm", "asked_model", "dialect", "provider", "currency")}
    instants = Call.objects.filter(at__gte=hour, at__lt=hour + HOUR, status__lt=400, **same).values_list(
        "at", flat=True
    )
    return Counter(_rates_at(row, book, at) for at in instants)


def _rates_at(row: Mapping[str, Any], book: PriceBook, at: datetime) -> Rates | None:
    provider = row["provider"] or Dialect(row["dialect"]).provider
    return book.rates(provider=provider, model=row["asked_model"], at=at)


def _audits(start: datetime, end: datetime) -> Iterator[Measured]:
    """The teacher's second answers."""
    found = (
        Audit.objects.filter(done_at__gte=start, done_at__lt=end, cost__gt=0)
        .annotate(hour=TruncHour("done_at", tzinfo=UTC), workload_id=F("rollout__workload_id"))
        .values("hour", "workload_id", "kind", "currency", model=F("rollout__workload__asked_model"))
        .annotate(spent=Sum("cost"))
    )
    for row in found:
        yield _key(LedgerEntry.Kind.AUDIT, row, arm=row["kind"], model=row["model"]), Figures(actual=row["spent"])


def _training(start: datetime, end: datetime) -> Iterator[Measured]:
    """Runs, failed and cancelled ones too, in the hour they ended."""
    found = (
        TrainingRun.objects.filter(finished_at__gte=start, finished_at__lt=end, cost__gt=0)
        .annotate(hour=TruncHour("finished_at", tzinfo=UTC), workload_id=F("dataset__workload_id"))
        .values("hour", "workload_id", "rung", "currency")
        .annotate(spent=Sum("cost"))
    )
    for row in found:
        yield _key(LedgerEntry.Kind.TRAINING, row, model=row["rung"]), Figures(actual=row["spent"])


def _serving(start: datetime, end: datetime) -> Iterator[Measured]:
    """The replicas' hours by the time the student was at work, unused drafts and shadow answers included."""
    milliseconds: dict[tuple[datetime, UUID | None, str], Decimal] = defaultdict(Decimal)
    by_call = Call.objects.filter(at__gte=start, at__lt=end, student_ms__gt=0).annotate(
        hour=TruncHour("at", tzinfo=UTC)
    )
    for row in by_call.values("hour", "workload_id", "adapter").annotate(ms=Sum("student_ms")):
        milliseconds[row["hour"], row["workload_id"], row["adapter"]] += round(Decimal(row["ms"]))
    by_audit = Audit.objects.filter(done_at__gte=start, done_at__lt=end, student_ms__gt=0).annotate(
        hour=TruncHour("done_at", tzinfo=UTC),
        workload_id=F("rollout__workload_id"),
        adapter=F("rollout__deployment__adapter__name"),
    )
    for row in by_audit.values("hour", "workload_id", "adapter").annotate(ms=Sum("student_ms")):
        milliseconds[row["hour"], row["workload_id"], row["adapter"]] += round(Decimal(row["ms"]))
    for (hour, workload_id, adapter), ms in milliseconds.items():
        spent = (ms * settings.REPLICA_HOURLY_COST / _MS_PER_HOUR).quantize(MONEY_STEP)
        facts = {"hour": hour, "workload_id": workload_id, "currency": settings.CURRENCY}
        yield _key(LedgerEntry.Kind.SERVING, facts, model=adapter), Figures(actual=spent)


def _key(kind: str, row: Mapping[str, Any], *, arm: str = "", model: str = "") -> Key:
    return Key(str(kind), row["hour"], row["workload_id"], arm, model, row["currency"])
