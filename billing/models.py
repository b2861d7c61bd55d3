"""Rows of *what it saved*: hourly ledger entries that only ever grow, monthly statements, and their invoices."""

from datetime import datetime
from uuid import uuid4

from django.db import models

from ingestion.models import MONEY
from tenants.events import record_event
from tenants.scope import TenantOwned


class LedgerEntry(TenantOwned):
    """An hour's money of one workload, arm and model. Append-only: what changes later is a further entry, numbered on.

    `counterfactual` is what the model asked for would have cost; `actual` what was really spent. Their sums over all
    entries of a kind equal the sums over the calls. Overheads (audit, training, serving) have no counterfactual.
    """

    class Kind(models.TextChoices):
        CALLS = "calls"
        AUDIT = "audit"
        TRAINING = "training"
        SERVING = "serving"

    id = models.BigAutoField(primary_key=True)
    kind = models.CharField(max_length=20, choices=Kind)
    hour = models.DateTimeField()
    workload_id = models.UUIDField(null=True)
    arm = models.CharField(max_length=20, default="")
    model = models.CharField(max_length=160, default="")
    sequence = models.PositiveIntegerField(default=0)
    calls = models.IntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    counterfactual = models.DecimalField(default=0, **MONEY)
    counterfactual_variance = models.FloatField(default=0)  # of the estimated part, for the interval
    counterfactual_shared_error = models.FloatField(default=0)  # what the estimated calls' common mean may be off by
    actual = models.DecimalField(default=0, **MONEY)
    currency = models.CharField(max_length=3)
    made_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "kind", "hour", "workload_id", "arm", "model", "currency", "sequence"],
                nulls_distinct=False,
                name="one_entry_per_hour_and_sequence",
            )
        ]
        indexes = [models.Index(fields=["tenant", "hour"], name="entry_by_hour")]


class SavingsStatement(TenantOwned):
    """A month's account: what the teacher would have cost, what was spent, what was saved, and our share of it."""

    class Status(models.TextChoices):
        OPEN = "open"
        CLOSED = "closed"

    id = models.UUIDField(primary_key=True, default=uuid4)
    number = models.CharField(max_length=40)
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    status = models.CharField(max_length=20, choices=Status, default=Status.OPEN)
    calls = models.PositiveIntegerField(default=0)
    student_calls = models.PositiveIntegerField(default=0)
    counterfactual = models.DecimalField(default=0, **MONEY)
    teacher_cost = models.DecimalField(default=0, **MONEY)
    audit_cost = models.DecimalField(default=0, **MONEY)
    training_cost = models.DecimalField(default=0, **MONEY)
    serving_cost = models.DecimalField(default=0, **MONEY)
    saving = models.DecimalField(default=0, **MONEY)
    saving_low = models.DecimalField(default=0, **MONEY)
    saving_high = models.DecimalField(default=0, **MONEY)
    share = models.DecimalField(max_digits=5, decimal_places=4)
    fee = models.DecimalField(default=0, max_digits=14, decimal_places=2)  # rounded once, here
    currency = models.CharField(max_length=3)
    updated_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "starts_at", "currency"], name="one_statement_per_month"),
            models.UniqueConstraint(fields=["tenant", "number"], name="one_statement_per_number"),
        ]

    def advance(self, to: str, now: datetime, **facts: object) -> bool:
        """Move on from the state this row was read in, with an event. False if another was first."""
        moved = SavingsStatement.objects.filter(id=self.id, status=self.status).update(
            status=to, updated_at=now, **facts
        )
        if moved:
            record_event(f"statement.{to}", now=now, subject_id=self.id, number=self.number)
            self.status = to
        return bool(moved)


class Subscription(TenantOwned):
    """The tenant's customer at Stripe."""

    id = models.UUIDField(primary_key=True, default=uuid4)
    stripe_customer_id = models.CharField(max_length=80)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant"], name="one_subscription_per_tenant")]


class Invoice(TenantOwned):
    """Our share of a closed statement's saving, asked for once. The row is the guard; Stripe's ids derive from it."""

    class Status(models.TextChoices):
        DRAFT = "draft"
        ISSUED = "issued"
        PAID = "paid"
        VOID = "void"

    id = models.UUIDField(primary_key=True, default=uuid4)
    statement = models.ForeignKey(SavingsStatement, on_delete=models.CASCADE, related_name="+", db_constraint=False)
    status = models.CharField(max_length=20, choices=Status, default=Status.DRAFT)
    amount = models.DecimalField(max_digits=14, decimal_places=2)
    currency = models.CharField(max_length=3)
    stripe_invoice_id = models.CharField(max_length=80, default="")
    hosted_url = models.URLField(max_length=500, default="")
    created_at = models.DateTimeField()
    claimed_until = models.DateTimeField(null=True)  # a draft is taken to Stripe by one worker at a time
    issued_at = models.DateTimeField(null=True)
    paid_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "statement"], name="one_invoice_per_statement")]

    def advance(self, to: str, now: datetime, **facts: object) -> bool:
        """Move on from the state this row was read in, with an event. False if another was first."""
        moved = Invoice.objects.filter(id=self.id, status=self.status).update(status=to, **facts)
        if moved:
            record_event(f"invoice.{to}", now=now, subject_id=self.id, amount=str(self.amount), currency=self.currency)
            self.status = to
        return bool(moved)
