"""Rows of *who*: tenants, people, keys, credentials, and the log of what happened with its webhooks."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from tenants.scope import AcrossTenantsManager, TenantManager, TenantOwned


class UserManager(BaseUserManager["User"]):
    """Makes users by e-mail address."""

    def create_user(self, email: str, password: str | None = None, **extra: Any) -> "User":
        """A person who can log in once a password is set."""
        user = self.model(email=self.normalize_email(email).lower(), **extra)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **extra: Any) -> "User":
        """An operator of the admin."""
        return self.create_user(email, password, is_staff=True, is_superuser=True, **extra)


class User(AbstractBaseUser, PermissionsMixin):
    """A person. What they may see comes from memberships alone."""

    email = models.EmailField(unique=True)
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField(default=False)

    objects: ClassVar[UserManager] = UserManager()
    USERNAME_FIELD = "email"

    def __str__(self) -> str:
        return self.email


class Tenant(models.Model):
    """A company. `data_key_sealed` opens its payloads; without it they are noise."""

    class Status(models.TextChoices):
        ACTIVE = "active"
        SUSPENDED = "suspended"

    class Approval(models.TextChoices):
        AUTOMATIC = "automatic"
        ASK_FIRST = "ask_first"

    id = models.UUIDField(primary_key=True, default=uuid4)
    name = models.CharField(max_length=120)
    status = models.CharField(max_length=20, choices=Status, default=Status.ACTIVE)
    approval = models.CharField(max_length=20, choices=Approval, default=Approval.ASK_FIRST)
    log_content = models.BooleanField(default=True)
    ask_usage = models.BooleanField(
        default=False, db_default=False
    )  # ask providers for a stream's usage where the caller does not
    data_key_sealed = models.BinaryField()
    savings_share = models.DecimalField(
        max_digits=5,
        decimal_places=4,
        null=True,
        blank=True,
        validators=[MinValueValidator(Decimal(0)), MaxValueValidator(Decimal(1))],
    )
    created_at = models.DateTimeField()

    objects: ClassVar[TenantManager[Self]] = TenantManager()
    across_tenants: ClassVar[AcrossTenantsManager[Self]] = AcrossTenantsManager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(savings_share__range=(0, 1)), name="savings_share_is_a_share")
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_suspended(self) -> bool:
        """Whether its calls are refused and nothing of it may be changed."""
        return self.status == self.Status.SUSPENDED


class Membership(TenantOwned):
    """A person's role in a tenant."""

    class Role(models.TextChoices):
        OWNER = "owner"
        ENGINEER = "engineer"
        FINANCE = "finance"
        SECURITY = "security"

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    role = models.CharField(max_length=20, choices=Role)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "user"], name="one_membership_per_person")]


class ApiKey(TenantOwned):
    """A key of the gateway, and of the API if its scope says so. The key itself is shown once and never kept."""

    class Scope(models.TextChoices):
        CALLS = "calls"
        MANAGE = "manage"

    id = models.UUIDField(primary_key=True, default=uuid4)
    name = models.CharField(max_length=80)
    prefix = models.CharField(max_length=16)
    digest = models.CharField(max_length=64, unique=True)
    scope = models.CharField(max_length=20, choices=Scope, default=Scope.CALLS)
    may_override = models.BooleanField(default=False)
    created_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)

    def revoke(self, now: datetime) -> bool:
        """Take the key out of force. False if it already was."""
        return bool(ApiKey.objects.filter(id=self.id, revoked_at=None).update(revoked_at=now))


class ProviderCredential(TenantOwned):
    """One of the tenant's own keys at a provider, sealed, with what its terms let us do with the answers.

    Calls go under the one that bears its provider's name, or else the first by name, unless a model route says more.
    """

    class Stance(models.TextChoices):
        ALLOWED = "allowed"
        INTERNAL_ONLY = "internal_only"
        FORBIDDEN = "forbidden"

    id = models.UUIDField(primary_key=True, default=uuid4)
    provider = models.CharField(max_length=20)  # openai, anthropic, azure
    name = models.SlugField(max_length=40)
    base_url = models.URLField(max_length=300)
    secret_sealed = models.BinaryField()
    hint = models.CharField(max_length=8)  # the last four characters, for people
    stance = models.CharField(max_length=20, choices=Stance, default=Stance.FORBIDDEN)
    stance_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "name"], name="one_credential_of_a_name")]

    @classmethod
    def usual_first(cls) -> list["ProviderCredential"]:
        """All of the tenant in force, each provider's usual one before its others."""
        return cls.in_usual_order(cls.objects.all())

    @staticmethod
    def in_usual_order(credentials: Iterable["ProviderCredential"]) -> list["ProviderCredential"]:
        """Of one tenant: each provider's usual one before its others."""
        return sorted(credentials, key=lambda one: (one.name != one.provider, one.name))


class Event(TenantOwned):
    """Something that happened: audit trail and webhook outbox, append-only. `data` holds ids and figures, and names
    that the tenant gave.
    """

    id = models.UUIDField(primary_key=True, default=uuid4)
    kind = models.CharField(max_length=60)  # noun.verb_in_past: rollout.advanced
    at = models.DateTimeField()
    actor = models.CharField(max_length=120, default="system")
    subject_id = models.CharField(max_length=64, default="")
    data = models.JSONField(default=dict)
    fanned_out_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["tenant", "at"], name="event_by_time"),
            models.Index(fields=["at"], condition=Q(fanned_out_at=None), name="event_to_fan_out"),
        ]


class WebhookEndpoint(TenantOwned):
    """Where a tenant wants events delivered. Disabled after straight failures, never silently."""

    id = models.UUIDField(primary_key=True, default=uuid4)
    url = models.URLField(max_length=500)
    secret_sealed = models.BinaryField()
    kinds = models.JSONField(default=list)  # empty: all
    created_at = models.DateTimeField()
    disabled_at = models.DateTimeField(null=True, blank=True)
    straight_failures = models.PositiveIntegerField(default=0)

    @property
    def origin(self) -> str:
        """The URL without its path, which may hold a secret."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}/…"


class WebhookDelivery(TenantOwned):
    """One event to one endpoint: due until delivered or exhausted."""

    class Status(models.TextChoices):
        DUE = "due"
        DELIVERED = "delivered"
        EXHAUSTED = "exhausted"

    id = models.UUIDField(primary_key=True, default=uuid4)
    endpoint = models.ForeignKey(WebhookEndpoint, on_delete=models.CASCADE, related_name="+", db_constraint=False)
    event = models.ForeignKey(Event, on_delete=models.CASCADE, related_name="+", db_constraint=False)
    status = models.CharField(max_length=20, choices=Status, default=Status.DUE)
    attempts = models.PositiveIntegerField(default=0)
    due_at = models.DateTimeField()
    claimed_until = models.DateTimeField(null=True)
    last_status = models.PositiveIntegerField(null=True)
    delivered_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "endpoint", "event"], name="one_delivery_per_event")]
        indexes = [
            models.Index(fields=["tenant", "endpoint", "due_at"], condition=Q(status="due"), name="delivery_due_at")
        ]


def tenant_ids(*, suspended_too: bool = False) -> list[UUID]:
    """Every active tenant's id: the named door for stages that look at each tenant in turn."""
    standing = [Tenant.Status.ACTIVE, Tenant.Status.SUSPENDED] if suspended_too else [Tenant.Status.ACTIVE]
    return list(Tenant.across_tenants.filter(status__in=standing).values_list("id", flat=True))
