"""Rows of *what we remember*: calls and their sealed payloads, the workloads found in them, frozen datasets, prices."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from django.db import models
from django.db.models import Q

from ingestion.core.calls import LONGEST_MODEL, Arm, Dialect, Kind, Provider
from tenants.scope import TenantOwned

MONEY: dict[str, Any] = {"max_digits": 20, "decimal_places": 10}


class Workload(TenantOwned):
    """One task of one tenant, found in its traffic. Carries what was promised for it, since every stage reads that."""

    class Promise(models.TextChoices):
        PER_ANSWER = "per_answer"
        PER_CALL = "per_call"

    class Approval(models.TextChoices):
        TENANT = "tenant"  # as the tenant's own setting says
        AUTOMATIC = "automatic"
        ASK_FIRST = "ask_first"

    id = models.UUIDField(primary_key=True, default=uuid4)
    slug = models.SlugField(max_length=60)
    name = models.CharField(max_length=120)
    kind = models.CharField(max_length=20, choices=[(kind.value, kind.value) for kind in Kind])
    dialect = models.CharField(max_length=20)
    asked_model = models.CharField(max_length=LONGEST_MODEL)
    template = models.JSONField(default=dict)
    verdict = models.CharField(max_length=20, default="not_yet")  # suitable, not_yet, unsuitable
    verdict_reasons = models.JSONField(default=list)
    figures = models.JSONField(default=dict)  # what discovery measured: pairs, distinct answers, tokens a call
    alpha = models.FloatField(default=0.05)
    delta = models.FloatField(default=0.1)
    promise = models.CharField(max_length=20, choices=Promise, default=Promise.PER_ANSWER)
    approval = models.CharField(max_length=20, choices=Approval, default=Approval.TENANT)
    log_share = models.FloatField(default=1.0, db_default=1.0)  # of the calls whose content is kept
    left_out = models.JSONField(default=dict)  # reason → pairs, when too few were left for a dataset the last time
    curate_from = models.PositiveIntegerField(default=0)  # answered calls there must be before it is tried again
    found_at = models.DateTimeField()
    looked_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "slug"], name="one_slug_per_tenant"),
            models.CheckConstraint(condition=Q(alpha__gt=0, alpha__lt=1), name="alpha_in_range"),
            models.CheckConstraint(condition=Q(delta__gt=0, delta__lt=1), name="delta_in_range"),
            models.CheckConstraint(condition=Q(log_share__gte=0, log_share__lte=1), name="log_share_is_a_share"),
        ]

    def __str__(self) -> str:
        return self.name


class Fingerprint(TenantOwned):
    """Which workload calls of one shape belong to."""

    id = models.BigAutoField(primary_key=True)
    digest = models.CharField(max_length=32)
    workload = models.ForeignKey(Workload, on_delete=models.CASCADE, related_name="fingerprints", db_constraint=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "digest"], name="one_workload_per_fingerprint")]


class Call(TenantOwned):
    """The facts of one call, as seen on the wire. A UUIDv7 id that is also the partition key; nothing points at it."""

    id = models.UUIDField(primary_key=True)
    key_id = models.UUIDField()
    at = models.DateTimeField()
    dialect = models.CharField(max_length=20)
    asked_model = models.CharField(max_length=LONGEST_MODEL)
    answered_model = models.CharField(max_length=LONGEST_MODEL, default="")
    provider = models.CharField(max_length=20, default="", db_default="")  # "" in older rows: the dialect's own
    credential_id = models.UUIDField(null=True)
    failovers = models.SmallIntegerField(default=0, db_default=0)  # of no kind that adds a CHECK: it reads every row
    fingerprint = models.CharField(max_length=32, default="")
    workload_id = models.UUIDField(null=True)
    arm = models.CharField(max_length=20, choices=[(arm.value, arm.value) for arm in Arm])
    reason = models.CharField(max_length=60, default="")
    adapter = models.CharField(max_length=160, default="")
    score = models.FloatField(null=True)
    novelty = models.FloatField(null=True)
    wants_audit = models.BooleanField(default=False)
    wants_shadow = models.BooleanField(default=False)
    propensity = models.FloatField(default=1.0)
    status = models.PositiveIntegerField(default=200)
    finish = models.CharField(max_length=20, default="")
    stream = models.BooleanField(default=False)
    complete = models.BooleanField(default=True)
    input_tokens = models.PositiveIntegerField(default=0)
    output_tokens = models.PositiveIntegerField(default=0)
    cached_input_tokens = models.PositiveIntegerField(default=0)
    cache_write_tokens = models.PositiveIntegerField(default=0)
    usage_estimated = models.BooleanField(default=False)
    student_input_tokens = models.PositiveIntegerField(default=0)
    student_output_tokens = models.PositiveIntegerField(default=0)
    student_ms = models.FloatField(default=0)
    queue_ms = models.FloatField(default=0)  # from its arrival until the teacher was asked
    first_byte_ms = models.FloatField(default=0)
    total_ms = models.FloatField(default=0)
    teacher_cost = models.DecimalField(null=True, **MONEY)  # what the provider charged; None where no price is known
    currency = models.CharField(max_length=3, default="USD")
    content_kept = models.BooleanField(default=True, db_default=True)  # what was asked and answered, as it was recorded
    subject_hmac = models.CharField(max_length=64, default="")

    class Meta:
        indexes = [
            models.Index(fields=["tenant", "at"], name="call_by_time"),
            models.Index(fields=["tenant", "workload_id", "at"], name="call_by_workload"),
            models.Index(fields=["tenant", "subject_hmac"], condition=~Q(subject_hmac=""), name="call_by_subject"),
            models.Index(fields=["tenant", "fingerprint"], condition=Q(workload_id=None), name="call_undiscovered"),
            models.Index(
                fields=["tenant", "workload_id", "at"],
                condition=Q(wants_audit=True) | Q(wants_shadow=True),
                name="call_marked",
            ),
        ]

    @property
    def asked_provider(self) -> str:
        """Whose answer it is, or would have been."""
        return self.provider or Dialect(self.dialect).provider

    @property
    def path_model(self) -> str:
        """The model that the call's path named, where its body does not: a deployment of Azure's."""
        is_named = self.provider == Provider.AZURE and self.dialect == Dialect.OPENAI
        return self.asked_model if is_named else ""

    @classmethod
    def answered_for(cls, workload_id: UUID) -> "models.QuerySet[Call]":
        """A workload's calls to learn from: its own teacher, not one that stood in for it, answered in whole, and the
        content is kept.
        """
        found = cls.objects.filter(workload_id=workload_id, status=200, complete=True, failovers=0, content_kept=True)
        return found.exclude(arm=Arm.STUDENT)


class Payload(TenantOwned):
    """A call's bodies, sealed with the tenant's data key. Read one at a time, never in a listing."""

    call_id = models.UUIDField(primary_key=True)
    request_sealed = models.BinaryField(null=True)
    response_sealed = models.BinaryField(null=True)


class ParkedRecord(TenantOwned):
    """A spool record that could not be stored, with its reason, for the operator. Bodies stay sealed in it.

    Its tenant may be one that we do not know. The door reads all but the record.
    """

    id = models.BigAutoField(primary_key=True)
    tenant = models.ForeignKey(
        "tenants.Tenant", on_delete=models.CASCADE, related_name="+", db_index=False, db_constraint=False
    )
    reason = models.CharField(max_length=200)
    parked_at = models.DateTimeField()
    record = models.BinaryField()


class Dataset(TenantOwned):
    """A frozen version of a workload's curated pairs; it never changes."""

    id = models.UUIDField(primary_key=True, default=uuid4)
    workload = models.ForeignKey(Workload, on_delete=models.CASCADE, related_name="datasets", db_constraint=False)
    version = models.PositiveIntegerField()
    kind = models.CharField(max_length=20)
    template = models.JSONField(default=dict)
    labels = models.JSONField(default=dict)  # canonical label → as the teacher writes it
    answer_schema = models.TextField(default="")
    max_query_chars = models.PositiveIntegerField(default=0)
    counts = models.JSONField(default=dict)  # train, tuning, calibration
    left_out = models.JSONField(default=dict)  # reason → pairs
    stances = models.JSONField(default=dict)  # terms stance → pairs
    redactions = models.PositiveIntegerField(default=0)
    content_hash = models.CharField(max_length=64, default="")
    created_at = models.DateTimeField()
    frozen_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "workload", "version"], name="one_dataset_version")]


class Example(TenantOwned):
    """One pair of a dataset, sealed, with the terms under which it came in."""

    id = models.BigAutoField(primary_key=True)
    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="examples", db_constraint=False)
    call_id = models.UUIDField()
    at = models.DateTimeField()
    split = models.CharField(max_length=20)
    cluster = models.PositiveIntegerField()
    provider = models.CharField(max_length=20)
    stance = models.CharField(max_length=20)
    query_sealed = models.BinaryField()
    answer_sealed = models.BinaryField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "dataset", "call_id"], name="one_example_per_call")]
        indexes = [models.Index(fields=["tenant", "call_id"], name="example_by_call")]


class ErasedSubject(TenantOwned):
    """A person whose data was erased. What still arrives of theirs, from a spool or a restored backup, is refused."""

    id = models.BigAutoField(primary_key=True)
    subject_hmac = models.CharField(max_length=64)
    erased_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "subject_hmac"], name="one_tombstone_per_subject")]


class Erasure(TenantOwned):
    """One request to forget a person: how far it is, and what went. Adapters made of `datasets` are tainted."""

    id = models.UUIDField(primary_key=True, default=uuid4)
    subject_hmac = models.CharField(max_length=64)
    is_new = models.BooleanField()  # whether it was the first request for the person
    requested_by = models.CharField(max_length=120)
    requested_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    calls = models.PositiveIntegerField(default=0)
    payloads = models.PositiveIntegerField(default=0)
    examples = models.PositiveIntegerField(default=0)
    parked = models.PositiveIntegerField(default=0)
    datasets = models.JSONField(default=list)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "subject_hmac"], condition=Q(finished_at=None), name="one_open_erasure_per_subject"
            )
        ]


class PriceQuerySet(models.QuerySet["Price"]):
    """Finding the price in force."""

    def in_force(self, *, provider: str, model: str, at: datetime) -> "Price | None":
        """The version of a model's price at an instant; periods are half-open."""
        found = self.filter(provider=provider, model=model, valid_from__lte=at)
        return found.filter(Q(valid_until=None) | Q(valid_until__gt=at)).order_by("-valid_from").first()


class Price(models.Model):
    """What a provider charges per million tokens, versioned: a change is a new row, never an edit."""

    id = models.BigAutoField(primary_key=True)
    provider = models.CharField(max_length=20)
    model = models.CharField(max_length=120)
    currency = models.CharField(max_length=3, default="USD")
    input_per_million = models.DecimalField(**MONEY)
    output_per_million = models.DecimalField(**MONEY)
    cached_input_per_million = models.DecimalField(**MONEY)
    cache_write_per_million = models.DecimalField(**MONEY)
    valid_from = models.DateTimeField()
    valid_until = models.DateTimeField(null=True)
    source = models.CharField(max_length=60)

    objects = PriceQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["provider", "model", "valid_from"], name="one_price_at_a_time")]
