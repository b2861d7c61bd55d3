"""The month's account: saving = what the teacher would have cost − what was spent, and our share of it, rounded once.

The rules of the money. The baseline is the model that the caller asked for, at its price at the call's instant. From it
goes everything that was spent: the teacher's answers, audits, training, the replicas' time. A negative saving is shown
and brings no fee. An open statement follows the ledger; a closed one never changes, and calls that come later than its
closing are not charged for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db.models import Count, Q, QuerySet, Sum

from billing.core.counterfactual import find_interval
from billing.core.period import month_of
from billing.ledger import LOOK_BACK, roll_up
from billing.models import Invoice, LedgerEntry, SavingsStatement
from ingestion.core.calls import Arm
from ingestion.models import Call
from serving.models import Audit
from tenants.models import Tenant, tenant_ids
from tenants.scope import acting_for
from training.models import TrainingRun

# Longer than an ordinary look back, so that no look still writes into a month that is being closed.
GRACE: Final = LOOK_BACK + timedelta(days=1)
CENT: Final = Decimal("0.01")
Kind = LedgerEntry.Kind
Status = SavingsStatement.Status


class UnableToClose(Exception):
    """The statement's month is not over for long enough: late calls may still come."""


@dataclass(frozen=True, slots=True)
class Line:
    """One figure twice: as the entries sum it, and as the rows it came from do."""

    name: str
    by_entries: Decimal
    by_facts: Decimal


@dataclass(frozen=True, slots=True)
class Balance:
    """Whether a statement's entries say what the facts say, to the last digit."""

    lines: tuple[Line, ...]

    @property
    def even(self) -> bool:
        """Whether every line agrees."""
        return all(line.by_entries == line.by_facts for line in self.lines)


def refresh_statement(tenant_id: UUID, *, at: datetime, now: datetime) -> SavingsStatement:
    """The statement of the month that `at` lies in, opened if need be and brought up to the ledger unless closed."""
    starts_at, ends_at = month_of(at)
    with acting_for(tenant_id):
        share = share_in_force()
        statement: SavingsStatement = SavingsStatement.objects.get_or_create(
            starts_at=starts_at,
            currency=settings.CURRENCY,
            defaults={
                "ends_at": ends_at,
                "number": f"US-{starts_at:%Y-%m}-{str(tenant_id)[:8]}",
                "share": share,
                "updated_at": now,
            },
        )[0]
        _follow_ledger(statement, share=share, now=now)
        statement.refresh_from_db(from_queryset=SavingsStatement.objects.all())
    return statement


def close_statement(statement: SavingsStatement, *, now: datetime) -> bool:
    """Take in the month's last calls and fix its figures for good. False if it was closed already.

    Raises UnableToClose before the month and its grace are over.
    """
    if now < statement.ends_at + GRACE:
        raise UnableToClose(f"{statement.number} may be closed from {statement.ends_at + GRACE:%Y-%m-%d}")
    with acting_for(statement.tenant_id):
        if not SavingsStatement.objects.filter(id=statement.id, status=Status.OPEN).exists():
            return False
        roll_up(statement.tenant_id, now=now, since=statement.starts_at, until=statement.ends_at)
        _follow_ledger(statement, share=share_in_force(), now=now)
        return statement.advance(Status.CLOSED, now, closed_at=now)


def tenants_with_books() -> list[UUID]:
    """Every tenant whose money is still to be counted: active ones, and others until their last month is settled."""
    settled = Invoice.across_tenants.filter(status__in=(Invoice.Status.PAID, Invoice.Status.VOID))
    unsettled = Q(status=Status.CLOSED, fee__gt=0) & ~Q(id__in=settled.values("statement_id"))
    unfinished = SavingsStatement.across_tenants.filter(Q(status=Status.OPEN) | unsettled)
    return list({*tenant_ids(), *unfinished.values_list("tenant_id", flat=True)})


def keep_statements(tenant_id: UUID, *, now: datetime) -> list[SavingsStatement]:
    """Bring this month's statement up to date, and last month's until it can be closed. Gives those still open."""
    for starts_at in _months_to_keep(tenant_id, now):
        refresh_statement(tenant_id, at=starts_at, now=now)
    with acting_for(tenant_id):
        still_open = list(SavingsStatement.objects.filter(status=Status.OPEN))
    for statement in still_open:
        if now >= statement.ends_at + GRACE:
            close_statement(statement, now=now)
    return [statement for statement in still_open if statement.status == Status.OPEN]


def share_in_force() -> Decimal:
    """The share of a positive saving that is ours: as agreed with the tenant in force, or else the operator's own."""
    agreed = Tenant.objects.get().savings_share
    return settings.SAVINGS_SHARE if agreed is None else agreed


def balance(statement: SavingsStatement) -> Balance:
    """Hold a statement's entries against the calls, audits and runs themselves."""
    during = (statement.starts_at, statement.ends_at)
    with acting_for(statement.tenant_id):
        entries = {
            row["kind"]: row for row in _entries(statement).values("kind").annotate(n=Sum("calls"), s=Sum("actual"))
        }
        calls = Call.objects.filter(**_within("at", during), currency=statement.currency).aggregate(
            n=Count("id"), s=Sum("teacher_cost", filter=Q(status__lt=400))
        )
        audits = _total(Audit.objects.all(), "done_at", statement)
        runs = _total(TrainingRun.objects.all(), "finished_at", statement)
    return Balance(
        (
            Line("calls", _figure(entries, Kind.CALLS, "n"), Decimal(calls["n"])),
            Line("teacher", _figure(entries, Kind.CALLS, "s"), calls["s"] or Decimal(0)),
            Line("audit", _figure(entries, Kind.AUDIT, "s"), audits),
            Line("training", _figure(entries, Kind.TRAINING, "s"), runs),
        )
    )


def _months_to_keep(tenant_id: UUID, now: datetime) -> list[datetime]:
    """Where last month and this one begin, if the ledger has something of them; this one anyway if calls may come."""
    this_month = month_of(now)
    last_month = month_of(this_month[0] - timedelta(days=1))
    with acting_for(tenant_id):
        served = not Tenant.objects.get().is_suspended
        return [
            during[0]
            for during in (last_month, this_month)
            if (served and during == this_month) or LedgerEntry.objects.filter(**_within("hour", during)).exists()
        ]


def _entries(statement: SavingsStatement) -> "QuerySet[LedgerEntry]":
    during = (statement.starts_at, statement.ends_at)
    found: QuerySet[LedgerEntry] = LedgerEntry.objects.filter(**_within("hour", during), currency=statement.currency)
    return found


def _follow_ledger(statement: SavingsStatement, *, share: Decimal, now: datetime) -> None:
    facts = _figures(_entries(statement), share=share)
    SavingsStatement.objects.filter(id=statement.id, status=Status.OPEN).update(updated_at=now, **facts)


def _figures(entries: "QuerySet[LedgerEntry]", *, share: Decimal) -> dict[str, Any]:
    """Every column of a statement that follows from its entries."""
    by_kind = {
        row["kind"]: row
        for row in entries.values("kind").annotate(
            n=Sum("calls"),
            by_student=Sum("calls", filter=Q(arm=Arm.STUDENT)),
            would=Sum("counterfactual"),
            s=Sum("actual"),
        )
    }
    would = _figure(by_kind, Kind.CALLS, "would")
    spent = {kind: _figure(by_kind, kind, "s") for kind in Kind}
    saving = would - sum(spent.values())
    low, high = find_interval(saving, _doubts(entries))
    return {
        "calls": int(_figure(by_kind, Kind.CALLS, "n")),
        "student_calls": int(_figure(by_kind, Kind.CALLS, "by_student")),
        "counterfactual": would,
        "teacher_cost": spent[Kind.CALLS],
        "audit_cost": spent[Kind.AUDIT],
        "training_cost": spent[Kind.TRAINING],
        "serving_cost": spent[Kind.SERVING],
        "saving": saving,
        "saving_low": low,
        "saving_high": high,
        "share": share,
        "fee": (share * max(saving, Decimal(0))).quantize(CENT, ROUND_HALF_EVEN),
    }


def _doubts(entries: "QuerySet[LedgerEntry]") -> list[tuple[float, float]]:
    by_workload = entries.filter(kind=Kind.CALLS).values("workload_id")
    sums = by_workload.annotate(v=Sum("counterfactual_variance"), e=Sum("counterfactual_shared_error"))
    return [(row["v"], row["e"]) for row in sums]


def _figure(rows: Mapping[str, Mapping[str, Any]], kind: str, name: str) -> Decimal:
    return Decimal(rows[kind][name] or 0) if kind in rows else Decimal(0)


def _within(field: str, during: tuple[datetime, datetime]) -> dict[str, datetime]:
    return {f"{field}__gte": during[0], f"{field}__lt": during[1]}


def _total(rows: "QuerySet[Any]", field: str, statement: SavingsStatement) -> Decimal:
    during = (statement.starts_at, statement.ends_at)
    found = rows.filter(**_within(field, during), currency=statement.currency).aggregate(s=Sum("cost"))
    return found["s"] or Decimal(0)
