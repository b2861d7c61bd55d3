"""Rows of *how we answer*: deployments on replicas, evaluations and certificates, rollouts and their audits."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar
from uuid import uuid4

from django.db import models
from django.db.models import Q

from ingestion.core.calls import LONGEST_MODEL
from ingestion.models import MONEY, Workload
from serving.core.limits import LimitEntry, Measure, Window, unit_of
from tenants.events import record_event
from tenants.models import ApiKey, ProviderCredential
from tenants.scope import TenantOwned
from training.models import Adapter


class Deployment(TenantOwned):
    """An adapter on its way onto the replicas, there, or gone."""

    class Status(models.TextChoices):
        PENDING = "pending"
        LOADING = "loading"
        LIVE = "live"
        DRAINING = "draining"
        GONE = "gone"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid4)
    adapter = models.ForeignKey(Adapter, on_delete=models.CASCADE, related_name="deployments", db_constraint=False)
    status = models.CharField(max_length=20, choices=Status, default=Status.PENDING)
    spec = models.JSONField(default=dict)  # serving.core.gates.StudentSpec
    error = models.CharField(max_length=300, default="")
    failing_since = models.DateTimeField(null=True)
    created_at = models.DateTimeField()
    live_at = models.DateTimeField(null=True)
    changed_at = models.DateTimeField()

    def advance(self, to: str, now: datetime, **facts: Any) -> bool:
        """Move on from the state this row was read in, with an event. False if another was first."""
        moved = Deployment.objects.filter(id=self.id, status=self.status).update(status=to, changed_at=now, **facts)
        if moved:
            why = {"reason": facts["error"]} if facts.get("error") else {}
            record_event(f"deployment.{to}", now=now, subject_id=self.id, adapter=str(self.adapter_id), **why)
            self.status = to
        return bool(moved)


class Evaluation(TenantOwned):
    """What an adapter answered on the replica that will serve it, row by row, beside the other arms. No text in it."""

    class Status(models.TextChoices):
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid4)
    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="+", db_constraint=False)
    status = models.CharField(max_length=20, choices=Status, default=Status.RUNNING)
    lease_until = models.DateTimeField()
    attempts = models.PositiveIntegerField(default=1)  # how often it was claimed: whose claim is older writes nothing
    progress = models.JSONField(default=dict)  # {"asked": …, "questions": …}
    arms = models.JSONField(default=dict)  # agreement with the teacher: student, base
    rows = models.JSONField(default=list)  # [example id, split, evidence, answered, differs]
    error = models.CharField(max_length=300, default="")
    created_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "deployment"], name="one_evaluation_per_deployment")]

    def claim(self, now: datetime, *, lease: timedelta) -> bool:
        """Take over from a worker that was lost, or begin another attempt. False if another was first."""
        free = self._mine().filter(lease_until__lt=now)
        claimed = free.update(lease_until=now + lease, attempts=self.attempts + 1, progress={})
        self.attempts += claimed
        return bool(claimed)

    def prolong(self, until: datetime, **kept: Any) -> bool:
        """Nobody else begins before `until`. False: another worker holds it now, so stop."""
        return bool(self._mine().update(lease_until=until, **kept))

    def finish(self, to: str, now: datetime, *, told: Mapping[str, Any], **facts: Any) -> bool:
        """Close it, with an event that tells `told`. False if another worker holds it."""
        done = self._mine().update(status=to, finished_at=now, **facts)
        if done:
            record_event(f"evaluation.{to}", now=now, subject_id=self.id, **told)
            self.status = to
        return bool(done)

    def _mine(self) -> "models.QuerySet[Evaluation]":
        return Evaluation.objects.filter(id=self.id, status=self.Status.RUNNING, attempts=self.attempts)


class Certificate(TenantOwned):
    """The verdict on an evaluation: the threshold that keeps the promise, or why there is none."""

    id = models.UUIDField(primary_key=True, default=uuid4)
    evaluation = models.ForeignKey(Evaluation, on_delete=models.CASCADE, related_name="+", db_constraint=False)
    adapter = models.ForeignKey(Adapter, on_delete=models.CASCADE, related_name="certificates", db_constraint=False)
    alpha = models.FloatField()
    delta = models.FloatField()
    promise = models.CharField(max_length=20)
    certified = models.BooleanField()
    gate = models.JSONField(default=dict)  # serving.core.gates.Gate
    threshold = models.FloatField(null=True)
    coverage = models.FloatField(default=0)
    calibration_rows = models.PositiveIntegerField()
    accepted = models.PositiveIntegerField(default=0)
    differing = models.PositiveIntegerField(default=0)
    upper_bound = models.FloatField(null=True)
    curve = models.JSONField(default=list)
    reason = models.CharField(max_length=300, default="")
    more_rows_needed = models.PositiveIntegerField(null=True)
    issued_at = models.DateTimeField()


class Rollout(TenantOwned):
    """How far a certified adapter has been given a workload's traffic, and whether it may keep it."""

    class State(models.TextChoices):
        SHADOW = "shadow"
        CANARY = "canary"
        RAMPING = "ramping"
        FULL = "full"
        HELD = "held"
        ROLLED_BACK = "rolled_back"
        SUPERSEDED = "superseded"

    OVER: ClassVar = (State.ROLLED_BACK, State.SUPERSEDED)

    id = models.UUIDField(primary_key=True, default=uuid4)
    workload = models.ForeignKey(Workload, on_delete=models.CASCADE, related_name="rollouts", db_constraint=False)
    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="+", db_constraint=False)
    certificate = models.ForeignKey(Certificate, on_delete=models.CASCADE, related_name="+", db_constraint=False)
    state = models.CharField(max_length=20, choices=State, default=State.SHADOW)
    share = models.FloatField(default=0)
    held_from = models.CharField(max_length=20, default="")  # the state to resume to
    approved_at = models.DateTimeField(null=True)  # None: shadow may run, nothing more until a person says so
    reason = models.CharField(max_length=300, default="")
    created_at = models.DateTimeField()
    step_at = models.DateTimeField()  # when this step began: its audits are the ones that count for it

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "workload"],
                condition=~Q(state__in=["rolled_back", "superseded"]),
                name="one_open_rollout_per_workload",
            )
        ]

    def advance(self, to: str, now: datetime, *, share: float, actor: str = "system", **data: Any) -> bool:
        """Move on from the step this row was read in, with an event. False if another was first."""
        held_from = self.state if to == self.State.HELD else ""
        moved = Rollout.objects.filter(id=self.id, state=self.state, share=self.share).update(
            state=to, share=share, step_at=now, held_from=held_from, reason=str(data.get("reason", ""))[:300]
        )
        if moved:
            record_event("rollout." + to, now=now, actor=actor, subject_id=self.id, was=self.state, share=share, **data)
            self.state, self.share, self.step_at, self.held_from = to, share, now, held_from
        return bool(moved)


class ModelRoute(TenantOwned):
    """One destination of calls for a model: a credential, and what the model is called there. The next is asked where
    the one before cannot answer. The model `*` stands for all that have no route of their own.
    """

    id = models.UUIDField(primary_key=True, default=uuid4)
    dialect = models.CharField(max_length=20)  # the provider whose requests it takes: openai, anthropic
    asked_model = models.CharField(max_length=LONGEST_MODEL)
    position = models.PositiveSmallIntegerField()  # from 0
    credential = models.ForeignKey(ProviderCredential, on_delete=models.RESTRICT, related_name="+", db_constraint=False)
    model = models.CharField(max_length=LONGEST_MODEL, default="")  # "": as asked
    set_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "dialect", "asked_model", "position"], name="one_place_in_a_model_route"
            )
        ]


class Limit(TenantOwned):
    """What a tenant allows itself: so many requests, tokens or dollars a window, in all or for a key or a workload."""

    MEASURES: ClassVar = [(one.value, one.value) for one in Measure]
    WINDOWS: ClassVar = [(one.value, one.value) for one in Window]

    id = models.UUIDField(primary_key=True, default=uuid4)
    measure = models.CharField(max_length=10, choices=MEASURES)
    window = models.CharField(max_length=10, choices=WINDOWS)
    amount = models.DecimalField(max_digits=25, decimal_places=9)  # of spend: US dollars
    key = models.ForeignKey(ApiKey, null=True, on_delete=models.CASCADE, related_name="+", db_constraint=False)
    workload = models.ForeignKey(Workload, null=True, on_delete=models.CASCADE, related_name="+", db_constraint=False)
    set_at = models.DateTimeField()
    period = models.CharField(max_length=20, default="")  # the window that was looked at last, and what was seen:
    used = models.DecimalField(max_digits=25, decimal_places=9, default=0)  # in the unit of `amount`
    told_share = models.PositiveSmallIntegerField(default=0)  # the per cent that an event has told of
    read_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "measure", "window", "key", "workload"],
                nulls_distinct=False,
                name="one_limit_of_a_kind",
            ),
            models.CheckConstraint(condition=Q(key=None) | Q(workload=None), name="of_a_key_or_a_workload"),
            models.CheckConstraint(condition=Q(amount__gt=0), name="limit_above_nothing"),
        ]

    def entry(self) -> LimitEntry:
        """As the gateways know it."""
        return LimitEntry(
            id=str(self.id),
            measure=self.measure,
            window=self.window,
            amount=int(self.amount * unit_of(self.measure)),
            key_id=str(self.key_id or ""),
            workload_id=str(self.workload_id or ""),
        )

    def note(self, now: datetime, *, period: str, used: Decimal, told_share: int) -> bool:
        """Note what was seen, and of what share an event tells. False if another look was first."""
        as_read = Limit.objects.filter(id=self.id, period=self.period, told_share=self.told_share)
        return bool(as_read.update(period=period, used=used, told_share=told_share, read_at=now))


class Audit(TenantOwned):
    """One call that both were asked: the student's answer held against the teacher's, off the request path."""

    class Kind(models.TextChoices):
        SHADOW = "shadow"  # the teacher answered the caller, the student was asked afterwards
        LIVE = "live"  # the student answered the caller, the teacher was asked afterwards

    class Status(models.TextChoices):
        CLAIMED = "claimed"
        DONE = "done"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid4)
    rollout = models.ForeignKey(Rollout, on_delete=models.CASCADE, related_name="audits", db_constraint=False)
    call_id = models.UUIDField()
    call_at = models.DateTimeField()
    kind = models.CharField(max_length=10, choices=Kind)
    status = models.CharField(max_length=10, choices=Status, default=Status.CLAIMED)
    control = models.BooleanField(default=False)
    attempts = models.PositiveIntegerField(default=1)
    claimed_until = models.DateTimeField()
    accepted = models.BooleanField(null=True)  # whether the gate lets (or let) the student answer
    differs = models.BooleanField(null=True)
    score = models.FloatField(null=True)
    cost = models.DecimalField(default=0, **MONEY)  # the teacher's second answer, priced
    currency = models.CharField(max_length=3, default="USD")
    student_ms = models.FloatField(default=0)
    error = models.CharField(max_length=100, default="")
    done_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "rollout", "call_id"], name="one_audit_per_call")]
        indexes = [
            models.Index(fields=["tenant", "rollout", "done_at"], name="audit_by_rollout"),
            models.Index(
                fields=["tenant", "rollout", "claimed_until"], condition=Q(status="claimed"), name="audit_claimed"
            ),
        ]
