"""Rows of *what we learn*: training runs with their leases, and the adapters they make."""

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from django.db import models
from django.db.models import F, Q

from ingestion.models import MONEY, Dataset, Workload
from tenants.events import record_event
from tenants.models import Tenant
from tenants.scope import TenantOwned


class TrainingRun(TenantOwned):
    """One attempt to make an adapter from a dataset. The row is the truth; the broker only wakes a worker up."""

    class Status(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELLED = "cancelled"

    OPEN = (Status.QUEUED, Status.RUNNING)
    TO_RETRY = (Status.FAILED, Status.CANCELLED)

    id = models.UUIDField(primary_key=True, default=uuid4)
    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="+", db_constraint=False)
    rung = models.CharField(max_length=10)
    status = models.CharField(max_length=20, choices=Status, default=Status.QUEUED)
    fencing_token = models.PositiveIntegerField(
        default=0
    )  # grows with every claim; an older holder's writes are refused
    lease_until = models.DateTimeField(null=True)
    attempts = models.PositiveIntegerField(default=0)
    cancel_requested = models.BooleanField(default=False)
    progress = models.JSONField(default=dict)
    metrics = models.JSONField(default=dict)
    error = models.CharField(max_length=300, default="")
    seconds = models.FloatField(default=0)
    cost = models.DecimalField(default=0, **MONEY)
    currency = models.CharField(max_length=3, default="USD")
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "dataset", "rung"],
                condition=Q(status__in=["queued", "running"]),
                name="one_open_run_per_dataset",
            )
        ]

    def claim(self, now: datetime, *, lease: timedelta) -> int | None:
        """Take the run if it is queued, or running under a lease that ran out. Gives the new fencing token, or None."""
        free = Q(status=self.Status.QUEUED) | Q(status=self.Status.RUNNING, lease_until__lt=now)
        claimed = TrainingRun.objects.filter(free, id=self.id, fencing_token=self.fencing_token).update(
            status=self.Status.RUNNING,
            fencing_token=F("fencing_token") + 1,
            attempts=F("attempts") + 1,
            lease_until=now + lease,
            started_at=self.started_at or now,
        )
        return self.fencing_token + 1 if claimed else None

    def beat(self, now: datetime, *, token: int, lease: timedelta, **facts: Any) -> bool:
        """Prolong the lease. False, so stop: another holds the run, it is to be cancelled, its tenant is suspended."""
        served = Tenant.objects.filter(status=Tenant.Status.ACTIVE)  # a join would take the other conditions along
        held = self._held(token).filter(cancel_requested=False, tenant_id__in=served.values("id"))
        return bool(held.update(lease_until=now + lease, **facts))

    def release(self, now: datetime, *, token: int, **facts: Any) -> bool:
        """Leave the run to the next claim, which goes on from its checkpoint. False if another worker holds it."""
        return bool(self._held(token).update(lease_until=now, **facts))

    def finish(self, now: datetime, *, token: int, to: str, **facts: Any) -> bool:
        """Close the run under its token, with an event. False if another worker holds it."""
        done = self._held(token).update(status=to, finished_at=now, lease_until=None, **facts)
        if done:
            record_event(f"run.{to}", now=now, subject_id=self.id, dataset=str(self.dataset_id), rung=self.rung)
        return bool(done)

    def request_cancel(self, now: datetime, *, actor: str) -> bool:
        """Cancel at once if queued, at the next heartbeat if running. False if it is over."""
        queued = TrainingRun.objects.filter(id=self.id, status=self.Status.QUEUED).update(
            status=self.Status.CANCELLED, finished_at=now
        )
        asked = queued or TrainingRun.objects.filter(id=self.id, status=self.Status.RUNNING).update(
            cancel_requested=True
        )
        if asked:
            record_event("run.cancel_requested", now=now, actor=actor, subject_id=self.id)
        return bool(asked)

    def _held(self, token: int) -> "models.QuerySet[TrainingRun]":
        return TrainingRun.objects.filter(id=self.id, fencing_token=token, status=self.Status.RUNNING)


class Adapter(TenantOwned):
    """What a run made: immutable weights under a versioned name, and whether they may serve."""

    class Status(models.TextChoices):
        CANDIDATE = "candidate"
        ACCEPTED = "accepted"
        REJECTED = "rejected"
        RETIRED = "retired"

    OVER = (Status.REJECTED, Status.RETIRED)

    id = models.UUIDField(primary_key=True, default=uuid4)
    run = models.ForeignKey(TrainingRun, on_delete=models.CASCADE, related_name="+", db_constraint=False)
    workload = models.ForeignKey(Workload, on_delete=models.CASCADE, related_name="adapters", db_constraint=False)
    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="+", db_constraint=False)
    name = models.CharField(max_length=160, unique=True)
    rung = models.CharField(max_length=10)
    status = models.CharField(max_length=20, choices=Status, default=Status.CANDIDATE)
    artifact_key = models.CharField(max_length=300)
    checksum = models.CharField(max_length=64)
    card = models.JSONField(default=dict)  # base model, licence, dataset, policy
    created_at = models.DateTimeField()
    dropped_at = models.DateTimeField(null=True)  # when its weights were removed from the store

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "run"], name="one_adapter_per_run")]

    def advance(self, to: str, now: datetime, **data: Any) -> bool:
        """Move on from the state this row was read in, with an event. False if another was first."""
        moved = Adapter.objects.filter(id=self.id, status=self.status).update(status=to)
        if moved:
            record_event(f"adapter.{to}", now=now, subject_id=self.id, name=self.name, **data)
            self.status = to
        return bool(moved)
